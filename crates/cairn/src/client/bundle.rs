//! Bundles: what is outside of the store is made here, its records and layers are the server's.

use std::path::{Path, PathBuf};

use cairn_bundle::{Begun, Bundled, Known, Store};
use cairn_proto::{
    cairn::v1::{self, begin_bundle_response::Part, bundles_client::BundlesClient},
    containerd::types,
};
use cairn_types::{ErrorKind, Failure, HostDir, ImageName, Mount, Namespace, SnapshotKey};

pub use cairn_bundle::{BundleRequest, Net};

use super::{Client, Progress, Result, door, link::client, plain, progress::tell};
use crate::{error::Problem, model};

impl Client {
    /// Makes one, or mounts it again.
    pub fn bundle_create(
        &self,
        request: &BundleRequest,
        progress: &dyn Progress,
    ) -> Result<Bundled> {
        let records = self.records(progress);
        self.finish_bundles(&records);
        cairn_bundle::create(&records, request).map_err(|problem| self.with_rights(problem))
    }

    /// Unmounts and deletes one; its directory as it was listed.
    pub fn bundle_remove(&self, dir: &Path) -> Result<PathBuf> {
        let records = self.records(&Unheard);
        let removed = cairn_bundle::remove(&records, dir);
        self.finish_bundles(&records);
        removed.map_err(|problem| self.with_rights(problem))
    }

    /// Only root mounts, also where a group may talk to the daemon.
    pub(super) fn with_rights(&self, problem: Problem) -> Problem {
        door::with_rights(problem, self.link.address())
    }

    /// Those of this namespace, by directory.
    pub fn bundles(&self) -> Result<Vec<model::Bundle>> {
        self.finish_bundles(&self.records(&Unheard));
        let mut bundles = client!(self.link, BundlesClient<_>);
        let answer = bundles.list(
            self.link
                .request(v1::ListBundlesRequest { unfinished: false }),
        );
        let listed = self.link.wait(answer)?.into_inner().bundles;
        listed.into_iter().map(bundle).collect()
    }

    /// What was cut short is undone by whoever comes by. Only root can; and nobody's command fails for
    /// what another has left.
    fn finish_bundles(&self, records: &Records<'_>) {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        if let Err(problem) = cairn_bundle::finish(records) {
            tracing::warn!("{problem}");
        }
    }

    fn records<'c>(&'c self, progress: &'c dyn Progress) -> Records<'c> {
        Records {
            client: self,
            progress,
        }
    }
}

/// Nothing long is asked for.
struct Unheard;

impl Progress for Unheard {
    fn event(&self, _: super::Event) {}
}

/// The server's part.
struct Records<'c> {
    client: &'c Client,
    progress: &'c dyn Progress,
}

impl Store for Records<'_> {
    type Error = Problem;

    fn begin(&self, request: &BundleRequest, dir: &HostDir) -> Result<Begun> {
        let link = &self.client.link;
        let platform = request.platform.as_ref();
        let order = link.request(v1::BeginBundleRequest {
            image: request.image.to_string(),
            dir: dir.to_string(),
            platform: platform.map(ToString::to_string).unwrap_or_default(),
        });
        let begun = link.wait(async {
            let mut bundles = client!(link, BundlesClient<_>);
            let mut answers = bundles.begin(order).await?.into_inner();
            while let Some(answer) = answers.message().await? {
                match answer.part {
                    Some(Part::Progress(told)) => tell(self.progress, told),
                    Some(Part::Begun(begun)) => return Ok(Some(begun)),
                    None => {}
                }
            }
            Ok(None)
        })?;
        let begun =
            begun.ok_or_else(|| unusable("its answer ended before the bundle was begun"))?;
        let bundle = begun.bundle.unwrap_or_default();
        Ok(Begun {
            store: begun.store,
            snapshot: SnapshotKey::parse(&bundle.snapshot)?,
            platform: bundle.platform,
            mounts: mounts(begun.mounts),
            config: begun.config_bytes,
        })
    }

    fn complete(&self, dir: &HostDir, copied: bool) -> Result<()> {
        let link = &self.client.link;
        let dir = dir.to_string();
        let mut bundles = client!(link, BundlesClient<_>);
        let answer = bundles.complete(link.request(v1::CompleteBundleRequest { dir, copied }));
        link.wait(answer).map(drop)
    }

    fn withdraw(&self, dir: &HostDir) -> Result<()> {
        let link = &self.client.link;
        let dir = dir.to_string();
        let mut bundles = client!(link, BundlesClient<_>);
        let answer = bundles.withdraw(link.request(v1::WithdrawBundleRequest { dir }));
        link.wait(answer).map(drop)
    }

    fn discard(&self, dir: &HostDir) -> Result<()> {
        let link = &self.client.link;
        let dir = dir.to_string();
        let mut bundles = client!(link, BundlesClient<_>);
        let answer = bundles.drop(link.request(v1::DropBundleRequest { dir }));
        link.wait(answer).map(drop)
    }

    fn get(&self, dir: &HostDir) -> Result<Option<Known>> {
        let link = &self.client.link;
        let dir = dir.to_string();
        let mut bundles = client!(link, BundlesClient<_>);
        let answer = bundles.get(link.request(v1::GetBundleRequest { dir }));
        let Some(found) = known(link.wait(answer))? else {
            return Ok(None);
        };
        let bundle = found.bundle.unwrap_or_default();
        Ok(Some(Known {
            store: found.store,
            namespace: Namespace::parse(&bundle.namespace)?,
            image: ImageName::parse(&bundle.image)?,
            platform: bundle.platform,
            snapshot: SnapshotKey::parse(&bundle.snapshot)?,
            mounts: mounts(found.mounts),
            copied: bundle.copied,
            made: bundle.made,
        }))
    }

    fn unfinished(&self) -> Result<Vec<String>> {
        let link = &self.client.link;
        let mut bundles = client!(link, BundlesClient<_>);
        let answer = bundles.list(link.request(v1::ListBundlesRequest { unfinished: true }));
        let listed = link.wait(answer)?.into_inner().bundles.into_iter();
        Ok(listed.map(|bundle| bundle.dir).collect())
    }
}

fn bundle(bundle: v1::Bundle) -> Result<model::Bundle> {
    let size = match bundle.copied {
        false => Some(bundle.size),
        // Only whoever may look into it can count.
        true => cairn_bundle::copied_size(Path::new(&bundle.dir)).ok(),
    };
    let mounted = cairn_bundle::is_mounted(Path::new(&bundle.dir)).map_err(|err| {
        Problem::from(Failure::of("list bundles", &err).object("bundle", &bundle.dir))
    })?;
    Ok(model::Bundle {
        dir: bundle.dir,
        image: bundle.image,
        digest: bundle.manifest,
        platform: bundle.platform,
        snapshot: (!bundle.copied).then_some(bundle.snapshot),
        namespace: bundle.namespace,
        mounted,
        copied: bundle.copied,
        size,
        created_at: plain::time(bundle.created_at),
    })
}

/// An answer about something that need not be there.
pub(super) fn known<T>(answer: Result<tonic::Response<T>>) -> Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found.into_inner())),
        Err(problem) if problem.kind == ErrorKind::NotFound => Ok(None),
        Err(problem) => Err(problem),
    }
}

pub(super) fn mounts(wire: Vec<types::Mount>) -> Vec<Mount> {
    let convert = |mount: types::Mount| Mount {
        kind: mount.r#type,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    };
    wire.into_iter().map(convert).collect()
}

pub(super) fn unusable(reason: &str) -> Problem {
    Problem::new(
        ErrorKind::Internal,
        "",
        "",
        "the server answers with nothing to work on",
    )
    .cause(reason)
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        let mut problem = Problem::new(failure.kind, &failure.attempted, "", &*failure.reason);
        problem.object.clone_from(&failure.object);
        problem.namespace.clone_from(&failure.namespace);
        problem.found_in.clone_from(&failure.found_in);
        problem.causes.clone_from(&failure.causes);
        problem.location.clone_from(&failure.location);
        problem.next.clone_from(&failure.next);
        problem.other_platform.clone_from(&failure.other_platform);
        problem
    }
}
