//! A tree held against its layer, which is applied once more without the bytes of its files.

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use cairn_layer::{Aspect, Difference, Options, Sums, adopt, apply, compare};
use cairn_sys::raw::Caching;

use crate::common::{Layer, Place, layer, place};

/// Unpacks a stack twice, the second time without bytes; the names of both kinds of directories.
fn twice(place: &Place, layers: &[Layer]) -> Vec<(String, String, Arc<Sums>)> {
    let mut all: Vec<(String, String, Arc<Sums>)> = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let (tree, model) = (format!("tree{number}"), format!("model{number}"));
        let sums = Arc::new(Sums::default());
        let without = Options {
            sums: Some(Arc::clone(&sums)),
            ..Options::default()
        };
        for (name, options) in [(&tree, Options::default()), (&model, without)] {
            let upper = place.upper(name);
            let applied = apply(&layer.build()[..], &upper, &options).unwrap();
            let below = all.iter().rev().map(|(tree, model, _)| match options.sums {
                None => place.upper(tree),
                Some(_) => place.upper(model),
            });
            let below: Vec<_> = below.collect();
            adopt(&upper, &below, &applied, &options).unwrap();
        }
        all.push((tree, model, sums));
    }
    place.check_outside();
    all
}

fn differences(place: &Place, one: &(String, String, Arc<Sums>)) -> Vec<Difference> {
    let (tree, model, sums) = one;
    let mut read = |_| true;
    let (model, tree) = (place.upper(model), place.upper(tree));
    compare(&model, sums, &tree, Caching::Aside, &mut read).unwrap()
}

fn blocks(path: &Path) -> u64 {
    let entries = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            let meta = fs::symlink_metadata(&path).unwrap();
            match meta.is_dir() {
                true => blocks(&path),
                false => meta.blocks(),
            }
        })
        .sum()
}

fn stack() -> [Layer; 3] {
    let large = "x".repeat(100_000);
    [
        layer()
            .mode(0o700)
            .owner(5, 6)
            .dir("etc")
            .xattr("user.team", b"web")
            .file("etc/conf", &large)
            .owner(0, 0)
            .file("first", "old")
            .hard_link("second", "first")
            // The second name keeps what the first one had.
            .file("first", "new")
            .symlink("link", "etc")
            .file("link/through", "a link")
            .char_device("null", 1, 3)
            .fifo("pipe")
            .file("gone/a", "a")
            .file("hidden/a", "a"),
        layer()
            .file("etc/motd", "welcome")
            .whiteout("gone/a")
            .whiteout("nowhere/b")
            .file("hidden/b", "b")
            .opaque("hidden"),
        layer().file("all", "new").opaque(""),
    ]
}

#[test]
fn a_tree_is_what_its_layer_says() {
    let place = place();
    let all = twice(&place, &stack());
    for one in &all {
        assert_eq!(differences(&place, one), []);
    }
    assert!(blocks(&place.path("tree0")) >= 200);
    // An attribute may need a block.
    assert!(blocks(&place.path("model0")) <= 16);
}

#[test]
fn what_a_second_name_keeps_of_a_replaced_file_is_compared() {
    let place = place();
    let all = twice(&place, &stack());
    let second = place.path("tree0").join("second");
    let at = fs::metadata(&second).unwrap().modified().unwrap();
    let mut file = fs::File::create(&second).unwrap();
    file.write_all(b"OLD").unwrap();
    file.set_modified(at).unwrap();
    let found = differences(&place, &all[0]);
    let [difference] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(difference.path, b"second");
    assert_eq!(difference.aspect, Aspect::Content);
    assert_eq!(difference.detail, "its bytes are not those of its layer");
}

#[test]
fn each_aspect_is_named_at_its_place() {
    let place = place();
    let all = twice(&place, &stack());
    let tree = place.path("tree0");
    fs::set_permissions(tree.join("etc"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(tree.join("pipe"), Some(7), None).unwrap();
    fs::write(tree.join("etc/conf"), "short").unwrap();
    fs::remove_file(tree.join("link")).unwrap();
    std::os::unix::fs::symlink("/etc", tree.join("link")).unwrap();
    fs::write(tree.join("odd"), "").unwrap();
    fs::remove_file(tree.join("null")).unwrap();
    let found = differences(&place, &all[0]);
    let seen: Vec<(String, Aspect)> = found
        .iter()
        .map(|one| (String::from_utf8_lossy(&one.path).into_owned(), one.aspect))
        .collect();
    let expected = [
        // Of names that came and went; this tree had no time of its own but that.
        ("", Aspect::Time),
        ("etc", Aspect::Mode),
        ("etc/conf", Aspect::Content),
        ("etc/conf", Aspect::Time),
        ("link", Aspect::Time),
        ("link", Aspect::Link),
        ("null", Aspect::Missing),
        ("odd", Aspect::Extra),
        ("pipe", Aspect::Owner),
    ];
    let expected = expected.map(|(path, aspect)| (path.to_owned(), aspect));
    assert_eq!(seen, expected);
    // Those above are what they should be.
    assert_eq!(differences(&place, &all[1]), []);
}

#[test]
fn it_ends_when_nobody_waits_for_it() {
    let place = place();
    let all = twice(&place, &stack());
    let (tree, model, sums) = &all[0];
    let mut reads = 0;
    let (model, tree) = (place.upper(model), place.upper(tree));
    let found = compare(&model, sums, &tree, Caching::Kept, &mut |_| {
        reads += 1;
        false
    });
    assert_eq!((found.unwrap(), reads), (vec![], 1));
}

/// Tens of terabytes, were the holes read: the test would not end.
#[test]
fn holes_cost_nothing_however_long_they_are() {
    const SIZE: u64 = 64 << 30;
    let place = place();
    let mut layer = layer();
    for number in 0..400 {
        layer = layer
            .sparse(SIZE, &[1, 5000, SIZE / 2, SIZE - 1])
            .file(&format!("{number}"), "abcd");
    }
    // The bytes of one that are zeros, and spelled out.
    layer = layer.file("zeros", &"\0".repeat(100_000));
    let all = twice(&place, &[layer]);
    assert_eq!(differences(&place, &all[0]), []);
    assert!(blocks(&place.path("model0")) <= 16);
    // A hole where its layer has zeros is none.
    let change = |name: &str, change: &dyn Fn(&fs::File)| {
        let path = place.path("tree0").join(name);
        let at = fs::metadata(&path).unwrap().modified().unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        change(&file);
        file.set_modified(at).unwrap();
    };
    change("zeros", &|file| {
        file.set_len(0).unwrap();
        file.set_len(100_000).unwrap();
    });
    assert_eq!(differences(&place, &all[0]), []);
    change("7", &|file| file.write_all_at(b"x", 3 << 30).unwrap());
    change("8", &|file| file.write_all_at(&[0], SIZE / 2).unwrap());
    change("9", &|file| file.set_len(SIZE + 1).unwrap());
    change("zeros", &|file| file.write_all_at(b"x", 99_999).unwrap());
    let found = differences(&place, &all[0]);
    let seen = found.iter().map(|one| (one.path.as_slice(), one.aspect));
    let places: [&[u8]; 4] = [b"7", b"8", b"9", b"zeros"];
    assert!(
        seen.eq(places.map(|path| (path, Aspect::Content))),
        "{found:?}"
    );
}

#[test]
fn it_ends_also_where_there_is_nothing_to_be_read() {
    let place = place();
    let layer = (0..100).fold(layer(), |layer, number| {
        layer.file(&format!("{number}"), "")
    });
    let all = twice(&place, &[layer]);
    let (tree, model, sums) = &all[0];
    let mut asked = 0;
    let (model, tree) = (place.upper(model), place.upper(tree));
    let found = compare(&model, sums, &tree, Caching::Kept, &mut |_| {
        asked += 1;
        asked < 10
    });
    assert_eq!((found.unwrap(), asked), (vec![], 10));
}

/// Each entry has a path that the kernel takes, by a link in each of the directories to the next one.
#[test]
fn directories_whose_paths_no_call_takes_are_compared() {
    let place = place();
    let deep = vec!["d".repeat(200); 9].join("/");
    let layer = (0..4).fold(layer(), |layer, number| {
        let from = "l/".repeat(number);
        layer
            .dir(&format!("{from}{deep}"))
            .file(&format!("{from}{deep}/file"), &from)
            .symlink(&format!("{from}l"), &deep)
    });
    let all = twice(&place, &[layer]);
    assert_eq!(differences(&place, &all[0]), []);
    // The lowest of them.
    let mut dir = place.upper("tree0");
    for _ in 0..4 {
        dir = dir.resolve_dir(deep.as_bytes()).unwrap();
    }
    dir.chmod("file".as_ref(), 0o600).unwrap();
    let found = differences(&place, &all[0]);
    let [difference] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(difference.aspect, Aspect::Mode);
    let path = format!("{deep}/{deep}/{deep}/{deep}/file");
    assert!(path.len() > 4095 && difference.path == path.as_bytes());
}
