//! Requests as lines, and that no secret is in them.

use std::{
    fmt::Write,
    sync::{Arc, Mutex},
};

use cairn_registry::{
    Client, Detail, Options, Trace,
    credentials::{Credential, Credentials},
    hosts::Endpoint,
};
use cairn_types::{Descriptor, Digest, media};
use http::{HeaderName, HeaderValue};

use crate::{
    common::{
        Everywhere, FakeClock, client_as, noise, options, origin,
        server::{Reply, Request, Server},
    },
    read::{MANIFEST, descriptor, manifest, tag},
};

type Lines = Arc<Mutex<Vec<String>>>;

fn traced(detail: Detail) -> (Options, Lines) {
    let lines = Lines::default();
    let ears = Arc::clone(&lines);
    let trace = Trace::new(detail, move |line| ears.lock().expect("lines").push(line));
    let options = Options {
        observer: Arc::new(trace),
        ..options(&FakeClock::new())
    };
    (options, lines)
}

/// The lines, without what differs from run to run: times, and the server's address.
fn told(lines: &Lines, server: &Server) -> Vec<String> {
    let lines = lines.lock().expect("lines");
    let same = |line: &String| {
        let line = line.replace(&server.host(), "HOST");
        let words = line.split(' ').collect::<Vec<_>>();
        let mut same: Vec<&str> = Vec::new();
        for (i, word) in words.iter().enumerate() {
            let is_time = words.get(i + 1).is_some_and(|unit| unit.starts_with("ms"));
            let number = word.parse::<u64>().is_ok();
            same.push(if is_time && number { "T" } else { word });
        }
        same.join(" ")
    };
    lines.iter().map(same).collect()
}

fn basic() -> Arc<dyn Credentials> {
    Arc::new(Everywhere(Credential::Basic {
        user: "alice".to_owned(),
        secret: "p4ssword".to_owned(),
    }))
}

fn layer(bytes: &[u8]) -> Descriptor {
    let size = u64::try_from(bytes.len()).expect("size");
    Descriptor::new(media::OCI_LAYER_GZIP, Digest::sha256(bytes), size)
}

#[tokio::test]
async fn each_step_is_a_line() {
    let whole = noise(300_000);
    let layer = layer(&whole);
    let server = Server::start(
        move |request: &Request, number| match (number, request.from()) {
            (0, _) => Reply::status(503),
            (_, None) => {
                let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n".to_vec();
                answer.extend(&whole[..100_000]);
                Reply::Raw(answer)
            }
            (_, Some(from)) => Reply::Whole(206, Vec::new(), whole[from..].to_vec())
                .with("content-range", format!("bytes {from}-299999/300000")),
        },
    )
    .await;
    let (options, lines) = traced(Detail::Exchanges);
    let client = client_as(&[origin(&server.host())], options, basic());
    let mut blob = client.blob(&layer, 0);
    while blob.chunk().await.expect("bytes").is_some() {}
    drop(blob);
    let url = format!("http://HOST/v2/shop/web/blobs/{}", layer.digest);
    let mut told = told(&lines, &server);
    assert_eq!(told.remove(1), "#1 connected after T ms");
    // Whether a connection is free again when the next request comes is nobody's promise.
    told.retain(|line| !line.contains(" connected after "));
    let expected = [
        format!("#1 GET {url}"),
        "#1 503 service unavailable after T ms from HOST".to_owned(),
        "retry 2 of 5 in T ms: registry.example.com: 503 service unavailable".to_owned(),
        format!("#2 GET {url}"),
        "#2 200 ok after T ms from HOST, 300000 bytes".to_owned(),
        "#2 body broke after 100000 bytes in T ms: ".to_owned(),
        "retry 2 of 5 in T ms: registry.example.com: the connection broke after 100000".to_owned(),
        format!("#3 GET {url}, bytes=100000-"),
        "#3 206 partial content after T ms from HOST, 200000 bytes".to_owned(),
        "#3 body of 200000 bytes in T ms".to_owned(),
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (line, start) in told.iter().zip(&expected) {
        assert!(line.starts_with(start), "{line} is not {start}\n{told:#?}");
    }
}

/// A registry whose every answer says back what it was told, a server of tokens that does so as well, and a
/// storage by signed addresses.
async fn talkative(bytes: Vec<u8>) -> Server {
    Server::start(move |request: &Request, _| {
        let mut echo = String::new();
        for (name, value) in &request.headers {
            let _ = writeln!(echo, "{name}: {value}");
        }
        let echo = echo + &String::from_utf8_lossy(&request.body);
        let host = request.header("host").expect("host").to_owned();
        let asks = request.header("authorization").unwrap_or_default();
        match request.path() {
            "/token" if request.method == "GET" => {
                Reply::Whole(405, Vec::new(), echo.into()).with("content-type", "text/plain")
            }
            "/token" => Reply::json(r#"{"access_token":"t0ken-1","refresh_token":"r3fresh"}"#),
            "/storage" => Reply::Whole(200, Vec::new(), bytes.clone()),
            _ if asks != "Bearer t0ken-1" => {
                let realm = format!(r#"Bearer realm="http://{host}/token?key=re4lm",service="s""#);
                Reply::Whole(401, Vec::new(), echo.into())
                    .with("www-authenticate", realm)
                    .with("content-type", "text/plain")
                    .with("set-cookie", "id=c00kie")
            }
            path if path.contains("/blobs/") => Reply::status(307).with(
                "location",
                "http://us3r:pw@HOST/storage?sig=s1gned".replace("HOST", &host),
            ),
            path if path.ends_with("/missing") => {
                Reply::Whole(404, Vec::new(), echo.into()).with("content-type", "text/html")
            }
            _ => manifest(),
        }
    })
    .await
}

fn with_own_header(server: &Server) -> Endpoint {
    let name = HeaderName::from_static("x-own");
    let value = HeaderValue::from_static("0wn-secret");
    Endpoint {
        headers: vec![(name, value)],
        ..origin(&server.host())
    }
}

#[track_caller]
fn nothing_secret(all: &str, more: &[&str]) {
    let secrets = [
        "p4ssword",
        "YWxpY2U6cDRzc3dvcmQ",
        "t0ken-1",
        "r3fresh",
        "re4lm",
        "s1gned",
        "us3r",
        "pw@",
        "c00kie",
        "0wn-secret",
    ];
    for secret in secrets.iter().chain(more) {
        assert!(!all.contains(secret), "{secret} in\n{all}");
    }
}

async fn use_all(client: &Client, layer: &Descriptor) {
    client.resolve(&tag()).await.expect("resolved");
    client.manifest(&descriptor()).await.expect("manifest");
    let mut blob = client.blob(layer, 0);
    while blob.chunk().await.expect("bytes").is_some() {}
    let missing = cairn_registry::Tag::parse("missing").map(cairn_registry::Reference::Tag);
    let missing = client.resolve(&missing.expect("tag")).await;
    missing.expect_err("it is not there");
}

#[tokio::test]
async fn no_secret_is_in_any_line() {
    let bytes = noise(1000);
    let layer = layer(&bytes);
    let server = talkative(bytes).await;
    for detail in [Detail::Exchanges, Detail::Messages] {
        let (options, lines) = traced(detail);
        use_all(
            &client_as(&[with_own_header(&server)], options, basic()),
            &layer,
        )
        .await;
        let told = told(&lines, &server);
        let all = told.join("\n");
        nothing_secret(&all, &[]);
        // What is no secret is there.
        let storage = "GET http://***@HOST/storage?***";
        let (get, post) = (
            "GET http://HOST/token?key=***&service=s",
            "POST http://HOST/token?key=***, with ",
        );
        for words in [storage, get, post] {
            assert!(all.contains(words), "no {words} in\n{all}");
        }
        if detail == Detail::Exchanges {
            assert!(!all.contains(" > ") && !all.contains(" < "), "{all}");
            continue;
        }
        for words in [
            "> authorization: Basic ***",
            "> authorization: Bearer ***",
            "> x-own: ***",
            "< set-cookie: ***",
            "< location: http://***@HOST/storage?***",
            "<< x-own: ***",
            "&password=***&",
            r#""access_token":"***""#,
            &format!("<< {MANIFEST}"),
        ] {
            assert!(all.contains(words), "no {words} in\n{all}");
        }
    }
}

/// A refresh token goes by a form, and one that the user gave is shown as it is.
#[tokio::test]
async fn other_credentials_are_hidden_as_well() {
    let bytes = noise(1000);
    let layer = layer(&bytes);
    let server = talkative(bytes).await;
    for credential in [
        Credential::Identity("1dentity".to_owned()),
        Credential::Bearer("t0ken-1".to_owned()),
    ] {
        let (options, lines) = traced(Detail::Messages);
        let who = Arc::new(Everywhere(credential));
        use_all(&client_as(&[origin(&server.host())], options, who), &layer).await;
        nothing_secret(&told(&lines, &server).join("\n"), &["1dentity"]);
    }
}

/// Nobody reached has nothing to hide, but is to be told.
#[tokio::test]
async fn who_cannot_be_reached_is_told() {
    let (options, lines) = traced(Detail::Exchanges);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let host = nobody.local_addr().expect("address").to_string();
    drop(nobody);
    let client = client_as(&[origin(&host)], options, basic());
    client.manifest(&descriptor()).await.expect_err("nobody");
    let lines = lines.lock().expect("lines");
    assert!(lines[1].starts_with("#1 failed after "), "{lines:?}");
    assert!(lines[1].ends_with("connection refused"), "{lines:?}");
    assert!(lines[2].starts_with("retry 2 of 5 in "), "{lines:?}");
}
