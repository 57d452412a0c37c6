//! Threads of unpacking end with it. One test in a program of its own, since it counts them all.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../common/mod.rs"]
mod common;

use std::{
    fs,
    io::{self, Read},
    sync::Arc,
};

use cairn_layer::{Error, Unpacked};
use cairn_types::media;

use crate::common::{THREADS, chain, gzip, layer, place, unpack_by};

fn running() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// A source that shows whether it is still there.
struct Held<R> {
    source: R,
    _alive: Arc<()>,
}

impl<R: Read> Read for Held<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.source.read(buffer)
    }
}

struct Panicking;

impl Read for Panicking {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("a source that panics, as this test wants it");
    }
}

struct Failing;

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("the cable was cut"))
    }
}

#[track_caller]
fn check<R: Read + Send>(
    media_type: &str,
    source: impl Fn() -> R,
    is_right: impl Fn(&Result<Unpacked, Error>) -> bool,
) {
    for threads in THREADS {
        let (place, alive) = (place(), Arc::new(()));
        let before = running();
        let source = Held {
            source: source(),
            _alive: Arc::clone(&alive),
        };
        let unpacked = unpack_by(threads, source, media_type, &place);
        assert_eq!(running(), before, "by {threads} threads: {unpacked:?}");
        assert_eq!(Arc::strong_count(&alive), 1, "the source is still held");
        assert!(is_right(&unpacked), "by {threads} threads: {unpacked:?}");
    }
}

#[test]
fn no_thread_is_left_however_it_ends() {
    let (plain, packed) = (media::OCI_LAYER, media::OCI_LAYER_GZIP);
    // Of which nothing packs well, so that there is enough for several threads to inflate.
    let mut state = 1_u64;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from(b'0' + (state >> 60) as u8)
    };
    let text: String = (0..6_000_000).map(next).collect();
    let good = layer().file("a", &text).file("b", &text).build();
    let gz = gzip(&good);
    let half = || &gz[..gz.len() / 2];
    check(packed, || &gz[..], Result::is_ok);
    check(plain, || &good[..], Result::is_ok);
    check(packed, half, Result::is_err);
    // The applying thread is the first that wants no more.
    let bad = layer().file("../x", "1").build();
    let refused = |got: &_| matches!(got, Err(Error::Refused { .. }));
    check(plain, || bad.chain(io::repeat(1)), refused);
    // A source that fails or panics at its beginning, in its middle and at its end.
    for cut in [0, gz.len() / 2, gz.len()] {
        let failed = |got: &_| matches!(got, Err(err) if chain(err).contains("cable"));
        check(packed, || gz[..cut].chain(Failing), failed);
        let broke_off = |got: &_| matches!(got, Err(Error::Thread(_)));
        check(packed, || gz[..cut].chain(Panicking), broke_off);
    }
}
