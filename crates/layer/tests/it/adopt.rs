//! Layers applied on their own, completed and stacked by the kernel's overlay, against the same
//! layers unpacked one after the other into one directory by GNU tar.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use cairn_layer::{Options, adopt};

use crate::common::{Layer, Place, layer, place, show, xattr};

/// Applies each layer knowing nothing of the others, then completes them, lowest first.
fn stack(place: &Place, layers: &[Layer]) -> Vec<PathBuf> {
    let applied: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(i, layer)| place.apply(&i.to_string(), layer).unwrap())
        .collect();
    for (i, applied) in applied.iter().enumerate() {
        let parents: Vec<_> = (0..i).rev().map(|p| place.upper(&p.to_string())).collect();
        let upper = place.upper(&i.to_string());
        let usage = adopt(&upper, &parents, applied, &Options::default()).unwrap();
        assert_eq!(usage, upper.usage().unwrap(), "what was added is counted");
    }
    (0..layers.len())
        .rev()
        .map(|i| place.path(&i.to_string()))
        .collect()
}

/// A read-only overlay, unmounted when dropped.
struct Mounted(PathBuf);

fn mount(place: &Place, mut lowers: Vec<PathBuf>) -> Mounted {
    let target = place.path("mnt");
    fs::create_dir_all(&target).unwrap();
    // Overlay wants two lower directories at least.
    fs::create_dir_all(place.path("nothing")).unwrap();
    lowers.push(place.path("nothing"));
    let lowers: Vec<_> = lowers.iter().map(|p| p.to_str().unwrap()).collect();
    let status = Command::new("mount")
        .args([
            "-t",
            "overlay",
            "overlay",
            "-o",
            &format!("lowerdir={}", lowers.join(":")),
        ])
        .arg(&target)
        .status()
        .unwrap();
    assert!(status.success(), "mount overlay");
    Mounted(target)
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn gnu_tar(tar: &[u8], args: &[&str], dir: &Path) -> String {
    let mut child = Command::new("tar")
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(tar).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "tar {args:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// The image-spec's reading: each layer's deletions first, then its files.
fn sequential(place: &Place, layers: &[Layer]) -> PathBuf {
    let root = place.path("sequential");
    fs::create_dir_all(&root).unwrap();
    for layer in layers {
        let tar = layer.build();
        for name in gnu_tar(&tar, &["-t"], &root).lines() {
            let path = root.join(name);
            let (dir, name) = (
                path.parent().unwrap(),
                path.file_name().unwrap().to_str().unwrap(),
            );
            if name == ".wh..wh..opq" {
                for entry in fs::read_dir(dir).into_iter().flatten() {
                    remove(&entry.unwrap().path());
                }
            } else if let Some(name) = name.strip_prefix(".wh.") {
                remove(&dir.join(name));
            }
        }
        gnu_tar(
            &tar,
            &[
                "-x",
                "-p",
                "--xattrs",
                "--xattrs-include=*",
                "--exclude=.wh.*",
            ],
            &root,
        );
    }
    root
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

#[track_caller]
fn check(layers: &[Layer]) {
    let place = place();
    let lowers = stack(&place, layers);
    let expected = sequential(&place, layers);
    let mounted = mount(&place, lowers);
    let mut tree = show(&mounted.0);
    let mut wanted = show(&expected);
    for (lines, root) in [(&mut tree, &mounted.0), (&mut wanted, &expected)] {
        let meta = fs::metadata(root).unwrap();
        lines.push(format!(
            "root {:o} {}:{}",
            meta.mode(),
            meta.uid(),
            meta.gid()
        ));
    }
    assert_eq!(tree, wanted);
}

fn base() -> Layer {
    layer()
        .owner(1, 2)
        .mode(0o711)
        .dir("./")
        .mode(0o750)
        .owner(10, 20)
        .dir("srv")
        .mode(0o1777)
        .dir("srv/www")
        .owner(0, 0)
        .file("srv/www/index", "1")
        .file("srv/www/old", "1")
        .dir("etc")
        .dir("etc/conf.d")
        .file("etc/conf.d/a", "1")
        .file("etc/passwd", "root")
        .mode(0o2755)
        .dir("opt")
        .file("opt/tool", "1")
}

#[test]
fn invented_directories_look_like_the_ones_below() {
    check(&[base(), layer().file("srv/www/new", "2")]);
    check(&[
        base(),
        layer().file("srv/www/deep/er/new", "2"),
        layer().file("srv/www/deep/x", "3"),
    ]);
    check(&[
        base(),
        layer().whiteout("srv/www/old"),
        layer().whiteout("srv/www/index"),
    ]);
    check(&[
        layer().file("a/b", "1"),
        base(),
        layer().owner(5, 5).mode(0o700).dir("srv"),
    ]);
    check(&[
        base(),
        layer().dir("x"),
        layer().dir("y"),
        layer().file("srv/z", "4"),
    ]);
}

#[test]
fn what_was_deleted_lends_nothing() {
    check(&[
        base(),
        layer().whiteout("srv"),
        layer().file("srv/www/new", "3"),
    ]);
    check(&[base(), layer().whiteout("srv").file("srv/www/new", "2")]);
    check(&[base(), layer().file("srv/www/new", "2").whiteout("srv")]);
    check(&[
        base(),
        layer().opaque("srv"),
        layer().file("srv/www/new", "3"),
    ]);
    check(&[base(), layer().opaque("srv").file("srv/www/new", "2")]);
    check(&[
        base(),
        layer().whiteout("srv").file("srv", "file"),
        layer().whiteout("srv"),
    ]);
    check(&[
        base(),
        layer().whiteout("opt").dir("opt").file("opt/new", "2"),
    ]);
}

/// Overlay never looks at an opaque mark on the root of a layer; what it means is spelled out.
#[test]
fn an_opaque_root_hides_everything_below() {
    check(&[base(), layer().opaque("").file("etc/new", "2").dir("opt")]);
    check(&[
        base(),
        layer().file("etc/new", "2").opaque(""),
        layer().file("srv/x", "3"),
    ]);
    check(&[base(), layer().opaque("")]);
}

#[test]
fn files_and_directories_take_turns() {
    check(&[
        base(),
        layer().file("etc/conf.d/b", "2").file("opt/tool", "2"),
    ]);
    check(&[
        base(),
        layer()
            .whiteout("etc/conf.d")
            .symlink("etc/conf.d", "/srv/www"),
    ]);
    check(&[
        base(),
        layer()
            .file("etc/shadow", "2")
            .symlink("etc/shadow-", "shadow"),
        layer()
            .whiteout("etc/shadow")
            .file("opt/new", "2")
            .hard_link("opt/l", "opt/new"),
    ]);
}

#[test]
fn attributes_and_times_are_adopted_too() {
    let place = place();
    let lower = layer()
        .mtime(77)
        .xattr("user.a", b"1")
        .mode(0o700)
        .dir("d")
        .dir("d/e");
    stack(&place, &[lower, layer().file("d/e/f", "1")]);
    let own = place.path("1/d");
    assert_eq!(xattr(&own, "user.a").as_deref(), Some(&b"1"[..]));
    assert_eq!(fs::metadata(&own).unwrap().mtime(), 77);
    assert_eq!(fs::metadata(place.path("1/d/e")).unwrap().mtime(), 77);
}

/// A link in a lower layer is not followed: this layer's directory takes its place.
#[test]
fn a_link_below_lends_nothing() {
    let place = place();
    let lower = layer().symlink("lib", "usr/lib").mode(0o700).dir("usr/lib");
    stack(&place, &[lower, layer().file("lib/f", "1")]);
    assert_eq!(show(&place.path("1")), ["lib/", "lib/f = 1"]);
}

/// A thousand levels that a layer invents, with two layers below: the way is not walked anew from the
/// root for each of them, which took minutes.
#[test]
fn deep_trees_are_adopted_in_time() {
    let place = place();
    let deep = vec!["d"; 1500].join("/");
    let lower = layer().mode(0o700).owner(5, 6).dir(&deep);
    let started = std::time::Instant::now();
    stack(
        &place,
        &[
            lower,
            layer().file(&format!("{deep}/a"), "1"),
            layer().file(&format!("{deep}/b"), "2").whiteout("d/e"),
        ],
    );
    let took = started.elapsed();
    assert!(took.as_secs() < 40, "{took:?}");
    let bottom = place.upper("2").resolve_dir(deep.as_bytes()).unwrap();
    let stat = bottom.self_stat().unwrap();
    assert_eq!(
        (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777),
        (5, 6, 0o700)
    );
}
