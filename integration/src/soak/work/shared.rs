//! Images of a registry that share their layers: pulled, run, built on and let go of by all at once. What a
//! client has named only it removes; the layers are everybody's, and the collector is always at them.

use std::fmt;

use cairn_proto::containerd::{
    services::{
        diff::v1::DiffRequest,
        images::v1::{CreateImageRequest, DeleteImageRequest, GetImageRequest, Image},
        leases::v1::{CreateRequest, DeleteRequest},
        transfer::v1::TransferRequest,
    },
    types::{
        Descriptor, Platform,
        transfer::{ImageStore, OciRegistry, RegistryResolver, UnpackConfiguration},
    },
};
use prost_types::Any;
use serde_json::Value;

use super::{
    super::{
        api::{Api, Verdict, check, good},
        client::Desk,
        shelf,
    },
    content,
    images::descriptor,
    snapshots::{self, Mounted},
};
use crate::image::{architecture, digest};

/// An image that this client has pulled.
struct Pulled {
    number: usize,
    name: String,
    target: Descriptor,
    /// Manifest, configuration and layers.
    blobs: Vec<String>,
    chain: String,
}

/// As containerd's clients have it, without what stands before the type's name.
fn packed(message: Result<Any, impl fmt::Display>) -> Verdict<Any> {
    let mut any = message.map_err(|err| format!("pack: {err}"))?;
    if let Some((_, name)) = any.type_url.rsplit_once('/') {
        any.type_url = name.to_owned();
    }
    Ok(any)
}

async fn document(api: &Api, digest: &str) -> Verdict<Value> {
    let bytes = content::read(api, digest, 0).await?;
    serde_json::from_slice(&bytes).map_err(|err| format!("{digest}: {err}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Pulls one of them under a name of this client's, and unpacks it.
async fn pull(desk: &mut Desk) -> Verdict<Pulled> {
    let number = desk.dice.roll(shelf::IMAGES);
    let name = format!("soak.test/{}:1", desk.name);
    let from = OciRegistry {
        reference: shelf::reference(&desk.registry, number),
        resolver: Some(RegistryResolver {
            default_scheme: "http".to_owned(),
            ..RegistryResolver::default()
        }),
    };
    let platform = Platform {
        os: "linux".to_owned(),
        architecture: architecture().to_owned(),
        ..Platform::default()
    };
    let to = ImageStore {
        name: name.clone(),
        unpacks: vec![UnpackConfiguration {
            platform: Some(platform),
            snapshotter: "overlayfs".to_owned(),
        }],
        ..ImageStore::default()
    };
    let request = TransferRequest {
        source: Some(packed(Any::from_msg(&from))?),
        destination: Some(packed(Any::from_msg(&to))?),
        options: None,
    };
    let api = &desk.api;
    good("pull", api.transfers().transfer(request).await)?;
    let request = GetImageRequest { name: name.clone() };
    let image = good("get", api.images().get(request).await)?.image;
    let target = image.and_then(|image| image.target);
    let target = target.ok_or_else(|| format!("{name} points at nothing"))?;
    let pulled = described(api, number, name, target).await?;
    pulled.is_there(api, "what was pulled").await?;
    Ok(pulled)
}

async fn described(api: &Api, number: usize, name: String, target: Descriptor) -> Verdict<Pulled> {
    let manifest = document(api, &target.digest).await?;
    let config = text(&manifest["config"]["digest"]);
    let layers = manifest["layers"].as_array().into_iter().flatten();
    let mut blobs = vec![target.digest.clone(), config.clone()];
    blobs.extend(layers.map(|layer| text(&layer["digest"])));
    let config = document(api, &config).await?;
    let mut chain = String::new();
    for diff_id in config["rootfs"]["diff_ids"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let diff_id = text(diff_id);
        chain = match chain.is_empty() {
            true => diff_id,
            false => digest(format!("{chain} {diff_id}").as_bytes()),
        };
    }
    Ok(Pulled {
        number,
        name,
        target,
        blobs,
        chain,
    })
}

impl Pulled {
    /// All of it, for which this client has a name or a lease.
    async fn is_there(&self, api: &Api, what: &str) -> Verdict {
        for blob in &self.blobs {
            check(content::exists(api, blob).await?, || {
                format!("{what}: digest not found: {blob} of image {}", self.number)
            })?;
        }
        self.is_unpacked(api, what).await
    }

    async fn is_unpacked(&self, api: &Api, what: &str) -> Verdict {
        check(snapshots::exists(api, &self.chain).await?, || {
            format!("{what}: the snapshot of image {} is gone", self.number)
        })
    }

    /// Its files are those that were put into the registry.
    fn is_in(&self, mounted: &Mounted) -> Verdict {
        let files = shelf::files(self.number);
        let mut files = files.iter();
        files.try_for_each(|(path, bytes)| mounted.holds(path, bytes))
    }
}

async fn remove(desk: &mut Desk, name: &str) -> Verdict {
    let request = DeleteImageRequest {
        name: name.to_owned(),
        sync: desk.dice.roll(3) == 0,
        ..DeleteImageRequest::default()
    };
    good("delete image", desk.api.images().delete(request).await)
}

async fn create(api: &Api, name: &str, target: Descriptor) -> Verdict {
    let request = CreateImageRequest {
        image: Some(Image {
            name: name.to_owned(),
            target: Some(target),
            ..Image::default()
        }),
        ..CreateImageRequest::default()
    };
    good("create image", api.images().create(request).await).map(drop)
}

/// Ends the lease of this piece of work, with the collection that follows, and makes it anew.
async fn let_go(desk: &Desk) -> Verdict {
    let id = format!("lease-{}", desk.name);
    let leases = || desk.api.within(desk.api.ns()).leases();
    let request = DeleteRequest {
        id: id.clone(),
        sync: true,
    };
    good("delete lease", leases().delete(request).await)?;
    let request = CreateRequest {
        id,
        ..CreateRequest::default()
    };
    good("create lease", leases().create(request).await).map(drop)
}

/// A container of it: that keeps the layers, whether the image's name is there or not.
pub(super) async fn run(desk: &mut Desk) -> Verdict {
    let pulled = pull(desk).await?;
    let key = format!("{}-run", desk.name);
    let mounts = snapshots::prepare(&desk.api, &key, &pulled.chain).await?;
    let early = desk.dice.roll(2) == 0;
    if early {
        remove(desk, &pulled.name).await?;
    }
    let mounted = Mounted::at(&desk.dir, &mounts).await?;
    pulled.is_in(&mounted)?;
    mounted.write("written", b"while it ran")?;
    mounted.end().await?;
    pulled.is_unpacked(&desk.api, "below a container").await?;
    snapshots::remove(&desk.api, &key).await?;
    if !early {
        remove(desk, &pulled.name).await?;
    }
    Ok(())
}

/// A layer on top of it, as builders make it: written, compared, committed, applied, and given a name that
/// then keeps it.
pub(super) async fn build(desk: &mut Desk) -> Verdict {
    let pulled = pull(desk).await?;
    let name = desk.name.clone();
    let key = |what: &str| format!("{name}-{what}");
    let bytes = desk.noise(20_000);
    let right = snapshots::prepare(&desk.api, &key("work"), &pulled.chain).await?;
    let mounted = Mounted::at(&desk.dir, &right).await?;
    mounted.write("built", &bytes)?;
    mounted.end().await?;
    let early = desk.dice.roll(2) == 0;
    if early {
        remove(desk, &pulled.name).await?;
    }
    let api = desk.api.clone();
    let request = DiffRequest {
        left: snapshots::view(&api, &key("look"), &pulled.chain).await?,
        right,
        r#ref: key("diff"),
        ..DiffRequest::default()
    };
    let layer = good("diff", api.diff().diff(request).await)?.diff;
    let layer = layer.ok_or_else(|| "diff: no descriptor".to_owned())?;
    let packed = content::read(&api, &layer.digest, 0).await?;
    check(i64::try_from(packed.len()).ok() == Some(layer.size), || {
        format!("the layer has {} bytes, not {}", packed.len(), layer.size)
    })?;
    snapshots::commit(&api, &key("built"), &key("work")).await?;
    let copy = snapshots::prepare(&api, &key("copy"), &pulled.chain).await?;
    snapshots::apply(&api, layer.clone(), copy.clone()).await?;
    let mounted = Mounted::at(&desk.dir, &copy).await?;
    mounted.holds("built", &bytes)?;
    pulled.is_in(&mounted)?;
    mounted.end().await?;
    named(desk, &pulled, &layer.digest, &key("built")).await?;
    if !early {
        remove(desk, &pulled.name).await?;
    }
    Ok(())
}

/// What was built gets a name, which alone keeps it; without that it goes.
async fn named(desk: &Desk, pulled: &Pulled, layer: &str, built: &str) -> Verdict {
    let name = format!("soak.test/{}:built", desk.name);
    let bytes = format!("built as {built}").into_bytes();
    let labels = [
        ("containerd.io/gc.ref.content.0", layer),
        ("containerd.io/gc.ref.snapshot.overlayfs", built),
    ];
    content::put(desk, &bytes, &labels).await?;
    let target = descriptor("application/octet-stream", &bytes);
    create(&desk.api, &name, target).await?;
    let_go(desk).await?;
    let api = desk.api.clone();
    check(content::exists(&api, layer).await?, || {
        format!("digest not found: {layer}, which a name keeps")
    })?;
    check(snapshots::exists(&api, built).await?, || {
        format!("snapshot {built} is gone, which a name keeps")
    })?;
    pulled.is_unpacked(&api, "below what was built").await?;
    let request = DeleteImageRequest {
        name,
        sync: true,
        ..DeleteImageRequest::default()
    };
    good("delete image", api.images().delete(request).await)?;
    check(!snapshots::exists(&api, built).await?, || {
        format!("snapshot {built}, which nothing keeps, outlived a collection")
    })
}

/// From one name to another, and the lease ends in between.
pub(super) async fn rename(desk: &mut Desk) -> Verdict {
    let pulled = pull(desk).await?;
    let second = format!("soak.test/{}:2", desk.name);
    let_go(desk).await?;
    pulled.is_there(&desk.api, "by its first name").await?;
    create(&desk.api, &second, pulled.target.clone()).await?;
    remove(desk, &pulled.name).await?;
    pulled.is_there(&desk.api, "by its second name").await?;
    remove(desk, &second).await
}
