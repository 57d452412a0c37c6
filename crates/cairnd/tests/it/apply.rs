//! `Diff.Apply`: a stored layer into the snapshot that its mounts show.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use cairn_proto::containerd::{
    services::{
        diff::v1::ApplyRequest,
        snapshots::v1::{CommitSnapshotRequest, PrepareSnapshotRequest, ViewSnapshotRequest},
    },
    types::{Descriptor, Mount},
};
use tonic::Code;

use crate::common::{
    Client, Server, descriptor,
    layer::{Layer, tree},
    sha256,
};

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

async fn prepare(client: &Client, key: &str, parent: &str) -> Vec<Mount> {
    let request = PrepareSnapshotRequest {
        snapshotter: "overlayfs".to_owned(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        ..PrepareSnapshotRequest::default()
    };
    let answer = client.snapshots().prepare(request).await.expect("prepare");
    answer.into_inner().mounts
}

async fn commit(client: &Client, name: &str, key: &str) {
    let request = CommitSnapshotRequest {
        snapshotter: "overlayfs".to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
        ..CommitSnapshotRequest::default()
    };
    client.snapshots().commit(request).await.expect("commit");
}

async fn apply_as(client: &Client, diff: Descriptor, mounts: &[Mount]) -> Result<Descriptor, Code> {
    let request = ApplyRequest {
        diff: Some(diff),
        mounts: mounts.to_vec(),
        ..ApplyRequest::default()
    };
    let answer = client.diff().apply(request).await;
    let answer = answer.map_err(|status| status.code())?.into_inner();
    Ok(answer.applied.expect("applied"))
}

async fn apply(client: &Client, layer: Layer, mounts: &[Mount]) -> Result<(), Code> {
    let bytes = layer.bytes();
    let digest = sha256(&bytes);
    if !client.has(&digest).await {
        client.put_bytes(&bytes, &[]).await;
    }
    let applied = apply_as(client, descriptor(TAR, &digest, bytes.len()), mounts).await?;
    assert_eq!(applied.digest, digest);
    Ok(())
}

/// Where a mount's own files are.
fn upper(mounts: &[Mount]) -> PathBuf {
    let mount = &mounts[0];
    let upper = mount
        .options
        .iter()
        .find_map(|o| o.strip_prefix("upperdir="));
    PathBuf::from(upper.unwrap_or(&mount.source))
}

fn base() -> Layer {
    let layer = Layer::new().dir("d/").file("d/one", "1").file("d/two", "2");
    layer.dir("d/sub/").file("d/sub/x", "x").file("f", "f")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = std::process::Command::new("gzip")
        .arg("-nc")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("gzip");
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(bytes).expect("write");
    drop(stdin);
    child.wait_with_output().expect("gzip").stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_of_the_uncompressed_stream() {
    let server = Server::start().await;
    let client = server.client("n");
    let plain = base().bytes();
    let mut trailed = plain.clone();
    trailed.extend_from_slice(b"trailing bytes count");
    let types = [
        (TAR, plain.clone(), plain.clone()),
        (GZIP, gzip(&plain), plain.clone()),
        (GZIP, plain.clone(), plain.clone()),
        (
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            gzip(&plain),
            plain.clone(),
        ),
        (
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            gzip(&plain),
            plain,
        ),
        (TAR, trailed.clone(), trailed),
        (GZIP, Vec::new(), Vec::new()),
    ];
    for (n, (media_type, stored, expected)) in types.into_iter().enumerate() {
        let client = server.client(&format!("n{n}"));
        let digest = client.put_bytes(&stored, &[]).await;
        let mounts = prepare(&client, "k", "").await;
        // The size of the descriptor is nobody's business here.
        let applied = apply_as(&client, descriptor(media_type, &digest, 1), &mounts).await;
        let applied = applied.expect(media_type);
        assert_eq!(applied, descriptor(TAR, &sha256(&expected), expected.len()));
    }
    let mounts = prepare(&client, "k", "").await;
    let elsewhere = apply(&client, base(), &mounts).await;
    assert_eq!(elsewhere, Ok(()));
    for digest in [&*sha256(b"missing"), "nonsense", ""] {
        let missing = apply_as(&client, descriptor(TAR, digest, 1), &mounts).await;
        assert_eq!(missing.err(), Some(Code::NotFound), "{digest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_writable_snapshot_of_the_namespace_is_a_target() {
    let server = Server::start().await;
    let client = server.client("n");
    let mounts = prepare(&client, "k", "").await;
    apply(&client, base(), &mounts).await.expect("apply");
    commit(&client, "base", "k").await;
    let request = ViewSnapshotRequest {
        snapshotter: "overlayfs".to_owned(),
        key: "v".to_owned(),
        parent: "base".to_owned(),
        ..ViewSnapshotRequest::default()
    };
    let view = client.snapshots().view(request).await.expect("view");
    let view = view.into_inner().mounts;
    let others = prepare(&server.client("m"), "k", "").await;
    let outside = Mount {
        r#type: "bind".to_owned(),
        source: server.path("outside").display().to_string(),
        options: vec!["rw".to_owned(), "rbind".to_owned()],
        ..Mount::default()
    };
    fs::create_dir(server.path("outside")).expect("directory");
    // containerd mounts whatever it is told and answers Unknown when that fails; with no mounts it
    // unpacks into a directory that nobody will ever find. Clients of a store do not need that, and
    // would get the whole host to write to.
    for (what, mounts) in [
        ("a view", view),
        ("another namespace's", others),
        ("a directory", vec![outside]),
        ("nothing", vec![]),
        ("what was committed", mounts),
    ] {
        let refused = apply(&client, base(), &mounts).await;
        assert_eq!(refused, Err(Code::InvalidArgument), "{what}");
    }
    assert_eq!(tree(&server.path("outside")), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_layers_and_other_types() {
    let server = Server::start().await;
    let client = server.client("n");
    let whole = base().bytes();
    let packed = gzip(&whole);
    let mut bad_sum = packed.clone();
    let at = bad_sum.len() - 6;
    bad_sum[at] ^= 1;
    // Unknown in containerd, whatever is wrong; these say that it is the layer.
    for (what, media_type, bytes) in [
        ("cut gzip", GZIP, packed[..packed.len() / 2].to_vec()),
        ("cut tar", TAR, whole[..700].to_vec()),
        ("text", TAR, vec![b'x'; 1024]),
        ("bad sum", GZIP, bad_sum),
        // The plain type is never inflated.
        ("gzip as tar", TAR, packed.clone()),
    ] {
        let digest = client.put_bytes(&bytes, &[]).await;
        let mounts = prepare(&client, what, "").await;
        let refused = apply_as(&client, descriptor(media_type, &digest, 1), &mounts).await;
        assert_eq!(refused.err(), Some(Code::InvalidArgument), "{what}");
    }
    // Unimplemented makes clients try the next differ; containerd's own error has no class.
    let digest = client.put_bytes(&whole, &[]).await;
    for media_type in ["", "text/plain", "application/vnd.oci.image.layer.v1.erofs"] {
        let mounts = prepare(&client, &format!("of {media_type}"), "").await;
        let refused = apply_as(&client, descriptor(media_type, &digest, 1), &mounts).await;
        assert_eq!(refused.err(), Some(Code::Unimplemented), "{media_type}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_an_overlay_whiteouts_become_its_marks() {
    let server = Server::start().await;
    let client = server.client("n");
    let mounts = prepare(&client, "k", "").await;
    apply(&client, base(), &mounts).await.expect("apply");
    commit(&client, "base", "k").await;
    for (layer, expected) in [
        (
            Layer::new()
                .dir("d/")
                .file("d/.wh.one", "")
                .file(".wh.f", "")
                .file("d/.wh.nobody", ""),
            // Also for what is not there, as containerd's: nobody has looked below.
            "d/ d/nobody whited d/one whited f whited",
        ),
        (
            Layer::new()
                .dir("d/")
                .file("d/new", "n")
                .file("d/.wh..wh..opq", "")
                .file("d/late", "l"),
            "d/! d/late=l d/new=n",
        ),
        (
            Layer::new().file("f", "over").symlink("d", "f"),
            "d->f f=over",
        ),
        // containerd fails here, as its mark finds the name taken; the specification has the whiteout
        // mean the layers below, wherever it stands.
        (Layer::new().file("f", "new").file(".wh.f", ""), "f=new"),
    ] {
        let key = format!("on {expected}");
        let mounts = prepare(&client, &key, "base").await;
        apply(&client, layer, &mounts).await.expect("apply");
        assert_eq!(tree(&upper(&mounts)), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_bind_mount_whiteouts_delete() {
    let server = Server::start().await;
    let client = server.client("n");
    for (layer, expected) in [
        (
            Layer::new()
                .dir("d/")
                .file("d/.wh.one", "")
                .file(".wh.f", "")
                .file("d/.wh.nobody", ""),
            "d/ d/sub/ d/sub/x=x d/two=2",
        ),
        (
            Layer::new()
                .dir("d/")
                .file("d/new", "n")
                .file("d/.wh..wh..opq", "")
                .file("d/late", "l"),
            "d/ d/late=l d/new=n f=f",
        ),
        (Layer::new().file(".wh.d", ""), "f=f"),
        (Layer::new().file(".wh..wh..opq", ""), ""),
        (
            Layer::new().file("d/sub/new", "n").file("d/.wh.sub", ""),
            "d/ d/one=1 d/sub/ d/sub/new=n d/two=2 f=f",
        ),
        // What the layer itself brings stays, as it does on an overlay: one image, one tree.
        // containerd deletes it here and fails there.
        (
            Layer::new()
                .file("f", "new")
                .file(".wh.f", "")
                .file(".wh.d", "")
                .dir("d/"),
            "d/ f=new",
        ),
        // Neither a mark nor an attribute of overlay's where a file gives way to a directory.
        (
            Layer::new().dir("f/").file("f/x", "1").file(".wh.d", ""),
            "f/ f/x=1",
        ),
    ] {
        let key = format!("with {expected}");
        let mounts = prepare(&client, &key, "").await;
        apply(&client, base(), &mounts).await.expect("base");
        apply(&client, layer, &mounts).await.expect("apply");
        assert_eq!(tree(&upper(&mounts)), expected);
    }
    // With nothing there before, there is nothing to delete.
    let mounts = prepare(&client, "empty", "").await;
    let layer = Layer::new()
        .file("x", "1")
        .file(".wh.x", "")
        .file(".wh.y", "")
        .file("y", "2");
    apply(&client, layer, &mounts).await.expect("apply");
    assert_eq!(tree(&upper(&mounts)), "x=1 y=2");
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_unpacked_side_by_side_keep_their_marks() {
    let server = Server::start().await;
    let client = server.client("n");
    let mounts = prepare(&client, "lower", "").await;
    apply(&client, base(), &mounts).await.expect("apply");
    commit(&client, "base", "lower").await;
    // containerd's unpacker prepares every layer without a parent, makes an overlay of the bind mount
    // by itself when the snapshotter has this name, and chooses the parent at the end.
    let [bind] = &*prepare(&client, "upper", "").await else {
        panic!("one mount")
    };
    let overlay = Mount {
        r#type: "overlay".to_owned(),
        source: "overlay".to_owned(),
        options: vec!["rw".to_owned(), format!("upperdir={}", bind.source)],
        ..Mount::default()
    };
    let layer = Layer::new().file(".wh.f", "").file("d/.wh.one", "");
    apply(&client, layer, &[overlay]).await.expect("apply");
    let marks = tree(Path::new(&bind.source));
    assert_eq!(marks, "d/ d/one whited f whited");
    let request = CommitSnapshotRequest {
        snapshotter: "overlayfs".to_owned(),
        name: "top".to_owned(),
        key: "upper".to_owned(),
        parent: "base".to_owned(),
        ..CommitSnapshotRequest::default()
    };
    client.snapshots().commit(request).await.expect("commit");
    let shown = prepare(&client, "shown", "top").await;
    let lower = shown[0].options.iter().find(|o| o.starts_with("lowerdir="));
    assert_eq!(lower.expect("lowers").matches("/fs").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leads_out_of_the_layer_is_refused() {
    let server = Server::start().await;
    let client = server.client("n");
    fs::write(server.path("victim"), "untouched").expect("write");
    let climb = "../".repeat(12);
    let victim = format!("{climb}{}", server.path("victim").display());
    // containerd cleans such names and goes on below the root, where no image meant them to go.
    for (n, layer) in [
        Layer::new().file(&victim, "changed"),
        Layer::new().hard_link("inside", &victim),
        Layer::new().file("a/../../b", "x"),
    ]
    .into_iter()
    .enumerate()
    {
        let mounts = prepare(&client, &format!("k{n}"), "").await;
        let refused = apply(&client, layer, &mounts).await;
        assert_eq!(refused, Err(Code::InvalidArgument), "{n}");
    }
    // A link may point anywhere; what goes through it stays inside.
    let mounts = prepare(&client, "through", "").await;
    let outside = server.work.path().display().to_string();
    let layer = Layer::new()
        .symlink("out", &outside)
        .file("out/victim", "changed");
    apply(&client, layer, &mounts).await.expect("apply");
    let text = fs::read_to_string(server.path("victim")).expect("read");
    assert_eq!(text, "untouched");
    let inside = upper(&mounts)
        .join(outside.trim_start_matches('/'))
        .join("victim");
    assert_eq!(fs::read_to_string(inside).expect("read"), "changed");
}
