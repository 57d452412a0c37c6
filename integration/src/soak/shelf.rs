//! Images that share layers, in a registry.

use crate::{
    image::{Layer, Packing, Stored, architecture, noise},
    registry::Registry,
    registry_images::Repository,
};

/// So many there are, all on one layer, each half of them on one of two others, and each with one of its own.
pub(super) const IMAGES: usize = 8;

const REPOSITORY: &str = "soak/shared";
const SHARED_BYTES: usize = 400_000;

/// The reference of one of them.
pub(super) fn reference(host: &str, number: usize) -> String {
    format!("{host}/{REPOSITORY}:{number}")
}

/// Path and bytes of each file of one of them, lowest layer first.
pub(super) fn files(number: usize) -> [(&'static str, Vec<u8>); 3] {
    let half = number as u64 % 2;
    [
        ("etc/lowest", noise(SHARED_BYTES, 1)),
        ("etc/middle", noise(SHARED_BYTES, 2 + half)),
        ("etc/own", format!("image {number}\n").into_bytes()),
    ]
}

/// Puts all of them into a registry.
pub(super) fn fill(registry: &Registry) {
    let repository = Repository::new(registry, REPOSITORY);
    let packings = [Packing::Gzip, Packing::Zstd, Packing::Plain];
    for number in 0..IMAGES {
        let layers = files(number).into_iter().zip(packings);
        let layers: Vec<Stored> = layers
            .map(|((path, bytes), packing)| {
                let layer = Layer::new().dir("etc/", 0o755).file(path, &bytes);
                Stored::packed(&layer.finish(), packing)
            })
            .collect();
        let manifest = repository.image(architecture(), &layers);
        repository.tag(&number.to_string(), &manifest);
    }
}
