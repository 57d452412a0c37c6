//! An image of many layers.

use std::{fs, sync::atomic::Ordering, thread, time::Duration};

use crate::{common::*, fair::Held, image_of, name, push, registry::Registry, request};

/// Threads of this process that are at layers.
fn workers() -> usize {
    let threads = fs::read_dir("/proc/self/task").expect("threads");
    let names = threads.filter_map(|thread| {
        let path = thread.ok()?.path().join("comm");
        fs::read_to_string(path).ok()
    });
    names.filter(|name| name.trim() == "cairn-layer").count()
}

#[test]
fn a_request_does_not_choose_how_many_threads_there_are() {
    let registry = Registry::start();
    let layout = image_of("many", (0..100).map(|number: usize| number.to_string()));
    push(layout.path(), "many", &registry, "many:1");
    let store = Store::new();
    let mut wide = request(&store.ns, name(&registry, "many:1"));
    wide.remote.max_concurrent = usize::MAX;
    wide.remote.limit_rate = 1;
    let held = Held::default();
    thread::scope(|scope| {
        let begun = scope.spawn(|| store.node.pull(wide, &held));
        while workers() < 64 {
            assert!(!begun.is_finished(), "{:?}", begun.join());
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(Duration::from_secs(1));
        let workers = workers();
        held.stop.store(true, Ordering::Relaxed);
        begun.join().expect("no panic").expect_err("stopped");
        // Others have a few, too.
        assert!(workers < 90, "{workers}");
    });
}
