//! Manual pages and completions, made from what the program accepts.

use clap::CommandFactory;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use crate::{config::DEFAULT, options::Options};

/// What the flags do not tell, as name and text of a section.
const SECTIONS: &[(&str, &str)] = &[
    (
        "COMMANDS",
        "config default: print every key with its default.\n\
         config dump: print every key with its value and where that comes from.\n\
         config check: say whether the daemon would start with it.",
    ),
    (
        "SOCKET",
        "Clients connect to /run/cairn/cairn.sock. Whoever is served there is root in all but name: the \
         socket has mode 0600, and of those who can open it only users in grpc.allowed_uids are \
         answered. To open it for a group, set SocketGroup= and SocketMode=0660 in a drop-in of \
         cairnd.socket and allowed_uids = [] in the configuration; THAT GROUP IS THEN EQUAL TO ROOT.\n\
         When systemd listens (cairnd.socket), callers wait while the daemon is restarted. Otherwise \
         the daemon makes the socket itself and removes it when it ends.",
    ),
    (
        "SIGNALS",
        "SIGTERM and SIGINT: no new calls are accepted, those under way have drain_timeout, then the \
         daemon ends; a second one ends it at once. What an interrupted call wrote can be resumed.\n\
         SIGHUP: log.level and [gc] are read again. With anything wrong in the files, all stays as it is.",
    ),
    (
        "METRICS",
        "With metrics.address, /metrics (and /v1/metrics) gives figures in Prometheus' text, and \
         /healthz answers 200 while calls are served and changes are taken, and 503 otherwise: while it \
         stops, and since a disk has failed. On the socket, grpc.health.v1 says the same.",
    ),
    (
        "ENVIRONMENT",
        "CAIRN_TABLE__KEY, as CAIRN_GRPC__ADDRESS, and CAIRN_KEY for keys without a table, as \
         CAIRN_ROOT: a key of the configuration. CAIRN_CONFIG: the file to read.\n\
         NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS, JOURNAL_STREAM: from systemd.",
    ),
    (
        "FILES",
        "/etc/cairn/config.toml, /etc/cairn/conf.d/*.toml: the configuration.\n\
         /var/lib/cairn: everything that lasts. One process at a time has it open.\n\
         /run/cairn: sockets.",
    ),
    (
        "UNINSTALL",
        "systemctl disable --now cairnd.socket cairnd.service; cairn bundle ls -q | xargs -r cairn \
         bundle rm; then delete /var/lib/cairn and /etc/cairn.",
    ),
    ("SEE ALSO", "cairn(1), cairn-config.toml(5)"),
];

/// A page by its name.
pub fn page(name: &str) -> Result<String, String> {
    let mut out = Vec::new();
    let written = match name {
        "cairnd" => daemon(&mut out),
        "cairn-config.toml" => configuration().to_writer(&mut out),
        other => {
            return Err(format!(
                "no manual page {other:?}\n  next:  cairnd man cairnd, cairnd man cairn-config.toml"
            ));
        }
    };
    written.map_err(|err| format!("cannot write the manual page: {err}"))?;
    String::from_utf8(out).map_err(|err| format!("cannot write the manual page: {err}"))
}

fn daemon(out: &mut Vec<u8>) -> std::io::Result<()> {
    let man = Man::new(Options::command()).section("8");
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_options_section(out)?;
    let mut roff = Roff::new();
    for (name, text) in SECTIONS {
        roff.control("SH", [*name]);
        for paragraph in text.lines() {
            roff.control("PP", []);
            roff.text([roman(paragraph)]);
        }
    }
    roff.to_writer(out)
}

/// The defaults with their comments are the page: comments as text, keys as terms.
fn configuration() -> Roff {
    let mut roff = Roff::new();
    roff.control("TH", ["cairn-config.toml", "5"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("cairn-config.toml - configuration of cairnd")]);
    roff.control("SH", ["DESCRIPTION"]);
    let mut comment: Vec<&str> = Vec::new();
    for line in DEFAULT.lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push(text.trim());
            continue;
        }
        if line.starts_with('[') {
            roff.control("SH", [line]);
        } else if !line.is_empty() {
            roff.control("TP", []);
            roff.text([bold(line)]);
            roff.text([roman(std::mem::take(&mut comment).join(" "))]);
            continue;
        }
        // Comments before a blank line are about what follows as a whole.
        if !comment.is_empty() {
            roff.control("PP", []);
            roff.text([roman(std::mem::take(&mut comment).join(" "))]);
        }
    }
    roff
}

/// A script for a shell.
pub fn completion(shell: clap_complete::Shell) -> String {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Options::command(), "cairnd", &mut out);
    String::from_utf8_lossy(&out).into_owned()
}
