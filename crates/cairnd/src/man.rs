//! Manual pages and completions, made from what the program accepts.

mod hosts;

use clap::CommandFactory;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use crate::{config::DEFAULT, options::Options};

/// What the flags do not tell, as name and text of a section. A line is a paragraph; one that begins
/// with a tab is to be typed as it stands, one with an exclamation mark to be heeded.
const SECTIONS: &[(&str, &str)] = &[
    (
        "COMMANDS",
        "config default: print every key with its default.\n\
         config dump: print every key with its value and where that comes from.\n\
         config check: say whether the daemon would start with it.\n\
         meta export [FILE]: write all records of a stopped store as lines of JSON.\n\
         meta import [--replace] FILE: make such lines its records. See RECORDS.",
    ),
    (
        "SOCKET",
        "Clients connect to /run/cairn/cairn.sock. Whoever is served there is root in all but name: the \
         socket has mode 0600, and of those who can open it only users in grpc.allowed_uids are \
         answered.\n\
         When systemd listens (cairnd.socket), callers wait while the daemon is restarted. Otherwise \
         the daemon makes the socket itself and removes it when it ends.\n\
         To open it for users of the group cairn, write into \
         /etc/systemd/system/cairnd.socket.d/group.conf:\n\
         \t[Socket]\n\
         \tSocketGroup=cairn\n\
         \tSocketMode=0660\n\
         and into /etc/cairn/config.toml:\n\
         \t[grpc]\n\
         \tallowed_uids = []\n\
         Then, as root:\n\
         \tusermod -aG cairn USER\n\
         \tsystemctl daemon-reload\n\
         \tsystemctl restart cairnd.socket cairnd.service\n\
         Who is a member now is served after the next log-in.\n\
         !THAT GROUP IS THEN EQUAL TO ROOT: its members decide what root unpacks and runs.",
    ),
    (
        "SIGNALS",
        "SIGTERM and SIGINT: no new calls are accepted, those under way have drain_timeout, then the \
         daemon ends; a second one ends it at once. What an interrupted call wrote can be resumed.\n\
         SIGHUP: log.level, [registry] and [gc] are read again. With anything wrong in the files, all stays as it is.",
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
        "RECORDS",
        "What images, blobs, snapshots and leases there are is in the records, below meta in the root; the \
         files are beside them. Records can be taken out and put in while no daemon and no command has the \
         store open. Two exports of the same records are the same lines, but for the first and the last, so that \
         they can be compared.\n\
         To keep a copy:\n\
         \tsystemctl stop cairnd.socket cairnd.service\n\
         \tcairnd meta export records.jsonl\n\
         \tsystemctl start cairnd.socket\n\
         To put it in again, with the daemon stopped:\n\
         \tcairnd meta import --replace records.jsonl\n\
         To go over to the other engine, with an export at hand, write engine = \"sled\" (or \"redb\") below \
         [metadata] into the configuration, and import it in the same way.\n\
         An import is done as a whole or not at all, also when the power goes. The records before stay beside \
         the new ones, as meta/backup-1.redb for example; to take them back, stop the daemon, move meta/redb \
         out of the way and give the backup that name. Once they are not wanted, remove that directory.\n\
         !THE NEXT START REMOVES BLOBS AND LAYERS THAT NO RECORD SPEAKS OF: what was imported since the \
         export was made is lost then, and the backup speaks of files that are gone.\n\
         Beside the records is a copy of all of them, with a log of what has changed since; both are written \
         behind the changes. Where a start finds the records or their journal damaged it makes them anew from \
         that, and puts the damaged ones by, as meta/damaged-20261130T091500Z-1.redb for example. Until that \
         directory is removed, cairn info and cairn fsck tell of it, and of what was lost, if anything was. In \
         that case nothing is removed for want of a record: blobs are seen by the namespace recovered, and what \
         cannot be known is below lost in the root.\n\
         The store of containerd's socket is one of its own: add --root /var/lib/cairn/backend.",
    ),
    (
        "DOWNGRADE",
        "The file layout in the root says how the store is laid out, and cairn version says which layout \
         a program knows. A program that knows less than the store has refuses it before it changes \
         anything. With the same layout, going back is to install the older version and to start it; an export \
         of the records, as RECORDS says, is a copy of them for that case. If the newer one did not end in \
         order, start it once more and stop it first: an older one may not know what it would mend. So far all versions have layout 1, \
         and meta import takes records of no other.\n\
         A store is not turned into one of an older layout. Its images can be taken along; labels, \
         leases, unfinished uploads and snapshots of other programs cannot, and bundles are made anew. \
         With the newer version, for each namespace NS that cairn namespaces lists:\n\
         \tcairn -n NS images ls -q | xargs -rd '\\n' cairn -n NS images export NS.tar\n\
         Then remove the bundles and mounts, as UNINSTALL says, and:\n\
         \tsystemctl stop cairnd.socket cairnd.service\n\
         \tmv /var/lib/cairn /var/lib/cairn.newer\n\
         With the older version installed and started:\n\
         \tcairn -n NS images import NS.tar\n\
         What was moved away opens again with the newer version.",
    ),
    (
        "UNINSTALL",
        "As root, first what runs, what is mounted and what is stored. Bundles are removed wherever \
         they are; one in which something runs is named and stays: end that, and repeat.\n\
         \tsystemctl disable --now cairnd.socket cairnd-backend.socket cairnd.service\n\
         \tfor ns in $(cairn namespaces ls -q); do\n\
         \t  cairn -n $ns bundle ls -q | xargs -rd '\\n' cairn -n $ns bundle rm\n\
         \t  cairn -n $ns snapshots ls -q | sed -n s/^mount://p |\n\
         \t    xargs -rd '\\n' -n 1 cairn -n $ns images unmount\n\
         \tdone\n\
         Once that names nothing any more:\n\
         \trm -rf /var/lib/cairn /run/cairn /etc/cairn /etc/systemd/system/cairnd*\n\
         Then what is installed, unless a package manager does that:\n\
         \trm -f /usr/bin/cairn /usr/bin/cairnd /usr/lib/systemd/system/cairnd*\n\
         \trm -f /usr/lib/sysusers.d/cairn.conf /usr/lib/tmpfiles.d/cairn.conf\n\
         \trm -rf /usr/share/cairn /usr/share/man/man?/cairn*\n\
         \trm -f /usr/share/bash-completion/completions/cairn*\n\
         \trm -f /usr/share/zsh/vendor-completions/_cairn*\n\
         \trm -f /usr/share/fish/vendor_completions.d/cairn*\n\
         \tsystemctl daemon-reload\n\
         \tgroupdel cairn",
    ),
    (
        "SEE ALSO",
        "cairn(1), cairn-config.toml(5), cairn-hosts.toml(5)",
    ),
];

/// A page by its name.
pub fn page(name: &str) -> Result<String, String> {
    let mut out = Vec::new();
    let written = match name {
        "cairnd" => daemon(&mut out),
        "cairn-config.toml" => configuration().to_writer(&mut out),
        "cairn-hosts.toml" => hosts::page().to_writer(&mut out),
        other => {
            return Err(format!(
                "no manual page {other:?}\n  next:  cairnd man cairnd, cairnd man cairn-config.toml, cairnd man cairn-hosts.toml"
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
    // A path or a command with a hyphen where a line ends is another one.
    roff.control("nh", []);
    for (name, text) in SECTIONS {
        roff.control("SH", [*name]);
        section(&mut roff, text);
    }
    roff.to_writer(out)
}

fn section(roff: &mut Roff, text: &str) {
    let mut typing = false;
    for line in text.lines() {
        let typed = line.strip_prefix('\t');
        if typed.is_some() != typing {
            typing = !typing;
            turn(roff, typing);
        }
        let words = match (typed, line.strip_prefix('!')) {
            (Some(typed), _) => roman(typed),
            (None, heed) => {
                roff.control("PP", []);
                heed.map_or_else(|| roman(line), bold)
            }
        };
        roff.text([words]);
    }
    if typing {
        turn(roff, false);
    }
}

/// To lines that are to be typed, or back.
fn turn(roff: &mut Roff, typing: bool) {
    let controls = if typing { ["RS", "nf"] } else { ["fi", "RE"] };
    for control in controls {
        roff.control(control, []);
    }
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
