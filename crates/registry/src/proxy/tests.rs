//! The tables of Go's own tests (`golang.org/x/net/http/httpproxy`), and what is added to Go's rules.

use super::*;

fn env(pairs: &[(&str, &str)]) -> Env {
    pairs.iter().copied().collect()
}

fn proxy(url: &str, pairs: &[(&str, &str)]) -> Option<String> {
    let (scheme, authority) = url.split_once("://").expect(url);
    of_environment(scheme, authority, &env(pairs)).proxy
}

/// `proxyForURLTests`.
#[test]
fn variables_mean_what_they_mean_to_go() {
    let http = |value| vec![("HTTP_PROXY", value)];
    let both = |http, https| vec![("HTTP_PROXY", http), ("HTTPS_PROXY", https)];
    let but = |no| vec![("HTTP_PROXY", "proxy"), ("NO_PROXY", no)];
    let table = [
        (
            http("127.0.0.1:8080"),
            "http://example.com",
            "http://127.0.0.1:8080",
        ),
        (
            http("cache.corp:1234"),
            "http://example.com",
            "http://cache.corp:1234",
        ),
        (
            http("cache.corp"),
            "http://example.com",
            "http://cache.corp",
        ),
        (http("localhost"), "http://example.com", "http://localhost"),
        (
            http("https://cache.corp"),
            "http://example.com",
            "https://cache.corp",
        ),
        (
            http("socks5://127.0.0.1"),
            "http://example.com",
            "socks5://127.0.0.1",
        ),
        (http("foo://host"), "http://example.com", "foo://host"),
        (
            both("h.tld", "s.tld"),
            "http://insecure.tld",
            "http://h.tld",
        ),
        (both("h.tld", "s.tld"), "https://secure.tld", "http://s.tld"),
        (
            both("h.tld", "https://s.tld"),
            "https://secure.tld",
            "https://s.tld",
        ),
        (http("h.tld"), "https://secure.tld", ""),
        (http("h.tld"), "ftp://insecure.tld", ""),
        (vec![], "http://example.com", ""),
        (but("example.com"), "http://example.com", ""),
        (but(".example.com"), "http://example.com", "http://proxy"),
        (but("ample.com"), "http://example.com", "http://proxy"),
        (but("example.com"), "http://foo.example.com", ""),
        (but(".foo.com"), "http://example.com", "http://proxy"),
        (
            but("example.com"),
            "http://[1000::%25.example.com]:123",
            "http://proxy",
        ),
    ];
    for (pairs, url, expected) in table {
        let expected = Some(expected.to_owned()).filter(|url| !url.is_empty());
        assert_eq!(proxy(url, &pairs), expected, "{url} {pairs:?}");
    }
}

/// `UseProxyTests`.
const NO_PROXY: &str = "foobar.com, .barbaz.net, *.wildcard.io, 192.168.1.1, 192.168.1.2:81, \
    192.168.1.3:80, 10.0.0.0/30, 2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, \
    2002:db8:a::45/64";
const USED: [(&str, bool); 27] = [
    ("localhost", false),
    ("127.0.0.1", false),
    ("127.0.0.2", false),
    ("[::1]", false),
    ("[::2]", true),
    ("192.168.1.1", false),
    ("192.168.1.2", true),
    ("192.168.1.3", false),
    ("192.168.1.4", true),
    ("10.0.0.2", false),
    ("[2001:db8::52:0:1]", false),
    ("[2001:db8::52:0:2]", true),
    ("[2001:db8::52:0:3]", false),
    ("[2002:db8:a::123]", false),
    ("[fe80::424b:c8be:1643:a1b6]", true),
    ("barbaz.net", true),
    ("www.barbaz.net", false),
    ("foobar.com", false),
    ("www.foobar.com", false),
    ("foofoobar.com", true),
    ("baz.com", true),
    ("localhost.net", true),
    ("local.localhost", true),
    ("barbarbaz.net", true),
    ("wildcard.io", true),
    ("nested.wildcard.io", false),
    ("awildcard.io", true),
];

#[test]
fn no_proxy_means_what_it_means_to_go() {
    let asked = |authority: &str, no: &str| {
        let pairs = [("HTTP_PROXY", "proxy"), ("NO_PROXY", no)];
        proxy(&format!("http://{authority}"), &pairs).is_some()
    };
    for (host, used) in USED {
        assert_eq!(asked(&format!("{host}:80"), NO_PROXY), used, "{host}:80");
        assert_eq!(
            asked(host, NO_PROXY),
            used,
            "{host}: 80 is the port of http"
        );
        assert!(!asked(host, "a.example.com, *"), "{host}");
    }
    assert!(asked("example.com:80", ":1"));
    assert!(asked("example.com", ""));
    assert!(!asked("EXAMPLE.com", "Example.COM"));
    assert!(asked("example.com:5000", "example.com:80"));
    assert!(!asked("example.com:5000", "example.com:5000"));
    assert!(!asked("8.8.8.8", "0.0.0.0/0"));
    assert!(asked("[2001:db8::1]", "0.0.0.0/0"));
    assert!(!asked("[2001:db8::1]", "::/0"));
    assert!(!asked("[2001:db8::1]", "2001:db8::1/128"));
    assert!(asked("10.0.0.4", "10.0.0.0/33"), "no network");
    let https = [("HTTPS_PROXY", "proxy"), ("NO_PROXY", "example.com:443")];
    assert_eq!(proxy("https://example.com", &https), None);
}

#[test]
fn a_cgi_scripts_proxy_is_its_clients_word() {
    let cgi = ("REQUEST_METHOD", "GET");
    for name in HTTP {
        assert_eq!(proxy("http://example.com", &[(name, "evil"), cgi]), None);
    }
    let https = [("HTTPS_PROXY", "https://s.tld"), cgi];
    assert_eq!(
        proxy("https://a.tld", &https).as_deref(),
        Some("https://s.tld")
    );
}

#[test]
fn what_decided_is_named() {
    let decided = |url: &str, pairs: &[(&str, &str)]| {
        let (scheme, authority) = url.split_once("://").expect(url);
        of_environment(scheme, authority, &env(pairs)).to_string()
    };
    let url = "https://example.com";
    assert_eq!(decided(url, &[]), "none");
    assert_eq!(decided(url, &[("HTTPS_PROXY", "")]), "none");
    assert_eq!(
        decided(url, &[("https_proxy", "p")]),
        "http://p (https_proxy)"
    );
    let two = [("https_proxy", "low"), ("HTTPS_PROXY", "high")];
    assert_eq!(decided(url, &two), "http://high (HTTPS_PROXY)");
    let all = [("all_proxy", "socks5://a")];
    assert_eq!(decided(url, &all), "socks5://a (all_proxy)");
    assert_eq!(
        decided("http://example.com", &all),
        "socks5://a (all_proxy)"
    );
    let own = [("ALL_PROXY", "a"), ("https_proxy", "own")];
    assert_eq!(decided(url, &own), "http://own (https_proxy)");
    let but = [("HTTPS_PROXY", "p"), ("no_proxy", "example.com")];
    assert_eq!(decided(url, &but), "none (no_proxy)");
    assert_eq!(decided("https://localhost:5000", &but), "none (loopback)");
    let secret = [("HTTPS_PROXY", "http://user:hid@den@p:1")];
    assert_eq!(decided(url, &secret), "http://***@p:1 (HTTPS_PROXY)");
    assert!(!format!("{:?}", env(&secret)).contains("den"));
    assert!(!format!("{:?}", of_environment("https", "a", &env(&secret))).contains("den"));
}

#[test]
fn an_endpoints_own_proxy_is_stronger_than_all() {
    use crate::hosts::{Options, Origin, endpoints};
    let mut endpoint = endpoints("localhost:5000", &Options::default())
        .expect("one")
        .remove(0);
    endpoint.from = Origin::File("/etc/hosts.toml".into(), 3);
    let env = env(&[("HTTP_PROXY", "other"), ("NO_PROXY", "*")]);
    assert_eq!(of_endpoint(&endpoint, &env).to_string(), "none (loopback)");
    endpoint.proxy = Some("http://own:8080".to_owned());
    let decision = of_endpoint(&endpoint, &env);
    assert_eq!(decision.to_string(), "http://own:8080 (/etc/hosts.toml:3)");
    assert_eq!(decision.proxy.as_deref(), Some("http://own:8080"));
    endpoint.proxy = Some(String::new());
    let decision = of_endpoint(&endpoint, &env);
    assert_eq!(decision.to_string(), "none (/etc/hosts.toml:3)");
    assert_eq!(decision.proxy, None);
}
