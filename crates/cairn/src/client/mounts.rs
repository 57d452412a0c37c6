//! An image's files at a directory: mounted here, of what the server prepares.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use cairn_bundle::{MountRequest, Mounts, Prepared};
use cairn_proto::cairn::v1::{self, images_client::ImagesClient, prepare_mount_response::Part};
use cairn_types::{ErrorKind, HostDir, ImageName, Namespace, Platform, SnapshotKey};

use super::{
    Client, Progress, Result,
    bundle::{known, mounts, unusable},
    link::client,
    progress::tell,
};
use crate::error::{Problem, quote};

/// How an image is mounted.
pub struct MountOptions {
    /// Writable.
    pub rw: bool,
    /// Which variant; the host's when `None`.
    pub platform: Option<Platform>,
    /// How long it is kept from the collector; until it is unmounted when `None`.
    pub life: Option<Duration>,
}

impl Client {
    /// The files at a directory.
    pub fn mount_image(
        &self,
        name: &ImageName,
        target: &Path,
        options: MountOptions,
        progress: &dyn Progress,
    ) -> Result<PathBuf> {
        let snapshots = Snapshots {
            client: self,
            progress: Some(progress),
        };
        let request = MountRequest {
            ns: self.ns.clone(),
            name: name.clone(),
            target: target.to_owned(),
            rw: options.rw,
            platform: options.platform,
            life: options.life,
        };
        cairn_bundle::mount_image(&snapshots, &request).map_err(|problem| self.with_rights(problem))
    }

    /// Undoes [`Client::mount_image`].
    pub fn unmount_image(&self, target: &Path, remove: bool) -> Result<()> {
        let snapshots = Snapshots {
            client: self,
            progress: None,
        };
        cairn_bundle::unmount_image(&snapshots, &self.ns, target, remove)
            .map_err(|problem| self.with_rights(problem))
    }

    /// Refuses to remove a snapshot whose files somebody looks at here: they would be gone under the
    /// mount, which a daemon may not see.
    pub(super) fn check_mounts(&self, key: &SnapshotKey, recursive: bool) -> Result<()> {
        let mut family = vec![key.to_string()];
        if recursive {
            let known = self.snapshots()?;
            let mut at = 0;
            while let Some(parent) = family.get(at).cloned() {
                let children = known.iter().filter(|s| s.parent.as_ref() == Some(&parent));
                family.extend(children.map(|child| child.key.clone()));
                at += 1;
            }
        }
        let mut targets = Vec::new();
        for one in &family {
            targets.extend(cairn_bundle::mounted_at(&SnapshotKey::parse(one)?));
        }
        let reason = match targets.as_slice() {
            [] => return Ok(()),
            [target] => format!("it is mounted at {target}"),
            all => format!("{} mounts show it", all.len()),
        };
        let kind = ErrorKind::FailedPrecondition;
        let mut problem = Problem::new(kind, "remove snapshot", key.as_str(), reason);
        problem.namespace = Some(self.ns.to_string());
        for target in &targets {
            if targets.len() > 1 {
                problem = problem.cause(format!("mounted at {target}"));
            }
            let target = quote(target.as_str());
            problem = problem.next(format!("cairn images unmount --rm {target}"));
        }
        Err(problem)
    }
}

/// The server's part.
struct Snapshots<'c> {
    client: &'c Client,
    progress: Option<&'c dyn Progress>,
}

impl Mounts for Snapshots<'_> {
    type Error = Problem;

    fn prepare(&self, request: &MountRequest, target: &HostDir) -> Result<Prepared> {
        let link = &self.client.link;
        let platform = request.platform.as_ref();
        let end = |life| SystemTime::now().checked_add(life).map(Into::into);
        let expires_at = match request.life.map(end) {
            Some(None) => {
                let text = "no calendar has the day on which it would expire";
                return Err(Problem::usage(text).next("-x 0 never expires"));
            }
            end => end.flatten(),
        };
        let order = link.request(v1::PrepareMountRequest {
            name: request.name.to_string(),
            target: target.to_string(),
            rw: request.rw,
            platform: platform.map(ToString::to_string).unwrap_or_default(),
            expires_at,
        });
        let prepared = link.wait(async {
            let mut images = client!(link, ImagesClient<_>);
            let mut answers = images.prepare_mount(order).await?.into_inner();
            while let Some(answer) = answers.message().await? {
                match answer.part {
                    Some(Part::Progress(told)) => {
                        if let Some(progress) = self.progress {
                            tell(progress, told);
                        }
                    }
                    Some(Part::Prepared(prepared)) => return Ok(Some(prepared)),
                    None => {}
                }
            }
            Ok(None)
        })?;
        let prepared =
            prepared.ok_or_else(|| unusable("its answer ended before the mount was prepared"))?;
        Ok(Prepared {
            key: SnapshotKey::parse(&prepared.key)?,
            writable: request.rw,
            reused: prepared.reused,
            mounts: mounts(prepared.mounts),
        })
    }

    fn get(&self, _: &Namespace, target: &HostDir) -> Result<Option<Prepared>> {
        let link = &self.client.link;
        let target = target.to_string();
        let mut images = client!(link, ImagesClient<_>);
        let answer = images.get_mount(link.request(v1::GetMountRequest { target }));
        let Some(found) = known(link.wait(answer))? else {
            return Ok(None);
        };
        Ok(Some(Prepared {
            key: SnapshotKey::parse(&found.key)?,
            writable: found.writable,
            reused: true,
            mounts: mounts(found.mounts),
        }))
    }

    fn release(&self, _: &Namespace, target: &HostDir, remove: bool) -> Result<()> {
        let link = &self.client.link;
        let target = target.to_string();
        let mut images = client!(link, ImagesClient<_>);
        let answer = images.release_mount(link.request(v1::ReleaseMountRequest { target, remove }));
        link.wait(answer).map(drop)
    }
}
