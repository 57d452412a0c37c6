//! Many at once in one store: the same layers by several imports, names given and taken, and the
//! garbage collector between them.

use std::{fs, thread};

use cairn_types::ImageName;

use crate::common::*;

fn name(number: usize) -> ImageName {
    ImageName::parse(&format!("docker.io/shop/web:{number}")).expect("name")
}

#[test]
fn imports_of_the_same_layers_side_by_side() {
    let store = Store::new();
    let layouts: Vec<Layout> = (0..3)
        .map(|number| numbered(number, &format!("shop/web:{number}")))
        .collect();
    let archives: Vec<Vec<u8>> = layouts.iter().map(Layout::archive).collect();
    thread::scope(|scope| {
        // Each image by three threads, from a directory and as a stream.
        for turn in 0..9 {
            let (store, layout, archive) = (&store, &layouts[turn % 3], &archives[turn % 3]);
            scope.spawn(move || {
                for _ in 0..3 {
                    let imported = match turn < 6 {
                        true => store.import(layout.path()),
                        false => store.import_with(stream(archive.clone()), |_| ()),
                    };
                    imported.unwrap_or_else(|failure| panic!("{turn}: {failure:?}"));
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..20 {
                store.node.gc(false).expect("collect");
            }
        });
    });
    let images = store.node.images(&store.ns).expect("images");
    assert_eq!(images.len(), 3);
    assert!(images.iter().all(|image| image.complete), "{images:#?}");
    let snapshots = store.node.snapshots().list(&store.ns).expect("snapshots");
    assert_eq!(snapshots.len(), 5, "two shared, three of their own");
    let trees = fs::read_dir(store.node.root().join("snapshots")).expect("directory");
    assert_eq!(trees.count(), 6, "and the trash");
    for number in 0..3 {
        let target = store.mount(&name(number));
        let whole =
            [format!("own-{number}"), "etc/motd".to_owned()].map(|f| target.join(f).exists());
        store.unmount(&target);
        assert_eq!(whole, [true, true]);
        store
            .node
            .remove_image(&store.ns, &name(number), false)
            .expect("remove");
    }
    store.node.gc(false).expect("collect");
    store.assert_empty();
}
