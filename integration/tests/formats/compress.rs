//! How layers are packed, and what their media types say of it.
//!
//! | row of the image table | tests |
//! |---|---|
//! | layer types: tar, +gzip, +zstd, docker `.tar.zstd` | `every_media_type_with_what_it_names` |
//! | gzip: multi-member, pigz, bgzf | `gzip_of_many_members` |
//! | gzip: trailing zeros, trailing garbage, damage | `zeros_after_gzip`, `garbage_after_gzip`, `damaged_gzip` |
//! | zstd: multi-frame, skippable frames, long window | `zstd_of_many_frames`, `zstd_windows` |
//! | zstd: dictionary id | `zstd_with_a_dictionary` |
//! | wrong media type vs content | `content_is_sniffed_whatever_the_type`, `a_plain_oci_type_is_plain`, `docker_types_in_an_oci_manifest` |
//! | `tar.gz` and other unknown types; encrypted; erofs, nydus, overlaybd, soci | `types_that_cannot_be_unpacked` |
//! | eStargz, zstd:chunked as plain layers | `estargz_is_a_plain_layer`, `zstd_chunked_is_a_plain_layer` |
//! | (xz, bzip2, lz4) | `z05_other_packings_are_named` |
//!
//! Bombs and cut streams at every length are in `crates/layer/tests/unpack.rs`. Debian's umoci knows
//! no zstd; containerd 1.6 does.

use cairn_integration::{
    fixture::{Case, Peer},
    image::{Packing, Stored, digest},
    peers::filter,
    raw::Tar,
};

const OCI: &str = "application/vnd.oci.image.layer.v1.tar";
const OCI_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const OCI_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";

/// Bytes that no packing makes small.
fn noise() -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..300_000).map(|_| next()).collect()
}

fn sample() -> Vec<u8> {
    let data = noise();
    Tar::new()
        .dir("dir")
        .head(cairn_integration::raw::Header::ustar(
            b'0',
            b"dir/noise",
            300_000,
        ))
        .data(&data)
        .file("small", b"1")
        .finish()
}

fn tree() -> [String; 3] {
    [
        "dir dir 0755".to_owned(),
        format!("file dir/noise 0644 = 300000 bytes {}", digest(&noise())),
        "file small 0644 = 1".to_owned(),
    ]
}

fn case(media_type: &str, bytes: Vec<u8>) -> Case {
    let layer = Stored::of(media_type, bytes, &sample());
    Case::layout(|layout| {
        layout.image_of("one", &[layer]);
    })
}

#[track_caller]
fn unpacks(media_type: &str, bytes: Vec<u8>) -> Case {
    let tree = tree();
    case(media_type, bytes).unpacks(&tree.each_ref().map(String::as_str))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    filter("gzip", &["-1"], bytes)
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    filter("zstd", &["-1", "-q"], bytes)
}

#[test]
fn every_media_type_with_what_it_names() {
    let (plain, gz, zst) = (sample(), gzip(&sample()), zstd(&sample()));
    let with = |base: &str, end: &str| format!("{base}{end}");
    for (media_type, bytes, umoci, containerd) in [
        (with(OCI, ""), &plain, Peer::Same, Peer::Same),
        (with(OCI, "+gzip"), &gz, Peer::Same, Peer::Same),
        (
            with(OCI, "+zstd"),
            &zst,
            Peer::Fails("blob is not correct mediatype"),
            Peer::Same,
        ),
        (with(FOREIGN, ""), &plain, Peer::Same, Peer::Same),
        (with(FOREIGN, "+gzip"), &gz, Peer::Same, Peer::Same),
        (
            with(FOREIGN, "+zstd"),
            &zst,
            Peer::Fails("blob is not correct mediatype"),
            Peer::Same,
        ),
        (
            with(DOCKER, ""),
            &plain,
            Peer::Fails("blob is not correct mediatype"),
            Peer::Same,
        ),
        (
            with(DOCKER, ".gzip"),
            &gz,
            Peer::Fails("blob is not correct mediatype"),
            Peer::Same,
        ),
        (
            with(DOCKER, ".zstd"),
            &zst,
            Peer::Fails("blob is not correct mediatype"),
            // From containerd 2 on.
            Peer::Fails("no processor for media-type"),
        ),
        (
            with(DOCKER_FOREIGN, ""),
            &plain,
            Peer::Fails("blob is not correct mediatype"),
            Peer::Same,
        ),
        (
            with(DOCKER_FOREIGN, ".gzip"),
            &gz,
            Peer::Fails("blob is not correct mediatype"),
            Peer::Same,
        ),
    ] {
        unpacks(&media_type, bytes.clone())
            .umoci(umoci)
            .containerd(containerd);
    }
}

/// > For any type that implies compression the real format is sniffed (containerd
/// > `core/diff/stream.go`)
#[test]
fn content_is_sniffed_whatever_the_type() {
    let (plain, gz, zst) = (sample(), gzip(&sample()), zstd(&sample()));
    for media_type in [
        OCI_GZIP,
        OCI_ZSTD,
        DOCKER,
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ] {
        for bytes in [&plain, &gz, &zst] {
            unpacks(media_type, bytes.clone());
        }
    }
    unpacks(OCI_GZIP, plain).containerd(Peer::Same);
    unpacks(OCI_GZIP, zst).containerd(Peer::Same);
}

/// > an OCI plain `.tar` is never decompressed (containerd `core/diff/apply`)
///
/// The error says what the bytes are instead.
#[test]
fn a_plain_oci_type_is_plain() {
    for (bytes, name) in [(gzip(&sample()), "gzip"), (zstd(&sample()), "zstd")] {
        for media_type in [OCI, FOREIGN] {
            let reason = format!("not tar: the layer is {name}");
            case(media_type, bytes.clone())
                .fails(&[&reason])
                .umoci(Peer::Fails("invalid tar header"));
        }
    }
}

#[test]
fn docker_types_in_an_oci_manifest() {
    let both = [
        Stored::packed(&Tar::new().file("oci", b"1").finish(), Packing::Gzip),
        Stored::of(
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            gzip(&Tar::new().file("docker", b"2").finish()),
            &Tar::new().file("docker", b"2").finish(),
        ),
    ];
    Case::layout(|layout| {
        layout.image_of("one", &both);
    })
    .unpacks(&["file docker 0644 = 2", "file oci 0644 = 1"])
    .containerd(Peer::Same);
}

/// A block of bgzf: a gzip member with its own length in an extra field (SAM specification, 4.1).
fn bgzf_block(bytes: &[u8]) -> Vec<u8> {
    let mut member = filter("gzip", &["-1", "-n"], bytes);
    member[3] |= 4;
    let length = u16::try_from(member.len() + 8 - 1).expect("small");
    let extra = [&[6, 0, b'B', b'C', 2, 0][..], &length.to_le_bytes()].concat();
    member.splice(10..10, extra);
    member
}

#[test]
fn gzip_of_many_members() {
    let tar = sample();
    let members: Vec<u8> = tar.chunks(10_000).flat_map(gzip).collect();
    let bgzf: Vec<u8> = tar.chunks(40_000).flat_map(bgzf_block).collect();
    let empty_at_end = [&bgzf[..], &bgzf_block(b"")].concat();
    for bytes in [
        members,
        bgzf,
        empty_at_end,
        filter("pigz", &["-p", "2", "-b", "128"], &tar),
        filter("pigz", &["-p", "2", "-b", "128", "-i"], &tar),
        [gzip(b""), gzip(&tar)].concat(),
    ] {
        unpacks(OCI_GZIP, bytes)
            .umoci(Peer::Same)
            .containerd(Peer::Same);
    }
    // A name and a comment in the header.
    let dir = tempfile::TempDir::new().expect("temporary directory");
    let file = dir.path().join("layer.tar");
    std::fs::write(&file, &tar).expect("write");
    let named = filter("gzip", &["-c", file.to_str().expect("UTF-8")], b"");
    unpacks(OCI_GZIP, named).umoci(Peer::Same);
}

/// Tape-minded writers pad with zeros, and `gzip` says nothing about them.
#[test]
fn zeros_after_gzip() {
    for zeros in [1, 511, 300_000] {
        let bytes = [gzip(&sample()), vec![0; zeros]].concat();
        assert_eq!(filter("gzip", &["-d"], &bytes), sample());
        unpacks(OCI_GZIP, bytes)
            // Go's reader wants another member there.
            .umoci(Peer::Fails("discard trailing archive bits"))
            // It runs `unpigz`, which is as tolerant as gzip.
            .containerd(Peer::Same);
    }
}

/// > gzip: stdin: decompression OK, trailing garbage ignored
///
/// says gzip, and exits with 2. A layer has a digest over every byte, so what is there was meant.
#[test]
fn garbage_after_gzip() {
    for garbage in [&b"garbage"[..], b"\0\0x", b"\x1f", b"\x1f\x8b\x08"] {
        let bytes = [&gzip(&sample()), garbage].concat();
        case(OCI_GZIP, bytes)
            .fails(&["gzip layer"])
            .umoci(Peer::Fails("unpack rootfs"))
            .containerd(Peer::Tree(&tree().each_ref().map(String::as_str)));
    }
}

#[test]
fn damaged_gzip() {
    let good = gzip(&sample());
    let mut checksum = good.clone();
    let at = checksum.len() - 6;
    checksum[at] ^= 1;
    for bytes in [
        checksum,
        good[..good.len() - 1].to_vec(),
        good[..good.len() / 2].to_vec(),
    ] {
        case(OCI_GZIP, bytes)
            .fails(&["decompress gzip layer"])
            .umoci(Peer::Fails("unpack rootfs"));
    }
}

/// > Skippable frames allow the insertion of user-defined metadata into a flow of concatenated frames
/// > (RFC 8878, 3.1.2)
fn skippable(magic: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("small").to_le_bytes();
    [&[magic, 0x2a, 0x4d, 0x18][..], &length, bytes].concat()
}

#[test]
fn zstd_of_many_frames() {
    let tar = sample();
    let frames: Vec<u8> = tar.chunks(50_000).flat_map(zstd).collect();
    let mut mixed = skippable(0x50, b"at the start");
    for part in tar.chunks(70_000) {
        mixed.extend(zstd(part));
        mixed.extend(skippable(0x5f, &[7; 1000]));
    }
    unpacks(OCI_ZSTD, frames).containerd(Peer::Same);
    unpacks(OCI_ZSTD, mixed);
    let checked = filter("zstd", &["-19", "--check", "-q"], &tar);
    unpacks(OCI_ZSTD, checked).containerd(Peer::Same);
    case(OCI_ZSTD, [&zstd(&tar), &b"garbage"[..]].concat()).fails(&["decompress zstd layer"]);
}

/// > For improved interoperability, it's recommended for decoders to support values of Window_Size up
/// > to 8 MB (RFC 8878, 3.1.1.1.2)
///
/// `zstd` itself takes 128 MiB without being asked, and so do we.
#[test]
fn zstd_windows() {
    let long = filter("zstd", &["--long=27", "-q"], &sample());
    unpacks(OCI_ZSTD, long);
    let longer = filter("zstd", &["--ultra", "-22", "--long=31", "-q"], &sample());
    case(OCI_ZSTD, longer).fails(&["decompress zstd layer"]);
}

#[test]
fn zstd_with_a_dictionary() {
    let dir = tempfile::TempDir::new().expect("temporary directory");
    let samples = dir.path().join("samples");
    std::fs::create_dir(&samples).expect("directory");
    for i in 0..200 {
        let text = format!("line {i} of a file that others resemble\n").repeat(20);
        std::fs::write(samples.join(i.to_string()), text).expect("write");
    }
    let dictionary = dir.path().join("dictionary");
    let (samples, dictionary) = (
        samples.display().to_string(),
        dictionary.display().to_string(),
    );
    filter(
        "zstd",
        &["--train", "-q", "-r", &samples, "-o", &dictionary],
        b"",
    );
    let packed = filter("zstd", &["-q", "-D", &dictionary], &sample());
    case(OCI_ZSTD, packed).fails(&["decompress zstd layer"]);
}

#[test]
fn z05_other_packings_are_named() {
    for (program, name) in [("xz", "xz"), ("bzip2", "bzip2")] {
        for media_type in [OCI_GZIP, DOCKER] {
            let bytes = filter(program, &["-c"], &sample());
            case(media_type, bytes).fails(&[&format!("not tar: the layer is {name}")]);
        }
    }
}

/// Encrypted layers, and those that only their own snapshotters read: named, and kept packed.
#[test]
fn types_that_cannot_be_unpacked() {
    for media_type in [
        "application/vnd.oci.image.layer.v1.tar.gz",
        "application/vnd.oci.image.layer.v1.tar+xz",
        "application/vnd.oci.image.layer.v1.tar+encrypted",
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "application/vnd.oci.image.layer.v1.tar+zstd+encrypted",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip+encrypted",
        "application/vnd.erofs.layer.v1",
        "application/vnd.containerd.overlaybd.layer",
        "application/vnd.oci.image.layer.nydus.blob.v1",
        "application/vnd.amazon.soci.index.v1+json",
    ] {
        let case = case(media_type, gzip(&sample())).fails(&[
            &format!("layer 1 of 1 has unknown type {media_type}"),
            "--no-unpack",
        ]);
        let archive = case.archive().display().to_string();
        let import = [
            "images",
            "import",
            "--no-unpack",
            "--base-name",
            "localhost/t",
            &archive,
        ];
        case.cairn.ok(&import);
        let out = case.cairn.path("out.tar").display().to_string();
        case.cairn
            .ok(&["images", "export", &out, "localhost/t:one"]);
    }
}

/// Each file in a member of its own, a table of contents, and a footer that is an empty member with an
/// extra field (stargz-snapshotter `docs/estargz.md`).
#[test]
fn estargz_is_a_plain_layer() {
    let first = Tar::new()
        .file(".no.prefetch.landmark", b"\x0f")
        .unfinished();
    let second = Tar::empty().file("small", b"1").unfinished();
    let toc = br#"{"version":1,"entries":[]}"#;
    let last = Tar::empty().file("stargz.index.json", toc).finish();
    let mut footer = filter("gzip", &["-n"], b"");
    footer[3] |= 4;
    let offset = format!("{:016x}STARGZ", gzip(&first).len() + gzip(&second).len());
    let extra = [&[26, 0, b'S', b'G', 22, 0][..], offset.as_bytes()].concat();
    footer.splice(10..10, extra);
    let bytes = [gzip(&first), gzip(&second), gzip(&last), footer].concat();
    let layer = Stored::of(OCI_GZIP, bytes, &[first, second, last].concat());
    Case::layout(|layout| {
        layout.image_of("one", &[layer]);
    })
    .unpacks(&[
        "file .no.prefetch.landmark 0644 = \\x0f",
        "file small 0644 = 1",
        "file stargz.index.json 0644 = {\\\"version\\\":1,\\\"entries\\\":[]}",
    ])
    .umoci(Peer::Same)
    .containerd(Peer::Same);
}

/// Frames for each file, the manifest in a skippable frame and a footer in another (containers/storage
/// `pkg/chunked`).
#[test]
fn zstd_chunked_is_a_plain_layer() {
    let tar = sample();
    let mut bytes: Vec<u8> = tar.chunks(100_000).flat_map(zstd).collect();
    bytes.extend(skippable(0x50, &zstd(br#"{"version":1,"entries":[]}"#)));
    bytes.extend(skippable(
        0x50,
        &[b"GNUlInUx".repeat(7), vec![0; 8]].concat(),
    ));
    unpacks(OCI_ZSTD, bytes);
}
