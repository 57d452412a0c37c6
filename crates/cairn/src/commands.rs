//! One function per verb: parse what is left to parse, ask the client, print.

use crate::{
    args::{
        BundleVerb, Cli, Command, ContentVerb, Global, ImagesVerb, LeasesVerb, NamespacesVerb,
        ProgressChoice, SnapshotsVerb, SystemVerb,
    },
    error::{Problem, quote},
    model::{self, Time},
    out::Out,
    progress::{Mode, Show},
    table::{Table, short_digest},
    view,
};

mod absent;
pub mod bundle;
pub mod complete;
pub mod content;
pub mod fsck;
pub mod images;
pub mod labels;
pub mod layers;
pub mod leases;
pub mod man;
pub mod namespaces;
pub mod program;
pub mod registry;
pub mod snapshots;
pub mod store;
pub mod uploads;

use self::absent::absent;
use cairn_types::ErrorKind;
use jiff::Timestamp;

/// What every verb needs.
pub struct Context {
    /// The flags.
    pub global: Global,
    /// The streams.
    pub out: Out,
}

/// A verb's end. `Failed` was reported already, argument by argument.
pub type Result<T = ()> = std::result::Result<T, Stop>;

/// One thing less.
pub struct Gone {
    /// Whole.
    pub name: String,
    /// What to say behind it, from its blank on.
    pub note: String,
}

impl From<String> for Gone {
    fn from(name: String) -> Gone {
        let note = String::new();
        Gone { name, note }
    }
}

/// Why a verb ends early.
#[derive(Debug)]
pub enum Stop {
    /// To be reported, once.
    Problem(Problem),
    /// Reported; only the exit code is left to set.
    Failed,
}

impl<P: Into<Problem>> From<P> for Stop {
    fn from(problem: P) -> Stop {
        Stop::Problem(problem.into())
    }
}

impl Context {
    /// A table for people, or the document for programs.
    pub fn list(&self, table: &Table, document: &impl serde::Serialize) {
        if self.global.wants_json() {
            self.out.json(document);
        } else {
            self.out
                .text(&table.render(self.out.stdout, self.global.no_trunc));
        }
    }

    /// One name per line, such that it can be pasted.
    pub fn names<'n>(&self, names: impl IntoIterator<Item = &'n str>) {
        names.into_iter().for_each(|name| self.out.line(name));
    }

    /// Digests are shortened for a person at a terminal only.
    pub fn short_digests(&self) -> bool {
        self.out.stdout.columns.is_some() && !self.global.no_trunc
    }

    /// `-q`, where it asks for names instead of a table.
    pub fn wants_names(&self) -> bool {
        self.out.quiet && !self.global.wants_json()
    }

    /// A digest as it is shown here.
    pub fn digest(&self, digest: &str) -> String {
        match self.short_digests() {
            true => short_digest(digest),
            false => digest.to_owned(),
        }
    }

    /// Keys with their bytes and inodes.
    pub fn usage(&self, rows: &[(String, u64, u64)], total: bool, exact: bool) {
        if self.wants_names() {
            return self.names(rows.iter().map(|row| &*row.0));
        }
        let object = |(key, size, inodes): &(String, u64, u64)| model::SnapshotUsage {
            key: key.clone(),
            size: *size,
            inodes: *inodes,
        };
        let document: Vec<_> = rows.iter().map(object).collect();
        self.list(&view::usage(rows, total, exact), &document);
    }

    /// Removes each, and says what went: by line, or in one document at the end.
    pub fn removing<T>(
        &self,
        texts: &[T],
        mut remove: impl FnMut(&T) -> Result<Vec<Gone>>,
    ) -> Result {
        let json = self.global.wants_json();
        let mut removed: Vec<String> = Vec::new();
        let result = self.each(texts, |text| {
            for Gone { name, note } in remove(text)? {
                if json {
                    removed.push(name);
                } else if !self.out.quiet {
                    let name = quote(&self.digest(&name));
                    self.out.line(format!("removed {name}{note}"));
                }
            }
            Ok(())
        });
        if json {
            self.out.json(&serde_json::json!({ "removed": removed }));
        }
        result
    }

    /// Tries `verb` on each; every failure is reported, the rest is still tried.
    pub fn each<T>(&self, items: &[T], mut verb: impl FnMut(&T) -> Result) -> Result {
        let mut failed = false;
        for item in items {
            match verb(item) {
                Ok(()) => {}
                Err(Stop::Failed) => failed = true,
                Err(Stop::Problem(problem)) if problem.usage => return Err(Stop::Problem(problem)),
                Err(Stop::Problem(problem)) => {
                    let problem = problem.pointed_at(&self.global);
                    problem.report(&self.out, self.global.wants_json());
                    failed = true;
                }
            }
        }
        if failed { Err(Stop::Failed) } else { Ok(()) }
    }

    /// Bars, lines, objects or nothing, for one piece of work.
    /// `title` is shown instead of the store's own name for it.
    pub fn progress(&self, verb: &'static str, title: Option<&str>) -> Result<Show> {
        let terminal = self.out.stderr.columns.is_some();
        let mode = match self.global.progress {
            ProgressChoice::None => Mode::None,
            _ if self.out.quiet => Mode::None,
            ProgressChoice::Json => Mode::Json,
            ProgressChoice::Tty if !terminal => {
                let text = "--progress=tty needs a terminal on standard error";
                return Err(Problem::usage(text).next("--progress=plain").into());
            }
            ProgressChoice::Tty => Mode::Tty,
            ProgressChoice::Auto if terminal => Mode::Tty,
            ProgressChoice::Auto | ProgressChoice::Plain => Mode::Plain,
        };
        Ok(Show::new(mode, verb, title, self.out))
    }
}

/// Runs what was parsed.
pub fn run(cli: Cli) -> std::result::Result<(), (Stop, Out, bool)> {
    let Cli { global, command } = cli;
    let out = Out::new(global.color, global.quiet, global.verbosity());
    let json = global.wants_json();
    let context = Context { global, out };
    let checked = context.global.checked().map_err(Stop::from);
    let done = checked.and_then(|()| dispatch(&context, command));
    done.map_err(|stop| match stop {
        Stop::Failed => (stop, out, json),
        Stop::Problem(problem) => {
            let problem = problem.pointed_at(&context.global);
            (Stop::Problem(problem), out, json)
        }
    })
}

fn dispatch(context: &Context, command: Command) -> Result {
    match command {
        Command::Images(group) => images::run(
            context,
            group
                .verb
                .unwrap_or_else(|| ImagesVerb::Ls(Default::default())),
        ),
        Command::Bundle(group) => bundle::run(context, group.verb.unwrap_or(BundleVerb::Ls)),
        Command::Content(group) => content::run(
            context,
            group
                .verb
                .unwrap_or_else(|| ContentVerb::Ls(Default::default())),
        ),
        Command::Snapshots(group) => snapshots::run(
            context,
            group
                .verb
                .unwrap_or_else(|| SnapshotsVerb::Ls(Default::default())),
        ),
        Command::Leases(group) => leases::run(
            context,
            group
                .verb
                .unwrap_or_else(|| LeasesVerb::Ls(Default::default())),
        ),
        Command::Namespaces(group) => {
            namespaces::run(context, group.verb.unwrap_or(NamespacesVerb::Ls))
        }
        Command::Events(args) => program::events(context, &args),
        Command::Plugins(args) => program::plugins(context, &args),
        Command::Man(args) => man::man(context, &args),
        Command::ExplainHost(args) => registry::explain_host(context, &args),
        Command::Pull(args) => registry::pull(context, args),
        Command::Push(args) => registry::push(context, args),
        Command::Load(args) => images::run(context, ImagesVerb::Import(args)),
        Command::Save(args) => images::run(context, ImagesVerb::Export(args)),
        Command::Tag(args) => images::run(context, ImagesVerb::Tag(args)),
        Command::Rmi(args) => images::run(context, ImagesVerb::Rm(args)),
        Command::Inspect(args) => images::run(context, ImagesVerb::Inspect(args)),
        Command::Mount(args) => images::run(context, ImagesVerb::Mount(args)),
        Command::Umount(args) => images::run(context, ImagesVerb::Unmount(args)),
        Command::Df(args)
        | Command::System {
            verb: SystemVerb::Df(args),
        } => store::df(context, args),
        Command::Why { object } => store::why(context, &object),
        Command::Gc { dry_run } => store::gc(context, dry_run),
        Command::System {
            verb: SystemVerb::Prune,
        } => store::gc(context, false),
        Command::Fsck(args) => fsck::fsck(context, args),
        Command::Info => store::info(context),
        Command::Version => store::version(context),
        Command::Completion { shell } => complete::script(context, shell),
        Command::Complete(words) => complete::complete(context, &words.words),
        Command::Absent(verb) => Err(absent::elsewhere(&verb).into()),
    }
}

/// How many hex digits stand for a digest; `None` when the text is no part of one.
fn hex_digits(text: &str) -> Option<usize> {
    let hex = text.split_once(':').map_or(text, |(_, hex)| hex);
    let is_hex = hex.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then_some(hex.len())
}

/// A few digits are enough to look at a thing, not to remove it.
fn too_few_digits(noun: &str, text: &str, group: &str) -> Problem {
    let attempted = format!("remove {noun}");
    let reason = "its first 12 hex digits are needed to remove it";
    Problem::new(ErrorKind::InvalidArgument, &attempted, text, reason)
        .next(format!("cairn {group} ls {}", quote(text)))
}

/// Now, for ages.
fn now() -> Timestamp {
    Timestamp::now()
}

/// The later of two moments is the newer.
fn newer(a: &Time, b: &Time) -> std::cmp::Ordering {
    a.cmp(b)
}
