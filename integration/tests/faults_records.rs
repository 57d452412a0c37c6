//! A damaged record is told of by its name, costs only itself, and never leads to anything being
//! removed.

#![allow(missing_docs)]

use std::path::Path;

use cairn_integration::{
    cairn::Cairn,
    fault::{Bench, Images},
};
use redb::{Database, ReadableTable, TableDefinition};

const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");

/// Flips a bit in every record whose key holds `part` and not `not`; answers how many.
fn damage(root: &Path, part: &str, not: &str) -> usize {
    let database = Database::open(root.join("meta/redb/records.redb")).expect("records");
    let change = database.begin_write().expect("transaction");
    let mut damaged = 0;
    {
        let mut table = change.open_table(RECORDS).expect("table");
        let has = |key: &[u8], part: &str| key.windows(part.len()).any(|w| w == part.as_bytes());
        let pairs: Vec<(Vec<u8>, Vec<u8>)> = table
            .iter()
            .expect("records")
            .map(|pair| {
                let (key, value) = pair.expect("record");
                (key.value().to_vec(), value.value().to_vec())
            })
            .filter(|(key, _)| has(key, part) && (not.is_empty() || !has(key, not)))
            .collect();
        for (key, mut value) in pairs {
            *value.last_mut().expect("checksum") ^= 1;
            table.insert(&key[..], &value[..]).expect("insert");
            damaged += 1;
        }
    }
    change.commit().expect("commit");
    damaged
}

fn files(root: &Path) -> usize {
    let count = |dir: &str| std::fs::read_dir(root.join(dir)).expect("list").count();
    count("content/blobs/sha256") + count("snapshots")
}

#[test]
fn a_damaged_record_costs_only_itself() {
    let images = Images::new();
    let bench = Bench::new(&Cairn::binary(), &images, "redb");
    let plain = |args: &[&str]| {
        bench
            .plain(args)
            .unwrap_or_else(|reason| panic!("{reason}"))
    };
    plain(&["images", "import", "{i}/a.tar"]);
    plain(&["images", "import", "--base-name", "localhost/b", "{i}/b"]);
    let root = bench.root();
    let before = files(&root);

    assert_eq!(damage(&root, "localhost/a:1", ""), 1);
    let output = plain(&["-q", "images", "ls"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "localhost/b:two\n");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("localhost/a:1"), "{told}");
    let output = bench.run(&["images", "inspect", "localhost/a:1"], None, None);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("checksum does not match"), "{told}");
    // What it referred to is not known any more, so nothing is garbage.
    let output = bench.run(&["gc"], None, None);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(files(&root), before);
    plain(&["images", "mount", "localhost/b:two", "{w}/mnt"]);
    plain(&["images", "unmount", "{w}/mnt"]);

    // Without any record of a blob or a layer that proves itself, opening removes no file.
    assert!(damage(&root, "sha256:", "") > 10);
    let output = plain(&["-q", "images", "ls"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "localhost/b:two\n");
    assert_eq!(files(&root), before);
}
