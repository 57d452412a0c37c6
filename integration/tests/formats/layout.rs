//! OCI layouts in every wrapping, and what their images are called.
//!
//! | row of the image table | tests |
//! |---|---|
//! | OCI layout dir/tar, outer gz/xz/zst/bz2, from standard input | `every_wrapping_gives_the_same_image` |
//! | index.json last or first, junk, no `oci-layout` | `members_in_any_order` |
//! | symlinked blobs | `blobs_that_are_links` |
//! | many refs, empty index | `many_images_and_none` |
//! | `annotations.ref.name` odd values | `m17_names_are_text`, `names_follow_containerds_rules` |
//! | (`--base-name`, `--digests`, `--index-name`) | `names_that_were_asked_for` |
//! | blobs missing for other platforms | `blobs_of_other_platforms_may_be_missing` |
//!
//! More refusals are in `crates/node/tests/refusals.rs`.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use cairn_integration::{
    cairn::Cairn,
    fixture::{archive, listed, nothing_is_left, text},
    image::{Layout, Packing, Stored, architecture},
    peers::{self, Containerd},
    raw::Tar,
};
use serde_json::{Value, json};

fn layer(text: &str) -> Stored {
    let tar = Tar::new().file("who", text.as_bytes()).finish();
    Stored::packed(&tar, Packing::Gzip)
}

/// One image named `tag` whose `who` says `text`.
fn one(path: &Path, tag: &str, text: &str) -> Layout {
    let mut layout = Layout::create(path);
    layout.image_of(tag, &[layer(text)]);
    layout
}

fn names(cairn: &Cairn) -> Vec<String> {
    listed(cairn).into_iter().map(|(name, _)| name).collect()
}

/// Imports and reads `who` of an image.
#[track_caller]
fn who(cairn: &Cairn, name: &str) -> String {
    let target = cairn.path("mnt");
    fs::create_dir_all(&target).expect("target");
    let text = target.display().to_string();
    cairn.ok(&["images", "mount", name, &text]);
    let who = fs::read_to_string(target.join("who")).expect("who");
    cairn.ok(&["images", "unmount", &text]);
    who
}

#[track_caller]
fn from_stdin(cairn: &Cairn, file: &Path) {
    let mut command = cairn.command(&["images", "import", "--base-name", "localhost/t", "-"]);
    command.stdin(Stdio::from(fs::File::open(file).expect("open")));
    let output = command.output().expect("start cairn");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", file.display());
}

#[test]
fn every_wrapping_gives_the_same_image() {
    let work = tempfile::TempDir::new().expect("temporary directory");
    let layout = one(&work.path().join("layout"), "one", "me");
    let tar = archive(layout.path(), &work.path().join("plain.tar"));
    let bsd = work.path().join("bsd.tar");
    let of = [
        "-C",
        text(layout.path()),
        "--format=pax",
        "-cf",
        text(&bsd),
        ".",
    ];
    peers::run("bsdtar", &of);
    let mut files = vec![tar.clone(), bsd];
    for (program, options) in [
        ("gzip", &["-c"][..]),
        ("pigz", &["-c"]),
        ("xz", &["-c"]),
        ("bzip2", &["-c"]),
        ("zstd", &["-c", "-q"]),
        ("zstd", &["-c", "-q", "--long=27"]),
    ] {
        let file = work.path().join(format!("{program}-{}", files.len()));
        let out = fs::File::create(&file).expect("create");
        let status = Command::new(program)
            .args(options)
            .arg(&tar)
            .stdout(out)
            .status();
        assert!(status.expect(program).success());
        files.push(file);
    }
    let cairn = Cairn::new();
    cairn.ok(&[
        "images",
        "import",
        "--base-name",
        "localhost/t",
        text(layout.path()),
    ]);
    let expected = listed(&cairn);
    assert_eq!(expected[0].0, "localhost/t:one");
    for file in files {
        let cairn = Cairn::new();
        cairn.ok(&[
            "images",
            "import",
            "--base-name",
            "localhost/t",
            text(&file),
        ]);
        assert_eq!(listed(&cairn), expected, "{}", file.display());
        assert_eq!(who(&cairn, "localhost/t:one"), "me");
        let cairn = Cairn::new();
        from_stdin(&cairn, &file);
        assert_eq!(listed(&cairn), expected, "{} from stdin", file.display());
        assert_eq!(who(&cairn, "localhost/t:one"), "me");
    }
}

/// The index may come first, last or in between; other files are nobody's business.
#[test]
fn members_in_any_order() {
    let work = tempfile::TempDir::new().expect("temporary directory");
    let layout = one(&work.path().join("layout"), "one", "me");
    fs::write(layout.path().join("README"), "junk").expect("write");
    fs::write(layout.path().join("blobs/sha256/.keep"), "junk").expect("write");
    let dir = text(layout.path()).to_owned();
    for (i, order) in [
        &["index.json", "oci-layout", "blobs", "README"][..],
        &["README", "blobs", "oci-layout", "index.json"],
        &["blobs", "index.json"],
        &["./oci-layout", "./blobs", "./index.json"],
    ]
    .iter()
    .enumerate()
    {
        let out = work.path().join(format!("{i}.tar"));
        let arguments = [&["-C", dir.as_str(), "-cf", text(&out)][..], order].concat();
        peers::run("tar", &arguments);
        for stdin in [false, true] {
            let cairn = Cairn::new();
            if stdin {
                from_stdin(&cairn, &out);
            } else {
                cairn.ok(&["images", "import", "--base-name", "localhost/t", text(&out)]);
            }
            assert_eq!(who(&cairn, "localhost/t:one"), "me", "{order:?}");
        }
    }
}

/// Links inside the layout are followed, in a directory as in an archive; those out of it are not.
#[test]
fn blobs_that_are_links() {
    let work = tempfile::TempDir::new().expect("temporary directory");
    let layout = one(&work.path().join("layout"), "one", "me");
    let blobs = layout.path().join("blobs/sha256");
    fs::create_dir(layout.path().join("pool")).expect("directory");
    for (i, entry) in fs::read_dir(&blobs).expect("list").enumerate() {
        let path = entry.expect("entry").path();
        fs::rename(&path, layout.path().join(format!("pool/{i}"))).expect("move");
        std::os::unix::fs::symlink(format!("../../pool/{i}"), path).expect("link");
    }
    let tar = archive(layout.path(), &work.path().join("links.tar"));
    for source in [layout.path(), &tar] {
        let cairn = Cairn::new();
        cairn.ok(&[
            "images",
            "import",
            "--base-name",
            "localhost/t",
            text(source),
        ]);
        assert_eq!(who(&cairn, "localhost/t:one"), "me");
    }

    // The layer lies beside the layout, where no link may lead.
    let layout = one(&work.path().join("outside"), "one", "me");
    let path = layout.blob_path(&cairn_integration::image::digest(&layer("me").bytes));
    fs::rename(&path, work.path().join("elsewhere")).expect("move");
    std::os::unix::fs::symlink(work.path().join("elsewhere"), &path).expect("link");
    let cairn = Cairn::new();
    cairn.fails(&["images", "import", text(layout.path())]);
    nothing_is_left(&cairn);
}

#[test]
fn many_images_and_none() {
    let work = tempfile::TempDir::new().expect("temporary directory");
    let mut layout = Layout::create(&work.path().join("layout"));
    let cairn = Cairn::new();
    let stderr = cairn.fails(&["images", "import", text(layout.path())]);
    assert!(stderr.contains("it lists no image"), "{stderr}");
    nothing_is_left(&cairn);
    for i in 0..200 {
        layout.image_of(&format!("v{i:03}"), &[layer("all"), layer(&format!("{i}"))]);
    }
    cairn.ok(&[
        "images",
        "import",
        "--base-name",
        "localhost/t",
        text(layout.path()),
    ]);
    assert_eq!(names(&cairn).len(), 200);
    assert_eq!(who(&cairn, "localhost/t:v000"), "0");
    assert_eq!(who(&cairn, "localhost/t:v199"), "199");
}

/// An entry of the index under any annotations.
fn annotated(path: &Path, annotations: &[Value]) -> Layout {
    let mut layout = Layout::create(path);
    for (i, annotations) in annotations.iter().enumerate() {
        let text = format!("{i}");
        let mut entry = layout.manifest(architecture(), &[layer(&text)], &json!({}));
        entry["annotations"] = annotations.clone();
        layout.push(entry);
    }
    layout
}

const REF: &str = "org.opencontainers.image.ref.name";
const NAME: &str = "io.containerd.image.name";

/// The same archive in both: names and digests are equal, with a base name and without.
#[test]
fn names_follow_containerds_rules() {
    let work = tempfile::TempDir::new().expect("temporary directory");
    let layout = annotated(
        &work.path().join("layout"),
        &[
            json!({ REF: "latest" }),
            json!({ REF: "v1.2-rc_3" }),
            json!({ REF: "quay.io/shop/web:1" }),
            json!({ NAME: "docker.io/library/busybox:1.36", REF: "1.36" }),
            json!({ NAME: "localhost/t:full" }),
            json!({ NAME: "localhost/t/below:1" }),
            json!({ NAME: "localhost/tea:1" }),
        ],
    );
    let tar = archive(layout.path(), &work.path().join("named.tar"));
    for options in [&[][..], &["--base-name", "localhost/t"], &["--digests"]] {
        let import = [&["images", "import"][..], options, &[text(&tar)]].concat();
        let cairn = Cairn::new();
        cairn.ok(&import);
        let containerd = Containerd::start();
        containerd.ok(&[&import[..2], &["--no-unpack"], &import[2..]].concat());
        let mut theirs = containerd.images();
        if options.contains(&"--base-name") {
            // > With an explicit base name only names having it as a component prefix are kept
            // > (containerd 2 `core/images/archive/reference.go`)
            //
            // 1.6 lets every name of `io.containerd.image.name` pass.
            let below = |name: &str| name.starts_with("localhost/t:") || name.contains("/t/");
            let count = theirs.len();
            theirs.retain(|(name, _)| below(name));
            assert_eq!(count - theirs.len(), 2, "busybox and localhost/tea");
        }
        assert_eq!(listed(&cairn), theirs, "{options:?}");
    }
}

/// Never a path, whatever it looks like; and nothing is lost for want of a name.
#[test]
fn m17_names_are_text() {
    let work = tempfile::TempDir::new().expect("temporary directory");
    let layout = annotated(
        &work.path().join("layout"),
        &[
            json!({ REF: "../../etc/passwd" }),
            json!({ REF: "/abs/name:1" }),
            json!({ REF: "with space" }),
            json!({}),
            json!({ REF: "" }),
        ],
    );
    let cairn = Cairn::new();
    cairn.ok(&["images", "import", text(layout.path())]);
    let names = names(&cairn);
    assert!(names.contains(&"../../etc/passwd".to_owned()), "{names:?}");
    assert!(names.contains(&"/abs/name:1".to_owned()), "{names:?}");
    assert!(
        names.iter().any(|name| name.ends_with(":with space")),
        "{names:?}"
    );
    let by_digest = names.iter().filter(|name| name.contains("@sha256:"));
    assert_eq!(by_digest.count(), 2, "{names:?}");
    assert!(!cairn.path("etc").exists() && !cairn.path("store/etc").exists());
}

#[test]
fn names_that_were_asked_for() {
    let work = tempfile::TempDir::new().expect("temporary directory");
    let layout = annotated(
        &work.path().join("layout"),
        &[
            json!({ NAME: "quay.io/a/b:1" }),
            json!({ NAME: "quay.io/a:2" }),
            json!({ NAME: "quay.io/ab:3" }),
            json!({ NAME: "quay.io/a:about", "io.containerd.manifest.subject": "sha256:0" }),
        ],
    );
    let cairn = Cairn::new();
    cairn.ok(&[
        "images",
        "import",
        "--base-name",
        "quay.io/a",
        text(layout.path()),
    ]);
    assert_eq!(names(&cairn), ["quay.io/a/b:1", "quay.io/a:2"]);
    let stderr = cairn.fails(&[
        "images",
        "import",
        "--base-name",
        "quay.io/c",
        text(layout.path()),
    ]);
    assert!(stderr.contains("name asked for"), "{stderr}");

    let cairn = Cairn::new();
    cairn.ok(&[
        "images",
        "import",
        "--index-name",
        "quay.io/all:1",
        text(layout.path()),
    ]);
    let index = fs::read(layout.path().join("index.json")).expect("index");
    let index = cairn_integration::image::digest(&index);
    assert!(listed(&cairn).contains(&("quay.io/all:1".to_owned(), index)));
}

#[test]
fn blobs_of_other_platforms_may_be_missing() {
    let work = tempfile::TempDir::new().expect("temporary directory");
    let mut layout = Layout::create(&work.path().join("layout"));
    let mut here = layout.manifest(architecture(), &[layer("here")], &json!({}));
    here["platform"] = json!({ "os": "linux", "architecture": architecture() });
    let mut there = layout.manifest("s390x", &[layer("there")], &json!({}));
    there["platform"] = json!({ "os": "linux", "architecture": "s390x" });
    fs::remove_file(layout.blob_path(there["digest"].as_str().expect("digest"))).expect("remove");
    let index = json!({
        "schemaVersion": 2,
        "mediaType": cairn_integration::image::OCI_INDEX,
        "manifests": [there, here],
    });
    let index = layout.json(cairn_integration::image::OCI_INDEX, &index);
    let index = layout.list(index, "one");
    let tar = archive(layout.path(), &work.path().join("some.tar"));
    for options in [&[][..], &["--all-platforms"]] {
        let cairn = Cairn::new();
        let import = ["images", "import", "--base-name", "localhost/t"];
        cairn.ok(&[&import[..], options, &[text(&tar)]].concat());
        assert_eq!(who(&cairn, "localhost/t:one"), "here");
        assert_eq!(
            listed(&cairn)[0].1,
            index["digest"].as_str().expect("digest")
        );
    }
    let cairn = Cairn::new();
    let stderr = cairn.fails(&["images", "import", "--platform", "linux/s390x", text(&tar)]);
    assert!(stderr.contains("is not in the archive"), "{stderr}");
    nothing_is_left(&cairn);
}
