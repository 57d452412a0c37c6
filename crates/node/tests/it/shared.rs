//! Uploads that share the blocks of a layout.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use cairn_node::{Event, ImportRequest, Phase, Progress, Source};
use cairn_types::{ErrorKind, Namespace};

use crate::{common::*, disk::Disk};

/// Cuts the one upload short that is this long, once some of it is read.
struct Cutting<'r> {
    root: &'r Path,
    bytes: u64,
    done: AtomicBool,
}

impl Progress for Cutting<'_> {
    fn event(&self, event: Event) {
        let Event::Layer {
            phase: Phase::FetchUnpack,
            done: 1..,
            ..
        } = event
        else {
            return;
        };
        if !self.done.swap(true, Ordering::Relaxed) {
            let found = run(
                "find",
                &[text(self.root), "-size", &format!("{}c", self.bytes)],
            );
            let file = fs::OpenOptions::new().write(true).open(found.trim());
            file.expect("one upload").set_len(1 << 20).expect("cut");
        }
    }
}

/// What is read then is the store's file, and nothing is wrong with the layout.
#[test]
fn what_breaks_in_the_store_is_not_told_of_the_layout() {
    // It can share blocks.
    let disk = Disk::new("xfs");
    let plain = tar(&[("file", &"text".repeat(2 << 20))]);
    let bytes = plain.len() as u64;
    let mut layout = Layout::new();
    let manifest = layout.manifest(&host(), &[(OCI_LAYER, plain.clone(), plain)]);
    layout.name(manifest, "shop/web:1");
    layout.finish();
    let (from, root) = (disk.path().join("layout"), disk.path().join("root"));
    run("cp", &["-r", text(layout.path()), text(&from)]);
    let node = open(&root).expect("open");
    let ns = Namespace::parse("default").expect("namespace");
    let import = |progress: &dyn Progress| {
        let request = ImportRequest::new(ns.clone(), Source::Path(from.clone()));
        node.import(request, progress)
    };
    let cutting = Cutting {
        root: &root,
        bytes,
        done: AtomicBool::new(false),
    };
    let failure = import(&cutting).expect_err("cut short");
    assert!(cutting.done.into_inner());
    assert_eq!(failure.kind, ErrorKind::Internal, "{failure:?}");
    assert!(failure.reason.ends_with("cannot be stored"), "{failure:?}");
    assert_eq!(node.content().ingests(&ns).expect("uploads").len(), 0);
    import(&cairn_node::Silent).expect("again");
}
