//! Short scripts beside one collection, in all orders.
//!
//! A collection is some fifteen steps here, so that with a script of two steps there are about a hundred
//! orders, and with one of four two thousand. A longer one is gone through as far as nobody is interrupted
//! more than so many times.

use std::io::Write;

use cairn_node::{EngineKind, Resource};
use cairn_types::{Classified, Digest, ErrorKind, IngestRef, Labels};

use crate::{
    model::{Model, REMOVER, Script, World, key, labels, name, step},
    oracle::{BACK, EXPIRE, FLAT, FUTURE, PAST, REF, REF_SNAPSHOT, ROOT, Thing},
    orders::All,
};

const ALL: usize = usize::MAX;

/// So many orders there are at least, or the collector does not stop where it should.
const ORDERS_MIN: usize = 60;

fn check(script: Script, interruptions_max: usize) {
    let mut model = Model::new(EngineKind::Redb);
    let mut orders = All::new(interruptions_max);
    let mut count = 0;
    loop {
        model.run(script, &mut |ready| orders.choose(ready));
        count += 1;
        if !orders.another() {
            break;
        }
    }
    eprintln!("{count} orders");
    assert!(count >= ORDERS_MIN, "{count} orders");
}

fn top() -> Digest {
    Digest::sha256(b"top")
}

fn content(digest: Digest) -> Resource {
    Resource::Content(digest)
}

/// A blob over another, to which nothing leads.
fn heap(world: &World) {
    let leaf = world.blob("leaf", &[]);
    world.blob("top", &[&leaf]);
}

/// Something that a collection removes whatever the others do, so that it comes to its removals.
fn junk(world: &World) {
    world.blob("junk", &[]);
}

fn stack(world: &World) {
    world.snapshot("one", None);
    world.snapshot("two", Some("one"));
}

#[test]
fn a_lease_takes_what_nothing_held() {
    let script = Script {
        setting: heap,
        actors: |world| {
            let takes = |world: &World| {
                world.lease("l", Labels::new());
                world.hold_if_there("l", &content(top()));
            };
            vec![world.collector(1), world.actor("client", takes)]
        },
    };
    check(script, ALL);
}

#[test]
fn a_flat_lease_takes_a_snapshot_with_what_it_stands_on() {
    let script = Script {
        setting: |world| {
            stack(world);
            heap(world);
        },
        actors: |world| {
            let takes = |world: &World| {
                world.lease("l", labels(&[(FLAT, "1")]));
                world.hold_if_there("l", &Resource::Snapshot(key("two")));
                world.hold_if_there("l", &content(top()));
            };
            vec![world.collector(1), world.actor("client", takes)]
        },
    };
    check(script, ALL);
}

/// Before the layer is on the disk, a power cut would leave nothing of it.
#[test]
fn a_lease_takes_a_layer_whose_blob_is_going() {
    let script = Script {
        setting: |world| {
            let packed = world.blob("packed", &[]);
            world.layer("young", &packed);
        },
        actors: |world| {
            let takes = |world: &World| {
                world.lease("l", Labels::new());
                world.hold_if_there("l", &Resource::Snapshot(key("young")));
            };
            vec![world.collector(1), world.actor("client", takes)]
        },
    };
    check(script, ALL);
}

/// Tables are read one after the other: what goes from one that is not read yet to one that was.
#[test]
fn a_lease_hands_over_to_another() {
    let script = Script {
        setting: |world| {
            heap(world);
            junk(world);
            world.lease("z", Labels::new());
            world.add("z", &content(top()));
        },
        actors: |world| {
            let hands_over = |world: &World| {
                world.lease("a", labels(&[(EXPIRE, FUTURE)]));
                assert!(world.add("a", &content(top())));
                world.end_lease("z");
                world.reads(&top());
            };
            vec![world.collector(1), world.actor("client", hands_over)]
        },
    };
    check(script, ALL);
}

#[test]
fn a_name_hands_over_to_another() {
    let script = Script {
        setting: |world| {
            heap(world);
            junk(world);
            world.image("z", &top(), Labels::new());
        },
        actors: |world| {
            let hands_over = |world: &World| {
                let tagged = world.node.tag(&world.ns, &name("z"), &name("a"), false);
                tagged.expect("tag");
                let anybody = cairn_node::Caller::of(world.ns.clone());
                let deleted = world.node.image_delete(&anybody, &name("z"), None);
                deleted.expect("delete");
            };
            vec![world.collector(1), world.actor("client", hands_over)]
        },
    };
    check(script, ALL);
}

#[test]
fn a_label_hands_over_to_another() {
    let script = Script {
        setting: |world| {
            heap(world);
            junk(world);
            world.root("from", &[&top()]);
            world.root("to", &[]);
        },
        actors: |world| {
            let hands_over = |world: &World| {
                let (to, from) = (Digest::sha256(b"to"), Digest::sha256(b"from"));
                let label = |of: &Digest, value: &str| {
                    let change = labels(&[(&*format!("{REF}.0"), value)]);
                    let labelled = world.node.content().update_labels(&world.ns, of, &change);
                    labelled.expect("label");
                };
                label(&to, &top().to_string());
                // An empty value removes it.
                label(&from, "");
            };
            vec![world.collector(1), world.actor("client", hands_over)]
        },
    };
    check(script, ALL);
}

#[test]
fn what_is_garbage_becomes_a_root() {
    let script = Script {
        setting: |world| {
            heap(world);
            // It lives with what owns it.
            world.put("owned", labels(&[(BACK, &*top().to_string())]));
            stack(world);
            world.put("config", labels(&[(REF_SNAPSHOT, "two")]));
        },
        actors: |world| {
            let roots = |world: &World| {
                let root = labels(&[(ROOT, "1")]);
                for of in [top(), Digest::sha256(b"config")] {
                    let labelled = world.node.content().update_labels(&world.ns, &of, &root);
                    // It may be gone, and then was nobody's.
                    if let Err(err) = labelled {
                        assert_eq!(err.kind(), ErrorKind::NotFound, "{err}");
                    }
                }
            };
            vec![world.collector(1), world.actor("client", roots)]
        },
    };
    check(script, ALL);
}

fn looks_and_names(world: &World) {
    let mut reliance = world.relies();
    reliance.blob(&top());
    if world.has(&top()) {
        world.image("named", &top(), Labels::new());
    }
}

/// As every call here does that refers to what it finds.
#[test]
fn a_call_pins_looks_and_names() {
    let script = Script {
        setting: heap,
        actors: |world| vec![world.collector(1), world.actor("call", looks_and_names)],
    };
    check(script, ALL);
}

/// Nobody collects: somebody removes by name what another relies on.
#[test]
fn a_removal_by_name_waits_for_calls() {
    let script = Script {
        setting: heap,
        actors: |world| {
            let removes = |world: &World| {
                step();
                if let Err(failure) = world.node.remove_blob(&world.ns, &top()) {
                    assert_eq!(failure.kind, ErrorKind::NotFound, "{failure}");
                }
            };
            let remover = (REMOVER, world.actor("", removes).1);
            let again = world.actor("another call", looks_again);
            vec![remover, world.actor("call", looks_and_names), again]
        },
    };
    check(script, ALL);
}

fn looks_again(world: &World) {
    let mut reliance = world.relies();
    reliance.blob(&top());
    if world.has(&top()) {
        world.reads(&top());
    }
}

/// As a client that unpacks: the parent is there, so it is stood on.
#[test]
fn a_snapshot_is_stood_on() {
    let script = Script {
        setting: |world| {
            stack(world);
            world.lease("l", Labels::new());
        },
        actors: |world| {
            let stands = |world: &World| {
                let two = Resource::Snapshot(key("two"));
                if !world.hold_if_there("l", &two) {
                    return;
                }
                world.hold("l", &Resource::Snapshot(key("mine")));
                let snapshots = world.node.snapshots();
                let parent = key("two");
                let prepared =
                    snapshots.prepare(&world.ns, &key("mine"), Some(&parent), Labels::new());
                prepared.expect("its parent is held");
                // Held by what stands on it.
                world.let_go("l", &two);
            };
            vec![world.collector(1), world.actor("client", stands)]
        },
    };
    check(script, ALL);
}

/// The same bytes come while those that are there go: record, then file.
#[test]
fn a_blob_comes_again_while_it_goes() {
    let script = Script {
        setting: |world| {
            junk(world);
            world.lease("l", Labels::new());
        },
        actors: |world| {
            let comes = |world: &World| {
                let digest = Digest::sha256(b"junk");
                world.hold("l", &content(digest.clone()));
                world.blob("junk", &[]);
                world.reads(&digest);
            };
            vec![world.collector(1), world.actor("client", comes)]
        },
    };
    check(script, ALL);
}

/// Its bytes are there once, for both.
#[test]
fn a_blob_that_goes_here_is_linked_there() {
    let script = Script {
        setting: |world| {
            junk(world);
            world.within("other").lease("l", Labels::new());
        },
        actors: |world| {
            let links = |world: &World| {
                let there = world.within("other");
                let digest = Digest::sha256(b"junk");
                there.hold("l", &content(digest.clone()));
                let linked = there.node.content().link(&there.ns, &digest, Labels::new());
                if let Err(err) = linked {
                    assert_eq!(err.kind(), ErrorKind::NotFound, "{err}");
                    there.blob("junk", &[]);
                }
                there.reads(&digest);
            };
            vec![world.collector(1), world.actor("client", links)]
        },
    };
    check(script, ALL);
}

/// A lease goes that is over, and one of its name comes.
#[test]
fn a_lease_that_is_over_is_made_anew() {
    let script = Script {
        setting: |world| {
            heap(world);
            world.lease("l", labels(&[(EXPIRE, PAST)]));
            world.add("l", &content(top()));
        },
        actors: |world| {
            let makes = |world: &World| {
                world.lease("l", Labels::new());
                world.add("l", &content(top()));
            };
            vec![world.collector(1), world.actor("client", makes)]
        },
    };
    check(script, ALL);
}

/// An upload that was left is taken up again, under another lease, and becomes a blob.
#[test]
fn an_upload_that_goes_is_taken_up() {
    fn reference() -> IngestRef {
        IngestRef::parse("upload").expect("ref")
    }
    let script = Script {
        setting: |world| {
            let content = world.node.content();
            let opened = content.writer_for(&world.ns, &reference(), None, 0, true);
            let mut upload = opened.expect("upload");
            upload.write_all(b"first ").expect("write");
            world.lease("l", Labels::new());
        },
        actors: |world| {
            let takes_up = |world: &World| {
                world.hold("l", &Resource::Ingest(reference()));
                let content = world.node.content();
                let opened = content.writer_for(&world.ns, &reference(), None, 0, true);
                let mut upload = opened.expect("upload");
                world.relied(Thing::Upload(reference()));
                step();
                upload.write_all(b"second").expect("write");
                let becomes = upload.digest_so_far();
                world.hold("l", &Resource::Content(becomes.clone()));
                world.unrelied(&Thing::Upload(reference()));
                let committed = upload.commit(None, None, Labels::new());
                assert_eq!(committed.expect("commit"), becomes);
                world.reads(&becomes);
            };
            vec![world.collector(1), world.actor("client", takes_up)]
        },
    };
    check(script, 4);
}

/// Whoever comes while one runs shares the next: that one, too, must be a whole one.
#[test]
fn collections_take_turns() {
    let script = Script {
        setting: |world| {
            heap(world);
            junk(world);
            world.image("z", &top(), Labels::new());
        },
        actors: |world| {
            let lets_go = |world: &World| {
                let anybody = cairn_node::Caller::of(world.ns.clone());
                let deleted = world.node.image_delete(&anybody, &name("z"), None);
                deleted.expect("delete");
                world.node.gc(false).expect("collect");
                assert!(!world.has(&top()), "it was let go of before");
            };
            vec![world.collector(1), world.actor("client", lets_go)]
        },
    };
    check(script, ALL);
}
