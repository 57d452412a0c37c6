//! The built program as a user meets it: words, streams, exit codes.
//!
//! What is here needs no store. Every expected text is the command line's specification, letter by
//! letter.

#[path = "support/program.rs"]
#[allow(unreachable_pub, reason = "shared")]
mod program;

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::UnixListener,
        process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::{Command, Output, Stdio},
};

use program::copy_program;

fn cairn(words: &[&str]) -> Command {
    command(Path::new(env!("CARGO_BIN_EXE_cairn")), words)
}

fn command(program: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(words)
        .env_clear()
        .env("CAIRN_FORCE_TTY", "100")
        .stdin(Stdio::null());
    command
}

/// Runs it and compares all there is to see.
#[track_caller]
fn check(command: &mut Command, code: i32, stdout: &str, stderr: &str) {
    let Output {
        status,
        stdout: out,
        stderr: err,
    } = command.output().expect("the program starts");
    assert_eq!(String::from_utf8_lossy(&err), stderr, "standard error");
    assert_eq!(String::from_utf8_lossy(&out), stdout, "standard output");
    assert_eq!(status.code(), Some(code), "{status}");
}

#[test]
fn version_needs_no_store() {
    let host = cairn_types::Platform::host();
    let text = format!(
        "client  cairn 0.1.0 ({host})\nserver  inside this process, root /no/such/place, API containerd 2.3, store layout 1\n"
    );
    check(
        &mut cairn(&["version", "--root", "/no/such/place"]),
        0,
        &text,
        "",
    );
    let mut by_variable = cairn(&["version"]);
    check(
        by_variable.env("CAIRN_ROOT", "/no/such/place"),
        0,
        &text,
        "",
    );
    check(&mut cairn(&["-V"]), 0, "cairn 0.1.0\n", "");
}

#[test]
fn what_is_another_tools_work_says_whose() {
    let run = "\
error: cairn keeps images and runs nothing
  next:      cairn bundle create IMAGE DIR && runc run -b DIR ID
";
    check(&mut cairn(&["ps"]), 2, "", run);
    let words = run.replace("IMAGE DIR", "busybox DIR -- sh -c 'echo hi'");
    let run = &["run", "-it", "busybox", "sh", "-c", "echo hi"];
    check(&mut cairn(run), 2, "", &words);
    let login = "\
error: cairn keeps no passwords; it reads those of docker and podman
  next:      docker login REGISTRY
  next:      podman login REGISTRY
";
    check(&mut cairn(&["login", "example.com"]), 2, "", login);
    let json = "{\"error\":{\"attempted\":\"\",\"causes\":[],\"code\":\"unimplemented\",\
                \"found_in\":[],\"message\":\"cairn keeps images and runs nothing\",\
                \"namespace\":null,\"next\":[\"cairn bundle create IMAGE DIR && runc run -b DIR \
                ID\"],\"object\":null}}\n";
    check(&mut cairn(&["--json", "run"]), 2, "", json);
}

#[test]
fn an_address_where_nobody_listens() {
    let dir = tempfile::tempdir().expect("tempdir");
    let socket = dir.path().join("cairn.sock");
    let socket = socket.to_str().expect("text");
    let text = format!(
        "\
error: cannot reach cairnd at {socket}: nobody listens there
  next:      systemctl start cairnd
  next:      leave out --address to work without a daemon
"
    );
    check(&mut cairn(&["images", "ls", "-a", socket]), 1, "", &text);
    check(&mut cairn(&["--address", socket, "df"]), 1, "", &text);
}

/// What a variable says is said as that.
#[test]
fn a_variable_names_the_daemon() {
    let dir = tempfile::tempdir().expect("tempdir");
    let socket = dir.path().join("cairn.sock");
    let text = format!(
        "\
error: cannot reach cairnd at {}: nobody listens there
  next:      systemctl start cairnd
  next:      unset CAIRN_ADDRESS to work without a daemon
",
        socket.display()
    );
    let mut by_variable = cairn(&["df"]);
    by_variable.env("CAIRN_ADDRESS", &socket);
    check(
        by_variable.env("CAIRN_ROOT", "/no/such/place"),
        1,
        "",
        &text,
    );
    // A flag is nearer.
    let mut by_flag = cairn(&["version", "-q", "--root", "/no/such/place"]);
    let output = by_flag.env("CAIRN_ADDRESS", &socket).output();
    assert!(output.expect("start").status.success());
}

/// A full queue, or a daemon that hangs: the kernel takes the connection, and then nothing comes.
#[test]
fn a_daemon_that_does_not_answer() {
    let dir = tempfile::tempdir().expect("tempdir");
    let socket = dir.path().join("cairn.sock");
    let _silent = UnixListener::bind(&socket).expect("bind");
    let socket = socket.to_str().expect("text");
    let text = format!(
        "\
error: cannot reach cairnd at {socket}: no answer within 100 ms
  next:      systemctl status cairnd
  next:      leave out --address to work without a daemon
"
    );
    let words = ["images", "ls", "-a", socket, "--connect-timeout", "100ms"];
    check(&mut cairn(&words), 1, "", &text);
}

/// A socket that refuses does not lead to a store without a daemon.
#[test]
fn a_socket_of_somebody_else() {
    let dir = tempfile::tempdir().expect("tempdir");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let program = dir.path().join("cairn");
    copy_program(&program);
    let socket = dir.path().join("cairn.sock");
    let _closed = UnixListener::bind(&socket).expect("bind");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).expect("chmod");
    let socket = socket.to_str().expect("text");
    let mut command = command(&program, &["images", "ls", "--address", socket]);
    command.uid(65534).gid(65534).current_dir("/");
    let text = format!(
        "\
error: cannot reach cairnd at {socket}: permission denied (socket is root:root 0600, you are nobody)
  next:      sudo cairn images ls --address {socket}
  next:      to open it for a group: man cairnd, SOCKET
"
    );
    check(&mut command, 1, "", &text);
}

/// Another program's socket: its answer is none of ours.
#[test]
fn a_socket_of_another_program() {
    let dir = tempfile::tempdir().expect("tempdir");
    let socket = dir.path().join("cairn.sock");
    let listener = UnixListener::bind(&socket).expect("bind");
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut begun = [0; 1];
        stream.read_exact(&mut begun).expect("read");
        stream.write_all(b"220 mail.example.com ESMTP\r\n")
    });
    let output = cairn(&["df", "-a", socket.to_str().expect("text")]);
    let output = { output }.output().expect("start");
    other.join().expect("join").expect("write");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let first = format!(
        "error: cannot reach cairnd at {}: what listens there is no cairnd\n",
        socket.display()
    );
    assert!(stderr.starts_with(&first), "{stderr}");
    assert_eq!(output.status.code(), Some(1));
}

/// The program is copied to where an unprivileged user may run it.
#[test]
fn not_root() {
    let dir = tempfile::tempdir().expect("tempdir");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let program = dir.path().join("cairn");
    copy_program(&program);
    let mut command = command(&program, &["images", "ls", "my image"]);
    command.uid(65534).gid(65534).current_dir("/");
    check(
        &mut command,
        1,
        "",
        "\
error: cannot open /var/lib/cairn: permission denied (you are nobody, and no daemon answers at /run/cairn/cairn.sock)
  next:      sudo cairn images ls 'my image'
",
    );
}

#[test]
fn wrong_usage_is_two_and_attempts_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path().join("root");
    let root = root.to_str().expect("text");
    for words in [
        &["pul"][..],
        &["images", "ls", "--no-such-flag"],
        &["images", "ls", "--format", "{{.ID}}"],
        &["images", "ls", "-n", ".."],
        &["images", "tag", "a", "Upper:Case"],
        &["images", "import", "f", "--arch", "arm64"],
        &["images", "export", "only-a-file.tar"],
        &["images", "ls", "--progress", "tty", "--sort", "colour"],
        &["images", "inspect", "--raw", "--json", "a"],
        &["images", "export", "-", "a", "--json"],
        &["content", "get", "791d2af", "--json"],
        &["content", "rm", "791d2af"],
        &["df", "--connect-timeout", "5s"],
        &["df", "--address", "a.sock", "--root", "b"],
    ] {
        let output = cairn(words)
            .env("CAIRN_ROOT", root)
            .output()
            .expect("start");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {stderr}");
        let begins = match words.contains(&"--json") {
            true => "{\"error\":{",
            false => "error: ",
        };
        assert!(stderr.starts_with(begins), "{words:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
    assert!(!Path::new(root).exists(), "something was attempted");
}

/// An archive that never comes.
#[test]
fn a_command_gives_up_after_its_timeout() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = dir.path().join("root");
    let mut command = cairn(&["images", "import", "-", "--timeout", "200ms"]);
    let mut child = command
        .env("CAIRN_ROOT", root)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    let mut stderr = String::new();
    let mut pipe = child.stderr.take().expect("piped");
    pipe.read_to_string(&mut stderr).expect("text");
    assert_eq!(child.wait().expect("wait").code(), Some(1));
    assert_eq!(
        stderr,
        "error: gave up after 200 ms, as --timeout says\n  \
         next:      run the same command to resume\n"
    );
}

#[test]
fn help_is_on_standard_output() {
    for words in [&["-h"][..], &["images", "import", "--help"]] {
        let output = cairn(words).output().expect("start");
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stderr.is_empty() && !output.stdout.is_empty());
    }
}

/// A shell shows 141 for what died of SIGPIPE; nothing is printed about it.
#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut child = cairn(&["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    drop(child.stdout.take());
    let mut stderr = String::new();
    let mut pipe = child.stderr.take().expect("piped");
    pipe.read_to_string(&mut stderr).expect("text");
    let status = child.wait().expect("wait");
    assert_eq!(stderr, "");
    assert!(
        status.code() == Some(141) || status.signal() == Some(13),
        "{status}"
    );
}
