//! A store's life in commands, each of which is hit by faults on its own.

/// One command, from what state, to which.
pub struct Step {
    /// For messages.
    pub title: &'static str,
    /// The store it begins with: that which step this left behind; an absent one without.
    pub base: Option<&'static str>,
    /// What is done before, without faults.
    pub setup: &'static [&'static [&'static str]],
    /// The command; `{w}` is the directory beside the store, `{i}` that of the images.
    pub args: &'static [&'static str],
    /// What it reads.
    pub stdin: Option<&'static str>,
    /// The images before: a word for each, as in [`super::Images`], without `localhost/`.
    pub before: &'static [&'static str],
    /// The images after.
    pub after: &'static [&'static str],
    /// The word in its error when it had been done already, and is repeated.
    pub done: Option<&'static str>,
    /// What is beside the store after it: `mnt` is mounted, `bundle` is one, `out.tar` is there.
    pub leaves: &'static [&'static str],
}

const STEP: Step = Step {
    title: "",
    base: None,
    setup: &[],
    args: &[],
    stdin: None,
    before: &[],
    after: &[],
    done: None,
    leaves: &[],
};

const ALL: &[&str] = &["a:1", "b:two", "c:3", "t:1"];
const MOUNT: &[&str] = &["images", "mount", "localhost/b:two", "{w}/mnt"];
const MOUNT_RW: &[&str] = &["images", "mount", "--rw", "localhost/a:1", "{w}/mnt"];
const BUNDLE: &[&str] = &["bundle", "create", "localhost/a:1", "{w}/bundle"];
const IMPORT_B: &[&str] = &["images", "import", "--base-name", "localhost/b", "{i}/b"];

/// The whole life.
pub const STEPS: &[Step] = &[
    Step {
        title: "import",
        args: &["images", "import", "{i}/a.tar"],
        after: &["a:1"],
        ..STEP
    },
    Step {
        title: "import shared",
        base: Some("import"),
        args: IMPORT_B,
        before: &["a:1"],
        after: &["a:1", "b:two"],
        ..STEP
    },
    Step {
        title: "import stream",
        base: Some("import shared"),
        args: &["images", "import", "-"],
        stdin: Some("c.tgz"),
        before: &["a:1", "b:two"],
        after: &["a:1", "b:two", "c:3"],
        ..STEP
    },
    Step {
        title: "tag",
        base: Some("import stream"),
        args: &["images", "tag", "localhost/a:1", "localhost/t:1"],
        before: &["a:1", "b:two", "c:3"],
        after: ALL,
        ..STEP
    },
    Step {
        title: "mount",
        base: Some("tag"),
        args: MOUNT,
        before: ALL,
        after: ALL,
        done: Some("mounted at"),
        leaves: &["mnt"],
        ..STEP
    },
    Step {
        title: "unmount",
        base: Some("tag"),
        setup: &[MOUNT],
        args: &["images", "unmount", "{w}/mnt"],
        before: ALL,
        after: ALL,
        done: Some("nothing is mounted"),
        ..STEP
    },
    Step {
        title: "mount rw",
        base: Some("tag"),
        args: MOUNT_RW,
        before: ALL,
        after: ALL,
        done: Some("mounted at"),
        leaves: &["mnt"],
        ..STEP
    },
    Step {
        title: "unmount rw",
        base: Some("tag"),
        setup: &[MOUNT_RW],
        args: &["images", "unmount", "--rm", "{w}/mnt"],
        before: ALL,
        after: ALL,
        done: Some("nothing is mounted"),
        ..STEP
    },
    Step {
        title: "export",
        base: Some("tag"),
        args: &["images", "export", "{w}/out.tar", "localhost/b:two"],
        before: ALL,
        after: ALL,
        leaves: &["out.tar"],
        ..STEP
    },
    Step {
        title: "bundle create",
        base: Some("tag"),
        args: BUNDLE,
        before: ALL,
        after: ALL,
        done: Some("the directory is not empty"),
        leaves: &["bundle"],
        ..STEP
    },
    Step {
        title: "bundle rm",
        base: Some("tag"),
        setup: &[BUNDLE],
        args: &["bundle", "rm", "{w}/bundle"],
        before: ALL,
        after: ALL,
        done: Some("no bundle was made there"),
        ..STEP
    },
    Step {
        title: "rm",
        base: Some("tag"),
        args: &[
            "images",
            "rm",
            "--ignore",
            "localhost/t:1",
            "localhost/b:two",
        ],
        before: ALL,
        after: &["a:1", "c:3"],
        ..STEP
    },
    Step {
        title: "gc",
        base: Some("rm"),
        args: &["gc"],
        before: &["a:1", "c:3"],
        after: &["a:1", "c:3"],
        ..STEP
    },
    Step {
        title: "import again",
        base: Some("rm"),
        args: IMPORT_B,
        before: &["a:1", "c:3"],
        after: &["a:1", "b:two", "c:3"],
        ..STEP
    },
    Step {
        title: "import packed",
        base: Some("import"),
        args: &[
            "images",
            "import",
            "--no-unpack",
            "--base-name",
            "localhost/b",
            "{i}/b",
        ],
        before: &["a:1"],
        after: &["a:1", "b:two"],
        ..STEP
    },
    Step {
        title: "mount packed",
        base: Some("import packed"),
        args: MOUNT,
        before: &["a:1", "b:two"],
        after: &["a:1", "b:two"],
        done: Some("mounted at"),
        leaves: &["mnt"],
        ..STEP
    },
];
