//! Where an image is asked for, what is said beside that, and as whom.

use std::fs;

use cairn_proto::containerd::types::transfer::{
    AuthResponse, AuthType, OciRegistry, RegistryResolver,
};
use tempfile::TempDir;
use tonic::Code;

use crate::{
    archives::images,
    common::{Server, code},
    front::{Asked, Do, Front},
    registries::{NAME, answer, answered, archive, at, distant, pull, push, store},
    registry::Registry,
};

/// A directory that says how `registry.test` is reached.
fn directory(hosts: &str) -> TempDir {
    let dir = TempDir::new().expect("temporary directory");
    let own = dir.path().join("registry.test");
    fs::create_dir(&own).expect("directory");
    fs::write(own.join("hosts.toml"), hosts).expect("hosts.toml");
    dir
}

/// The image as it is called here, by way of a directory.
fn by(dir: &TempDir) -> OciRegistry {
    OciRegistry {
        reference: NAME.to_owned(),
        resolver: Some(RegistryResolver {
            host_dir: dir.path().display().to_string(),
            ..RegistryResolver::default()
        }),
    }
}

/// Nobody has the name `registry.test`.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_hosts_says_who_is_asked() {
    let (near, far) = (Registry::start(), Registry::start());
    let server = Server::start().await;
    let client = server.client("n");
    let archive = archive();
    client.import(&archive).await;
    let to_far = directory(&format!("server = \"http://{}\"\n", far.host()));
    push(&client, &by(&to_far)).await.expect("push");
    let server = Server::start().await;
    let client = server.client("n");
    let to_near = directory(&format!("server = \"http://{}\"\n", near.host()));
    let absent = pull(&client, &by(&to_near), &store("near")).await;
    assert_eq!(code(absent), Code::NotFound);
    // Who does not have it is asked first, and not alone.
    let to_both = directory(&format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        far.host(),
        near.host(),
    ));
    pull(&client, &by(&to_both), &store("far"))
        .await
        .expect("pull");
    for digest in &archive.layers {
        assert!(client.has(digest).await);
    }
    let names = images(&client).await.into_iter().map(|image| image.name);
    assert_eq!(names.collect::<Vec<_>>(), ["far"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_sees_the_headers_of_a_transfer() {
    let registry = Registry::start();
    let front = Front::before(&registry, |_| Do::Pass).await;
    let server = Server::start().await;
    let client = server.client("n");
    client.import(&archive()).await;
    let plain = at(&front.host(), "shop/web:1", "");
    let with = OciRegistry {
        resolver: plain.resolver.clone().map(|resolver| RegistryResolver {
            headers: [("X-Shop".to_owned(), "window".to_owned())].into(),
            ..resolver
        }),
        ..plain.clone()
    };
    push(&client, &with).await.expect("push");
    let server = Server::start().await;
    let client = server.client("n");
    pull(&client, &with, &store("a")).await.expect("pull");
    let asked = front.asked();
    for method in ["HEAD", "GET", "POST", "PUT"] {
        let of = |asked: &&Asked| asked.line.starts_with(method);
        assert!(asked.iter().any(|asked| of(&asked)), "{method}");
    }
    for asked in &asked {
        assert_eq!(asked.header("x-shop"), "window", "{}", asked.line);
    }
    // They are that transfer's.
    pull(&client, &plain, &store("b")).await.expect("pull");
    let more = front.asked().split_off(asked.len());
    assert!(!more.is_empty());
    for asked in more {
        assert_eq!(asked.header("x-shop"), "", "{}", asked.line);
    }
}

const TOKEN: &str = "open-sesame";
const IDENTITY: &str = "it-is-me";

/// `u:secret`.
const BASIC: &str = "Basic dTpzZWNyZXQ=";

/// Lets bearers of a token through, and gives it for a password or a refresh token.
fn doorkeeper(asked: &Asked) -> Do {
    let token = || Do::Answer(200, String::new(), format!("{{\"token\":\"{TOKEN}\"}}"));
    let body = String::from_utf8_lossy(&asked.body);
    let said: Vec<&str> = body.split('&').collect();
    let refresh = [
        "grant_type=refresh_token",
        &*format!("refresh_token={IDENTITY}"),
    ];
    match &*asked.line {
        line if line.starts_with("GET /token") && asked.header("authorization") == BASIC => token(),
        "POST /token" if refresh.iter().all(|part| said.contains(part)) => token(),
        line if line.contains(" /token") => Do::Answer(401, String::new(), String::new()),
        _ if asked.header("authorization") == format!("Bearer {TOKEN}") => Do::Pass,
        _ => {
            let host = asked.header("host");
            let challenge = format!(
                "www-authenticate: Bearer realm=\"http://{host}/token\",service=\"front\"\r\n"
            );
            Do::Answer(401, challenge, String::new())
        }
    }
}

/// containerd's client answers in three ways: with a password, with a refresh token, with a header.
#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_answer_opens_the_door() {
    let registry = Registry::start();
    let server = Server::start().await;
    let client = server.client("n");
    client.import(&archive()).await;
    push(&client, &distant(&registry, "shop/web:1", ""))
        .await
        .expect("push");
    let header = format!("Bearer {TOKEN}");
    // With it: how the server of tokens is asked, if it is.
    let right: [(AuthResponse, Option<&str>); 3] = [
        (answer(AuthType::Credentials, "u", "secret"), Some("GET")),
        (answer(AuthType::Refresh, "", IDENTITY), Some("POST")),
        (answer(AuthType::Header, "", &header), None),
    ];
    for (answer, method) in right {
        let front = Front::before(&registry, doorkeeper).await;
        let from = at(&front.host(), "shop/web:1", "auth");
        let server = Server::start().await;
        let client = server.client("n");
        let stream = client.stream("auth").await.expect("a stream");
        let to = store("a");
        let answering = answered(stream, answer.clone());
        let (came, asked) = tokio::join!(pull(&client, &from, &to), answering);
        came.unwrap_or_else(|status| panic!("{answer:?}: {status}"));
        assert_eq!(asked.len(), 1, "{answer:?}");
        assert_eq!(asked[0].host, front.host());
        let requests = front.asked();
        let tokens: Vec<_> = requests
            .iter()
            .filter(|asked| asked.line.contains(" /token"))
            .filter_map(|asked| asked.line.split(' ').next())
            .collect();
        assert_eq!(tokens.first().copied(), method, "{tokens:?}");
        assert!(tokens.iter().all(|one| Some(*one) == method), "{tokens:?}");
    }
    let wrong = [
        answer(AuthType::Credentials, "u", "wrong"),
        answer(AuthType::Refresh, "", "it-is-not-me"),
        answer(AuthType::Header, "", "Bearer shut-sesame"),
        answer(AuthType::None, "", ""),
    ];
    for answer in wrong {
        let front = Front::before(&registry, doorkeeper).await;
        let from = at(&front.host(), "shop/web:1", "auth");
        let stream = client.stream("auth").await.expect("a stream");
        let to = store("a");
        let answering = answered(stream, answer.clone());
        let (came, _) = tokio::join!(pull(&client, &from, &to), answering);
        let refusal = came.expect_err("a refusal");
        for secret in ["wrong", "it-is-not-me", "shut-sesame"] {
            assert!(!refusal.message().contains(secret), "{refusal}");
        }
    }
}
