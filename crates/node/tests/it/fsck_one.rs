//! One namespace checked, and mended, and no other.

use cairn_node::{Finding, FsckRequest, ImportRequest, Silent, Source};
use cairn_types::{ErrorKind, Namespace};

use crate::{
    common::*,
    fsck::{Heard, damaged},
};

fn ns(name: &str) -> Namespace {
    Namespace::parse(name).expect("namespace")
}

/// What is found and mended in one.
fn mended(store: &Store, name: &str) -> Vec<Finding> {
    let heard = Heard::default();
    let request = FsckRequest {
        deep: false,
        repair: true,
        namespace: Some(ns(name)),
    };
    store.node.fsck(request, &heard).expect("checked");
    heard.findings.into_inner().expect("lock")
}

/// An image in two namespaces, and a record damaged of a layer of it in `name`.
fn damaged_in(name: &str) -> (Store, String) {
    let (store, layout) = (Store::new(), simple());
    for space in ["default", "other"] {
        let source = Source::Path(layout.path().to_owned());
        let imported = store
            .node
            .import(ImportRequest::new(ns(space), source), &Silent);
        imported.expect("import");
    }
    store
        .node
        .settle(std::time::Duration::ZERO)
        .expect("settle");
    let all = store.node.snapshots().list(&store.ns).expect("snapshots");
    let top = all.iter().find(|one| one.parent.is_some()).expect("top");
    let (top, bottom) = (&top.key, top.parent.as_ref().expect("parent"));
    let begin = format!("{{\"table\":\"child\",\"key\":[\"{name}\",\"{bottom}\",\"{top}\"],");
    let key = format!("child {name} {bottom} {top}");
    (damaged(store, &begin), key)
}

#[test]
fn records_of_others_are_left_alone() {
    let (store, key) = damaged_in("other");
    assert_eq!(mended(&store, "default"), []);
    let found = mended(&store, "other");
    let found: Vec<_> = found.iter().map(|one| (&*one.name, one.repaired)).collect();
    assert_eq!(found, [(&*key, true)]);
    assert_eq!(mended(&store, "other"), []);
}

/// The blobs that a namespace sees are its own business as well, whoever else sees them.
#[test]
fn records_of_blobs_are_those_of_all_who_see_them() {
    let (store, layout) = (Store::new(), numbered(1, "shop/own:1"));
    store.import(simple().path()).expect("import");
    let source = Source::Path(layout.path().to_owned());
    let request = ImportRequest::new(ns("other"), source);
    store.node.import(request, &Silent).expect("import");
    store
        .node
        .settle(std::time::Duration::ZERO)
        .expect("settle");
    let own = crate::fsck::parts(&layout)[4].clone();
    let begin = format!("{{\"table\":\"blob\",\"key\":[\"{own}\"],");
    let store = damaged(store, &begin);
    assert_eq!(mended(&store, "default"), []);
    let found = mended(&store, "other");
    assert!(
        found
            .iter()
            .any(|one| one.name == format!("blob {own}") && one.repaired)
    );
}

#[test]
fn a_namespace_that_is_not_there_is_not_whole() {
    let store = Store::new();
    store.import(simple().path()).expect("import");
    for repair in [false, true] {
        let request = FsckRequest {
            repair,
            namespace: Some(ns("typo")),
            ..FsckRequest::default()
        };
        let failed = store.node.fsck(request, &Heard::default());
        let failed = failed.expect_err("nobody's");
        assert_eq!(failed.kind, ErrorKind::NotFound);
        assert!(failed.to_string().contains("typo"), "{failed}");
    }
    // One that was made and holds nothing is.
    let made = store
        .node
        .namespace_create(&ns("empty"), Default::default());
    made.expect("create");
    assert_eq!(mended(&store, "empty"), []);
}
