//! Types of entries, and what they carry beside data: one fixture for each.
//!
//! | row of the tar table | tests |
//! |---|---|
//! | contiguous `7` | `h14_contiguous_files` |
//! | volume label `V`, multi-volume `M`, unknown flags | `h14_types_that_no_layer_has`, `gnu_multi_volume_records` |
//! | devices, fifo | `h15_devices_and_pipes` |
//! | 0/0 = overlay whiteout | `h15_a_device_0_0_is_no_whiteout`, `h15_device_numbers_out_of_range` |
//! | sockets | `h15_sockets_are_nothing` |
//! | setuid/sticky, mode 0000 dirs/files | `all_bits_of_the_mode` |
//! | SCHILY.xattr, LIBARCHIVE.xattr, `=` and binary values | `attributes_of_star_and_libarchive` |
//! | SCHILY.acl, RHT.security.selinux | `attributes_of_a_host_are_left_out`, `acls_of_gnu_tar` |
//! | (root directory metadata, E2) | `the_root_directory_has_metadata` |

use std::fs;

use cairn_integration::{
    cairn::Cairn,
    fixture::{Case, Peer},
    image::MTIME,
    peers,
    raw::{Header, Tar},
};

/// > 7: Reserved to represent a file to which an implementation has associated some high-performance
/// > attribute. Implementations without such extensions should treat this file as a regular file
/// > (type 0). (POSIX `pax`, "ustar Interchange Format")
#[test]
fn h14_contiguous_files() {
    let tar = Tar::new()
        .head(Header::ustar(b'7', b"contiguous", 3))
        .data(b"abc")
        .file("after", b"next")
        .finish();
    Case::new(tar)
        .unpacks(&["file after 0644 = next", "file contiguous 0644 = abc"])
        .umoci(Peer::Fails("unknown typeflag"))
        .containerd(Peer::Fails("unhandled tar header type"));
}

/// POSIX lets a reader take types it does not know for regular files. That would make a file of a
/// volume label or of another file's second half.
#[test]
fn h14_types_that_no_layer_has() {
    for (flag, name) in [
        (b'V', "volume label"),
        (b'M', "continued from another volume"),
        (b'D', "GNU directory dump"),
        (b'N', "old GNU long names"),
        (b'X', "Solaris extended header"),
        (b'A', "Solaris access control list"),
        (b'8', "unknown"),
        (b'z', "unknown"),
    ] {
        let tar = Tar::new().file("before", b"1");
        let at = tar.offset();
        let tar = tar.head(Header::gnu(flag, b"odd", 0)).finish();
        let reason = format!("type '{}' ({name}) is not supported", char::from(flag));
        Case::new(tar)
            .refused("odd", at, &reason)
            .umoci(Peer::Fails("unknown typeflag"));
    }
}

/// The first half of a file, said in PAX words; a reader that skips them has a file cut short.
#[test]
fn gnu_multi_volume_records() {
    for key in ["GNU.volume.size", "GNU.volume.offset", "SCHILY.realsize"] {
        let tar = Tar::new();
        let at = tar.offset();
        let tar = tar.pax(&[(key, b"9")]).file("half", b"abc").finish();
        Case::new(tar)
            .fails(&[
                &format!("at byte {at}"),
                &format!("PAX record {key} has an invalid value"),
            ])
            .umoci(Peer::Tree(&["file half 0644 = abc"]));
    }
}

#[test]
fn h15_devices_and_pipes() {
    let device = |flag, name: &[u8], major, minor| {
        Header::ustar(flag, name, 0)
            .mode(0o666)
            .device(major, minor)
    };
    let tar = Tar::new()
        .head(device(b'3', b"null", 1, 3))
        .head(device(b'4', b"loop", 7, 0))
        .head(device(b'4', b"zero", 0, 0))
        .head(device(b'3', b"large", 4095, 262_143))
        .head(Header::ustar(b'6', b"pipe", 0).put(108, b"0000005\x000000006\0"))
        .pax(&[
            ("SCHILY.devmajor", b"4095"),
            ("SCHILY.devminor", b"1048575"),
        ])
        .head(device(b'3', b"largest", 1, 1))
        .finish();
    Case::new(tar)
        .unpacks(&[
            "char large 0666 device 4095:262143",
            "char largest 0666 device 4095:1048575",
            "block loop 0666 device 7:0",
            "char null 0666 device 1:3",
            "fifo pipe 0644 5:6",
            "block zero 0666 device 0:0",
        ])
        // star's and libarchive's records for numbers that octal fields cannot hold; Go has none.
        .umoci(Peer::Differs(&[
            "- char largest 0666 device 4095:1048575",
            "+ char largest 0666 device 1:1",
        ]))
        .containerd(Peer::Differs(&[
            "- char largest 0666 device 4095:1048575",
            "+ char largest 0666 device 1:1",
        ]));
}

/// > A whiteout is created as a character device with 0/0 device number (kernel, `overlayfs.rst`)
///
/// A layer may hide files by the image-spec's whiteouts and in no other way.
#[test]
fn h15_a_device_0_0_is_no_whiteout() {
    let tar = Tar::new().dir("dir/");
    let at = tar.offset();
    let tar = tar
        .head(Header::ustar(b'3', b"dir/null", 0).device(0, 0))
        .finish();
    Case::new(tar)
        .refused("dir/null", at, "would forge a whiteout")
        .umoci(Peer::Tree(&[
            "dir dir 0755",
            "char dir/null 0644 device 0:0",
        ]))
        .containerd(Peer::Tree(&[
            "dir dir 0755",
            "char dir/null 0644 device 0:0",
        ]));
}

/// The kernel keeps 12 bits of a major number: 4096:0 would be cut to 0:0.
#[test]
fn h15_device_numbers_out_of_range() {
    for (major, minor) in [(4096, 0), (1, 1_048_576)] {
        let tar = Tar::new();
        let at = tar.offset();
        let tar = tar
            .head(Header::ustar(b'3', b"dev", 0).device(major, minor))
            .finish();
        let reason = format!("device number {major}:{minor} is out of range");
        Case::new(tar).refused("dev", at, &reason);
    }
}

/// The image-spec lists sockets among file types, and no tar format has a type for them: `tar: socket
/// ignored`, says GNU tar.
#[test]
fn h15_sockets_are_nothing() {
    let dir = tempfile::TempDir::new().expect("temporary directory");
    let (tree, out) = (dir.path().join("tree"), dir.path().join("out.tar"));
    fs::create_dir(&tree).expect("tree");
    let _listener = std::os::unix::net::UnixListener::bind(tree.join("sock")).expect("socket");
    peers::run(
        "touch",
        &["-d", &format!("@{MTIME}"), tree.to_str().expect("UTF-8")],
    );
    let (tree, text) = (tree.display().to_string(), out.display().to_string());
    peers::run("tar", &["-C", &tree, "-cf", &text, "."]);
    let tar = fs::read(&out).expect("tar");
    Case::new(tar)
        .unpacks(&[])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
}

#[test]
fn all_bits_of_the_mode() {
    let entry = |flag, name: &[u8], mode| Header::ustar(flag, name, 0).mode(mode);
    let tar = Tar::new()
        .head(entry(b'5', b"sticky/", 0o1777))
        .head(entry(b'5', b"setgid/", 0o2775))
        .head(entry(b'5', b"closed/", 0))
        .file("closed/inside", b"1")
        .head(entry(b'0', b"closed/none", 0))
        .head(entry(b'0', b"setuid", 0o4755).put(108, b"0001750\x000001750\0"))
        .head(entry(b'0', b"all", 0o7777))
        .head(entry(b'0', b"type-bits", 0o100_755))
        .finish();
    Case::new(tar)
        .unpacks(&[
            "file all 7777 = ",
            "dir closed 0000",
            "file closed/inside 0644 = 1",
            "file closed/none 0000 = ",
            "dir setgid 2775",
            "file setuid 4755 1000:1000 = ",
            "dir sticky 1777",
            "file type-bits 0755 = ",
        ])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
}

/// > Where supported, MUST include file attributes for Additions and Modifications … Extended
/// > Attributes (image-spec `layer.md`, "File Attributes")
///
/// star's records have the value as it is; libarchive's have a URL-encoded name and a value in
/// base 64 (libarchive `tar(5)`), and libarchive writes both. Either alone is read.
#[test]
fn attributes_of_star_and_libarchive() {
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let tar = Tar::new()
        .pax(&[
            ("SCHILY.xattr.user.equals", b"a=b=\nc"),
            ("SCHILY.xattr.user.binary", b"\0\xff\0"),
            ("SCHILY.xattr.security.capability", capability),
        ])
        .file("star", b"1")
        .pax(&[("LIBARCHIVE.xattr.user.a%20b", b"AP8K")])
        .file("libarchive", b"2")
        .pax(&[
            ("LIBARCHIVE.xattr.user.both", b"b2xk"),
            ("SCHILY.xattr.user.both", b"new"),
        ])
        .dir("both")
        .finish();
    Case::new(tar)
        .unpacks(&[
            "dir both 0755 user.both=new",
            "file libarchive 0644 = 2 user.a b=\\x00\\xff\\n",
            "file star 0644 = 1 security.capability=\\x01\\x00\\x00\\x02\\x00\\x04\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00 user.binary=\\x00\\xff\\x00 user.equals=a=b=\\nc",
        ])
        // > xattrs only from PAX `SCHILY.xattr.*` (containerd `pkg/archive/tar.go`); Go's reader, which
        // > umoci uses as well, knows no other.
        .umoci(Peer::Differs(&[
            "- file libarchive 0644 = 2 user.a b=\\x00\\xff\\n",
            "+ file libarchive 0644 = 2",
        ]))
        .containerd(Peer::Differs(&[
            "- file libarchive 0644 = 2 user.a b=\\x00\\xff\\n",
            "+ file libarchive 0644 = 2",
        ]));
}

/// Labels of SELinux belong to a host's policy, and overlay's own attributes would open other layers'
/// directories.
/// SCHILY.acl is text, which no kernel reads; its binary form comes as `system.posix_acl_access`.
#[test]
fn attributes_of_a_host_are_left_out() {
    let tar = Tar::new()
        .pax(&[
            ("RHT.security.selinux", b"system_u:object_r:etc_t:s0\0"),
            (
                "SCHILY.xattr.security.selinux",
                b"system_u:object_r:etc_t:s0\0",
            ),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.md5sum", b"1"),
            (
                "SCHILY.acl.access",
                b"user::rw-,user:5:r--,group::r--,mask::r--,other::r--",
            ),
            ("SCHILY.acl.default", b"user::rwx,group::r-x,other::r-x"),
        ])
        .dir("dir")
        .finish();
    let case = Case::new(tar).unpacks(&["dir dir 0755"]);
    // Told once for a layer, to whoever asks.
    let archive = case.archive().display().to_string();
    let fresh = Cairn::new();
    let output = fresh.output(&["-v", "images", "import", &archive]);
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    for name in [
        "security.selinux",
        "trusted.overlay.redirect",
        "user.overlay.opaque",
        "SCHILY.acl.default",
    ] {
        let line = format!("left out: extended attribute {name} not stored (\"dir\")");
        assert_eq!(stderr.matches(&line).count(), 1, "{line} in {stderr}");
    }
}

/// GNU tar's `--xattrs --acls` writes the text form, and the binary one when told to include it.
#[test]
fn acls_of_gnu_tar() {
    let acl = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\x05\0\0\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";
    let tar = Tar::new()
        .pax(&[("SCHILY.xattr.system.posix_acl_access", acl)])
        .file("file", b"1")
        .finish();
    let line = format!(
        "file file 0644 = 1 system.posix_acl_access={}",
        acl.escape_ascii()
    );
    Case::new(tar)
        .unpacks(&[&line])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
}

/// The first entry of the image-spec's own example is `./`, and attributes of a directory "MUST be
/// replaced by those of the entry in the changeset" (`layer.md`, "Changeset over existing files").
/// GNU tar and umoci apply it, containerd skips it.
#[test]
fn the_root_directory_has_metadata() {
    let tar = Tar::empty()
        .pax(&[
            ("SCHILY.xattr.user.note", b"root"),
            ("mtime", b"1500000000.5"),
        ])
        .head(
            Header::ustar(b'5', b"./", 0)
                .mode(0o1711)
                .put(108, b"0000005\x000000006\0"),
        )
        .file("./file", b"1")
        .finish();
    let root = "dir . 1711 5:6 @1500000000.500000000 user.note=root";
    Case::new(tar)
        .unpacks(&[root, "file file 0644 = 1"])
        .umoci(Peer::Same)
        .containerd(Peer::Differs(&[&format!("- {root}")]));
}
