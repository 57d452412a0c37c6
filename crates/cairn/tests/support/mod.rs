//! Archives made byte by byte, and transcripts that are played in a shell.
//!
//! The archives never change, so neither do their digests; those in the transcripts were computed
//! by `sha256sum`, and so are those in the archives. Nothing of Cairn's own takes part.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part"
)]

use std::{
    ffi::CString,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const OCI_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Seconds since 1970 of everything in the archives.
const MTIME: u64 = 1_700_000_000;

/// `sha256:…`, by coreutils.
pub fn sha256(bytes: &[u8]) -> String {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sha256sum");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(bytes).expect("write");
    drop(stdin);
    let output = child.wait_with_output().expect("sha256sum");
    let text = String::from_utf8(output.stdout).expect("text");
    format!("sha256:{}", text.split(' ').next().expect("digest"))
}

/// A ustar archive; a name that ends in `/` is a directory.
pub fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in entries {
        let (kind, mode) = match name.ends_with('/') {
            true => (b'5', 0o755),
            false => (b'0', 0o644),
        };
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        let mut number = |at: usize, width: usize, n: u64| {
            let text = format!("{n:0width$o}\0", width = width - 1);
            header[at..at + width].copy_from_slice(text.as_bytes());
        };
        number(100, 8, mode);
        number(108, 8, 0);
        number(116, 8, 0);
        number(124, 12, bytes.len() as u64);
        number(136, 12, MTIME);
        header[148..156].fill(b' ');
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u64 = header.iter().map(|b| u64::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// A gzip file of one stored block: its bytes depend on no compressor's version.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let length = u16::try_from(bytes.len()).expect("one block");
    out.push(1);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(bytes);
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    out.extend_from_slice(&(!crc).to_le_bytes());
    out.extend_from_slice(&u32::from(length).to_le_bytes());
    out
}

/// The lower layer of both images.
pub fn base_layer() -> Vec<u8> {
    tar(&[
        ("bin/", b""),
        ("bin/sh", &[b'#'; 3000]),
        ("etc/", b""),
        ("etc/hello", b"hello\n"),
    ])
}

pub fn top_layer() -> Vec<u8> {
    tar(&[("etc/more", b"more\n")])
}

/// An image before it is in an archive.
pub struct Image {
    pub config: Vec<u8>,
    /// Media type and bytes.
    pub layers: Vec<(String, Vec<u8>)>,
}

impl Image {
    /// For linux/amd64, over the given layers; their diff IDs are those of `plain`.
    pub fn new(layers: Vec<(&str, Vec<u8>)>, plain: &[Vec<u8>]) -> Image {
        Image::on("amd64", layers, plain)
    }

    pub fn on(architecture: &str, layers: Vec<(&str, Vec<u8>)>, plain: &[Vec<u8>]) -> Image {
        let ids: Vec<String> = plain.iter().map(|p| format!("\"{}\"", sha256(p))).collect();
        let config = format!(
            "{{\"architecture\":\"{architecture}\",\"os\":\"linux\",\"config\":{{\"Cmd\":[\"sh\"]}},\
             \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[{}]}}}}",
            ids.join(",")
        );
        let layers = layers
            .into_iter()
            .map(|(kind, bytes)| (kind.to_owned(), bytes));
        Image {
            config: config.into_bytes(),
            layers: layers.collect(),
        }
    }

    /// One layer; only its author tells it from others.
    pub fn by(author: u32) -> Image {
        let mut image = Image::new(vec![(OCI_LAYER, base_layer())], &[base_layer()]);
        let config = String::from_utf8(image.config).expect("text");
        let author = format!("\"os\":\"linux\",\"author\":\"{author:06}\"");
        image.config = config.replace("\"os\":\"linux\"", &author).into_bytes();
        image
    }

    /// Two layers, the lower one gzipped.
    pub fn busybox() -> Image {
        let layers = vec![(OCI_GZIP, gzip(&base_layer())), (OCI_LAYER, top_layer())];
        Image::new(layers, &[base_layer(), top_layer()])
    }

    pub fn manifest(&self) -> Vec<u8> {
        let layers: Vec<String> = self
            .layers
            .iter()
            .map(|(kind, bytes)| descriptor(kind, bytes, ""))
            .collect();
        let config = descriptor(OCI_CONFIG, &self.config, "");
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_MANIFEST}\",\"config\":{config},\
             \"layers\":[{}]}}",
            layers.join(",")
        )
        .into_bytes()
    }

    /// The members of an OCI archive that names it.
    pub fn members(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let note = format!(",\"annotations\":{{\"io.containerd.image.name\":\"{name}\"}}");
        let manifest = self.manifest();
        let index = format!(
            "{{\"schemaVersion\":2,\"manifests\":[{}]}}",
            descriptor(OCI_MANIFEST, &manifest, &note)
        );
        let mut members = vec![
            (
                "oci-layout".to_owned(),
                b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec(),
            ),
            ("index.json".to_owned(), index.into_bytes()),
        ];
        let blobs = self.layers.iter().map(|(_, bytes)| bytes.clone());
        for blob in blobs.chain([self.config.clone(), manifest]) {
            members.push((blob_path(&sha256(&blob)), blob));
        }
        members
    }

    pub fn oci(&self, name: &str) -> Vec<u8> {
        pack(&self.members(name))
    }

    /// As `docker save` writes it; the layers must be uncompressed.
    pub fn docker(&self, name: &str) -> Vec<u8> {
        let config = format!("{}.json", &sha256(&self.config)[7..]);
        let paths: Vec<String> = (1..=self.layers.len())
            .map(|n| format!("{n}/layer.tar"))
            .collect();
        let quoted: Vec<String> = paths.iter().map(|p| format!("\"{p}\"")).collect();
        let manifest = format!(
            "[{{\"Config\":\"{config}\",\"RepoTags\":[\"{name}\"],\"Layers\":[{}]}}]",
            quoted.join(",")
        );
        let mut members = vec![(config, self.config.clone())];
        for (path, (_, bytes)) in paths.into_iter().zip(&self.layers) {
            members.push((path, bytes.clone()));
        }
        members.push(("manifest.json".to_owned(), manifest.into_bytes()));
        pack(&members)
    }
}

/// `blobs/sha256/…`
pub fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

pub fn pack(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<(&str, &[u8])> = members.iter().map(|(n, b)| (&**n, &**b)).collect();
    tar(&entries)
}

pub fn descriptor(media_type: &str, bytes: &[u8], more: &str) -> String {
    let (digest, size) = (sha256(bytes), bytes.len());
    format!("{{\"mediaType\":\"{media_type}\",\"digest\":\"{digest}\",\"size\":{size}{more}}}")
}

/// What a command left.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A directory with a store in it, and the program in the PATH.
pub struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    pub fn new() -> Scene {
        let scene = Scene {
            dir: tempfile::tempdir().expect("temporary directory"),
        };
        fs::create_dir(scene.path("work")).expect("directory");
        scene
    }

    /// With both images' archives at hand: `busybox.tar` (OCI) and `web.tar` (docker).
    pub fn with_archives() -> Scene {
        let scene = Scene::new();
        scene.put(
            "busybox.tar",
            &Image::busybox().oci("docker.io/library/busybox:1.36"),
        );
        let plain = [base_layer(), tar(&[("srv/", b""), ("srv/page", b"<p>\n")])];
        let layers = plain.iter().map(|p| (OCI_LAYER, p.clone())).collect();
        let web = Image::new(layers, &plain);
        scene.put("web.tar", &web.docker("registry.example.com/shop/web:2.1"));
        scene
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// A file beside the store, in the directory in which commands run.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path("work").join(name), bytes).expect("write");
    }

    /// The environment of every command.
    pub fn command(&self, program: &Path) -> Command {
        let bin = Path::new(env!("CARGO_BIN_EXE_cairn"));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command
            .env_clear()
            .env(
                "PATH",
                format!("{}:{path}", bin.parent().expect("directory").display()),
            )
            .env("CAIRN_ROOT", self.root())
            .env("CAIRN_FORCE_TTY", "100")
            .current_dir(self.path("work"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a line in a shell.
    pub fn run(&self, line: &str) -> Seen {
        let mut shell = self.command(Path::new("/bin/sh"));
        let output = shell.arg("-c").arg(line).output().expect("shell");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Seen {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Runs a line that must succeed; its output comes back.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let seen = self.run(line);
        assert_eq!(seen.code, 0, "{line}: {}{}", seen.stdout, seen.stderr);
        seen.stdout
    }

    /// Plays a transcript: after each `$ ` line its standard output, then what went to standard
    /// error behind `2> `, then the exit code behind `? ` unless it is 0. `[..]` stands for
    /// anything within a line, `$WORK` for the directory.
    #[track_caller]
    pub fn play(&self, transcript: &str) {
        let wrong = self.differences(transcript);
        assert!(wrong.is_empty(), "seen instead:{wrong}");
    }

    /// What was seen where it was not what should be.
    pub fn differences(&self, transcript: &str) -> String {
        let mut wrong = String::new();
        let work = self.path("").display().to_string();
        for part in transcript.split("\n$ ") {
            let part = part.strip_prefix("$ ").unwrap_or(part);
            let (line, expected) = part.split_once('\n').unwrap_or((part, ""));
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let seen = self
                .run(line)
                .script()
                .replace(work.trim_end_matches('/'), "$WORK");
            if !alike(expected.trim_end(), seen.trim_end()) {
                wrong.push_str(&format!("\n$ {line}\n{seen}"));
            }
        }
        wrong
    }
}

impl Drop for Scene {
    /// What is still mounted would keep the directory busy.
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = self.dir.path().display().to_string();
        let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let ours: Vec<&str> = targets
            .filter(|target| target.starts_with(&below))
            .collect();
        for target in ours.into_iter().rev() {
            let target = CString::new(target).expect("path");
            let _ = Command::new("umount")
                .arg("-l")
                .arg(target.to_str().expect("text"))
                .status();
        }
    }
}

impl Seen {
    fn script(&self) -> String {
        let mut text = self.stdout.clone();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        for line in self.stderr.lines() {
            text.push_str(&format!("2> {line}\n"));
        }
        if self.code != 0 {
            text.push_str(&format!("? {}\n", self.code));
        }
        text
    }
}

fn alike(expected: &str, seen: &str) -> bool {
    let (expected, seen): (Vec<&str>, Vec<&str>) =
        (expected.lines().collect(), seen.lines().collect());
    expected.len() == seen.len() && expected.iter().zip(&seen).all(|(e, s)| fits(e, s))
}

/// The parts between the `[..]` come in this order, the first and last at the ends.
pub fn fits(pattern: &str, line: &str) -> bool {
    let parts: Vec<&str> = pattern.split("[..]").collect();
    let [first, middle @ .., last] = parts.as_slice() else {
        return pattern == line;
    };
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
