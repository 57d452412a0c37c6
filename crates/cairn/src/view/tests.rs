//! The page's examples, letter by letter.

use super::*;
use crate::{
    model::{Disk, DiskRow, Removed, Target, Time, TimingMs, Unexplained},
    out::Stream,
};
use cairn_types::{Labels, SnapshotKind};

const MIB: u64 = 1 << 20;

fn on(columns: usize) -> Stream {
    Stream {
        columns: Some(columns),
        color: false,
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("time")
}

fn image(name: &str, hex: &str, size: u64, unpacked: u64, added: &str) -> Image {
    Image {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        target: Target {
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            digest: format!("sha256:{hex}{}", "0".repeat(52)),
            size: 349,
        },
        platforms: vec!["linux/amd64".to_owned()],
        content_size: size,
        unpacked_size: Some(unpacked),
        complete: true,
        missing: Vec::new(),
        labels: Labels::new(),
        created_at: Time(at(added)),
        updated_at: Time(at(added)),
    }
}

fn two() -> [Image; 2] {
    let busybox = "docker.io/library/busybox:1.36";
    let web = "registry.example.com/shop/web:2.1";
    [
        image(
            busybox,
            "791d2af5d3b2",
            1_084_789,
            1_992_294,
            "2026-11-22T04:30:39Z",
        ),
        image(
            web,
            "5f0c1d7a9e24",
            93_533_000,
            253_440_819,
            "2026-11-19T04:30:00Z",
        ),
    ]
}

/// The example is 103 columns wide, so it is checked on a terminal that has them.
#[test]
fn images_ls() {
    let now = at("2026-11-22T04:30:44Z");
    assert_eq!(
        images(&two(), false, now).render(on(103), false),
        "\
REF                                DIGEST                   SIZE   UNPACKED  PLATFORMS    ADDED
docker.io/library/busybox:1.36     sha256:791d2af5d3b2   1.0 MiB    1.9 MiB  linux/amd64  5 seconds ago
registry.example.com/shop/web:2.1  sha256:5f0c1d7a9e24  89.2 MiB  241.7 MiB  linux/amd64  3 days ago
"
    );
    let narrow = images(&two(), false, now).render(on(100), false);
    assert!(narrow.lines().all(|l| l.chars().count() <= 100), "{narrow}");
    assert!(
        narrow.contains("registry.example.com/…/web:2.1"),
        "{narrow}"
    );
    let wide = images(&two(), true, now).render(on(300), false);
    assert!(wide.starts_with("REF ") && wide.contains("TYPE"), "{wide}");
}

#[test]
fn the_json_of_an_image_has_the_pages_keys_in_order() {
    let text = serde_json::to_string(&two()[0]).expect("json");
    assert_eq!(
        text,
        r#"{"name":"docker.io/library/busybox:1.36","namespace":"default","target":{"media_type":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:791d2af5d3b20000000000000000000000000000000000000000000000000000","size":349},"platforms":["linux/amd64"],"content_size":1084789,"unpacked_size":1992294,"complete":true,"missing":[],"labels":{},"created_at":"2026-11-22T04:30:39.000000000Z","updated_at":"2026-11-22T04:30:39.000000000Z"}"#
    );
}

#[test]
fn images_inspect() {
    let node = |role: &str, hex: &str, size, note: &str| Node {
        role: role.to_owned(),
        digest: format!("sha256:{hex}{}", "0".repeat(52)),
        size,
        note: note.to_owned(),
        readable: true,
        document: None,
        children: Vec::new(),
    };
    let media = "application/vnd.oci.image.manifest.v1+json";
    let mut root = node("manifest", "791d2af5d3b2", 349, media);
    let config = r#"linux/amd64, cmd ["sh"], user 0:0"#;
    let layer = "gzip, diff sha256:0c5943b2c9a0, unpacked 1.9 MiB";
    root.children = vec![
        node("config", "a03b72386a4d", 400, config),
        node("layer 1", "cfcf8b70af1f", 1_084_040, layer),
    ];
    let whole = Tree {
        name: "docker.io/library/busybox:1.36".to_owned(),
        namespace: "default".to_owned(),
        added: at("2026-11-22T04:30:39Z"),
        root,
    };
    assert_eq!(
        tree(&whole, true),
        "\
docker.io/library/busybox:1.36   (namespace default, added 2026-11-22T04:30:39Z)
└─ manifest  sha256:791d2af5d3b2  349 B      application/vnd.oci.image.manifest.v1+json
   ├─ config    sha256:a03b72386a4d  400 B      linux/amd64, cmd [\"sh\"], user 0:0
   └─ layer 1   sha256:cfcf8b70af1f  1.0 MiB    gzip, diff sha256:0c5943b2c9a0, unpacked 1.9 MiB
"
    );
}

#[test]
fn images_inspect_timing() {
    let layer = |hex: &str, unpacked_size, timing_ms| TimedLayer {
        digest: format!("sha256:{hex}{}", "0".repeat(52)),
        diff_id: None,
        chain_id: None,
        size: 61 * MIB,
        unpacked_size,
        timing_ms,
    };
    let took = TimingMs {
        fetch: 210,
        inflate: 800,
        untar: 1_400,
        sync: 12,
        commit: 0,
    };
    let layers = [
        layer("cfcf8b70af1f", Some(180 * MIB), Some(took)),
        layer("7b4d3f10c6aa", None, None),
    ];
    assert_eq!(
        timing(&layers).render(on(100), false),
        "\
LAYER                    SIZE   UNPACKED   FETCH  INFLATE  UNTAR   SYNC  COMMIT  TOTAL
sha256:cfcf8b70af1f  61.0 MiB  180.0 MiB  210 ms   800 ms  1.4 s  12 ms    0 ms  2.4 s
sha256:7b4d3f10c6aa  61.0 MiB          -       -        -      -      -       -      -
"
    );
}

#[test]
fn df_and_gc() {
    let row = |kind: &str, total, active, size, reclaimable| Usage {
        kind: kind.to_owned(),
        total,
        active,
        size,
        reclaimable,
        images: None,
        namespaces: None,
    };
    let rows = [
        row("images", 1, 1, 93_533_000, 0),
        row("content", 8, 5, 94_686_000, MIB),
        row("snapshots", 5, 5, 255_433_000, 0),
        row("ingests", 0, 0, 0, 0),
    ];
    assert_eq!(
        df(&rows).render(on(100), false),
        "\
TYPE       TOTAL  ACTIVE       SIZE       RECLAIMABLE
images         1       1   89.2 MiB          0 B (0%)
content        8       5   90.3 MiB      1.0 MiB (1%)
snapshots      5       5  243.6 MiB          0 B (0%)
ingests        0       0        0 B          0 B (0%)
"
    );
    let content = |content| Removed {
        content,
        ..Removed::default()
    };
    let done = Gc {
        dry_run: false,
        removed: content(3),
        freed_bytes: MIB,
        wall_ms: 12,
        freed: content(MIB),
    };
    assert_eq!(
        gc(&done).render(on(100), false),
        "\
TYPE     REMOVED    FREED
content        3  1.0 MiB
total          3  1.0 MiB in 12 ms
"
    );
}

#[test]
fn what_is_on_the_disk() {
    let row = |kind: &str, total, size, inodes| DiskRow {
        kind: kind.to_owned(),
        total,
        size,
        inodes,
    };
    let rows = vec![
        row("content", 8, 94_686_000, 8),
        row("committed", 5, 255_433_000, 9_011),
        row("garbage", 0, 0, 0),
        row("store", 0, 45_056, 11),
    ];
    let stray = Unexplained {
        path: "snapshots/notes".to_owned(),
        size: 4096,
        inodes: 1,
    };
    let all = Disk::of(rows, vec![stray]);
    assert_eq!((all.size, all.inodes), (350_168_152, 9_031));
    assert_eq!(
        disk(&all).render(on(100), false),
        "\
TYPE         TOTAL       SIZE  INODES
content          8   90.3 MiB       8
committed        5  243.6 MiB    9011
store            0   44.0 KiB      11
unexplained      1    4.0 KiB       1
total            -  333.9 MiB    9031
"
    );
    assert_eq!(
        unexplained(&all.unexplained).render(on(100), false),
        "\
PATH                SIZE  INODES
snapshots/notes  4.0 KiB       1
"
    );
}

#[test]
fn snapshot_tree_has_one_blank_per_level() {
    let snapshot = |key: &str, parent: Option<&str>| Snapshot {
        key: key.to_owned(),
        parent: parent.map(str::to_owned),
        kind: SnapshotKind::Committed,
        size: Some(1),
        inodes: None,
        durable: true,
        labels: Labels::new(),
        created_at: Time(at("2026-11-22T04:30:39Z")),
        updated_at: Time(at("2026-11-22T04:30:39Z")),
    };
    let all = [
        snapshot("c", Some("a")),
        snapshot("d", Some("b")),
        snapshot("b", Some("a")),
        snapshot("a", None),
        snapshot("orphan", Some("gone")),
    ];
    assert_eq!(snapshot_tree(&all, true), "a\n b\n  d\n c\norphan\n");
    let now = at("2026-11-22T04:30:44Z");
    let table = snapshots(&all[3..4], false, now).render(on(80), false);
    assert_eq!(
        table,
        "KEY  PARENT  KIND       SIZE\na    -       committed   1 B\n"
    );
}
