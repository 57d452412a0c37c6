//! Layers that come plain, stored as gzip: what `docker save` writes is three times as large as what
//! a registry has.
//!
//! A digest is known only at its end, and a manifest only with the digests of its layers. So this
//! comes before everything else: afterwards the archive is one whose layers are in the store already.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use cairn_content::Ingest;
use cairn_layer::deflate;
use cairn_types::{Classified, Compression, Descriptor, Digest, ErrorKind, Hasher, Labels, media};

use super::{archive::Archive, rewrite};
use crate::{
    Event, Failure, Phase,
    intake::Chosen,
    unpack::{
        Reading, Work,
        pool::{UNCOMPRESSED, lock, mismatch, workers},
        tee::{Broken, Tee},
    },
    uploads,
    walk::Body,
};

/// What became of a plain layer.
pub(super) struct Packed {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// The chosen images with all their layers packed. Those that come packed, and those of which the
/// bytes are not here, stay as they are; what is new in the store is added to `stored`.
pub(super) fn compressed(
    work: &Work<'_>,
    archive: &Archive,
    chosen: Vec<Chosen>,
    stored: &mut Vec<Digest>,
) -> Result<Vec<Chosen>, Failure> {
    let plain = plain_layers(work, archive, &chosen)?;
    if plain.is_empty() {
        return Ok(chosen);
    }
    work.progress.event(Event::Resolved {
        name: work.object.1.clone(),
        platform: String::new(),
        layers: plain.iter().map(|l| (l.digest.clone(), l.size)).collect(),
    });
    let packed = pack_all(work, archive, plain, stored)?;
    let rewritten = chosen
        .into_iter()
        .map(|image| rewrite::image(image, &packed));
    let rewritten: Result<_, _> = rewritten.collect();
    rewritten.map_err(|err| work.failure(Failure::of(work.attempted, &err)))
}

/// The media type of a plain layer once it is packed.
pub(super) fn packed_type(media_type: &str) -> Option<&'static str> {
    match media_type {
        media::OCI_LAYER => Some(media::OCI_LAYER_GZIP),
        media::DOCKER_LAYER => Some(media::DOCKER_LAYER_GZIP),
        _ => None,
    }
}

/// Each once, and only what by its first bytes, too, is not packed.
fn plain_layers(
    work: &Work<'_>,
    archive: &Archive,
    chosen: &[Chosen],
) -> Result<Vec<Descriptor>, Failure> {
    let mut plain: Vec<Descriptor> = Vec::new();
    for image in chosen {
        for tree in image.tree.manifests() {
            let Body::Manifest(body) = &tree.body else {
                continue;
            };
            if !image.kept.contains(&tree.descriptor.digest) || !body.is_image() {
                continue;
            }
            for layer in &body.manifest.layers {
                let known = plain.iter().any(|known| known.digest == layer.digest);
                if known || packed_type(&layer.media_type).is_none() {
                    continue;
                }
                let Some(reading) = place(archive, &layer.digest)? else {
                    continue;
                };
                let mut head = Vec::new();
                let source = work.open(&layer.digest, reading)?;
                let read = source.take(4).read_to_end(&mut head);
                read.map_err(|err| Broken::Source(err).failure(work, &layer.digest))?;
                if Compression::sniff(&head) == Compression::None {
                    plain.push(layer.clone());
                }
            }
        }
    }
    Ok(plain)
}

/// Where a blob can be read, if anywhere.
fn place(archive: &Archive, digest: &Digest) -> Result<Option<Reading>, Failure> {
    if archive.blob(digest)?.is_some() {
        return Ok(Some(Reading::Source { from: 0 }));
    }
    Ok(archive.has_stored(digest).then_some(Reading::Store))
}

/// Packs layers side by side, the largest first; what each became, by its plain digest.
fn pack_all(
    work: &Work<'_>,
    archive: &Archive,
    mut plain: Vec<Descriptor>,
    stored: &mut Vec<Digest>,
) -> Result<HashMap<Digest, Packed>, Failure> {
    let workers = workers(work, plain.len());
    // The queue is taken from its end.
    plain.sort_by_key(|layer| layer.size);
    let queue = Mutex::new(plain);
    let results = Mutex::new((HashMap::new(), std::mem::take(stored), None::<Failure>));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let Some(layer) = lock(&queue).pop() else {
                        break;
                    };
                    let done = pack(work, archive, &layer, &stop);
                    let (packed, stored, failure) = &mut *lock(&results);
                    match done {
                        Ok((new, is_new)) => {
                            stored.extend(is_new.then(|| new.digest.clone()));
                            packed.insert(layer.digest, new);
                        }
                        Err(err) => {
                            stop.store(true, Ordering::Relaxed);
                            // Those that were only stopped are not the cause.
                            let replace = failure.as_ref();
                            if replace.is_none_or(|f| f.kind == ErrorKind::Canceled) {
                                *failure = Some(err);
                            }
                        }
                    }
                }
            });
        }
    });
    let results = results.into_inner();
    let (packed, all, failure) = results.unwrap_or_else(PoisonError::into_inner);
    *stored = all;
    failure.map_or(Ok(packed), Err)
}

/// Hashes what is packed.
struct Plain<'w, 'a> {
    tee: Tee<'a>,
    hasher: Hasher,
    work: &'w Work<'a>,
    layer: &'w Descriptor,
}

impl Read for Plain<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.tee.read(buffer)?;
        self.hasher.update(&buffer[..got]);
        let Descriptor { digest, size, .. } = self.layer;
        let done = self.tee.read.min(*size);
        self.work.layer(digest, Phase::Fetch, done, *size);
        Ok(got)
    }
}

/// Packs one layer, of which the plain bytes are proven on the way; whether the blob is new.
fn pack(
    work: &Work<'_>,
    archive: &Archive,
    layer: &Descriptor,
    stop: &AtomicBool,
) -> Result<(Packed, bool), Failure> {
    let digest = &layer.digest;
    let reading = place(archive, digest)?.unwrap_or(Reading::Source { from: 0 });
    let source = work.open(digest, reading)?;
    let mut plain = Plain {
        tee: Tee::new(work, (source, layer.size), None, stop),
        hasher: Hasher::new(digest.algorithm()),
        work,
        layer,
    };
    let reference =
        uploads::name().map_err(|err| work.failure(Failure::of(work.attempted, &err)))?;
    let opened = work.node.content().writer(work.ns, &reference, None, 0);
    let mut ingest = opened.map_err(|err| work.store_failure(digest, &err))?;
    let written = deflate::gzip(&mut plain, &mut ingest).and_then(|()| ingest.flush());
    let Plain { tee, hasher, .. } = plain;
    let failure = match (tee.failed, written) {
        (Some(broken), _) => Some(broken.failure(work, digest)),
        (None, Err(err)) => Some(Broken::Store(err).failure(work, digest)),
        (None, Ok(())) => mismatch(work, (digest, layer.size), (&hasher.finish(), tee.read)),
    };
    if let Some(failure) = failure {
        if let Err(err) = ingest.abort() {
            tracing::warn!("abort an upload: {err}");
        }
        return Err(failure);
    }
    let stored = commit(work, layer, ingest)?;
    work.layer(digest, Phase::Done, layer.size, layer.size);
    Ok(stored)
}

fn commit(work: &Work<'_>, layer: &Descriptor, ingest: Ingest) -> Result<(Packed, bool), Failure> {
    let (digest, size) = (ingest.digest_so_far(), ingest.offset());
    let mut labels = Labels::new();
    labels.insert(UNCOMPRESSED.to_owned(), layer.digest.to_string());
    // It may be here already, and must not go before it is named.
    work.pins.blob(work.ns, &digest);
    let is_new = match ingest.commit(Some(size), Some(&digest), labels.clone()) {
        Ok(_) => true,
        Err(err) if err.kind() == ErrorKind::AlreadyExists => {
            work.node.add_labels(work.ns, &digest, labels)?;
            false
        }
        Err(err) => return Err(work.store_failure(&layer.digest, &err)),
    };
    Ok((Packed { digest, size }, is_new))
}
