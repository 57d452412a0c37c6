//! Platforms of a transfer: those of which images are taken, and those for which they are unpacked.

use std::num::NonZeroUsize;

use cairn_node::Extent;
use cairn_proto::containerd::types::{
    self,
    transfer::{ImageStore, UnpackConfiguration},
};
use cairn_types::{ErrorKind, Platform};
use tonic::Status;

use crate::{convert, service::SNAPSHOTTER, status::with};

/// A platform of the wire.
pub(super) fn platform(wire: &types::Platform) -> Result<Platform, Status> {
    let mut text = format!("{}/{}", wire.os, wire.architecture);
    if !wire.variant.is_empty() {
        text.push('/');
        text.push_str(&wire.variant);
    }
    let mut platform: Platform = convert::name(text.parse())?;
    platform.os_features.clone_from(&wire.os_features);
    Ok(platform)
}

/// What is taken of an index, and unpacked.
#[derive(Debug)]
pub(super) struct Taken {
    /// The best for each of these; without any the host's, or whatever stands alone.
    pub(super) platforms: Vec<Platform>,
    /// All of them.
    pub(super) all: bool,
    /// What else.
    pub(super) extent: Extent,
    /// Whether it is unpacked. As with containerd's own configuration all that matters of a platform is
    /// the system, so that what is taken for several is unpacked for all of these.
    pub(super) unpack: bool,
}

/// What the image store of a request takes.
///
/// # Errors
/// `InvalidArgument` for what is no platform, and when unpacking is asked for, and nothing of what is
/// asked for can be done.
pub(super) fn taken(store: &ImageStore) -> Result<Taken, Status> {
    let platforms = store.platforms.iter().map(platform);
    let mut platforms: Vec<Platform> = platforms.collect::<Result<_, _>>()?;
    let limit = usize::try_from(store.manifest_limit).unwrap_or(usize::MAX);
    let unpacked = unpacked(store)?;
    let all = platforms.is_empty();
    // Clients name the host where nobody asked for a platform. An image that has only another is
    // taken then, as it is by containerd, which looks no further than the entries of an index.
    if platforms == [Platform::host()] {
        platforms.clear();
    }
    Ok(Taken {
        platforms,
        all,
        unpack: !unpacked.is_empty(),
        extent: Extent {
            metadata: store.all_metadata,
            limit: NonZeroUsize::new(limit),
            // containerd leaves out what suits none of them, and looks for nothing.
            any: true,
            unpacked,
        },
    })
}

/// For which platforms images are unpacked; none if they are not.
fn unpacked(store: &ImageStore) -> Result<Vec<Platform>, Status> {
    let ours = store.unpacks.iter().filter(|wanted| is_ours(wanted));
    let unpacked = ours.map(|wanted| match &wanted.platform {
        Some(wire) if !wire.os.is_empty() && !wire.architecture.is_empty() => platform(wire),
        _ => Ok(Platform::host()),
    });
    let unpacked: Vec<Platform> = unpacked.collect::<Result<_, _>>()?;
    match unpacked.is_empty() && !store.unpacks.is_empty() {
        true => Err(with(
            ErrorKind::InvalidArgument,
            "no unpack platforms defined",
        )),
        false => Ok(unpacked),
    }
}

fn is_ours(wanted: &UnpackConfiguration) -> bool {
    let os = wanted.platform.as_ref().map_or("", |platform| &platform.os);
    let ours = os.is_empty() || os.eq_ignore_ascii_case("linux");
    ours && (wanted.snapshotter.is_empty() || wanted.snapshotter == SNAPSHOTTER)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn wire(os: &str, architecture: &str) -> types::Platform {
        types::Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            ..types::Platform::default()
        }
    }

    fn store(platforms: &[types::Platform], limit: u32) -> ImageStore {
        ImageStore {
            platforms: platforms.to_vec(),
            manifest_limit: limit,
            ..ImageStore::default()
        }
    }

    #[test]
    fn images_of_all_platforms_are_taken_where_none_is_named() {
        let of = |platforms: &[types::Platform], limit| {
            let taken = taken(&store(platforms, limit)).expect("taken");
            let limit = taken.extent.limit.map_or(0, NonZeroUsize::get);
            (taken.platforms.len(), taken.all, limit)
        };
        assert_eq!(of(&[], 0), (0, true, 0));
        assert_eq!(of(&[], 3), (0, true, 3));
        let named = [wire("linux", "arm64"), wire("linux", "s390x")];
        assert_eq!(of(&named, 1), (2, false, 1));
        let host = Platform::host();
        let host = wire(&host.os, &host.architecture);
        assert_eq!(of(&[host], 0), (0, false, 0));
        let odd = taken(&store(&[wire("", "amd64")], 0)).map(|_| ());
        assert_eq!(
            odd.map_err(|status| status.code()),
            Err(Code::InvalidArgument)
        );
    }

    /// The cases of containerd's own test of it (`core/transfer/local`, `TestGetSupportedPlatform`),
    /// for one snapshotter.
    #[test]
    fn unpacking_is_for_this_system_and_our_snapshotter() {
        let unpack = |os: &str, snapshotter: &str| UnpackConfiguration {
            platform: Some(wire(os, "arm64")),
            snapshotter: snapshotter.to_owned(),
        };
        let asked = |unpacks: Vec<UnpackConfiguration>| {
            let taken = taken(&ImageStore {
                unpacks,
                ..ImageStore::default()
            });
            let unpacked = |taken: Taken| {
                assert_eq!(taken.unpack, !taken.extent.unpacked.is_empty());
                taken.extent.unpacked
            };
            taken.map(unpacked).map_err(|status| status.code())
        };
        let arm: Platform = "linux/arm64".parse().expect("platform");
        assert_eq!(asked(vec![]), Ok(vec![]));
        let ours = Ok(vec![arm.clone()]);
        assert_eq!(asked(vec![unpack("linux", "overlayfs")]), ours);
        assert_eq!(asked(vec![unpack("linux", "")]), ours);
        let host = Ok(vec![Platform::host()]);
        assert_eq!(asked(vec![UnpackConfiguration::default()]), host);
        let none = Err(Code::InvalidArgument);
        assert_eq!(asked(vec![unpack("linux", "native")]), none);
        assert_eq!(asked(vec![unpack("windows", "")]), none);
        let both = vec![unpack("linux", "native"), unpack("linux", "")];
        assert_eq!(asked(both), Ok(vec![arm]));
    }
}
