//! Platforms of a transfer: those of which images are taken, and those for which they are unpacked.

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

/// Which manifests of an index are taken.
pub(super) struct Taken {
    /// The best for each of these; without any the host's, or whatever stands alone.
    pub(super) platforms: Vec<Platform>,
    /// All of them.
    pub(super) all: bool,
}

/// What the image store of a request takes.
///
/// # Errors
/// `InvalidArgument` for what is no platform, `Unimplemented` for a limit that would have to choose.
pub(super) fn taken(store: &ImageStore) -> Result<Taken, Status> {
    let platforms = store.platforms.iter().map(platform);
    let mut platforms: Vec<Platform> = platforms.collect::<Result<_, _>>()?;
    let limit = usize::try_from(store.manifest_limit).unwrap_or(usize::MAX);
    match (limit, platforms.is_empty()) {
        (0, _) => {}
        (_, true) => {
            let message = "a limit of manifests for images of all platforms";
            return Err(with(ErrorKind::Unimplemented, message));
        }
        // The first are those that matter most; there is one manifest for each.
        (limit, false) => platforms.truncate(limit),
    }
    let all = platforms.is_empty();
    // Clients name the host where nobody asked for a platform. An image that has only another is
    // taken then, as it is by containerd, which looks no further than the entries of an index.
    if platforms == [Platform::host()] {
        platforms.clear();
    }
    Ok(Taken { platforms, all })
}

/// Whether images are unpacked; as with containerd's own configuration all that matters of a platform
/// is the system.
///
/// # Errors
/// `InvalidArgument` when it is asked for, and nothing of what is asked for can be done.
pub(super) fn unpacks(store: &ImageStore) -> Result<bool, Status> {
    if store.unpacks.is_empty() {
        return Ok(false);
    }
    match store.unpacks.iter().any(is_ours) {
        true => Ok(true),
        false => Err(with(
            ErrorKind::InvalidArgument,
            "no unpack platforms defined",
        )),
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
        let Taken { platforms, all } = taken(&store(&[], 0)).expect("taken");
        assert_eq!((platforms, all), (vec![], true));
        let named = [wire("linux", "arm64"), wire("linux", "s390x")];
        let Taken { platforms, all } = taken(&store(&named, 1)).expect("taken");
        assert_eq!((platforms.len(), all), (1, false));
        let host = Platform::host();
        let host = wire(&host.os, &host.architecture);
        let Taken { platforms, all } = taken(&store(&[host], 0)).expect("taken");
        assert_eq!((platforms, all), (vec![], false));
        let limited = taken(&store(&[], 1))
            .map(|_| ())
            .map_err(|status| status.code());
        assert_eq!(limited, Err(Code::Unimplemented));
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
            let unpacked = self::unpacks(&ImageStore {
                unpacks,
                ..ImageStore::default()
            });
            unpacked.map_err(|status| status.code())
        };
        assert_eq!(asked(vec![]), Ok(false));
        assert_eq!(asked(vec![unpack("linux", "overlayfs")]), Ok(true));
        assert_eq!(asked(vec![unpack("linux", "")]), Ok(true));
        assert_eq!(asked(vec![UnpackConfiguration::default()]), Ok(true));
        let none = Err(Code::InvalidArgument);
        assert_eq!(asked(vec![unpack("linux", "native")]), none);
        assert_eq!(asked(vec![unpack("windows", "")]), none);
        let both = vec![unpack("linux", "native"), unpack("linux", "")];
        assert_eq!(asked(both), Ok(true));
    }
}
