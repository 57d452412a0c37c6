//! Mounts on the real kernel, as root.

#![allow(missing_docs)]

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use cairn_sys::{
    Dir,
    mount::{self, OVERLAY_LOWER_COUNT_MAX},
};
use cairn_types::Mount;
use rustix::io::Errno;

/// A directory whose mounts are undone even when a test fails.
struct Place(tempfile::TempDir);

impl Place {
    fn new(paths: &[&str]) -> Place {
        let place = Place(tempfile::tempdir().expect("temporary directory"));
        for path in paths {
            fs::create_dir_all(place.at(path)).expect("mkdir");
        }
        place
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Lower directories with a file each, in names that would split an option string.
    fn lowers(&self, count: usize) -> Vec<PathBuf> {
        (0..count)
            .map(|i| {
                let lower = self.at(&format!("a, b:c\\{i}"));
                fs::create_dir(&lower).expect("lower");
                fs::write(lower.join(format!("f{i}")), "").expect("file");
                lower
            })
            .collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for info in mount::mounts_below(self.0.path())
            .into_iter()
            .flatten()
            .rev()
        {
            let _ = mount::unmount(&info.mount_point);
        }
    }
}

fn names(path: &Path) -> usize {
    fs::read_dir(path).expect("list").count()
}

fn given(kind: &str, source: &Path, options: &[&str]) -> Mount {
    Mount {
        kind: kind.to_owned(),
        source: source.to_str().expect("text").to_owned(),
        target: String::new(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
    }
}

/// 500 is `OVL_MAX_STACK` (fs/overlayfs/params.h).
#[test]
fn k01_five_hundred_lowers_are_all_there_and_more_are_refused() {
    let place = Place::new(&["t", "upper", "work"]);
    let target = place.at("t");
    let all = place.lowers(OVERLAY_LOWER_COUNT_MAX + 1);
    let most = &all[..OVERLAY_LOWER_COUNT_MAX];
    mount::overlay(&target, most, None, true, &[]).expect("500");
    assert_eq!(names(&target), 500);
    let info = mount::mounts_below(&target).expect("mountinfo");
    assert_eq!(info.len(), 1);
    assert_eq!(info[0].options.matches("lowerdir+=").count(), 500);
    let err = fs::write(target.join("x"), "").expect_err("read-only");
    assert_eq!(err.raw_os_error(), Some(30));
    mount::unmount(&target).expect("unmount");

    let (upper, work) = (place.at("upper"), place.at("work"));
    mount::overlay(&target, most, Some((&upper, &work)), false, &[]).expect("500 and an upper");
    fs::write(target.join("x"), "").expect("write");
    assert_eq!(names(&target), 501);
    assert_eq!(names(&upper), 1);
    mount::unmount(&target).expect("unmount");

    let err = mount::overlay(&target, &all, None, true, &[]).expect_err("501");
    assert!(
        err.is(Errno::TOOBIG) && err.object().contains("501 lower"),
        "{err}"
    );
    assert!(!mount::is_mount_point(&target).expect("statx"));
}

/// Nearest first: the first lower directory hides the others.
#[test]
fn the_first_lower_is_on_top() {
    let place = Place::new(&["near", "far", "t"]);
    fs::write(place.at("near/f"), "near").expect("write");
    fs::write(place.at("far/f"), "far").expect("write");
    let lowers = [place.at("near"), place.at("far")];
    mount::overlay(&place.at("t"), &lowers, None, true, &[]).expect("mount");
    assert_eq!(fs::read(place.at("t/f")).expect("read"), b"near");
}

/// Strings have 255 bytes at most in this API; directories are handed over as descriptors.
#[test]
fn long_paths_mount() {
    let long = ["x".repeat(200), "y".repeat(200), "z".repeat(200)].join("/");
    let place = Place::new(&["t", "near"]);
    fs::create_dir_all(place.at(&long)).expect("mkdir");
    let lowers = [place.at("near"), place.at(&long)];
    mount::overlay(&place.at("t"), &lowers, None, true, &[]).expect("mount");
}

/// With `redirect_dir` followed, which is this kernel's default, a layer's own attribute would show
/// one directory of a layer below under another name, and another owner's rights.
#[test]
fn a_redirect_of_a_layer_is_not_followed() {
    let place = Place::new(&["near/open", "far/secret", "t"]);
    fs::write(place.at("far/secret/file"), "").expect("write");
    let near = Dir::open(&place.at("near")).expect("open");
    let key = OsStr::new("trusted.overlay.redirect");
    near.set_xattr(OsStr::new("open"), key, b"/secret")
        .expect("set");
    let lowers = [place.at("near"), place.at("far")];
    mount::overlay(&place.at("t"), &lowers, None, true, &[]).expect("mount");
    assert!(!place.at("t/open/file").exists());
    let info = mount::mounts_below(&place.at("t")).expect("mountinfo");
    assert!(
        info[0].options.contains("redirect_dir=nofollow"),
        "{}",
        info[0].options
    );
    mount::unmount(&place.at("t")).expect("unmount");
    // The attribute is one that the kernel would follow, or this test would prove nothing.
    let follow = ["redirect_dir=follow".to_owned()];
    mount::overlay(&place.at("t"), &lowers, None, true, &follow).expect("mount");
    assert!(place.at("t/open/file").exists());
}

#[test]
fn a_refused_option_is_named_with_what_the_kernel_says() {
    let place = Place::new(&["near", "far", "t"]);
    let lowers = [place.at("near"), place.at("far")];
    let wrong = ["nonsense=1".to_owned()];
    let err = mount::overlay(&place.at("t"), &lowers, None, true, &wrong).expect_err("refused");
    let text = err.to_string();
    assert!(
        text.contains("nonsense=1") && text.contains("Unknown parameter"),
        "{text}"
    );
    let gone = [place.at("near"), place.at("none")];
    let err = mount::overlay(&place.at("t"), &gone, None, true, &[]).expect_err("missing");
    assert!(
        err.is(Errno::NOENT) && err.object().ends_with("none"),
        "{err}"
    );
    assert!(!mount::is_mount_point(&place.at("t")).expect("statx"));
}

#[test]
fn a_read_only_bind_is_so_all_the_way_down() {
    let place = Place::new(&["source/inner", "other", "t"]);
    mount::bind(&place.at("other"), &place.at("source/inner"), false).expect("bind");
    mount::bind(&place.at("source"), &place.at("t"), true).expect("bind");
    for path in ["t/f", "t/inner/f"] {
        let err = fs::write(place.at(path), "").expect_err("read-only");
        assert_eq!(err.raw_os_error(), Some(30), "{path}");
    }
    // Only what was asked for: the source is as it was.
    fs::write(place.at("source/f"), "").expect("write");
    fs::write(place.at("source/inner/f"), "").expect("write");
    assert_eq!(
        mount::mounts_below(&place.at("t"))
            .expect("mountinfo")
            .len(),
        2
    );
    let err = mount::unmount(&place.at("t")).expect_err("something is mounted below");
    assert!(err.is(Errno::BUSY), "{err}");
}

#[test]
fn a_mount_list_is_performed_with_quoted_names() {
    let place = Place::new(&["t", "up,per:", "work\\"]);
    let target = place.at("t");
    let lowers: Vec<String> = place.lowers(3).iter().map(|l| mount::escape(l)).collect();
    let options = [
        format!("workdir={}", mount::escape(&place.at("work\\"))),
        format!("upperdir={}", mount::escape(&place.at("up,per:"))),
        format!("lowerdir={}", lowers.join(":")),
        "index=off".to_owned(),
    ];
    let options = options.each_ref().map(String::as_str);
    let overlay = given("overlay", Path::new("overlay"), &options);
    mount::perform(&[overlay], &target).expect("mount");
    fs::write(target.join("new"), "x").expect("write");
    assert_eq!(names(&target), 4);
    assert!(place.at("up,per:/new").exists());
    let info = mount::mounts_below(place.0.path()).expect("mountinfo");
    assert_eq!((info.len(), info[0].fs_type.as_str()), (1, "overlay"));
    mount::unmount(&target).expect("unmount");
}

#[test]
fn a_list_is_performed_whole_or_not_at_all() {
    let place = Place::new(&["source", "t"]);
    let target = place.at("t");
    let bind = given("bind", &place.at("source"), &["rbind", "ro"]);
    mount::perform(std::slice::from_ref(&bind), &target).expect("bind");
    fs::write(target.join("f"), "").expect_err("read-only");
    mount::unmount(&target).expect("unmount");

    let unknown = given("tmpfs", Path::new("tmpfs"), &[]);
    let mut elsewhere = bind.clone();
    elsewhere.target = "../elsewhere".to_owned();
    let upper = format!("upperdir={}", place.at("source").display());
    let workless = given("overlay", Path::new("overlay"), &[&upper]);
    for wrong in [unknown, elsewhere, workless] {
        mount::perform(&[bind.clone(), wrong], &target).expect_err("refused");
        assert!(!mount::is_mount_point(&target).expect("statx"));
    }
}

/// The same file system and the same inode: only the kernel knows that this is a mount point.
/// A child of this process has its descriptors until its `exec`; so for a moment a mount is held that
/// nobody uses. One that is used stays.
#[test]
fn a_mount_of_a_moment_is_waited_for() {
    let place = Place::new(&["source/inner", "t"]);
    let target = place.at("t");
    let list = [given("bind", &place.at("source"), &["rbind", "rw"])];
    mount::perform(&list, &target).expect("mount");
    let held = fs::File::open(target.join("inner")).expect("open");
    let err = mount::unmount(&target).expect_err("held");
    assert!(err.is(Errno::BUSY), "{err}");
    let err = mount::unmount_own(&target).expect_err("held for ever");
    assert!(err.is(Errno::BUSY), "{err}");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            drop(held);
        });
        mount::unmount_own(&target).expect("let go of");
    });
    assert!(!mount::is_mount_point(&target).expect("look"));
}

#[test]
fn what_is_discarded_is_unmounted_unless_it_is_in_use() {
    let place = Place::new(&["lower", "upper", "work", "root"]);
    let root = place.at("root");
    let (upper, work) = (place.at("upper"), place.at("work"));
    mount::overlay(
        &root,
        &[place.at("lower")],
        Some((&upper, &work)),
        false,
        &[],
    )
    .expect("overlay");
    let file = fs::File::create(root.join("file")).expect("file");
    let err = mount::unmount_behind(&root).expect_err("in use");
    assert!(err.is(Errno::BUSY), "{err}");
    assert!(root.join("file").exists());
    drop(file);
    // A program that another test starts may have it still.
    while let Err(err) = mount::unmount_behind(&root) {
        assert!(err.is(Errno::BUSY), "{err}");
    }
    assert!(!mount::is_mount_point(&root).expect("known"));
    assert_eq!(names(&root), 0);
    assert_eq!(names(&upper), 1);
}

#[test]
fn mount_points_are_known_by_any_spelling() {
    let place = Place::new(&["a b", "t"]);
    symlink(".", place.at("here")).expect("link");
    symlink("a b", place.at("link")).expect("link");
    let target = place.at("a b");
    assert!(!mount::is_mount_point(&target).expect("statx"));
    mount::bind(&target, &target, false).expect("bind");
    assert!(mount::is_mount_point(&target).expect("statx"));
    assert!(mount::is_mount_point(&place.at("here/a b")).expect("statx"));
    assert!(!mount::is_mount_point(&place.at("link")).expect("statx"));
    assert!(!mount::is_mount_point(&place.at("none")).expect("statx"));
    let info = mount::mounts_below(&place.at("here/a b")).expect("mountinfo");
    assert_eq!(info.len(), 1);
    assert_eq!(info[0].mount_point, target);
    mount::unmount(&place.at("link")).expect_err("a link is not followed");
    mount::unmount(&target).expect("unmount");
    assert!(mount::mounts_below(&target).expect("mountinfo").is_empty());
}

#[test]
fn what_is_only_looked_at_gives_no_rights() {
    for shape in ["overlay", "bind"] {
        let place = Place::new(&["low", "near", "t"]);
        let lowers = [place.at("near"), place.at("low")];
        let lowers = lowers.each_ref().map(|path| mount::escape(path)).join(":");
        let lowers = format!("lowerdir={lowers}");
        let mounts = match shape {
            "overlay" => [given(
                "overlay",
                Path::new("overlay"),
                &["nosuid", &lowers, "nodev"],
            )],
            _ => [given(
                "bind",
                &place.at("low"),
                &["ro", "rbind", "nosuid", "nodev"],
            )],
        };
        mount::perform(&mounts, &place.at("t")).expect("mount");
        let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let target = place.at("t");
        let target = format!(" {} ", target.display());
        let line = table
            .lines()
            .find(|line| line.contains(&target))
            .expect("mounted");
        assert!(line.contains("nosuid,nodev"), "{line}");
    }
}

/// A writable layer is found by its directory, wherever it is mounted.
#[test]
fn who_has_a_mount_is_found() {
    for shape in ["overlay", "bind"] {
        let place = Place::new(&["low", "up,per: x", "work", "t", "t2"]);
        let upper = place.at("up,per: x");
        let options = [
            format!("workdir={}", mount::escape(&place.at("work"))),
            format!("upperdir={}", mount::escape(&upper)),
            format!("lowerdir={}", mount::escape(&place.at("low"))),
        ];
        let options = options.each_ref().map(String::as_str);
        let mounts = match shape {
            "overlay" => [given("overlay", Path::new("overlay"), &options)],
            _ => [given("bind", &upper, &["rw", "rbind"])],
        };
        let (target, second) = (place.at("t"), place.at("t2"));
        assert_eq!(mount::holder(&mounts, &[]).expect("holder"), None);
        mount::perform(&mounts, &target).expect("mount");
        let here = Some(mount::Holder::Here(target.clone()));
        assert_eq!(mount::holder(&mounts, &[]).expect("holder"), here);
        assert_eq!(mount::holder(&mounts, &[&target]).expect("holder"), None);
        mount::bind(&target, &second, false).expect("bind");
        let there = Some(mount::Holder::Here(second.clone()));
        assert_eq!(mount::holder(&mounts, &[&target]).expect("holder"), there);
        mount::unmount(&second).expect("unmount");
        // A container: the mount is the root of another namespace, and then no longer mounted here.
        let script = "cd \"$1\" && mkdir -p old && pivot_root . old && exec /bin/busybox sleep 600";
        fs::create_dir(target.join("bin")).expect("directory");
        fs::copy("/bin/busybox", target.join("bin/busybox")).expect("busybox-static is installed");
        let mut contained = std::process::Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(&target)
            .spawn()
            .expect("unshare");
        let pid = i32::try_from(contained.id()).expect("pid");
        let root = Some(mount::Holder::RootOf(pid));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while mount::holder(&mounts, &[&target]).expect("holder") != root {
            assert!(std::time::Instant::now() < deadline, "{shape}: not found");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        mount::unmount(&target).expect("unmount");
        assert_eq!(
            mount::holder(&mounts, &[]).expect("holder"),
            root,
            "{shape}"
        );
        contained.kill().expect("kill");
        contained.wait().expect("wait");
        assert_eq!(mount::holder(&mounts, &[]).expect("holder"), None);
    }
}

/// What a container with users of its own sees: the image's owners as its own, and what is written as
/// the host's.
#[test]
fn lower_directories_show_other_owners_than_they_have() {
    use std::os::unix::fs::{MetadataExt, chown};

    let place = Place::new(&["s/1/fs/d", "s/2/fs", "s/3/fs", "s/3/work", "t", "scratch"]);
    for (path, uid, gid) in [
        ("s/1/fs/d/f", 0, 0),
        ("s/2/fs/g", 7, 8),
        ("s/2/fs/far", 10, 10),
    ] {
        fs::write(place.at(path), "").expect("file");
        chown(place.at(path), Some(uid), Some(gid)).expect("chown");
    }
    let ranges = |text: &str| {
        let range = text.parse().expect(text);
        cairn_types::IdRanges::new(vec![range]).expect("ranges")
    };
    let map = cairn_types::IdMap {
        users: ranges("0:100000:10"),
        groups: ranges("0:200000:10"),
    };
    let option = |key: &str, path: &str| format!("{key}={}", place.at(path).display());
    let lowers = format!(
        "{}:{}",
        option("lowerdir", "s/2/fs"),
        place.at("s/1/fs").display()
    );
    let overlay = Mount {
        kind: "overlay".to_owned(),
        source: "overlay".to_owned(),
        target: String::new(),
        options: vec![
            option("workdir", "s/3/work"),
            option("upperdir", "s/3/fs"),
            lowers,
        ],
    };
    let target = place.at("t");
    let made = mount::perform_mapped(&[overlay], &target, &map, &place.at("scratch"));
    assert!(
        made.expect("mount"),
        "this kernel maps owners on this file system"
    );
    assert!(!mount::is_mount_point(&place.at("scratch")).expect("statx"));
    let owner = |path: PathBuf| {
        let stat = fs::metadata(path).expect("exists");
        (stat.uid(), stat.gid())
    };
    assert_eq!(owner(target.join("d/f")), (100_000, 200_000));
    assert_eq!(owner(target.join("g")), (100_007, 200_008));
    assert_eq!(owner(target.join("far")), (65_534, 65_534));
    // Copied up, it has the host's numbers in the upper directory; below nothing changes.
    fs::write(target.join("d/f"), "changed").expect("write");
    assert_eq!(owner(target.join("d/f")), (100_000, 200_000));
    assert_eq!(owner(place.at("s/3/fs/d/f")), (100_000, 200_000));
    assert_eq!(owner(place.at("s/1/fs/d/f")), (0, 0));
    mount::unmount(&target).expect("unmount");
}
