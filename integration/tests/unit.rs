//! The units: well-formed, confined, and with all that the daemon needs. What systemd would take away
//! from the daemon is taken away here by hand, since tests run where systemd does not.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use cairn_integration::{
    cairn::Cairn,
    fixture::{Case, text},
    image::{Layer, Packing},
    wait,
};
use tempfile::TempDir;

/// Most exposure that is let pass, in tenths, as `systemd-analyze security` rates it.
const EXPOSURE_MAX: &str = "--threshold=30";
fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

/// All values of a key of the daemon's unit, in order.
fn values(key: &str) -> Vec<String> {
    let unit = fs::read_to_string(units().join("cairnd.service")).expect("unit");
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines
        .filter(|(found, _)| *found == key)
        .map(|(_, value)| value.to_owned())
        .collect()
}

fn capabilities() -> Vec<String> {
    let bounding = values("CapabilityBoundingSet").concat();
    let names = bounding.split_whitespace();
    names
        .map(|name| name.trim_start_matches("CAP_").to_lowercase())
        .collect()
}

fn analyze(arguments: &[&str]) -> Output {
    let mut command = Command::new("systemd-analyze");
    command.args(arguments).output().expect("systemd-analyze")
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    stdout + &stderr
}

#[test]
fn units_are_well_formed() {
    // Where they will be, their programs are there; here the program lies elsewhere.
    let work = TempDir::new().expect("temporary directory");
    let binary = daemon_binary();
    let names = ["cairnd.service", "cairnd.socket", "cairnd-backend.socket"];
    for name in names {
        let unit = fs::read_to_string(units().join(name)).expect("unit");
        let unit = unit.replace("/usr/bin/cairnd", text(&binary));
        fs::write(work.path().join(name), unit).expect("copy");
    }
    let paths = names.map(|name| work.path().join(name));
    let mut arguments = vec!["verify", "--man=no"];
    arguments.extend(paths.iter().map(|path| text(path)));
    let told = analyze(&arguments);
    // It warns of what it does not know, and says so with success.
    assert_eq!(succeeds(&told), "");
}

#[test]
fn the_daemon_is_confined() {
    let unit = units().join("cairnd.service");
    succeeds(&analyze(&[
        "security",
        "--offline=true",
        EXPOSURE_MAX,
        text(&unit),
    ]));
}

fn daemon_binary() -> PathBuf {
    let binary = Cairn::binary().with_file_name("cairnd");
    assert!(
        binary.exists(),
        "{} is not built: cargo build -p cairnd",
        binary.display()
    );
    binary
}

/// A daemon under some wrapper.
struct Daemon {
    child: Child,
    work: TempDir,
}

impl Daemon {
    fn start(wrapper: &[&str]) -> Daemon {
        let work = TempDir::new().expect("temporary directory");
        let words: Vec<&str> = wrapper.to_vec();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(daemon_binary());
        fs::write(work.path().join("config.toml"), "").expect("configuration");
        command.arg("--config").arg(work.path().join("config.toml"));
        command.arg("--root").arg(work.path().join("root"));
        command.arg("--state").arg(work.path().join("run"));
        let log = fs::File::create(work.path().join("log")).expect("log");
        let child = command
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("starts");
        let daemon = Daemon { child, work };
        let serves = || daemon.log().contains("serving at ");
        wait::until(serves, || format!("it does not serve: {}", daemon.log()));
        daemon
    }

    fn log(&self) -> String {
        fs::read_to_string(self.work.path().join("log")).expect("log")
    }

    fn ctr(&self, arguments: &[&str]) -> Result<(), String> {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.work.path().join("run/cairn.sock"));
        let output = command.args(arguments).output().expect("ctr");
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// A file of an unpacked layer.
    fn unpacked(&self, name: &str) -> Result<fs::Metadata, String> {
        let snapshots = fs::read_dir(self.work.path().join("root/snapshots")).expect("snapshots");
        let mut files = snapshots.map(|entry| entry.expect("entry").path().join("fs").join(name));
        let found = files.find_map(|path| fs::symlink_metadata(path).ok());
        found.ok_or_else(|| format!("{name} is not unpacked"))
    }

    fn ended(&mut self) {
        let log = self.work.path().join("log");
        wait::ended(&mut self.child, || {
            format!(
                "it does not end: {}",
                fs::read_to_string(log).unwrap_or_default()
            )
        });
    }

    fn stop(&mut self) {
        // The wrappers become the daemon, or pass signals on.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").arg(pid).status();
        self.ended();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that a layer may hold and root alone may make.
fn archive() -> (Case, PathBuf) {
    let header = |kind, mode, uid| Layer::header(kind, mode, uid, uid, 1_600_000_000);
    let mut device = header(tar::EntryType::Char, 0o666, 0);
    device.set_device_major(1).expect("major");
    device.set_device_minor(3).expect("minor");
    let mut lower = Layer::new()
        .dir("closed", 0o000)
        .entry(
            "closed/suid",
            header(tar::EntryType::Regular, 0o6755, 1000),
            b"x",
        )
        .entry("null", device, b"")
        .file("gone", b"x");
    // As setcap cap_net_raw+ep makes it.
    let capability =
        b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let attributes = [("SCHILY.xattr.security.capability", &capability[..])];
    lower
        .builder()
        .append_pax_extensions(attributes)
        .expect("attributes");
    let lower = lower.file("ping", b"x").finish();
    let upper = Layer::new()
        .dir("closed", 0o700)
        .file("closed/.wh..wh..opq", b"")
        .file(".wh.gone", b"")
        .finish();
    let case = Case::stack(&[(lower, Packing::Gzip), (upper, Packing::Plain)]);
    let archive = case.archive();
    (case, archive)
}

/// Imports, unpacks, reads and removes.
fn works(daemon: &Daemon, archive: &Path) -> Result<(), String> {
    let name = "localhost/t:one";
    daemon.ctr(&[
        "images",
        "import",
        "--base-name",
        "localhost/t",
        text(archive),
    ])?;
    let suid = daemon.unpacked("closed/suid")?;
    if (suid.mode() & 0o7777, suid.uid(), suid.gid()) != (0o6755, 1000, 1000) {
        return Err(format!("{:o} {}:{}", suid.mode(), suid.uid(), suid.gid()));
    }
    if !daemon.unpacked("null")?.file_type().is_char_device() {
        return Err("null is no device".to_owned());
    }
    daemon.unpacked("ping")?;
    daemon.ctr(&["snapshots", "prepare", "work"])?;
    daemon.ctr(&["snapshots", "rm", "work"])?;
    daemon.ctr(&["images", "rm", "--sync", name])?;
    match daemon.unpacked("ping") {
        Ok(_) => Err("ping is not removed".to_owned()),
        Err(_) => Ok(()),
    }
}

/// With these capabilities, no new privileges, and mounts of its own that reach nobody.
fn confined(capabilities: &[String]) -> Daemon {
    let bounding = capabilities.iter().map(|name| format!(",+{name}"));
    let bounding = format!("--bounding-set=-all{}", bounding.collect::<String>());
    Daemon::start(&[
        "unshare",
        "--mount",
        "--propagation",
        "slave",
        "setpriv",
        "--no-new-privs",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        &bounding,
    ])
}

#[test]
fn its_capabilities_are_enough() {
    let (_case, archive) = archive();
    let mut daemon = confined(&capabilities());
    let done = works(&daemon, &archive);
    assert_eq!(done, Ok(()), "{}", daemon.log());
    daemon.stop();
    let mode = fs::metadata(daemon.work.path().join("root"))
        .expect("root")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o711);
}

#[test]
fn each_of_its_capabilities_is_needed() {
    let (_case, archive) = archive();
    let all = capabilities();
    let mut idle = Vec::new();
    for without in &all {
        let some: Vec<String> = all
            .iter()
            .filter(|name| *name != without)
            .cloned()
            .collect();
        let mut daemon = confined(&some);
        if works(&daemon, &archive).is_ok() {
            idle.push(without);
        }
        daemon.stop();
    }
    assert!(idle.is_empty(), "it works without {idle:?}");
}

/// The system calls that a name of a filter stands for.
fn calls(name: &str) -> BTreeSet<String> {
    if !name.starts_with('@') {
        return BTreeSet::from([name.to_owned()]);
    }
    let listed = succeeds(&analyze(&["syscall-filter", name]));
    let mut found = BTreeSet::new();
    for line in listed.lines().skip(1).map(str::trim) {
        match line {
            comment if comment.starts_with('#') || comment.is_empty() => {}
            set if set.starts_with('@') => found.extend(calls(set)),
            call => {
                found.insert(call.to_owned());
            }
        }
    }
    found
}

#[test]
fn its_system_calls_are_enough() {
    let (_case, archive) = archive();
    // Those without which no service starts.
    let mut allowed = calls("@default");
    for filter in values("SystemCallFilter") {
        match filter.strip_prefix('~') {
            None => filter
                .split_whitespace()
                .for_each(|name| allowed.extend(calls(name))),
            Some(names) => {
                for call in names.split_whitespace().flat_map(calls) {
                    allowed.remove(&call);
                }
            }
        }
    }
    let traces = TempDir::new().expect("temporary directory");
    let trace = traces.path().join("trace");
    let strace = [
        "strace",
        "-f",
        "-qq",
        "-e",
        "signal=none",
        "-o",
        text(&trace),
    ];
    let mut daemon = Daemon::start(&strace);
    let done = works(&daemon, &archive);
    assert_eq!(done, Ok(()), "{}", daemon.log());
    // strace itself passes no signal on.
    let children = format!("/proc/{0}/task/{0}/children", daemon.child.id());
    let child = fs::read_to_string(children).expect("children");
    let killed = Command::new("kill")
        .arg(child.trim())
        .status()
        .expect("kill");
    assert!(killed.success());
    daemon.ended();
    let trace = fs::read_to_string(&trace).expect("trace");
    let used: BTreeSet<&str> = trace
        .lines()
        .filter_map(|line| {
            // `pid name(…`, or `pid <... name resumed>…`, whose beginning was seen.
            let (_, call) = line.split_once(' ')?;
            let (name, _) = call.trim_start().split_once('(')?;
            name.chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_')
                .then_some(name)
        })
        .collect();
    assert!(
        used.contains("openat2") && used.contains("mknodat"),
        "{used:?}"
    );
    let refused: Vec<&&str> = used
        .iter()
        .filter(|name| !allowed.contains(**name))
        .collect();
    assert!(refused.is_empty(), "the unit refuses {refused:?}");
}
