//! Field numbers on the wire, against bytes worked out by hand from containerd's published API.

use cairn_proto::containerd::{
    services::{
        content::v1::{WriteAction, WriteContentRequest},
        images::v1::DeleteImageRequest,
        snapshots::v1::{CommitSnapshotRequest, Kind},
    },
    types::Descriptor,
};
use prost::Message;

/// Tag byte of a length-delimited field: number shifted by three, wire type 2.
fn text(number: u8, value: &str) -> Vec<u8> {
    let length = u8::try_from(value.len()).expect("short");
    [&[number << 3 | 2, length], value.as_bytes()].concat()
}

#[test]
fn commit_of_a_snapshot_carries_its_parent_in_field_5() {
    let request = CommitSnapshotRequest {
        snapshotter: "overlayfs".into(),
        name: "n".into(),
        key: "k".into(),
        parent: "p".into(),
        ..Default::default()
    };
    let expected = [
        text(1, "overlayfs"),
        text(2, "n"),
        text(3, "k"),
        text(5, "p"),
    ]
    .concat();
    assert_eq!(request.encode_to_vec(), expected);
}

#[test]
fn a_write_commits_with_action_2() {
    let request = WriteContentRequest {
        action: WriteAction::Commit.into(),
        r#ref: "r".into(),
        total: 3,
        expected: "e".into(),
        offset: 3,
        data: b"abc".to_vec().into(),
        ..Default::default()
    };
    let expected = [
        vec![0x08, 2],
        text(2, "r"),
        vec![0x18, 3],
        text(4, "e"),
        vec![0x28, 3],
        text(6, "abc"),
    ]
    .concat();
    assert_eq!(request.encode_to_vec(), expected);
}

#[test]
fn an_image_is_deleted_only_if_it_is_the_target() {
    let target = Descriptor {
        media_type: "m".into(),
        digest: "d".into(),
        size: 1,
        ..Default::default()
    };
    let request = DeleteImageRequest {
        name: "n".into(),
        sync: true,
        target: Some(target),
    };
    let inner = [text(1, "m"), text(2, "d"), vec![0x18, 1]].concat();
    let length = u8::try_from(inner.len()).expect("short");
    let expected = [text(1, "n"), vec![0x10, 1], vec![0x1a, length], inner].concat();
    assert_eq!(request.encode_to_vec(), expected);
    assert_eq!(Kind::Committed as i32, 3);
}
