//! Programs that keep credentials: the `get` of docker-credential-helpers.
//!
//! `docker-credential-NAME get` reads a server's name from its standard input and writes
//! `{"Username": …, "Secret": …}`; where it has none it says so and fails.

use std::{
    io::{self, Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::Credential;

/// What goes before a helper's name.
pub(super) const PREFIX: &str = "docker-credential-";
/// The user whose secret is an identity token.
const TOKEN: &str = "<token>";
/// How a helper says that it has none (`errCredentialsNotFoundMessage`), however it goes on.
const NONE: &str = "credentials not found";
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Most characters of a helper's complaint that are passed on.
const COMPLAINT_CHARS_MAX: usize = 200;
/// Between two looks at whether a program has ended that has closed its output already.
const PAUSE: Duration = Duration::from_millis(5);

/// No `Debug`: it is a secret.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks a helper for a server's credentials, and waits for at most `limit`. `path` is where programs are
/// looked for.
///
/// # Errors
/// Why there is no answer, as after "docker-credential-NAME": no word of an answer is in it.
pub(super) fn get(
    helper: &str,
    server: &str,
    path: Option<&str>,
    limit: Duration,
) -> Result<Option<Credential>, String> {
    // It would be another program, somewhere else.
    if helper.contains(['/', '\0']) {
        return Err("is no name of a program".to_owned());
    }
    let until = Instant::now() + limit;
    let mut command = Command::new(format!("{PREFIX}{helper}"));
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let child = command
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|err| match err.kind() {
        io::ErrorKind::NotFound => "is not installed".to_owned(),
        _ => format!("cannot be run: {err}"),
    })?;
    let told = tell(&mut child, server);
    let ended = told.and_then(|()| wait(&mut child, until, limit));
    let (status, out, complaint) = ended.inspect_err(|_| {
        // It may have ended by itself in this moment.
        let _ = child.kill();
        let _ = child.wait();
    })?;
    if status.success() {
        return answer(&out);
    }
    let out = String::from_utf8_lossy(&out);
    if out.contains(NONE) || String::from_utf8_lossy(&complaint).contains(NONE) {
        return Ok(None);
    }
    Err(failure(status, &out, &String::from_utf8_lossy(&complaint)))
}

/// Hands the server's name to a program. One that does not want it may be gone.
fn tell(child: &mut Child, server: &str) -> Result<(), String> {
    let Some(mut stdin) = child.stdin.take() else {
        return Ok(());
    };
    match stdin.write_all(server.as_bytes()) {
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot be written to: {err}"))
        }
        _ => Ok(()),
    }
}

/// How a program ended, what it wrote, and what it complained of.
fn wait(
    child: &mut Child,
    until: Instant,
    limit: Duration,
) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), String> {
    let late = || format!("gave no answer within {limit:?}");
    let out = child.stdout.take().map(collect);
    let complaint = child.stderr.take().map(collect);
    let received = |from: Option<Receiver<Vec<u8>>>| match from {
        Some(from) => from
            .recv_timeout(until.saturating_duration_since(Instant::now()))
            .map_err(|_| late()),
        None => Ok(Vec::new()),
    };
    let (out, complaint) = (received(out)?, received(complaint)?);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok((status, out, complaint)),
            Ok(None) if Instant::now() >= until => return Err(late()),
            Ok(None) => thread::sleep(PAUSE),
            Err(err) => return Err(format!("cannot be waited for: {err}")),
        }
    }
}

/// Reads a pipe to its end in a thread of its own: a program that writes to both would otherwise wait for
/// the one that is not read. The thread lives as long as whoever holds the other end.
fn collect(pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (to, from) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is what there is; whoever waits may have given up.
        let _ = pipe.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
        let _ = to.send(bytes);
    });
    from
}

/// The credential of an answer. An empty one is none, and a secret of nobody is a token, as in containerd.
fn answer(out: &[u8]) -> Result<Option<Credential>, String> {
    let answer: Answer =
        serde_json::from_slice(out).map_err(|_| "gave an answer that is none".to_owned())?;
    let (user, secret) = (answer.username, answer.secret);
    Ok(match &*user {
        _ if secret.is_empty() => None,
        "" | TOKEN => Some(Credential::Identity(secret)),
        _ => Some(Credential::Basic { user, secret }),
    })
}

/// What a failed program is told to have said: the first line, unless it looks like an answer.
fn failure(status: ExitStatus, out: &str, complaint: &str) -> String {
    let mut lines = out.lines().chain(complaint.lines()).map(str::trim);
    let first = lines.find(|line| !line.is_empty());
    match first.filter(|line| !line.contains(['{', '"'])) {
        Some(line) => {
            let line: String = line.chars().take(COMPLAINT_CHARS_MAX).collect();
            format!("failed: {line}")
        }
        None => format!("failed: {status}"),
    }
}
