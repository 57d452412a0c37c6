//! Directories and files of hosts as containerd documents them, and the mistakes in them.

mod containerds;
mod mistakes;

use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;

/// A search directory with files in it.
struct Tree(TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Tree {
        let tree = Tree(tempfile::tempdir().expect("a directory"));
        for (name, text) in files {
            let path = tree.path(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect(name);
            fs::write(path, text).expect(name);
        }
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn options(&self) -> Options {
        Options {
            dirs: vec![self.0.path().to_owned()],
            ..Options::default()
        }
    }

    fn endpoints(&self, host: &str) -> Vec<Endpoint> {
        endpoints(host, &self.options()).expect(host)
    }

    fn error(&self, host: &str) -> HostsError {
        endpoints(host, &self.options()).expect_err(host)
    }
}

/// The one endpoint of a host of which nothing is said.
fn alone(host: &str, options: &Options) -> Endpoint {
    let mut all = endpoints(host, options).expect(host);
    assert_eq!(all.len(), 1, "{host}");
    all.remove(0)
}

fn urls(endpoints: &[Endpoint]) -> Vec<String> {
    endpoints.iter().map(Endpoint::to_string).collect()
}

fn capabilities(words: &str) -> Capabilities {
    let has = |word| words.split(',').any(|said| said == word);
    Capabilities {
        pull: has("pull"),
        resolve: has("resolve"),
        push: has("push"),
        referrers: has("referrers"),
    }
}

fn said(endpoint: &Endpoint) -> Vec<(String, String)> {
    let texts = endpoint.headers.iter().map(|(name, value)| {
        let value = value.to_str().expect("text").to_owned();
        (name.to_string(), value)
    });
    texts.collect()
}

fn line(endpoint: &Endpoint) -> usize {
    match endpoint.from {
        Origin::File(_, line) => line,
        ref other => panic!("{endpoint} is from {other}"),
    }
}

/// The table of containerd's `TestHTTPFallback`: what is asked first, and whether http comes after it.
#[test]
fn schemes_are_chosen_as_containerd_chooses_them() {
    let verified = Options::default();
    let plain = Options {
        plain_http: true,
        ..Options::default()
    };
    let mut tls = Options::default();
    tls.tls.skip_verify = true;
    let both = Options {
        plain_http: true,
        ..tls.clone()
    };
    let table = [
        ("localhost:8080", &both, "https", true),
        ("localhost:8080", &verified, "https", true),
        ("localhost:80", &verified, "http", false),
        ("localhost:443", &verified, "https", false),
        ("localhost:80", &both, "http", false),
        ("localhost", &both, "https", true),
        ("localhost", &verified, "https", false),
        ("localhost:5000", &verified, "https", true),
        ("example.com", &verified, "https", false),
        ("example.com", &both, "https", true),
        ("example.com:5000", &both, "https", true),
        ("example.com:5000", &verified, "https", false),
        ("example2.com", &plain, "http", false),
        ("127.0.0.254:5000", &verified, "https", true),
        ("127.0.0.254", &verified, "https", false),
        ("[::1]:5000", &verified, "https", true),
        ("::1", &verified, "https", false),
        ("128.0.0.1:5000", &verified, "https", false),
        ("localhost.example.com:5000", &verified, "https", false),
        // Not in that table: nothing of TLS is said here, so nothing but http is tried.
        ("localhost:8080", &plain, "http", false),
        ("docker.io", &plain, "https", false),
    ];
    for (host, options, first, falls_back) in table {
        let endpoint = alone(host, options);
        let asked = if endpoint.https_first {
            "https"
        } else {
            endpoint.scheme
        };
        assert_eq!(
            (asked, endpoint.https_first),
            (first, falls_back),
            "{host} {options:?}"
        );
    }
    assert_eq!(alone("example2.com", &plain).from, Origin::Flags);
    assert_eq!(alone("example2.com", &verified).from, Origin::Name);
}

#[test]
fn only_loopback_may_show_any_certificate() {
    let options = Options::default();
    for (host, any) in [
        ("localhost", true),
        ("127.0.0.1:5000", true),
        ("[::1]:5000", true),
        ("[::ffff:127.0.0.1]:5000", true),
        ("localhost:80", false),
        ("127.0.0.1.example.com:5000", false),
        ("10.0.0.1:5000", false),
    ] {
        assert_eq!(alone(host, &options).tls.skip_verify, any, "{host}");
    }
    let strict = Tree::new(&[(
        "localhost:5000/hosts.toml",
        "skip_verify = false\nca = \"own.pem\"",
    )]);
    let endpoint = &strict.endpoints("localhost:5000")[0];
    assert!(!endpoint.tls.skip_verify, "who says so is listened to");
    let mut named = Options::default();
    named.tls.ca = vec!["/ca.pem".into()];
    let endpoint_of_named = alone("localhost:5000", &named);
    assert!(!endpoint_of_named.tls.skip_verify, "an authority was named");
    assert_eq!(endpoint.tls.ca, [strict.path("localhost:5000/own.pem")]);
    assert_eq!(
        endpoint.from,
        Origin::File(strict.path("localhost:5000/hosts.toml"), 1)
    );
}

#[test]
fn docker_hub_is_asked_at_its_registry() {
    let endpoint = alone("docker.io", &Options::default());
    assert_eq!(endpoint.to_string(), "https://registry-1.docker.io/v2");
    assert!(endpoint.is_origin);
    assert_eq!(endpoint.capabilities, Capabilities::ALL);
    assert_eq!(endpoint.tls, Tls::default());

    // The example of containerd's docs/hosts.md.
    let text = "server = \"https://docker.io\"\n\n[host.\"https://registry-1.docker.io\"]\n  \
                capabilities = [\"pull\", \"resolve\"]\n";
    let tree = Tree::new(&[("docker.io/hosts.toml", text)]);
    let all = tree.endpoints("docker.io");
    assert_eq!(
        urls(&all),
        ["https://registry-1.docker.io/v2", "https://docker.io/v2"]
    );
    assert!(all[0].is_origin && all[1].is_origin);
    assert_eq!(all[0].capabilities, capabilities("pull,resolve"));
}

#[test]
fn directories_are_tried_in_containerds_order() {
    let mirror = |name: &str| format!("[host.\"https://{name}\"]\n");
    let names = ["h_5000_", "h:5000", "_default"];
    let files = |of: &[&str]| {
        let named: Vec<(String, String)> = of
            .iter()
            .map(|name| {
                (
                    format!("{name}/hosts.toml"),
                    mirror(&name.replace([':', '_'], "-")),
                )
            })
            .collect();
        Tree::new(&named.iter().map(|(a, b)| (&**a, &**b)).collect::<Vec<_>>())
    };
    for (present, first) in [
        (&names[..], "https://h-5000-/v2"),
        (&names[1..], "https://h-5000/v2"),
        (&names[2..], "https://-default/v2"),
        (&[], "https://h:5000/v2"),
    ] {
        assert_eq!(urls(&files(present).endpoints("h:5000"))[0], first);
    }
    assert_eq!(
        urls(&files(&names).endpoints("h"))[0],
        "https://-default/v2"
    );

    // The default of the first directory is stronger than the host's own in the second.
    let (first, second) = (files(&names[2..]), files(&names[..1]));
    let options = |dirs: &[&Tree]| Options {
        dirs: dirs.iter().map(|tree| tree.0.path().to_owned()).collect(),
        ..Options::default()
    };
    let asked = |dirs: [&Tree; 2]| {
        let all = endpoints("h:5000", &options(&dirs)).expect("endpoints");
        all[0].to_string()
    };
    assert_eq!(asked([&first, &second]), "https://-default/v2");
    assert_eq!(asked([&second, &first]), "https://h-5000-/v2");
}

/// containerd 2.2.0 took `a:b` for one directory in one place and for two in another, and all mirrors
/// were off.
#[test]
fn a_list_of_directories_is_taken_apart() {
    let list = "/etc/containerd/certs.d:/etc/docker/certs.d";
    let two = ["/etc/containerd/certs.d", "/etc/docker/certs.d"];
    assert_eq!(dirs(list), two.map(PathBuf::from));
    assert_eq!(dirs(":/a::"), [PathBuf::from("/a")]);
    assert!(dirs("").is_empty());
    let empty = Options {
        dirs: vec![PathBuf::new()],
        ..Options::default()
    };
    // Not the working directory, where this crate's `src` is.
    assert_eq!(alone("src", &empty).from, Origin::Name);
}

#[test]
fn dockers_files_are_certificates_of_the_host_itself() {
    let files = [
        ("h:5000/ca.crt", ""),
        ("h:5000/b.crt", ""),
        ("h:5000/client.cert", ""),
        ("h:5000/client.key", ""),
        ("h:5000/whole.cert", ""),
        ("h:5000/readme.txt", ""),
        ("h:5000/sub.crt/x", ""),
    ];
    let tree = Tree::new(&files);
    let all = tree.endpoints("h:5000");
    let at = |name: &str| tree.path("h:5000").join(name);
    assert_eq!(urls(&all), ["https://h:5000/v2"]);
    assert_eq!(all[0].tls.ca, [at("b.crt"), at("ca.crt")]);
    let pair = (at("client.cert"), Some(at("client.key")));
    assert_eq!(all[0].tls.client, [pair, (at("whole.cert"), None)]);
    assert_eq!(all[0].from, Origin::Directory(tree.path("h:5000")));
    assert!(all[0].is_origin);

    // An empty file is none; one with anything in it is the only thing that is read.
    fs::write(at("hosts.toml"), "").expect("write");
    assert_eq!(tree.endpoints("h:5000"), all);
    fs::write(at("hosts.toml"), "\n").expect("write");
    let all = tree.endpoints("h:5000");
    assert_eq!(
        (&all[0].tls, &all[0].from),
        (&Tls::default(), &Origin::Name)
    );
}

#[test]
fn without_a_server_the_name_is_the_last() {
    let text = "ca = \"ca.pem\"\ncapabilities = [\"pull\"]\n\n[host.\"mirror.example.com:8443/a/../b/\"]\n\
                ca = [\"../m.pem\"]\nclient = [[\"c.pem\", \"\"]]\n";
    let tree = Tree::new(&[("registry.example.com/hosts.toml", text)]);
    let all = tree.endpoints("registry.example.com");
    let expected = [
        "https://mirror.example.com:8443/b/v2",
        "https://registry.example.com/v2",
    ];
    assert_eq!(urls(&all), expected);
    let dir = tree.path("registry.example.com");
    assert_eq!(all[0].tls.ca, [dir.join("../m.pem")]);
    assert_eq!(all[0].tls.client, [(dir.join("c.pem"), None)]);
    assert_eq!(all[1].tls.ca, [dir.join("ca.pem")]);
    assert_eq!((line(&all[0]), line(&all[1])), (4, 1));
    assert!(!all[0].is_origin && all[1].is_origin);
    // containerd forgets them there, so a push that works with it works here.
    assert_eq!(all[1].capabilities, Capabilities::ALL);
}

#[test]
fn flags_are_for_all_and_a_files_word_is_stronger() {
    let text = "[host.\"https://a\"]\nskip_verify = false\nca = \"/a.pem\"\n\
                [host.\"https://b\"]\n[host.\"http://c\"]\n[host.\"http://d:80\"]\n";
    let tree = Tree::new(&[("h/hosts.toml", text)]);
    let mut options = tree.options();
    options.tls = Tls {
        ca: vec!["/flag.pem".into()],
        client: vec![("/c.pem".into(), Some("/k.pem".into()))],
        skip_verify: true,
    };
    options.plain_http = true;
    let all = endpoints("h", &options).expect("endpoints");
    let first: Vec<(String, bool, bool)> = all
        .iter()
        .map(|e| (e.to_string(), e.https_first, e.tls.skip_verify))
        .collect();
    let expected = [
        ("https://a/v2".to_owned(), false, false),
        ("https://b/v2".to_owned(), false, true),
        ("http://c/v2".to_owned(), true, true),
        ("http://d:80/v2".to_owned(), false, true),
        ("http://h/v2".to_owned(), true, true),
    ];
    assert_eq!(first, expected);
    assert_eq!(all[0].tls.ca, [Path::new("/flag.pem"), Path::new("/a.pem")]);
    assert!(all.iter().all(|e| e.tls.client == options.tls.client));

    // The example of docs/hosts.md: plain http, and yet something of its certificate.
    let text = "[host.\"http://192.168.31.250:5000\"]\n  skip_verify = true\n[host.\"http://e\"]\n";
    let tree = Tree::new(&[("docker.io/hosts.toml", text)]);
    let tried: Vec<bool> = tree
        .endpoints("docker.io")
        .iter()
        .map(|e| e.https_first)
        .collect();
    assert_eq!(tried, [true, false, false]);
}

#[test]
fn values_of_all_shapes_are_taken() {
    let one = |text: &str| {
        let tree = Tree::new(&[("h/hosts.toml", text)]);
        tree.endpoints("h").remove(0)
    };
    for (text, expected) in [
        ("1s", 1_000),
        ("1m30s", 90_000),
        ("1.5h", 5_400_000),
        ("500ms", 500),
        ("2s500ms", 2_500),
        ("+2s", 2_000),
        (".5s", 500),
    ] {
        let found = one(&format!("dial_timeout = \"{text}\"")).dial_timeout;
        assert_eq!(found, Some(Duration::from_millis(expected)), "{text}");
    }
    for none in ["", "0", "0s"] {
        assert_eq!(
            one(&format!("dial_timeout = \"{none}\"")).dial_timeout,
            None
        );
    }
    for proxy in [
        "http://my-proxy:8080",
        "https://my-proxy",
        "socks5://[::1]:1080/",
        "socks5h://user:secret@my-proxy:1080",
        "",
    ] {
        let endpoint = one(&format!("proxy = \"{proxy}\""));
        assert_eq!(endpoint.proxy.as_deref(), Some(proxy));
        assert!(!format!("{endpoint:?}").contains("secret"));
    }
    let all = one("server = \"https://s\"\ncapabilities = []").capabilities;
    assert_eq!(all, Capabilities::ALL);
    let some = one("server = \"https://s\"\ncapabilities = [\"PULL\", \"Resolve\"]").capabilities;
    assert_eq!(some, capabilities("pull,resolve"));
    for (server, whole, url) in [
        ("http://s/", false, "http://s/v2"),
        ("s", false, "https://s/v2"),
        ("https.example.com", false, "https://https.example.com/v2"),
        ("https://s:443/v2/", false, "https://s:443/v2"),
        ("https://s/a/v2", false, "https://s/a/v2"),
        ("https://s/v2/a", false, "https://s/v2/a/v2"),
        ("https://s/v2//a/", true, "https://s/v2/a"),
        ("https://s/", true, "https://s"),
        ("https://[fe80::1]:5000", false, "https://[fe80::1]:5000/v2"),
    ] {
        let text = format!("override_path = {whole}\nserver = \"{server}\"");
        assert_eq!(one(&text).to_string(), url, "{server}");
    }
    assert_eq!(one("server = \"\"").to_string(), "https://h/v2");
    assert!(one("server = \"http://h\"").is_origin);
}

#[test]
fn no_secret_of_a_header_is_shown() {
    let text = "[header]\nAuthorization = \"Bearer hidden\"\n";
    let endpoint = &Tree::new(&[("h/hosts.toml", text)]).endpoints("h")[0];
    assert_eq!(said(endpoint)[0].1, "Bearer hidden");
    assert!(!format!("{endpoint:?}").contains("hidden"));
}

#[test]
fn mirrors_keep_the_order_of_the_file_however_they_are_written() {
    let text = "[host.\"https://z\"]\n[host.\"https://a\".header]\nx = \"1\"\n[host.\"https://m\"]\n\
                [host.\"https://a\"]\nskip_verify = true\n";
    let tree = Tree::new(&[("h/hosts.toml", text)]);
    let expected = [
        "https://z/v2",
        "https://a/v2",
        "https://m/v2",
        "https://h/v2",
    ];
    assert_eq!(urls(&tree.endpoints("h")), expected);
    let text = "host.\"https://z\".skip_verify = true\nhost.\"https://a\" = { ca = \"/c\" }\n";
    let tree = Tree::new(&[("h/hosts.toml", text)]);
    assert_eq!(
        urls(&tree.endpoints("h")),
        ["https://z/v2", "https://a/v2", "https://h/v2"]
    );
}

#[test]
fn headers_of_a_call_are_for_every_endpoint_that_has_none_of_that_name() {
    let tree = Tree::new(&[(
        "h/hosts.toml",
        "[host.\"https://a\".header]\nx-own = \"file\"\n",
    )]);
    let mut options = tree.options();
    let header = |name, value| {
        let value = http::HeaderValue::from_static(value);
        (http::HeaderName::from_static(name), value)
    };
    options.headers = vec![header("x-own", "call"), header("x-more", "call")];
    let endpoints = endpoints("h", &options).expect("endpoints");
    let headers: Vec<_> = endpoints.iter().map(|e| e.headers.clone()).collect();
    let expected = [
        vec![header("x-own", "file"), header("x-more", "call")],
        options.headers,
    ];
    assert_eq!(headers, expected);
}

#[test]
fn hosts_that_are_spoken_of_are_listed() {
    let tree = Tree::new(&[
        (
            "docker.io/hosts.toml",
            "[host.\"https://mirror.example.com:444\"]\n[host.\"http://10.0.0.1\"]\n",
        ),
        ("registry.example.com_5000_/ca.crt", ""),
        ("localhost:5000/hosts.toml", "this is no TOML"),
        (
            "_default/hosts.toml",
            "[host.\"https://all.example.com\"]\n",
        ),
        ("a.file", ""),
    ]);
    let named = named(&[tree.path(""), tree.path("none"), PathBuf::new()]);
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    assert_eq!(
        named,
        [
            "10.0.0.1",
            "all.example.com",
            "docker.io",
            "localhost:5000",
            "mirror.example.com:444",
            "registry.example.com:5000",
        ]
    );
}
