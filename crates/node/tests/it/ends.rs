//! What ends by time alone is known beforehand.

use std::io::Write;

use cairn_meta::Timestamp;
use cairn_node::Caller;
use cairn_types::{Descriptor, Digest, ImageName, IngestRef, Labels, LeaseId};

use crate::common::*;

const EXPIRE: &str = "containerd.io/gc.expire";
const DAY: i64 = 24 * 3600 * 1_000_000_000;
/// The beginnings of 2001, 2100 and 2101.
const PAST: (&str, i64) = ("2001-01-01T00:00:00Z", 978_307_200_000_000_000);
const SOON: (&str, i64) = ("2100-01-01T00:00:00Z", 4_102_444_800_000_000_000);
const LATE: (&str, i64) = ("2101-01-01T00:00:00Z", 4_133_980_800_000_000_000);

impl Store {
    fn lease_until(&self, id: &str, end: Option<&str>) {
        let labels = end.map(|end| (EXPIRE.to_owned(), end.to_owned()));
        let id = LeaseId::parse(id).expect("id");
        let labels = labels.into_iter().collect();
        let made = self.node.lease_create(&self.ns, Some(id), labels);
        made.expect("lease");
    }

    fn next_end(&self, since: i64) -> Option<i64> {
        let end = self.node.next_end(Timestamp(since)).expect("a look");
        end.map(|end| end.0)
    }
}

#[test]
fn the_first_end_of_leases_and_images_is_found() {
    let store = Store::new();
    assert_eq!(store.next_end(0), None);
    store.lease_until("never", None);
    store.lease_until("unreadable", Some("tomorrow"));
    assert_eq!(store.next_end(0), None);
    store.lease_until("late", Some(LATE.0));
    assert_eq!(store.next_end(0), Some(LATE.1));
    let target = Descriptor::new("text/plain", Digest::sha256(b"target"), 1);
    let labels = Labels::from([(EXPIRE.to_owned(), SOON.0.to_owned())]);
    let name = ImageName::parse("docker.io/library/x:1").expect("name");
    let anybody = Caller::of(store.ns.clone());
    let made = store
        .node
        .image_create(&anybody, &name, target, labels, None);
    made.expect("image");
    assert_eq!(store.next_end(0), Some(SOON.1));
    // What ended before has been judged.
    assert_eq!(store.next_end(SOON.1), Some(LATE.1));
    assert_eq!(store.next_end(LATE.1), None);
}

#[test]
fn what_was_over_when_it_was_written_ends_then() {
    let store = Store::new();
    let before = Timestamp::now();
    store.lease_until("past", Some(PAST.0));
    let end = store.next_end(before.0 - 1).expect("an end");
    assert!((before.0..=Timestamp::now().0).contains(&end));
    assert_eq!(store.next_end(end), None);
}

#[test]
fn an_upload_that_no_lease_holds_ends_a_day_after_its_last_byte() {
    let store = Store::new();
    let content = store.node.content();
    let reference = |text: &str| IngestRef::parse(text).expect("ref");
    let plain = reference("plain");
    let mut upload = content
        .writer(&store.ns, &plain, None, 0)
        .expect("an upload");
    upload.write_all(b"bytes").expect("write");
    assert_eq!(store.next_end(0), None, "somebody writes to it");
    drop(upload);
    let leased = content.writer_for(&store.ns, &reference("leased"), None, 0, true);
    drop(leased.expect("an upload"));
    let info = content.status(&store.ns, &plain).expect("status");
    assert_eq!(store.next_end(0), Some(info.updated_at.0 + DAY));
}
