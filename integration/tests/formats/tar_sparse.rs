//! Sparse files in all the forms GNU tar has had: the contents are whole and the holes are on disk.
//!
//! > Sparse files SHOULD NOT be used because they lack consistent support across tar implementations.
//! > (image-spec `layer.md`, "File Attributes")
//!
//! They come all the same; what a peer lacks is asserted beside each form.
//!
//! | row of the tar table | tests |
//! |---|---|
//! | GNU sparse old (`S` + extended headers) | `old_gnu`, `gnu_tar_writes_every_form` |
//! | PAX sparse 0.0, 0.1, 1.0 | `pax_0_0`, `pax_0_1`, `pax_1_0`, `gnu_tar_writes_every_form` |
//!
//! Maps that lie are in `crates/layer/tests/it/tar_sparse.rs`. The forms are described in the GNU tar
//! manual, "Storing Sparse Files".

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use cairn_integration::{
    fixture::{Case, Peer},
    image::MTIME,
    peers,
    raw::{Header, Tar},
};
use rustix::fs::SeekFrom;

const SIZE: u64 = 1 << 20;
const STEP: u64 = 128 << 10;
const DATA: u64 = 4096;

/// Six regions, more than the four that a header of type `S` has room for, and the empty one that
/// GNU tar ends its maps with.
fn regions() -> Vec<(u64, u64)> {
    let mut regions: Vec<_> = (0..6).map(|i| (i * STEP, DATA)).collect();
    regions.push((SIZE, 0));
    regions
}

fn stored() -> Vec<u8> {
    (1..=6).flat_map(|i| [i; 4096]).collect()
}

fn whole() -> Vec<u8> {
    let mut whole = vec![0; 1 << 20];
    for (i, piece) in stored().chunks(4096).enumerate() {
        whole[i * (128 << 10)..][..4096].copy_from_slice(piece);
    }
    whole
}

/// The file has the right bytes, and takes no more than its data on disk, and the block in which the
/// file system says where they are, once it has written them.
fn check_file(path: &Path) {
    assert!(fs::read(path).expect("read") == whole(), "the content");
    let file = File::open(path).expect("open");
    let taken = file.metadata().expect("stat").blocks() * 512;
    assert!([6 * DATA, 7 * DATA].contains(&taken), "{taken} bytes");
    for i in 0..6 {
        let hole = rustix::fs::seek(&file, SeekFrom::Hole(i * STEP)).expect("seek");
        assert_eq!(hole, i * STEP + DATA, "the hole after region {i}");
    }
}

/// Peers are held against the tree; whether they keep the holes is told by `holes`.
fn check(tar: Vec<u8>, umoci: Peer<'_>, containerd: Peer<'_>) {
    let line = format!("file sparse 0644 = {SIZE} bytes {}", digest());
    let case = Case::new(tar).unpacks(&["file after 0644 = next", &line]);
    check_file(&case.root().join("sparse"));
    case.umoci(umoci).containerd(containerd);
}

fn digest() -> String {
    cairn_integration::image::digest(&whole())
}

fn numbers(regions: &[(u64, u64)]) -> Vec<u8> {
    let octal = |(at, length): &(u64, u64)| format!("{at:011o}\0{length:011o}\0").into_bytes();
    regions.iter().flat_map(octal).collect()
}

/// Four regions in the header, 21 in each block that continues it. Go's reader knows type `S`; containerd and umoci, which ask for its type, do not (docker/cli#6153).
#[test]
fn old_gnu() {
    let regions = regions();
    let mut block = numbers(&regions[4..]);
    block.resize(512, 0);
    let header = Header::gnu(b'S', b"sparse", 6 * DATA)
        .put(386, &numbers(&regions[..4]))
        .put(482, &[1])
        .put(483, format!("{SIZE:011o}\0").as_bytes());
    let tar = Tar::new()
        .head(header)
        .raw(&block)
        .data(&stored())
        .file("after", b"next")
        .finish();
    check(
        tar,
        Peer::Fails("unknown typeflag"),
        Peer::Fails("unhandled tar header type"),
    );
}

/// A map of more than one block of continuation: 4 + 21 + 1 regions.
#[test]
fn old_gnu_over_two_blocks() {
    let regions: Vec<(u64, u64)> = (0..26).map(|i| (i * 8192, 4096)).collect();
    let mut blocks = vec![0; 1024];
    blocks[..504].copy_from_slice(&numbers(&regions[4..25]));
    blocks[504] = 1;
    blocks[512..536].copy_from_slice(&numbers(&regions[25..]));
    let header = Header::gnu(b'S', b"sparse", 26 * 4096)
        .put(386, &numbers(&regions[..4]))
        .put(482, &[1])
        .put(483, format!("{:011o}\0", 26 * 8192).as_bytes());
    let stored: Vec<u8> = (1..=26).flat_map(|i| [i; 4096]).collect();
    let tar = Tar::new().head(header).raw(&blocks).data(&stored).finish();
    let case = Case::new(tar);
    let bytes = fs::read(case.mount().join("sparse")).expect("sparse");
    let expected: Vec<u8> = (1..=26)
        .flat_map(|i| [[i; 4096], [0; 4096]].concat())
        .collect();
    assert!(bytes == expected, "the content");
}

/// One pair of records for each region, the same two keys again and again.
#[test]
fn pax_0_0() {
    let regions = regions();
    let texts: Vec<_> = regions
        .iter()
        .map(|(at, length)| (at.to_string(), length.to_string()))
        .collect();
    let (size, count) = (SIZE.to_string(), regions.len().to_string());
    let mut records: Vec<(&str, &[u8])> = vec![
        ("GNU.sparse.size", size.as_bytes()),
        ("GNU.sparse.numblocks", count.as_bytes()),
    ];
    for (at, length) in &texts {
        records.push(("GNU.sparse.offset", at.as_bytes()));
        records.push(("GNU.sparse.numbytes", length.as_bytes()));
    }
    let tar = Tar::new()
        .pax(&records)
        .file("sparse", &stored())
        .file("after", b"next")
        .finish();
    check(tar, Peer::Same, Peer::Same);
}

/// All regions in one record, and the real name in another.
#[test]
fn pax_0_1() {
    let regions = regions();
    let map: Vec<String> = regions
        .iter()
        .map(|(at, length)| format!("{at},{length}"))
        .collect();
    let (map, size, count) = (map.join(","), SIZE.to_string(), regions.len().to_string());
    let tar = Tar::new()
        .pax(&[
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.numblocks", count.as_bytes()),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.map", map.as_bytes()),
        ])
        .file("GNUSparseFile.1/sparse", &stored())
        .file("after", b"next")
        .finish();
    check(tar, Peer::Same, Peer::Same);
}

/// The map stands before the data, padded to a block.
#[test]
fn pax_1_0() {
    let regions = regions();
    let lines = regions
        .iter()
        .map(|(at, length)| format!("{at}\n{length}\n"));
    let mut data = format!("{}\n{}", regions.len(), lines.collect::<String>()).into_bytes();
    data.resize(512, 0);
    data.extend(stored());
    let size = SIZE.to_string();
    let tar = Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", size.as_bytes()),
        ])
        .file("GNUSparseFile.1/sparse", &data)
        .file("after", b"next")
        .finish();
    check(tar, Peer::Same, Peer::Same);
}

/// A real sparse file through GNU tar's `--sparse` in every form it writes, and through bsdtar, which
/// finds holes by itself.
#[test]
fn gnu_tar_writes_every_form() {
    let dir = tempfile::TempDir::new().expect("temporary directory");
    let (tree, out) = (dir.path().join("tree"), dir.path().join("out.tar"));
    fs::create_dir(&tree).expect("tree");
    let file = File::create(tree.join("sparse")).expect("file");
    for (i, piece) in stored().chunks(4096).enumerate() {
        file.write_all_at(piece, i as u64 * STEP).expect("write");
    }
    file.set_len(SIZE).expect("length");
    fs::write(tree.join("after"), "next").expect("after");
    for name in ["sparse", "after", "."] {
        let path = tree.join(name).display().to_string();
        peers::run("touch", &["-d", &format!("@{MTIME}"), &path]);
    }
    let (tree, text) = (tree.display().to_string(), out.display().to_string());
    for (program, options) in [
        ("tar", &["--format=gnu", "--sparse"][..]),
        ("tar", &["--format=oldgnu", "--sparse"]),
        ("tar", &["--format=pax", "--sparse", "--sparse-version=0.0"]),
        ("tar", &["--format=pax", "--sparse", "--sparse-version=0.1"]),
        ("tar", &["--format=pax", "--sparse", "--sparse-version=1.0"]),
        ("bsdtar", &["--format=pax"]),
    ] {
        let arguments = [options, &["-C", &tree, "-cf", &text, "."]].concat();
        peers::run(program, &arguments);
        let tar = fs::read(&out).expect("tar");
        assert!(
            tar.len() < 100 << 10,
            "{program} {options:?} wrote the holes"
        );
        let (umoci, containerd) = match options[0] {
            "--format=pax" => (Peer::Same, Peer::Same),
            _ => (
                Peer::Fails("unknown typeflag"),
                Peer::Fails("unhandled tar header type"),
            ),
        };
        check(tar, umoci, containerd);
    }
}
