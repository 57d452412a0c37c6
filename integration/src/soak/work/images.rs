//! An image from its blobs to its end, as clients that unpack by themselves make it.

use cairn_proto::containerd::{
    services::images::v1::{
        CreateImageRequest, DeleteImageRequest, GetImageRequest, Image, ListImagesRequest,
        UpdateImageRequest,
    },
    types::Descriptor,
};
use prost_types::FieldMask;
use serde_json::json;
use tonic::Code;

use super::{
    super::{
        api::{Verdict, check, either, good, map, refused},
        client::Desk,
    },
    content, snapshots,
};
use crate::image::{Layer, OCI_CONFIG, OCI_MANIFEST, Packing, Stored, digest};

pub(super) fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: digest(bytes),
        size: i64::try_from(bytes.len()).unwrap_or(-1),
        ..Descriptor::default()
    }
}

/// Three documents that hold one another.
struct Parts {
    layer: Stored,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Parts {
    fn new(desk: &mut Desk, bytes: &[u8]) -> Parts {
        let packing = [Packing::Plain, Packing::Gzip, Packing::Zstd][desk.dice.roll(3)];
        let mut layer = Layer::new().dir("etc", 0o755).file("etc/data", bytes);
        for number in 0..desk.dice.roll(20) {
            layer = layer.file(&format!("etc/{number}"), b"small");
        }
        let layer = Stored::packed(&layer.finish(), packing);
        let config = json!({
            "architecture": crate::image::architecture(), "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        });
        let config = config.to_string().into_bytes();
        let of = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": of(OCI_CONFIG, &config),
            "layers": [of(&layer.media_type, &layer.bytes)],
        });
        Parts {
            manifest: manifest.to_string().into_bytes(),
            layer,
            config,
        }
    }

    /// Stores all, with the labels by which one keeps the other.
    async fn put(&self, desk: &Desk) -> Verdict {
        content::put(desk, &self.layer.bytes, &[]).await?;
        let snapshot = [(
            "containerd.io/gc.ref.snapshot.overlayfs",
            &*self.layer.diff_id,
        )];
        let config = content::put(desk, &self.config, &snapshot).await?;
        let layer = digest(&self.layer.bytes);
        let below = [
            ("containerd.io/gc.ref.content.config", &*config),
            ("containerd.io/gc.ref.content.l.0", &layer),
        ];
        content::put(desk, &self.manifest, &below).await?;
        Ok(())
    }

    /// Unpacks the layer into a snapshot of that name, unless it is there.
    async fn unpack(&self, desk: &Desk) -> Verdict {
        let key = format!("{}-extract", desk.name);
        let mounts = snapshots::prepare(&desk.api, &key, "").await?;
        let diff = descriptor(&self.layer.media_type, &self.layer.bytes);
        let applied = snapshots::apply(&desk.api, diff, mounts).await?;
        check(applied == self.layer.diff_id, || {
            format!("applied {applied}, not {}", self.layer.diff_id)
        })?;
        snapshots::commit(&desk.api, &self.layer.diff_id, &key).await
    }

    /// All that should go with the image.
    fn blobs(&self) -> [String; 3] {
        [&self.layer.bytes, &self.config, &self.manifest].map(|bytes| digest(bytes))
    }
}

/// From blobs to an image, run, and removed with everything that was its own.
pub(super) async fn live(desk: &mut Desk) -> Verdict {
    let bytes = desk.noise(10_000);
    let parts = Parts::new(desk, &bytes);
    parts.put(desk).await?;
    parts.unpack(desk).await?;
    let api = desk.api.clone();
    let name = format!("soak.test/{}:1", desk.name);
    let image = Image {
        name: name.clone(),
        target: Some(descriptor(OCI_MANIFEST, &parts.manifest)),
        ..Image::default()
    };
    let request = || CreateImageRequest {
        image: Some(image.clone()),
        ..CreateImageRequest::default()
    };
    good("create", api.images().create(request()).await)?;
    let again = api.images().create(request()).await;
    refused("create again", again, Code::AlreadyExists)?;
    let request = UpdateImageRequest {
        image: Some(Image {
            labels: map(&[("soak", &desk.name)]),
            ..image.clone()
        }),
        update_mask: Some(FieldMask {
            paths: vec!["labels".to_owned()],
        }),
        ..UpdateImageRequest::default()
    };
    good("update", api.images().update(request).await)?;
    let request = ListImagesRequest {
        filters: vec![format!("labels.soak=={:?}", desk.name)],
    };
    let listed = good("list", api.images().list(request).await)?.images;
    check(listed.len() == 1 && listed[0].name == name, || {
        format!("{} images carry the label of one", listed.len())
    })?;
    // Run it.
    let run = format!("{}-run", desk.name);
    let mounts = snapshots::prepare(&api, &run, &parts.layer.diff_id).await?;
    let mounted = snapshots::Mounted::at(&desk.dir, &mounts).await?;
    mounted.holds("etc/data", &bytes)?;
    mounted.write("written", b"while it ran")?;
    mounted.end().await?;
    snapshots::remove(&api, &run).await?;
    gone(desk, &parts, &name).await
}

/// Without its lease the image keeps everything; without the image all of it goes.
async fn gone(desk: &mut Desk, parts: &Parts, name: &str) -> Verdict {
    let lease = cairn_proto::containerd::services::leases::v1::DeleteRequest {
        id: format!("lease-{}", desk.name),
        sync: true,
    };
    let api = desk.api.within(desk.api.ns());
    good("delete lease", api.leases().delete(lease).await)?;
    for blob in parts.blobs() {
        check(content::exists(&api, &blob).await?, || {
            format!("{blob} of an image was collected")
        })?;
    }
    check(snapshots::exists(&api, &parts.layer.diff_id).await?, || {
        "the snapshot of an image was collected".to_owned()
    })?;
    let request = GetImageRequest {
        name: name.to_owned(),
    };
    good("get", api.images().get(request).await)?;
    let request = DeleteImageRequest {
        name: name.to_owned(),
        sync: true,
        ..DeleteImageRequest::default()
    };
    good("delete", api.images().delete(request).await)?;
    for blob in parts.blobs() {
        check(!content::exists(&api, &blob).await?, || {
            format!("{blob} of a removed image is there")
        })?;
    }
    check(
        !snapshots::exists(&api, &parts.layer.diff_id).await?,
        || "the snapshot of a removed image is there".to_owned(),
    )?;
    // What comes after expects the lease that this began with.
    let request = cairn_proto::containerd::services::leases::v1::CreateRequest {
        id: format!("lease-{}", desk.name),
        ..Default::default()
    };
    good("create lease", api.leases().create(request).await)?;
    Ok(())
}

/// The answers to calls that several make on one name.
pub(super) async fn contend(desk: &mut Desk, name: &str) -> Verdict {
    let bytes = b"what an image stands for".to_vec();
    content::put(desk, &bytes, &[]).await?;
    let image = Image {
        name: name.to_owned(),
        target: Some(descriptor("application/octet-stream", &bytes)),
        labels: map(&[("by", &desk.name)]),
        ..Image::default()
    };
    let request = CreateImageRequest {
        image: Some(image.clone()),
        ..CreateImageRequest::default()
    };
    let answer = desk.api.images().create(request).await;
    either("create", answer, &[Code::AlreadyExists])?;
    let request = UpdateImageRequest {
        image: Some(image),
        ..UpdateImageRequest::default()
    };
    let answer = desk.api.images().update(request).await;
    either("update", answer, &[Code::NotFound])?;
    let request = DeleteImageRequest {
        name: name.to_owned(),
        sync: desk.dice.roll(2) == 0,
        ..DeleteImageRequest::default()
    };
    let answer = desk.api.images().delete(request).await;
    either("delete", answer, &[Code::NotFound])?;
    Ok(())
}
