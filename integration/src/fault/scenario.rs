//! A store's life in commands, each of which is hit by faults on its own: images first, then everything
//! else that a store keeps.

mod images;
mod objects;

pub use self::images::IMAGES;

/// One command, and the state it begins with.
pub struct Step {
    /// For messages.
    pub title: &'static str,
    /// The store it begins with: that which step this left behind; an absent one without.
    pub base: Option<&'static str>,
    /// What is done before, without faults.
    pub setup: &'static [Before],
    /// The command; `{w}` is the directory beside the store, other words are those of the images.
    pub args: &'static [&'static str],
    /// What it reads.
    pub stdin: Option<&'static str>,
    /// The word in its error when it had been done already, and is repeated.
    pub done: Option<&'static str>,
    /// What is beside the store after it: `mnt` is mounted, `bundle` is one, `copy` is one without a
    /// mount, `out.tar` is there.
    pub leaves: &'static [&'static str],
    /// Its records change all at once or not at all.
    pub whole: bool,
    /// Broken off, it leaves an upload that somebody may come back for, or a lease that expires.
    pub uploads: bool,
    /// It begins with damage, of which nothing is left when it is done.
    pub damaged: bool,
}

impl Step {
    /// Whether it tells of what it cannot read, and goes on.
    pub(super) fn is_check(&self) -> bool {
        self.args.first() == Some(&"fsck")
    }

    /// Whether it notes for the next one of its kind where blobs are from, and does not fail when it
    /// cannot.
    pub(super) fn is_pull(&self) -> bool {
        self.args.contains(&"--plain-http")
    }
}

/// Something that is done before a command.
pub enum Before {
    /// A command that succeeds.
    Run(&'static [&'static str]),
    /// A command that fails.
    Fail(&'static [&'static str]),
    /// A container writes into the snapshot of this key.
    Write(&'static str),
    /// Somebody changes a file of an unpacked layer.
    Damage,
}

const STEP: Step = Step {
    title: "",
    base: None,
    setup: &[],
    args: &[],
    stdin: None,
    done: None,
    leaves: &[],
    whole: false,
    uploads: false,
    damaged: false,
};
/// One transaction.
const WHOLE: Step = Step {
    whole: true,
    ..STEP
};
const EXISTS: Option<&str> = Some("already exists");
const GONE: Option<&str> = Some("not found");

/// The whole life.
pub fn steps() -> Vec<&'static Step> {
    IMAGES.iter().chain(objects::OBJECTS).collect()
}
