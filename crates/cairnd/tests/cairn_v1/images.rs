//! `cairn.v1.Images`: what the command line asks of images.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path};

use crate::common::{
    Client, Server,
    archive::Archive,
    code,
    layer::Layer,
    own::{by_path, chunk, end, failure, in_chunks, options, refusal},
    sha256,
};
use cairn_proto::{
    cairn::v1::{
        ExportRequest, FileId, ImportOptions, ImportRequest, InspectRequest, ListImagesRequest,
        Phase, RemoveImageRequest, ResolveImageRequest, TagRequest, Unseen, export_response,
        import_response, inspect_node::Role, progress::Event, tag_response::Outcome,
    },
    containerd::services::content::v1::ListContentRequest,
};
use tonic::{Code, Status};

const NAME: &str = "docker.io/shop/web:1";

fn web() -> Archive {
    let base = Layer::new().dir("etc/").file("etc/motd", "hello");
    let top = Layer::new().file("etc/motd", "welcome");
    Archive::new(NAME, &[base.bytes(), top.bytes()])
}

async fn blobs(client: &Client) -> Vec<String> {
    let request = ListContentRequest { filters: vec![] };
    let list = client.content().list(request).await.expect("list");
    let (mut list, mut all) = (list.into_inner(), Vec::new());
    while let Some(batch) = list.message().await.expect("batch") {
        all.extend(batch.info.into_iter().map(|info| info.digest));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_and_chunks_give_the_same_image() {
    let server = Server::start().await;
    let archive = web();
    let file = server.path("web.tar");
    fs::write(&file, &archive.bytes).expect("file");
    let by_file = server.client("file");
    let (events, images) = by_file.import_path(by_path(&file)).await.expect("file");
    let [image] = &*images else {
        panic!("{images:?}")
    };
    let host = cairn_types::Platform::host().to_string();
    assert_eq!(image.platform, host);
    let image = image.image.clone().expect("image");
    assert_eq!((&*image.name, &*image.namespace), (NAME, "file"));
    assert_eq!(
        image.target.as_ref().expect("target").digest,
        archive.manifest
    );
    assert_eq!((image.complete, image.missing.len()), (true, 0));
    assert_eq!(image.platforms, std::slice::from_ref(&host));
    assert!(image.unpacked_size.expect("unpacked") > 0);
    // First what is to be done, last that it is done, and each layer's end in between.
    let Some(Event::Resolved(resolved)) = events.first() else {
        panic!("{events:?}")
    };
    assert_eq!((&*resolved.name, &resolved.platform), (NAME, &host));
    let layers = resolved.layers.iter().map(|layer| &layer.digest);
    assert!(layers.eq(&archive.layers));
    assert!(matches!(events.last(), Some(Event::Done(_))));
    for digest in &archive.layers {
        let ended = |event: &&Event| {
            matches!(event, Event::Layer(layer)
            if layer.digest == *digest && layer.phase() == Phase::Done && layer.done == layer.total)
        };
        assert_eq!(
            events.iter().filter(ended).count(),
            1,
            "{digest}: {events:?}"
        );
    }

    for size in [1, 511, 1 << 20] {
        let client = server.client(&format!("chunks{size}"));
        let imported = client.import_chunks(in_chunks("web"), &archive.bytes, size);
        let (_, images) = imported.await.expect("chunks");
        let other = images[0].image.clone().expect("image");
        assert_eq!(other.target, image.target, "{size}");
        assert_eq!(other.content_size, image.content_size, "{size}");
        assert_eq!(other.unpacked_size, image.unpacked_size, "{size}");
        assert_eq!(blobs(&client).await, blobs(&by_file).await, "{size}");
        let keys = |all: Vec<_>| -> Vec<String> {
            let key = |snapshot: cairn_proto::cairn::v1::Snapshot| snapshot.key;
            all.into_iter().map(key).collect()
        };
        let (ours, theirs) = (client.measured().await, by_file.measured().await);
        assert_eq!(keys(ours), keys(theirs), "{size}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_of_an_import_are_heard() {
    let server = Server::start().await;
    let client = server.client("n");
    let archive = web();
    let with = ImportOptions {
        digests: true,
        base_name: "docker.io/shop/web".to_owned(),
        labels: BTreeMap::from([("made".to_owned(), "here".to_owned())]),
        unpack: false,
        ..in_chunks("web")
    };
    let imported = client.import_chunks(with, &archive.bytes, 4096).await;
    let (_, images) = imported.expect("import");
    let names: Vec<String> = images
        .iter()
        .map(|image| image.image.as_ref().expect("image").name.clone())
        .collect();
    let by_digest = format!("docker.io/shop/web@{}", archive.manifest);
    assert_eq!(names, [NAME.to_owned(), by_digest]);
    let image = client.image(NAME).await.expect("image");
    assert_eq!(image.labels["made"], "here");
    assert_eq!(image.unpacked_size, None, "not unpacked");
    let none = ImportOptions {
        platforms: vec!["plan9/mips".to_owned()],
        ..in_chunks("web")
    };
    let imported = client.import_chunks(none, &archive.bytes, 4096).await;
    assert_eq!(refusal(imported).0, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_import_says_why_and_leaves_nothing() {
    let server = Server::start().await;
    let client = server.client("n");
    let archive = web();
    // A byte of a layer's data.
    let mut damaged = archive.bytes.clone();
    damaged[512 + 600] ^= 1;
    let file = server.path("damaged.tar");
    fs::write(&file, &damaged).expect("file");
    let with = ImportOptions {
        path_as: "./damaged.tar".to_owned(),
        ..by_path(&file)
    };
    let status = client.import_path(with).await.expect_err("damaged");
    let parts = failure(&status);
    assert_eq!(status.code(), Code::DataLoss);
    assert!(parts.reason.ends_with("is damaged"), "{parts:?}");
    assert!(parts.location.starts_with("./damaged.tar"), "{parts:?}");
    assert!(!parts.next.is_empty());
    let status = client
        .import_chunks(in_chunks("standard input"), &damaged, 1000)
        .await;
    let status = status.expect_err("damaged");
    assert_eq!(status.code(), Code::DataLoss);
    assert!(failure(&status).location.starts_with("standard input"));
    let cut = &archive.bytes[..archive.ends[0] + 700];
    let status = client.import_chunks(in_chunks("cut"), cut, 1000).await;
    assert_eq!(refusal(status).0, Code::DataLoss);
    assert_eq!(blobs(&client).await, [""; 0]);

    let nowhere = client.import_path(by_path(&server.path("nowhere"))).await;
    let (code, object, reason) = refusal(nowhere);
    assert_eq!(code, Code::NotFound);
    assert_eq!(object, server.path("nowhere").display().to_string());
    assert_eq!(reason, "no such file");
}

/// A daemon may have other files than its client below `/tmp`.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_server_does_not_see_is_asked_for() {
    let server = Server::start().await;
    let client = server.client("n");
    let (file, other) = (server.path("web.tar"), server.path("other.tar"));
    fs::write(&file, web().bytes).expect("file");
    fs::write(&other, web().bytes).expect("file");
    let id = |path: &Path| {
        let meta = fs::metadata(path).expect("metadata");
        Some(FileId {
            device: meta.dev(),
            inode: meta.ino(),
        })
    };
    let with = |path: &Path, path_is| ImportOptions {
        path_is,
        ..by_path(path)
    };
    for path in [&file, &server.path("nowhere")] {
        let import = client.begin_import(with(path, id(&other))).await;
        drop(import.send);
        let mut answers = import.answers;
        let first = answers.message().await.expect("answer").expect("a message");
        let unseen = import_response::Part::Unseen(Unseen {});
        assert_eq!(first.part, Some(unseen), "{}", path.display());
        assert_eq!(answers.message().await.expect("answer"), None);
    }
    assert_eq!(blobs(&client).await, [""; 0]);
    let imported = client.import_path(with(&file, id(&file))).await;
    assert_eq!(imported.expect("seen").1.len(), 1);
}

/// None of these may be waited for by anybody.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_refused() {
    let server = Server::start().await;
    let client = server.client("n");
    let send = |messages: Vec<ImportRequest>| {
        let client = client.clone();
        async move {
            let answers = client
                .cairn_images()
                .import(tokio_stream::iter(messages))
                .await?;
            end(answers.into_inner()).await
        }
    };
    let fifo = server.path("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .expect("fifo");
    let odd_platform = ImportOptions {
        platforms: vec!["linux".to_owned()],
        ..in_chunks("a")
    };
    let rows: Vec<(&str, Vec<ImportRequest>)> = vec![
        ("no message", vec![]),
        ("no part", vec![ImportRequest { part: None }]),
        ("no options", vec![chunk(b"abc")]),
        ("no archive", vec![options(ImportOptions::default())]),
        ("relative", vec![options(by_path("web.tar".as_ref()))]),
        ("pipe", vec![options(by_path(&fifo))]),
        ("platform", vec![options(odd_platform)]),
        ("no chunk", vec![options(in_chunks("a")), chunk(b"abc")]),
    ];
    for (what, messages) in rows {
        let (code, _, reason) = refusal(send(messages).await);
        assert_eq!(code, Code::InvalidArgument, "{what}: {reason}");
    }
    let again = vec![
        options(in_chunks("a")),
        chunk(&[0; 100]),
        options(in_chunks("a")),
    ];
    assert!(send(again).await.is_err());
    let nobody = server.nobody();
    let status = nobody.image(NAME).await.expect_err("no namespace");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(refusal(client.image("").await).0, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_found_by_what_people_type() {
    let server = Server::start().await;
    let client = server.client("n");
    let archive = web();
    let image = client.import(&archive).await;
    assert_eq!(client.image(NAME).await.expect("get"), image);
    let list = client.cairn_images().list(ListImagesRequest {}).await;
    let mut list = list.expect("list").into_inner();
    let batch = list.message().await.expect("batch").expect("one");
    assert_eq!(batch.images, [image]);
    assert_eq!(list.message().await.expect("end"), None);

    let resolve = |ns: &str, text: &str| {
        let request = ResolveImageRequest {
            text: text.to_owned(),
            attempted: "inspect image".to_owned(),
        };
        let mut images = server.client(ns).cairn_images();
        async move { images.resolve(request).await.map(|a| a.into_inner().name) }
    };
    for text in [NAME, "shop/web:1", &archive.manifest[7..14]] {
        assert_eq!(resolve("n", text).await.expect(text), NAME);
    }
    let status = resolve("n", "shop/wep:1").await.expect_err("none");
    let parts = failure(&status);
    assert_eq!((status.code(), &*parts.kind), (Code::NotFound, "not_found"));
    assert_eq!(
        (&*parts.object_kind, &*parts.object),
        ("image", "docker.io/shop/wep:1")
    );
    assert_eq!(parts.attempted, "inspect image");
    assert_eq!(parts.causes, [format!("nearest name: {NAME}")]);
    // The line has it all for those who know no details.
    let line = "cannot inspect image docker.io/shop/wep:1: not found";
    assert!(status.message().starts_with(line), "{}", status.message());
    let parts = failure(&resolve("elsewhere", NAME).await.expect_err("none"));
    assert_eq!(parts.found_in, ["n"]);
    assert_eq!(parts.next, [format!("cairn -n n images inspect {NAME}")]);
}

/// More than one message takes.
#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_batches() {
    let server = Server::start().await;
    let client = server.client("n");
    client.import(&web()).await;
    for number in 0..250 {
        let request = TagRequest {
            source: NAME.to_owned(),
            target: format!("docker.io/shop/n:{number}"),
            force: false,
        };
        client.cairn_images().tag(request).await.expect("tag");
    }
    let list = client.cairn_images().list(ListImagesRequest {}).await;
    let (mut list, mut names) = (list.expect("list").into_inner(), Vec::new());
    while let Some(batch) = list.message().await.expect("batch") {
        assert!(batch.images.len() <= 100);
        names.extend(batch.images.into_iter().map(|image| image.name));
    }
    assert_eq!(names.len(), 251);
    assert!(names.is_sorted());
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_looked_into() {
    let server = Server::start().await;
    let client = server.client("n");
    let archive = web();
    let image = client.import(&archive).await;
    let inspect = |name: &str, platform: &str| {
        let request = InspectRequest {
            name: name.to_owned(),
            platform: platform.to_owned(),
        };
        let mut images = client.cairn_images();
        async move { images.inspect(request).await.map(|a| a.into_inner()) }
    };
    let found = inspect(NAME, "").await.expect("inspect");
    assert_eq!(found.image, Some(image));
    assert_eq!(found.manifest, archive.manifest);
    assert_eq!(sha256(&found.manifest_bytes), archive.manifest);
    assert_eq!(sha256(&found.config_bytes), archive.config);
    let tree = found.tree.expect("tree");
    assert_eq!((tree.role(), tree.present), (Role::Manifest, true));
    let children = tree.children.iter();
    let roles: Vec<_> = children.map(|child| (child.role(), child.layer)).collect();
    assert_eq!(
        roles,
        [(Role::Config, 0), (Role::Layer, 1), (Role::Layer, 2)]
    );
    let top = &tree.children[2];
    // Not packed, so the two are the same.
    assert_eq!(top.diff_id, archive.layers[1]);
    assert_eq!(
        top.descriptor.as_ref().expect("descriptor").digest,
        archive.layers[1]
    );
    // The formula of the image-spec, worked out by hand.
    let chain = sha256(format!("{} {}", archive.layers[0], archive.layers[1]).as_bytes());
    assert_eq!(top.chain_id, chain);
    assert!(top.unpacked.expect("unpacked").inodes >= 3);
    let (code, object, _) = refusal(inspect(NAME, "linux/s390x").await);
    assert_eq!((code, &*object), (Code::NotFound, NAME));
    assert_eq!(refusal(inspect(NAME, "x").await).0, Code::InvalidArgument);
    assert_eq!(
        refusal(inspect("docker.io/a/b:1", "").await).0,
        Code::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_made_moved_and_kept() {
    let server = Server::start().await;
    let client = server.client("n");
    client.import(&web()).await;
    let other = Layer::new().file("other", "").bytes();
    client
        .import(&Archive::new("docker.io/shop/other:1", &[other]))
        .await;
    let tag = |source: &str, force: bool| {
        let request = TagRequest {
            source: source.to_owned(),
            target: "docker.io/shop/new:1".to_owned(),
            force,
        };
        let mut images = client.cairn_images();
        async move { images.tag(request).await.map(|a| a.into_inner().outcome()) }
    };
    assert_eq!(tag(NAME, false).await.expect("new"), Outcome::Created);
    assert_eq!(tag(NAME, false).await.expect("same"), Outcome::Unchanged);
    let status = tag("docker.io/shop/other:1", false)
        .await
        .expect_err("taken");
    assert_eq!(status.code(), Code::AlreadyExists);
    let next = "cairn images tag --force docker.io/shop/other:1 docker.io/shop/new:1";
    assert_eq!(failure(&status).next, [next]);
    let moved = tag("docker.io/shop/other:1", true).await.expect("moved");
    assert_eq!(moved, Outcome::Moved);
    assert_eq!(
        refusal(tag("docker.io/shop/no:1", true).await).0,
        Code::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_frees_at_once_only_when_asked_to() {
    let server = Server::start().await;
    let client = server.client("n");
    let archive = web();
    let remove = |sync: bool| {
        let request = RemoveImageRequest {
            name: NAME.to_owned(),
            force: false,
            sync,
        };
        let mut images = client.cairn_images();
        async move { images.remove(request).await.map(|a| a.into_inner()) }
    };
    client.import(&archive).await;
    let removed = remove(false).await.expect("remove");
    assert_eq!((&*removed.name, removed.bundles.len()), (NAME, 0));
    assert_eq!(code(client.image(NAME).await), Code::NotFound);
    assert!(client.has(&archive.manifest).await);
    client.import(&archive).await;
    remove(true).await.expect("remove");
    assert_eq!(blobs(&client).await, [""; 0]);
    assert_eq!(client.measured().await, []);
    let (code, object, _) = refusal(remove(true).await);
    assert_eq!((code, &*object), (Code::NotFound, NAME));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_imported_as_the_same() {
    let server = Server::start().await;
    let client = server.client("n");
    let archive = web();
    client.import(&archive).await;
    let export = |names: &[&str], platforms: &[&str]| {
        let request = ExportRequest {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            platforms: platforms.iter().map(|p| (*p).to_owned()).collect(),
            ..ExportRequest::default()
        };
        let mut images = client.cairn_images();
        async move {
            let mut answers = images.export(request).await?.into_inner();
            let (mut bytes, mut events, mut size) = (Vec::new(), Vec::new(), None);
            while let Some(answer) = answers.message().await? {
                assert_eq!(size, None, "the size is the last answer");
                match answer.part.expect("part") {
                    export_response::Part::Progress(event) => events.extend(event.event),
                    export_response::Part::Chunk(chunk) => {
                        assert!((1..=1 << 20).contains(&chunk.len()));
                        bytes.extend(chunk);
                    }
                    export_response::Part::Size(all) => size = Some(all),
                }
            }
            assert_eq!(size, Some(bytes.len() as u64));
            assert!(matches!(events.first(), Some(Event::Resolved(_))));
            assert!(matches!(events.last(), Some(Event::Done(_))));
            Ok::<_, Status>(bytes)
        }
    };
    let bytes = export(&[NAME], &[]).await.expect("export");
    let other = server.client("other");
    let imported = other
        .import_chunks(in_chunks("again"), &bytes, 100_000)
        .await;
    let image = imported.expect("import").1.remove(0).image.expect("image");
    assert_eq!(image.target.expect("target").digest, archive.manifest);
    assert_eq!(blobs(&other).await, blobs(&client).await);

    let missing = export(&[NAME, "docker.io/shop/no:1"], &[]).await;
    assert_eq!(refusal(missing).1, "docker.io/shop/no:1");
    let (code, object, reason) = refusal(export(&[NAME], &["linux/s390x"]).await);
    assert_eq!((code, &*object), (Code::NotFound, NAME));
    assert_eq!(reason, "no manifest for linux/s390x");
}
