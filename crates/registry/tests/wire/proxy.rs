//! Through whom an endpoint is asked.

use cairn_registry::{Cause, Client, Error, Options, env::Env, hosts::Endpoint};

use crate::{
    common::{
        FakeClock, client_as, options, origin,
        server::{Reply, Server},
    },
    read::{MANIFEST, descriptor, manifest, tag},
};

/// A client of an endpoint that only a proxy could reach.
fn behind(endpoint: Endpoint, env: Env) -> Client {
    let options = Options {
        env,
        ..options(&FakeClock::new())
    };
    client_as(
        &[endpoint],
        options,
        std::sync::Arc::new(cairn_registry::credentials::Anonymous),
    )
}

fn remote() -> Endpoint {
    origin("registry.example.com")
}

async fn fetched(client: &Client, proxy: &Server) {
    let bytes = client.manifest(&descriptor()).await.expect("manifest");
    assert_eq!(bytes, MANIFEST);
    let target = format!(
        "http://registry.example.com/v2/shop/web/manifests/{}",
        descriptor().digest
    );
    assert_eq!(proxy.asked()[0].target, target);
}

#[tokio::test]
async fn an_endpoint_has_a_proxy_of_its_own() {
    let proxy = Server::start(|_, _| manifest()).await;
    let endpoint = Endpoint {
        proxy: Some(format!("http://Aladdin:open%20sesame@{}", proxy.host())),
        ..remote()
    };
    fetched(&behind(endpoint, Env::default()), &proxy).await;
    // RFC 7617's example.
    let shown = proxy.asked()[0]
        .header("proxy-authorization")
        .map(str::to_owned);
    assert_eq!(shown.as_deref(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
}

#[tokio::test]
async fn the_environment_has_one_for_those_that_have_none() {
    let proxy = Server::start(|_, _| manifest()).await;
    let address = proxy
        .url("")
        .replace("http://", "http://Aladdin:open%20sesame@");
    let env: Env = [("HTTP_PROXY", address.as_str())].into_iter().collect();
    fetched(&behind(remote(), env.clone()), &proxy).await;
    let shown = proxy.asked()[0]
        .header("proxy-authorization")
        .map(str::to_owned);
    assert_eq!(shown.as_deref(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));

    // Loopback is asked itself.
    let here = Server::start(|_, _| manifest()).await;
    let client = behind(origin(&here.host()), env);
    client.resolve(&tag()).await.expect("resolve");
    assert_eq!(here.lines().len(), 1);
    assert_eq!(proxy.lines().len(), 1);
}

#[tokio::test]
async fn a_proxy_that_cannot_be_used_is_not_passed_by() {
    for wrong in ["socks5://user:hidden@localhost:1", "http://", "gopher://x"] {
        let own = Endpoint {
            proxy: Some(wrong.to_owned()),
            ..remote()
        };
        let env: Env = [("HTTP_PROXY", wrong)].into_iter().collect();
        for (endpoint, env) in [(own, Env::default()), (remote(), env)] {
            let options = Options {
                env,
                ..options(&FakeClock::new())
            };
            let nobody: std::sync::Arc<dyn cairn_registry::credentials::Credentials> =
                std::sync::Arc::new(cairn_registry::credentials::Anonymous);
            let refused = Client::new(
                "registry.example.com",
                "shop/web",
                &[endpoint],
                &nobody,
                options,
            );
            let err: Error = refused.expect_err("refused");
            let cause = &err.last().expect("host").cause;
            assert!(matches!(cause, Cause::Config(_)), "{wrong}: {err}");
            assert!(!format!("{err:?}").contains("hidden"), "{err:?}");
        }
    }
}

/// Nothing is told of who has no answer through a proxy but what the proxy says.
#[tokio::test]
async fn a_proxy_that_refuses_is_an_answer() {
    let proxy = Server::start(|_, _| Reply::status(403)).await;
    let endpoint = Endpoint {
        proxy: Some(proxy.url("")),
        ..remote()
    };
    let err = behind(endpoint, Env::default())
        .resolve(&tag())
        .await
        .expect_err("refused");
    assert!(
        matches!(err.last().expect("asked").cause, Cause::Denied(_)),
        "{err}"
    );
}
