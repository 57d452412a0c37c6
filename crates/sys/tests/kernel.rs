//! Directories, files, attributes and locks on the real kernel, as root.

#![allow(missing_docs)]

mod common;

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use cairn_sys::{Dir, FileType, OFlags, durable, lock, raw};
use cairn_types::{Classified, ErrorKind};
use common::{dir, name};
use rustix::io::Errno;

#[test]
fn image_paths_end_at_the_root() {
    let (temp, _) = dir();
    fs::create_dir_all(temp.path().join("root/etc")).expect("root");
    fs::create_dir(temp.path().join("outside")).expect("outside");
    symlink("../outside", temp.path().join("root/up")).expect("link");
    symlink("/etc", temp.path().join("root/abs")).expect("link");
    let root = Dir::open(&temp.path().join("root")).expect("open");
    let same = |path: &[u8], expected: &str| {
        let got = root
            .resolve_dir(path)
            .map(|d| d.self_stat().expect("stat").st_ino);
        let want = fs::metadata(temp.path().join("root").join(expected))
            .expect("there")
            .ino();
        assert_eq!(got.ok(), Some(want), "{}", path.escape_ascii());
    };
    same(b"", "");
    same(b".", "");
    same(b"../../..", "");
    same(b"abs", "etc");
    same(b"../etc", "etc");
    assert!(
        root.resolve_dir(b"up")
            .expect_err("no outside here")
            .is(Errno::NOENT)
    );
    assert!(
        root.open_dir(name("abs")).is_err(),
        "a link is not followed by name"
    );
}

#[test]
fn publish_refuses_to_replace() {
    let (temp, root) = dir();
    let syncs = durable::Shared::default();
    let file = root
        .open_file(name("a"), OFlags::CREATE | OFlags::RDWR, 0o600)
        .expect("file");
    durable::publish(&file, (&root, name("a")), (&root, name("b")), &syncs).expect("publish");
    let file = root
        .open_file(name("c"), OFlags::CREATE | OFlags::RDWR, 0o600)
        .expect("file");
    let err =
        durable::publish(&file, (&root, name("c")), (&root, name("b")), &syncs).expect_err("there");
    assert!(err.is(Errno::EXIST));
    durable::write_file(&root, name("b"), b"new", 0o640).expect("write");
    let meta = fs::metadata(temp.path().join("b")).expect("there");
    assert_eq!((meta.len(), meta.permissions().mode() & 0o7777), (3, 0o640));
    assert!(
        root.read_file(name("b"), 2)
            .expect_err("too long")
            .is(Errno::FBIG)
    );
    assert_eq!(root.read_file(name("b"), 3).expect("read"), b"new");
}

#[test]
fn the_second_locker_learns_who_is_first() {
    let (_temp, root) = dir();
    let held = lock::RootLock::acquire(&root, name("lock")).expect("first");
    let own = i32::try_from(std::process::id()).expect("pid");
    let err = lock::RootLock::acquire(&root, name("lock")).expect_err("held");
    assert_eq!(err.kind(), ErrorKind::Unavailable);
    assert!(err.to_string().contains(&format!("(pid {own})")), "{err}");
    match err {
        lock::LockError::Held { pid, .. } => assert_eq!(pid, Some(own)),
        other => panic!("expected Held, got {other:?}"),
    }
    drop(held);
    lock::RootLock::acquire(&root, name("lock")).expect("free again");
}

#[test]
fn chmod_does_not_follow() {
    let (temp, root) = dir();
    fs::write(temp.path().join("f"), "").expect("write");
    symlink("f", temp.path().join("l")).expect("link");
    assert!(
        root.chmod(name("l"), 0o777)
            .expect_err("link")
            .is(Errno::LOOP)
    );
    root.chmod(name("f"), 0o4711).expect("chmod");
    assert_eq!(
        fs::metadata(temp.path().join("f")).expect("f").mode() & 0o7777,
        0o4711
    );
    root.set_xattr(name("f"), name("user.a"), b"1")
        .expect("set");
    assert_eq!(
        root.get_xattr(name("f"), name("user.a"))
            .expect("get")
            .as_deref(),
        Some(&b"1"[..])
    );
    assert_eq!(
        root.get_xattr(name("f"), name("user.b")).expect("get"),
        None
    );
    assert_eq!(
        root.list_xattr(name("f")).expect("list"),
        [OsString::from("user.a")]
    );
}

/// A name is one component: with more, a link in the middle would be followed.
#[test]
fn a_name_leads_nowhere_else() {
    let (temp, parent) = dir();
    for path in ["root/sub", "outside"] {
        fs::create_dir_all(temp.path().join(path)).expect("mkdir");
    }
    fs::write(temp.path().join("outside/file"), "kept").expect("write");
    symlink("../outside", temp.path().join("root/link")).expect("link");
    let root = parent.open_dir(name("root")).expect("open");
    for wrong in [
        "link/file",
        "../outside/file",
        "..",
        "/etc",
        "sub/../../outside",
    ] {
        let wrong = name(wrong);
        let refused = [
            root.stat(wrong).map(drop),
            root.unlink(wrong),
            root.rmdir(wrong),
            root.create_dir(wrong, 0o755),
            root.chmod(wrong, 0o777),
            root.chown(wrong, 1, 1),
            root.rename(wrong, &root, name("new")),
            root.rename(name("sub"), &root, wrong),
            root.rename_noreplace(name("sub"), &root, wrong),
            root.link(wrong, &root, name("new")),
            root.link(name("link"), &root, wrong),
            root.symlink(name("x"), wrong),
            root.mknod(wrong, FileType::Fifo, 0o600, 0),
            root.set_xattr(wrong, name("user.a"), b"1"),
            root.get_xattr(wrong, name("user.a")).map(drop),
            root.remove_tree(wrong),
        ];
        for (i, result) in refused.into_iter().enumerate() {
            let err = result.expect_err("refused");
            assert!(err.is(Errno::INVAL), "{wrong:?} in call {i}: {err}");
        }
        // These two take relative paths of ours, but none with a link in it and none that leads out.
        root.open_dir(wrong).expect_err("directory");
        root.open_file(wrong, OFlags::RDONLY, 0).expect_err("file");
    }
    let below = parent.open_dir(name("root/sub")).expect("a path of ours");
    assert_eq!(below.path(), temp.path().join("root/sub"));
    assert!(temp.path().join("outside/file").exists());
}

/// A device of an image may do something when it is opened, and a fifo without a writer waits.
#[test]
fn only_regular_files_of_an_image_are_opened_to_be_read() {
    let (temp, root) = dir();
    root.mkfifo(name("fifo"), 0o600).expect("fifo");
    fs::create_dir(temp.path().join("etc")).expect("mkdir");
    fs::write(temp.path().join("etc/passwd"), "root").expect("write");
    symlink("/etc/passwd", temp.path().join("link")).expect("link");
    symlink("/proc/self/fd/0", temp.path().join("magic")).expect("link");
    assert_eq!(root.read_in_root(b"link", 4).expect("read"), b"root");
    assert_eq!(
        root.read_in_root(b"../../etc/passwd", 4).expect("read"),
        b"root"
    );
    let errno = |path: &[u8]| root.read_in_root(path, 3).expect_err("refused").errno();
    assert_eq!(errno(b"link"), Errno::FBIG);
    assert_eq!(errno(b"fifo"), Errno::INVAL);
    assert_eq!(errno(b"etc"), Errno::ISDIR);
    assert_eq!(errno(b"magic"), Errno::NOENT);
    assert!(
        root.read_file(name("fifo"), 1)
            .expect_err("fifo")
            .is(Errno::INVAL)
    );
    assert!(
        root.read_file(name("link"), 1)
            .expect_err("link")
            .is(Errno::LOOP)
    );
}

#[test]
fn an_attribute_of_a_link_stays_on_the_link() {
    let (temp, root) = dir();
    fs::write(temp.path().join("target"), "").expect("write");
    symlink("target", temp.path().join("link")).expect("link");
    let key = name("trusted.cairn");
    root.set_xattr(name("link"), key, b"here").expect("set");
    assert_eq!(root.get_xattr(name("target"), key).expect("get"), None);
    let value = root.get_xattr(name("link"), key).expect("get");
    assert_eq!(value.as_deref(), Some(&b"here"[..]));
    assert_eq!(root.list_xattr(name("link")).expect("list"), [key]);
    // More than one guess at the size of the answer.
    let long = vec![7; 2000];
    root.set_xattr(name("target"), key, &long).expect("set");
    let value = root.get_xattr(name("target"), key).expect("get");
    assert_eq!(value, Some(long));
}

#[test]
fn owners_and_times_of_a_link_are_its_own() {
    let (temp, root) = dir();
    fs::write(temp.path().join("target"), "").expect("write");
    symlink("target", temp.path().join("link")).expect("link");
    let then = cairn_sys::Timespec {
        tv_sec: -5,
        tv_nsec: 7,
    };
    root.chown(name("link"), 70_000, 80_000).expect("chown");
    root.utimens(name("link"), then, then).expect("utimens");
    let link = root.stat(name("link")).expect("stat");
    assert_eq!((link.st_uid, link.st_gid), (70_000, 80_000));
    assert_eq!((link.st_mtime, link.st_mtime_nsec), (-5, 7));
    let target = fs::metadata(temp.path().join("target")).expect("stat");
    assert_eq!(target.uid(), 0);
    assert!(target.mtime() > 0);
}

#[test]
fn errors_say_what_was_tried_on_what() {
    let (temp, root) = dir();
    let err = root.open_dir(name("no\nsuch")).expect_err("missing");
    let expected = format!(
        "openat {}/no\\nsuch: No such file or directory (os error 2)",
        temp.path().display()
    );
    assert_eq!(err.to_string(), expected);
    assert_eq!(err.kind(), ErrorKind::NotFound);
    let file = fs::File::open("/proc/version").expect("open");
    let err = cairn_sys::raw::write_all(&file, b"x").expect_err("read-only");
    let text = err.to_string();
    assert!(
        text.starts_with("write ") && text.contains("</proc/version>: "),
        "{text}"
    );
    fs::write(temp.path().join("f"), "").expect("write");
    let err = root.create_dir(name("f"), 0o755).expect_err("there");
    assert_eq!(err.kind(), ErrorKind::AlreadyExists);
    let long = OsStr::from_bytes(&[b'x'; 256]);
    let err = root.stat(long).expect_err("too long");
    assert_eq!((err.op(), err.errno()), ("fstatat", Errno::NAMETOOLONG));
}

#[test]
fn the_machine_is_known() {
    let boot = cairn_sys::boot_id().expect("boot id");
    assert_eq!(boot.len(), 36, "{boot}");
    assert_eq!(cairn_sys::boot_id().expect("again"), boot);
    assert!(cairn_sys::is_root(), "these tests need root");
    let (_temp, root) = dir();
    let space = root.space().expect("space");
    assert!(space.free_bytes > 0 && space.free_bytes <= space.total_bytes);
    root.syncfs().expect("syncfs");
}

/// Each new level has its mode whatever the umask, and an existing one keeps its own.
#[test]
fn our_layout_is_made_with_its_modes() {
    let (temp, root) = dir();
    fs::create_dir(temp.path().join("content")).expect("mkdir");
    let mode = fs::Permissions::from_mode(0o700);
    fs::set_permissions(temp.path().join("content"), mode).expect("chmod");
    for _ in 0..2 {
        root.create_dir_all_open("content/blobs/sha256", 0o777)
            .expect("layout");
        let mode = |path: &str| {
            let meta = fs::metadata(temp.path().join(path)).expect("there");
            meta.permissions().mode() & 0o7777
        };
        assert_eq!(mode("content"), 0o700);
        assert_eq!(mode("content/blobs"), 0o777);
        assert_eq!(mode("content/blobs/sha256"), 0o777);
    }
    symlink("/tmp", temp.path().join("link")).expect("link");
    root.create_dir_all_open("link/x", 0o700)
        .expect_err("a link is no level of ours");
}

/// Whoever asks for a sync gets one that began after he asked, and many share one.
#[test]
fn shared_syncs_begin_after_they_are_asked_for() {
    const THREADS: usize = 8;
    let syncs = durable::Shared::default();
    // Of the last sync that ended: how much had been asked for when it began.
    let (asked, covered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let runs = AtomicUsize::new(0);
    let all_came = Barrier::new(THREADS + 1);
    let ask = || {
        let mine = asked.fetch_add(1, SeqCst) + 1;
        let synced = syncs.run(|| {
            let seen = asked.load(SeqCst);
            if runs.fetch_add(1, SeqCst) == 0 {
                // The others come while the first one runs.
                all_came.wait();
            }
            covered.store(seen, SeqCst);
            Ok(())
        });
        synced.expect("sync");
        assert!(covered.load(SeqCst) >= mine);
    };
    thread::scope(|scope| {
        scope.spawn(ask);
        while runs.load(SeqCst) == 0 {
            thread::yield_now();
        }
        for _ in 0..THREADS {
            scope.spawn(|| {
                all_came.wait();
                ask();
            });
        }
    });
    assert!(runs.load(SeqCst) <= THREADS + 1);
}

/// Nobody is told that he has been served by a sync that failed, nor by one after it, which would only
/// count what was lost as clean. A full disk loses nothing that it did not refuse.
#[test]
fn a_shared_sync_that_fails_fails_for_all_who_share_it() {
    for (errno, for_ever) in [(Errno::IO, true), (Errno::NOSPC, false)] {
        let syncs = durable::Shared::default();
        let (running, waiting) = (Barrier::new(2), AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                let first = syncs.run(|| {
                    running.wait();
                    while waiting.load(SeqCst) < 4 {
                        thread::yield_now();
                    }
                    Ok(())
                });
                first.expect("the first does not fail");
            });
            running.wait();
            let failing: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        waiting.fetch_add(1, SeqCst);
                        syncs.run(|| Err(cairn_sys::Error::new("fsync", "d", errno)))
                    })
                })
                .collect();
            for failed in failing {
                assert!(failed.join().expect("thread").is_err());
            }
        });
        assert_eq!(syncs.run(|| Ok(())).is_err(), for_ever, "{errno}");
    }
}

#[test]
fn what_is_in_memory_is_read_without_waiting() {
    let (temp, _) = dir();
    let path = temp.path().join("file");
    fs::write(&path, b"0123456789").expect("file");
    let file = fs::File::open(&path).expect("open");
    let mut buffer = [0; 4];
    // Where the file system cannot say what is in memory, nothing is read.
    if let Some(read) = raw::read_cached(&file, &mut buffer, 3).expect("read") {
        assert_eq!(&buffer[..read], b"3456");
    }
    let end = raw::read_cached(&file, &mut buffer, 10).expect("end");
    assert_eq!(end.unwrap_or(0), 0);
    let write_only = fs::File::options().write(true).open(&path).expect("open");
    let refused = raw::read_cached(&write_only, &mut buffer, 0);
    assert!(refused.expect_err("not for reading").is(Errno::BADF));
}

#[test]
fn a_file_is_read_through_in_parts() {
    let (temp, root) = dir();
    let bytes: Vec<u8> = (0..400_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(temp.path().join("f"), &bytes).expect("write");
    let file = root.open_file(name("f"), OFlags::RDONLY, 0).expect("open");
    let end = bytes.len() as u64;
    for caching in [raw::Caching::Kept, raw::Caching::Aside] {
        for range in [
            0..end,
            0..u64::MAX,
            3..9,
            300_001..1_000_000,
            5..5,
            end..end + 9,
        ] {
            let mut read = Vec::new();
            let done = raw::read_through(&file, range.clone(), caching, |piece| {
                read.extend_from_slice(piece);
                true
            });
            done.expect("read");
            let place = |at: u64| usize::try_from(at.min(end)).expect("small");
            assert!(
                read == bytes[place(range.start)..place(range.end)],
                "{range:?}"
            );
        }
        let mut pieces = 0;
        let done = raw::read_through(&file, 0..end, caching, |_| {
            pieces += 1;
            pieces < 2
        });
        done.expect("read");
        assert_eq!(pieces, 2);
    }
    let itself = root.open_file(name("."), OFlags::RDONLY, 0).expect("open");
    let err = raw::read_through(&itself, 0..1, raw::Caching::Aside, |_| true);
    assert!(err.expect_err("a directory").is(Errno::ISDIR));
}
