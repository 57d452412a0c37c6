//! Scripts of `ctr` commands that print the same of cairnd and of containerd, but for times, ids, and
//! where the daemon keeps its files.

use crate::{
    both::{Both, NAME, words},
    registry::Registry,
};

/// Both daemons, and a registry for each: the one must not find what the other pushed.
pub struct Script {
    /// The daemons.
    pub both: Both,
    registries: [Registry; 2],
}

/// What stands for the host of a daemon's registry, in commands and in what they print.
pub const REGISTRY: &str = "REGISTRY";

impl Default for Script {
    fn default() -> Script {
        Script::start()
    }
}

impl Script {
    /// Starts all, with the image in both daemons.
    pub fn start() -> Script {
        let both = Both::start();
        both.import();
        let registries = [Registry::start(), Registry::start()];
        Script { both, registries }
    }

    /// What both print, line by line, with `REGISTRY` for the host of either.
    pub fn printed(&self, arguments: &[&str]) -> [Result<Vec<String>, String>; 2] {
        [0, 1].map(|who| {
            let host = self.registries[who].host();
            let owned = arguments.iter().map(|a| a.replace(REGISTRY, &host));
            let owned: Vec<String> = owned.collect();
            let borrowed: Vec<&str> = owned.iter().map(String::as_str).collect();
            let answer = match who {
                0 => self.both.ours.attempt(&borrowed),
                _ => self.both.theirs.attempt(&borrowed),
            };
            let lines = answer?
                .lines()
                .map(|l| l.replace(&host, REGISTRY))
                .collect();
            Ok(lines)
        })
    }

    /// Both print the same, each line made comparable by `keep`.
    #[track_caller]
    pub fn same_but(&self, arguments: &[&str], keep: impl Fn(&str) -> String) -> Vec<String> {
        let [ours, theirs] = self.printed(arguments).map(|answer| {
            let lines = answer.unwrap_or_else(|said| panic!("ctr {arguments:?}: {said}"));
            lines.iter().map(|line| keep(line)).collect::<Vec<_>>()
        });
        assert_eq!(ours, theirs, "ctr {arguments:?}: cairnd, containerd");
        ours
    }

    /// Both print the same.
    #[track_caller]
    pub fn same(&self, arguments: &[&str]) -> Vec<String> {
        self.same_but(arguments, plain)
    }

    /// Both fail with these words.
    #[track_caller]
    pub fn fails(&self, arguments: &[&str], because: &str) {
        for answer in self.printed(arguments) {
            let said = answer.expect_err("refused");
            assert!(said.contains(because), "ctr {arguments:?}: {said}");
        }
    }

    /// What both name when they show how far they are, which differs from run to run; and what they
    /// print after that.
    #[track_caller]
    pub fn progress(&self, arguments: &[&str]) -> Vec<String> {
        let [ours, theirs] = self.printed(arguments).map(|answer| {
            let lines = answer.unwrap_or_else(|said| panic!("ctr {arguments:?}: {said}"));
            let shown = lines.iter().filter(|line| !line.starts_with("elapsed:"));
            let mut shown: Vec<String> = shown.map(|line| shown_of(line)).collect();
            shown.sort();
            shown.dedup();
            shown
        });
        assert_eq!(ours, theirs, "ctr {arguments:?}: cairnd, containerd");
        ours
    }

    /// Has the image hold something that is yet to be made: nothing else holds what `ctr` makes without
    /// a lease, and a collection may come at any time.
    #[track_caller]
    pub fn hold(&self, label: &str, what: &str) {
        let label = format!("containerd.io/gc.ref.{label}={what}");
        self.same(&["content", "label", &self.target(NAME), &label]);
    }

    /// The digest that an image's name stands for.
    pub fn target(&self, name: &str) -> String {
        let found = self.same(&["images", "ls", &format!("name=={name}")]);
        let row = found.get(1).expect("an image");
        row.split(' ').nth(2).expect("digest").to_owned()
    }

    /// The uppermost snapshot, on which no other stands.
    pub fn top(&self) -> String {
        let tree = self.same(&["snapshots", "tree"]);
        let last = tree.last().expect("a snapshot");
        last.trim_start_matches("\\_").trim().to_owned()
    }

    /// All that there is in a namespace, garbage apart: that goes first.
    #[track_caller]
    pub fn same_stores(&self, ns: &str) {
        self.same(&["-n", ns, "leases", "create", "--id", "collect"]);
        self.same(&["-n", ns, "leases", "rm", "--sync", "collect"]);
        for listing in ["images", "content", "snapshots"] {
            let keep = |line: &str| match listing {
                "content" => unaged(line),
                _ => plain(line),
            };
            self.same_but(&["-n", ns, listing, "ls"], keep);
        }
    }
}

/// A line of progress without the progress, or without what it took.
fn shown_of(line: &str) -> String {
    match (line.contains('|'), line.split_once(": ")) {
        (true, _) => line.split_whitespace().next().unwrap_or("").to_owned(),
        (false, Some(("done", _))) => "done".to_owned(),
        _ => words(line),
    }
}

/// A line of `content ls` without the age, which has blanks of its own.
pub fn unaged(line: &str) -> String {
    let columns: Vec<&str> = line.split('\t').filter(|c| !c.is_empty()).collect();
    match columns[..] {
        [digest, size, _, labels] => plain(&format!("{digest} {size} {labels}")),
        _ => words(line),
    }
}

/// A line without widths of columns and times, and labels and options in the order of the alphabet:
/// `ctr` prints labels in no order, and 1.6 has an option of mounts first that 2.3 has last.
pub fn plain(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let mut parts: Vec<String> = word
            .split(',')
            .map(|part| placeless(&timeless(part)))
            .collect();
        parts.sort();
        parts.join(",")
    });
    words.collect::<Vec<_>>().join(" ")
}

/// `TIME` for each moment, as `2026-11-29T00:37:31Z`.
fn timeless(part: &str) -> String {
    let is_moment = |at: &str| {
        let bytes = at.as_bytes();
        bytes.len() > 19 && bytes[4] == b'-' && bytes[10] == b'T' && bytes[13] == b':'
    };
    let start = part.char_indices().find(|(at, _)| is_moment(&part[*at..]));
    match start.and_then(|(at, _)| Some((at, at + part[at..].find('Z')?))) {
        Some((at, end)) => format!("{}TIME{}", &part[..at], &part[end + 1..]),
        None => part.to_owned(),
    }
}

/// Directories of snapshots without their numbers and without where the store is.
fn placeless(part: &str) -> String {
    let mark = "/snapshots/";
    let paths = part.split(':').map(|path| {
        let Some((before, after)) = path.split_once(mark) else {
            return path.to_owned();
        };
        let kept = before.find('/').map_or("", |root| &before[..root]);
        let inside = after.trim_start_matches(|c: char| c.is_ascii_digit());
        format!("{kept}STORE{inside}")
    });
    paths.collect::<Vec<_>>().join(":")
}
