//! A layer that is long enough for several threads to inflate it: by any number it comes to the same.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    io::{self, Read, Write},
    sync::LazyLock,
};

use cairn_types::{Digest, media};
use flate2::write::GzEncoder;

use crate::common::{THREADS, chain, layer, place, show, unpack_by};

/// Words at random, so that some megabytes of it are some megabytes when packed.
fn words(length: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut text = String::with_capacity(length + 8);
    while text.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let letters = 3 + (state >> 60) % 10;
        text.extend((0..letters).map(|i| char::from(b'a' + (state >> (4 * i) & 15) as u8)));
        text.push(' ');
    }
    text
}

static LAYER: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let text = words(10 << 20);
    let (first, second) = text.split_at(3 << 20);
    let tar = layer()
        .file("first", first)
        .file("second", second)
        .file("again", first)
        .build();
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(&tar).unwrap();
    (tar, encoder.finish().unwrap())
});

/// Unpacks by each number of threads. Gives what all of them say: the tree, or what is wrong.
#[track_caller]
fn by_all<R: Read + Send>(source: impl Fn() -> R) -> Result<Vec<String>, String> {
    let mut all = THREADS.map(|threads| {
        let place = place();
        let unpacked = unpack_by(threads, source(), media::OCI_LAYER_GZIP, &place);
        let unpacked = unpacked.map_err(|err| chain(&err))?;
        assert_eq!(unpacked.diff_id.digest(), &Digest::sha256(&LAYER.0));
        Ok(show(&place.path("fs")))
    });
    for (said, threads) in all[1..].iter().zip(&THREADS[1..]) {
        assert!(*said == all[0], "by {threads} threads");
    }
    std::mem::replace(&mut all[0], Err(String::new()))
}

#[test]
fn it_is_unpacked_by_any_number_of_threads() {
    let packed = &LAYER.1;
    assert!(packed.len() > 4 << 20, "{}", packed.len());
    let tree = by_all(|| &packed[..]).unwrap();
    assert_eq!(tree.len(), 3);
    // What pads it is no part of it.
    let padded = || packed.chain(&[0; 10_000][..]);
    assert!(by_all(padded).unwrap() == tree);
}

#[test]
fn what_is_wrong_with_it_is_said_by_any_number_of_threads() {
    let packed = &LAYER.1;
    let said = by_all(|| packed.chain(&b"more"[..])).unwrap_err();
    assert!(said.contains("garbage"), "{said}");
    let said = by_all(|| &packed[..packed.len() - 300_000]).unwrap_err();
    assert!(said.contains("unexpected end"), "{said}");
    let mut wrong = packed.clone();
    let at = wrong.len() - 6;
    wrong[at] ^= 1;
    let said = by_all(|| &wrong[..]).unwrap_err();
    assert!(said.contains("incorrect data check"), "{said}");
    let broken = || packed[..packed.len() / 2].chain(Broken);
    let said = by_all(broken).unwrap_err();
    assert!(said.contains("the cable was cut"), "{said}");
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("the cable was cut"))
    }
}
