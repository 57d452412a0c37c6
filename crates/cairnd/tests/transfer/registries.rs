//! Images that go to Debian's registry and come from there.

use std::fs;

use cairn_proto::containerd::types::transfer::{
    AuthRequest, AuthResponse, AuthType, ImageReference, ImageStore, OciRegistry, Progress,
    RegistryResolver, UnpackConfiguration,
};
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::{
    archives::{host, images, import, named, platform},
    common::{Client, Server, archive::Archive, code, layer::Layer, map, transfer::Stream},
    platforms::{has_all_metadata, two_platforms},
    registry::Registry,
};

pub(crate) const NAME: &str = "registry.test/shop/web:1";

/// `secret`, as `htpasswd -B` has it.
const SECRET: &str = "$2y$05$CairnCairnCairnCairnCug65evB7uZfZslpMpmT120t6bhLJKhBi";

pub(crate) fn archive() -> Archive {
    let layers = ["one", "two"].map(|text| Layer::new().file(text, text).bytes());
    Archive::new(NAME, &layers)
}

pub(crate) fn store(name: &str) -> ImageStore {
    ImageStore {
        name: name.to_owned(),
        ..ImageStore::default()
    }
}

/// An image of a registry, with credentials from the stream of this id.
pub(crate) fn distant(registry: &Registry, rest: &str, auth: &str) -> OciRegistry {
    at(&registry.host(), rest, auth)
}

/// The same of whoever is there.
pub(crate) fn at(host: &str, rest: &str, auth: &str) -> OciRegistry {
    OciRegistry {
        reference: format!("{host}/{rest}"),
        resolver: Some(RegistryResolver {
            auth_stream: auth.to_owned(),
            default_scheme: "http".to_owned(),
            ..RegistryResolver::default()
        }),
    }
}

/// The words that were said without a name, and the last for each name.
fn told(all: &[Progress]) -> (Vec<&str>, Vec<(&str, &str)>) {
    let (mut said, mut last) = (Vec::new(), Vec::<(&str, &str)>::new());
    for Progress { event, name, .. } in all {
        match last.iter_mut().find(|(known, _)| known == name) {
            _ if name.is_empty() => said.push(&**event),
            Some((_, known)) => *known = event,
            None => last.push((name, event)),
        }
    }
    (said, last)
}

/// The names by which an image's parts are told of: manifest, configuration, two layers.
fn parts(archive: &Archive) -> [String; 4] {
    let [one, two] = &*archive.layers else {
        panic!("{:?}", archive.layers)
    };
    [
        ("manifest", &archive.manifest),
        ("config", &archive.config),
        ("layer", one),
        ("layer", two),
    ]
    .map(|(kind, digest)| format!("{kind}-{digest}"))
}

/// With what is told of documents, and of layers.
fn events<'a>(parts: &'a [String; 4], [document, layer]: [&'a str; 2]) -> Vec<(&'a str, &'a str)> {
    let events = [document, document, layer, layer];
    let parts = parts.iter().map(|part| &**part);
    parts.zip(events).collect()
}

/// Parts are told of with what refers to them, and with what they are.
#[track_caller]
fn below_one_another(told: &[Progress], root: &str, archive: &Archive) {
    let parts = parts(archive);
    for Progress {
        name,
        parents,
        desc,
        ..
    } in told
    {
        let Some(place) = parts.iter().position(|part| part == name) else {
            continue;
        };
        let parent = if place == 0 { root } else { &*parts[0] };
        assert_eq!(parents, &[parent], "{name}");
        let digest = &desc.as_ref().expect("a descriptor").digest;
        assert!(name.ends_with(digest.as_str()), "{name}: {digest}");
    }
}

pub(crate) async fn push(client: &Client, to: &OciRegistry) -> Result<Vec<Progress>, Status> {
    push_of(client, &store(NAME), to).await
}

/// The same of what `from` says.
pub(crate) async fn push_of(
    client: &Client,
    from: &ImageStore,
    to: &OciRegistry,
) -> Result<Vec<Progress>, Status> {
    let stream = client.stream("push").await.expect("a stream");
    let (done, told) = tokio::join!(client.transfer(from, to, "push"), stream.told());
    done.map(|()| told)
}

pub(crate) async fn pull(
    client: &Client,
    from: &OciRegistry,
    to: &ImageStore,
) -> Result<Vec<Progress>, Status> {
    let stream = client.stream("pull").await.expect("a stream");
    let (done, told) = tokio::join!(client.transfer(from, to, "pull"), stream.told());
    done.map(|()| told)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_out_and_comes_back() {
    let registry = Registry::start();
    let server = Server::start().await;
    let client = server.client("n");
    let archive = archive();
    client.import(&archive).await;
    let distant = distant(&registry, "shop/web:1", "");
    let title = format!("OCI Registry ({})", distant.reference);
    let sent = push(&client, &distant).await.expect("push");
    let (said, last) = told(&sent);
    let expected = [
        format!("Pushing to {title}"),
        format!("Completed push to {title}"),
    ];
    assert_eq!(said, expected);
    // Clients that draw at what has a name have all by then.
    let end = |told: &[Progress]| told.last().expect("told").event.clone();
    assert_eq!(end(&sent), "pushed content");
    assert_eq!(last[0], (NAME, "pushed content"));
    let parts = parts(&archive);
    assert_eq!(last[1..], events(&parts, ["complete", "complete"]));
    below_one_another(&sent, NAME, &archive);
    // To a store that has nothing of it.
    let server = Server::start().await;
    let client = server.client("n");
    let mut to = store("pulled");
    to.labels = map(&[("k", "v")]);
    to.unpacks = vec![UnpackConfiguration::default()];
    to.extra_references = vec![ImageReference {
        name: "digested".to_owned(),
        is_prefix: true,
        add_digest: true,
        ..ImageReference::default()
    }];
    let came = pull(&client, &distant, &to).await.expect("pull");
    let (said, last) = told(&came);
    let expected = [
        format!("Resolving from {title}"),
        format!("Pulling from {title}"),
        format!("Completed pull from {title}"),
    ];
    assert_eq!(said, expected);
    assert_eq!(end(&came), "saved");
    let by_digest = format!("digested@{}", archive.manifest);
    for name in ["pulled", &by_digest] {
        assert!(last.contains(&(name, "saved")), "{last:?}");
    }
    // As with containerd the root is what was asked for.
    assert_eq!(last[0], (&*distant.reference, "fetching image content"));
    assert_eq!(last[1..5], events(&parts, ["complete", "extracted"]));
    below_one_another(&came, &distant.reference, &archive);
    for digest in &archive.layers {
        assert!(client.has(digest).await);
    }
    let all = images(&client).await;
    let names: Vec<&str> = all.iter().map(|image| &*image.name).collect();
    assert_eq!(names, [&*by_digest, "pulled"]);
    for image in &all {
        assert_eq!(
            image.target.as_ref().expect("target").digest,
            archive.manifest
        );
        assert_eq!(image.labels["k"], "v");
    }
    assert_eq!(all[0].labels["containerd.io/gc.bref.image"], "pulled");
    assert_eq!(all[1].labels.len(), 1);
    assert_eq!(client.measured().await.len(), 2);
}

/// As `ctr` asks for it: without them the image could not be handed on.
#[tokio::test(flavor = "multi_thread")]
async fn manifests_of_other_platforms_come_without_layers() {
    let registry = Registry::start();
    let server = Server::start().await;
    let client = server.client("n");
    let (bytes, [ours, other]) = two_platforms();
    import(&client, &bytes, &named()).await.expect("import");
    let from = distant(&registry, "shop/web:1", "");
    push(&client, &from).await.expect("push");
    let server = Server::start().await;
    let client = server.client("n");
    let mut to = store(NAME);
    to.platforms = vec![host()];
    to.unpacks = vec![UnpackConfiguration::default()];
    to.all_metadata = true;
    let told = pull(&client, &from, &to).await.expect("pull");
    let other_layer = has_all_metadata(&client, &bytes, &ours, &other).await;
    assert!(told.iter().all(|told| !told.name.contains(&other_layer)));
    // The layer that is not here is taken over from where the image came from.
    let copy = distant(&registry, "shop/copy:1", "");
    push(&client, &copy).await.expect("push");
    let client = server.client("copied");
    let mut to = store("copied");
    to.platforms = vec![platform("linux", "s390x")];
    pull(&client, &copy, &to).await.expect("pull");
    assert!(client.has(&other_layer).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_or_come_is_refused() {
    let registry = Registry::start();
    let server = Server::start().await;
    let client = server.client("n");
    let absent = distant(&registry, "shop/absent:1", "");
    assert_eq!(
        code(pull(&client, &absent, &store("a")).await),
        Code::NotFound
    );
    assert_eq!(code(push(&client, &absent).await), Code::NotFound);
    let nameless = pull(&client, &absent, &store(""))
        .await
        .expect_err("a refusal");
    assert!(nameless.message().contains("no image name found"));
    let unasked = distant(&registry, "shop/absent:1", "no stream");
    assert_eq!(
        code(pull(&client, &unasked, &store("a")).await),
        Code::NotFound
    );
    let odd = OciRegistry {
        reference: "Not A Reference".to_owned(),
        resolver: None,
    };
    assert_eq!(
        code(pull(&client, &odd, &store("a")).await),
        Code::InvalidArgument
    );
    assert_eq!(images(&client).await, []);
}

/// A registry for `u` with the password `secret`; its user's file goes with what is returned first.
pub(crate) fn guarded() -> (TempDir, Registry) {
    let work = TempDir::new().expect("temporary directory");
    let file = work.path().join("htpasswd");
    fs::write(&file, format!("u:{SECRET}\n")).expect("users");
    let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {file:?}\n");
    (work, Registry::configured(&auth))
}

/// Answers every question so, until the stream is closed; what was asked.
pub(crate) async fn answered(mut stream: Stream, answer: AuthResponse) -> Vec<AuthRequest> {
    let mut asked = Vec::new();
    while let Some(question) = stream.next().await {
        asked.push(question);
        stream.send(&answer).await;
    }
    asked
}

pub(crate) fn answer(kind: AuthType, username: &str, secret: &str) -> AuthResponse {
    AuthResponse {
        auth_type: kind.into(),
        username: username.to_owned(),
        secret: secret.to_owned(),
        expire_at: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_asked_for_credentials() {
    let (_users, registry) = guarded();
    let server = Server::start().await;
    let client = server.client("n");
    client.import(&archive()).await;
    let to = distant(&registry, "shop/web:1", "auth");
    let stream = client.stream("auth").await.expect("a stream");
    let right = answer(AuthType::Credentials, "u", "secret");
    let (pushed, asked) = tokio::join!(push(&client, &to), answered(stream, right));
    pushed.expect("push");
    let question = AuthRequest {
        host: registry.host(),
        reference: to.reference.clone(),
        wwwauthenticate: Vec::new(),
    };
    assert_eq!(asked, [question]);
    // What `ctr` answers when it was given none, and what is wrong.
    for answer in [
        answer(AuthType::Refresh, "", ""),
        answer(AuthType::Credentials, "u", "wrong"),
        answer(AuthType::Header, "", "Basic dTpzZWNyZXQ="),
    ] {
        let stream = client.stream("auth").await.expect("a stream");
        let wanted = store("a");
        let (pulled, asked) = tokio::join!(
            pull(&client, &to, &wanted),
            answered(stream, answer.clone())
        );
        assert!(pulled.is_err(), "{answer:?}");
        assert_eq!(asked.len(), 1, "{answer:?}");
    }
    // A client that wants to be asked nothing, and one that goes instead of answering.
    let mut stream = client.stream("auth").await.expect("a stream");
    stream.send = None;
    assert!(pull(&client, &to, &store("a")).await.is_err());
    stream.closed().await;
    let stream = client.stream("auth").await.expect("a stream");
    let going = async {
        let mut stream = stream;
        let asked: Option<AuthRequest> = stream.next().await;
        assert!(asked.is_some());
    };
    let wanted = store("a");
    let (pulled, ()) = tokio::join!(pull(&client, &to, &wanted), going);
    assert!(pulled.is_err());
}
