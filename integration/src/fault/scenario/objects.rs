//! What is done with blobs, snapshots, leases, namespaces, and images of a registry.

use super::{
    Before::{self, Fail, Run, Write},
    EXISTS, GONE, STEP, Step, WHOLE,
};

const PULL: &[&str] = &["images", "pull", "--plain-http", "{r}/shop/b:two"];
/// An upload that is not whole yet.
const BEGUN: &[Before] = &[Fail(&[
    "content",
    "put",
    "--ref",
    "up",
    "--expected-size",
    "50000",
    "{i}/put-half",
])];
const PUT_LARGE: &[&str] = &["content", "put", "--ref", "up", "{i}/put-large"];

/// Everything but images from files.
pub(super) const OBJECTS: &[Step] = &[
    // A registry.
    Step {
        title: "pull",
        args: PULL,
        uploads: true,
        ..STEP
    },
    Step {
        title: "pull shared",
        base: Some("import"),
        args: PULL,
        uploads: true,
        ..STEP
    },
    Step {
        title: "pull again",
        base: Some("pull"),
        args: PULL,
        uploads: true,
        ..STEP
    },
    Step {
        title: "pull packed",
        args: &[
            "images",
            "pull",
            "--plain-http",
            "--no-unpack",
            "{r}/shop/b:two",
        ],
        uploads: true,
        ..STEP
    },
    Step {
        title: "mount pulled",
        base: Some("pull packed"),
        args: &["images", "mount", "{r}/shop/b:two", "{w}/mnt"],
        done: Some("something is mounted at"),
        leaves: &["mnt"],
        ..STEP
    },
    Step {
        title: "bundle pulled",
        args: &[
            "bundle",
            "create",
            "--plain-http",
            "{r}/shop/b:two",
            "{w}/bundle",
        ],
        done: Some("the directory is not empty"),
        leaves: &["bundle"],
        uploads: true,
        ..STEP
    },
    // Blobs.
    Step {
        title: "put",
        base: Some("import"),
        args: &["content", "put", "{i}/put-small"],
        uploads: true,
        ..STEP
    },
    Step {
        title: "put again",
        base: Some("put"),
        args: &["content", "put", "{i}/put-small"],
        uploads: true,
        ..STEP
    },
    Step {
        title: "put large",
        base: Some("import"),
        args: PUT_LARGE,
        uploads: true,
        ..STEP
    },
    Step {
        title: "put resumed",
        base: Some("import"),
        setup: BEGUN,
        args: PUT_LARGE,
        uploads: true,
        ..STEP
    },
    Step {
        title: "abort",
        base: Some("import"),
        setup: BEGUN,
        args: &["content", "abort", "up"],
        done: GONE,
        ..WHOLE
    },
    Step {
        title: "label blob",
        base: Some("put"),
        args: &["content", "label", "{small}", "colour=red"],
        ..WHOLE
    },
    Step {
        title: "rm blob",
        base: Some("put"),
        args: &["content", "rm", "{small}"],
        done: GONE,
        ..WHOLE
    },
    // Leases.
    Step {
        title: "lease",
        base: Some("import"),
        args: &["leases", "create", "--id", "keep", "-x", "0"],
        done: EXISTS,
        ..WHOLE
    },
    Step {
        title: "put leased",
        base: Some("lease"),
        args: &["content", "put", "--lease", "keep", "{i}/put-large"],
        uploads: true,
        ..STEP
    },
    Step {
        title: "lease image",
        base: Some("put leased"),
        args: &["leases", "add", "keep", "images", "localhost/a:1"],
        ..WHOLE
    },
    Step {
        title: "lease snapshot",
        base: Some("lease"),
        args: &["leases", "add", "keep", "snapshots", "{A}"],
        ..WHOLE
    },
    Step {
        title: "rm leased",
        base: Some("lease snapshot"),
        args: &["images", "rm", "--ignore", "--sync", "localhost/a:1"],
        ..STEP
    },
    Step {
        title: "lease rm",
        base: Some("put leased"),
        args: &["leases", "rm", "keep"],
        done: GONE,
        ..WHOLE
    },
    Step {
        title: "lease rm sync",
        base: Some("put leased"),
        args: &["leases", "rm", "--sync", "keep"],
        done: GONE,
        ..STEP
    },
    Step {
        title: "gc leased",
        base: Some("lease rm"),
        args: &["gc"],
        ..STEP
    },
    // Namespaces.
    Step {
        title: "namespace",
        base: Some("import"),
        args: &["namespaces", "create", "other", "team=a"],
        done: EXISTS,
        ..WHOLE
    },
    Step {
        title: "label namespace",
        base: Some("namespace"),
        args: &["namespaces", "label", "other", "team=b"],
        ..WHOLE
    },
    Step {
        title: "rm namespace",
        base: Some("namespace"),
        args: &["namespaces", "rm", "other"],
        done: GONE,
        ..WHOLE
    },
    Step {
        title: "import elsewhere",
        base: Some("namespace"),
        args: &["-n", "other", "images", "import", "{i}/a.tar"],
        ..STEP
    },
    Step {
        title: "rm elsewhere",
        base: Some("import elsewhere"),
        args: &["-n", "other", "images", "rm", "--ignore", "localhost/a:1"],
        ..STEP
    },
    Step {
        title: "gc elsewhere",
        base: Some("rm elsewhere"),
        args: &["-n", "other", "gc"],
        ..STEP
    },
    // Snapshots.
    Step {
        title: "prepare",
        base: Some("import"),
        args: &["snapshots", "prepare", "work", "{A}"],
        done: EXISTS,
        ..WHOLE
    },
    Step {
        title: "view",
        base: Some("import"),
        args: &["snapshots", "view", "seen", "{A}"],
        done: EXISTS,
        ..WHOLE
    },
    Step {
        title: "rm view",
        base: Some("view"),
        args: &["snapshots", "rm", "seen"],
        done: GONE,
        ..WHOLE
    },
    Step {
        title: "rm written",
        base: Some("prepare"),
        setup: &[Write("work")],
        args: &["snapshots", "rm", "work"],
        done: GONE,
        ..WHOLE
    },
    Step {
        title: "commit",
        base: Some("prepare"),
        setup: &[Write("work")],
        args: &["snapshots", "commit", "files", "work"],
        done: GONE,
        ..WHOLE
    },
    Step {
        title: "label snapshot",
        base: Some("commit"),
        args: &["snapshots", "label", "files", "colour=red"],
        ..WHOLE
    },
    Step {
        title: "prepare on top",
        base: Some("commit"),
        args: &["snapshots", "prepare", "more", "files"],
        done: EXISTS,
        ..WHOLE
    },
    Step {
        title: "diff",
        base: Some("commit"),
        args: &["snapshots", "diff", "--keep", "files"],
        uploads: true,
        ..STEP
    },
    Step {
        title: "rm snapshot",
        base: Some("commit"),
        args: &["snapshots", "rm", "files"],
        done: GONE,
        ..WHOLE
    },
    Step {
        title: "rm recursively",
        base: Some("prepare on top"),
        args: &["snapshots", "rm", "--recursive", "files"],
        done: GONE,
        ..STEP
    },
    Step {
        title: "gc of snapshots",
        base: Some("prepare on top"),
        setup: &[Run(&["images", "rm", "localhost/a:1"])],
        args: &["gc"],
        ..STEP
    },
];
