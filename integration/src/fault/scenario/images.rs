//! What is done with images from files, one at a time.

use super::{
    Before::{self, Run},
    STEP, Step, WHOLE,
};

const MOUNT: &[&str] = &["images", "mount", "localhost/b:two", "{w}/mnt"];
const MOUNT_RW: &[&str] = &["images", "mount", "--rw", "localhost/a:1", "{w}/mnt"];
const BUNDLE: &[&str] = &["bundle", "create", "localhost/a:1", "{w}/bundle"];
const BUNDLE_COPY: &[&str] = &[
    "bundle",
    "create",
    "--copy",
    "localhost/b:two",
    "{w}/bundle",
];
const IMPORT_B: &[&str] = &["images", "import", "--base-name", "localhost/b", "{i}/b"];
const IS_MOUNTED: Option<&str> = Some("something is mounted at");
const NOT_MOUNTED: Option<&str> = Some("nothing is mounted");
const NOT_EMPTY: Option<&str> = Some("the directory is not empty");
const NO_BUNDLE: Option<&str> = Some("no bundle was made there");
const MOUNTED: &[Before] = &[Run(MOUNT)];

/// Images from files, and what is made of them.
pub const IMAGES: &[Step] = &[
    Step {
        title: "open",
        args: &["images", "ls"],
        ..STEP
    },
    Step {
        title: "import",
        args: &["images", "import", "{i}/a.tar"],
        ..STEP
    },
    Step {
        title: "import shared",
        base: Some("import"),
        args: IMPORT_B,
        ..STEP
    },
    Step {
        title: "import stream",
        base: Some("import shared"),
        args: &["images", "import", "-"],
        stdin: Some("c.tgz"),
        ..STEP
    },
    Step {
        title: "import side by side",
        args: IMPORT_B,
        ..STEP
    },
    Step {
        title: "import compressed",
        base: Some("import shared"),
        args: &["images", "import", "--compress-blobs", "{i}/a.tar"],
        ..STEP
    },
    Step {
        title: "tag",
        base: Some("import stream"),
        args: &["images", "tag", "localhost/a:1", "localhost/t:1"],
        ..WHOLE
    },
    Step {
        title: "tag force",
        base: Some("tag"),
        args: &[
            "images",
            "tag",
            "--force",
            "localhost/b:two",
            "localhost/t:1",
        ],
        ..WHOLE
    },
    Step {
        title: "label image",
        base: Some("tag"),
        args: &["images", "label", "localhost/t:1", "colour=blue"],
        ..WHOLE
    },
    Step {
        title: "unlabel image",
        base: Some("label image"),
        args: &["images", "label", "localhost/t:1", "colour="],
        ..WHOLE
    },
    Step {
        title: "mount",
        base: Some("tag"),
        args: MOUNT,
        done: IS_MOUNTED,
        leaves: &["mnt"],
        ..STEP
    },
    Step {
        title: "unmount",
        base: Some("tag"),
        setup: MOUNTED,
        args: &["images", "unmount", "{w}/mnt"],
        done: NOT_MOUNTED,
        ..STEP
    },
    Step {
        title: "mount rw",
        base: Some("tag"),
        args: MOUNT_RW,
        done: IS_MOUNTED,
        leaves: &["mnt"],
        ..STEP
    },
    Step {
        title: "unmount rw",
        base: Some("tag"),
        setup: &[Run(MOUNT_RW)],
        args: &["images", "unmount", "--rm", "{w}/mnt"],
        done: NOT_MOUNTED,
        ..STEP
    },
    Step {
        title: "export",
        base: Some("tag"),
        args: &["images", "export", "{w}/out.tar", "localhost/b:two"],
        leaves: &["out.tar"],
        ..STEP
    },
    Step {
        title: "bundle create",
        base: Some("tag"),
        args: BUNDLE,
        done: NOT_EMPTY,
        leaves: &["bundle"],
        ..STEP
    },
    Step {
        title: "bundle rm",
        base: Some("tag"),
        setup: &[Run(BUNDLE)],
        args: &["bundle", "rm", "{w}/bundle"],
        done: NO_BUNDLE,
        ..STEP
    },
    Step {
        title: "bundle copy",
        base: Some("tag"),
        args: BUNDLE_COPY,
        done: NOT_EMPTY,
        leaves: &["copy"],
        ..STEP
    },
    Step {
        title: "bundle rm copy",
        base: Some("tag"),
        setup: &[Run(BUNDLE_COPY)],
        args: &["bundle", "rm", "{w}/bundle"],
        done: NO_BUNDLE,
        ..STEP
    },
    Step {
        title: "rm mounted",
        base: Some("tag"),
        setup: MOUNTED,
        args: &["images", "rm", "--ignore", "localhost/b:two"],
        leaves: &["mnt"],
        ..STEP
    },
    Step {
        title: "gc mounted",
        base: Some("tag"),
        setup: &[Run(MOUNT), Run(&["images", "rm", "localhost/b:two"])],
        args: &["gc"],
        leaves: &["mnt"],
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
        ..STEP
    },
    Step {
        title: "rm sync",
        base: Some("tag"),
        args: &["images", "rm", "--ignore", "--sync", "localhost/c:3"],
        ..STEP
    },
    Step {
        title: "gc",
        base: Some("rm"),
        args: &["gc"],
        ..STEP
    },
    Step {
        title: "import again",
        base: Some("rm"),
        args: IMPORT_B,
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
        ..STEP
    },
    Step {
        title: "mount packed",
        base: Some("import packed"),
        args: MOUNT,
        done: IS_MOUNTED,
        leaves: &["mnt"],
        ..STEP
    },
    Step {
        title: "fsck",
        base: Some("tag"),
        args: &["fsck"],
        ..STEP
    },
    Step {
        title: "fsck deep",
        base: Some("tag"),
        args: &["fsck", "--deep"],
        ..STEP
    },
    Step {
        title: "fsck repair",
        base: Some("tag"),
        setup: &[Before::Damage],
        args: &["fsck", "--deep", "--repair"],
        damaged: true,
        ..STEP
    },
];
