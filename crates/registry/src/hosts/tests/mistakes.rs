//! What a file of hosts must not say, and directories and files that cannot be read.

use std::fs;

use super::Tree;

/// Each with the line and column it is found at, a part of the reason, and of what to do.
const MISTAKES: &[(&str, (usize, usize), &str, &str)] = &[
    (
        "sever = \"https://a\"",
        (1, 1),
        "unknown key \"sever\"",
        "did you mean server?",
    ),
    (
        "[host.\"https://a\"]\n  capabilites = []",
        (2, 3),
        "unknown key \"capabilites\"",
        "capabilities",
    ),
    (
        "[host.\"https://a\"]\nserver = \"b\"",
        (2, 1),
        "unknown key \"server\"",
        "one of capabilities, ca",
    ),
    (
        "[host.\"https://a\"]\n[host.\"https://a\".host.b]",
        (2, 19),
        "unknown key \"host\"",
        "",
    ),
    (
        "\ncapabilities = [\"pull\", \"resolv\"]",
        (2, 25),
        "unknown capability \"resolv\"",
        "resolve?",
    ),
    (
        "capabilities = \"pull\"",
        (1, 16),
        "capabilities wants an array of strings, not string",
        "",
    ),
    (
        "capabilities = [1]",
        (1, 17),
        "a capability wants a string, not integer",
        "",
    ),
    (
        "ca = 1",
        (1, 6),
        "ca wants a string or an array of strings, not integer",
        "",
    ),
    ("ca = [1]", (1, 7), "ca wants a string, not integer", ""),
    ("ca = \"\"", (1, 6), "ca names a file without a name", ""),
    (
        "client = [[\"a\"]]",
        (1, 11),
        "client wants a string, an array",
        "",
    ),
    (
        "client = [[\"a\", \"b\", \"c\"]]",
        (1, 11),
        "pairs of strings, not array",
        "",
    ),
    (
        "client = [[\"a\", 1]]",
        (1, 17),
        "client wants a string, not integer",
        "",
    ),
    (
        "skip_verify = \"yes\"",
        (1, 15),
        "skip_verify wants true or false, not string",
        "",
    ),
    (
        "override_path = 1",
        (1, 17),
        "override_path wants true or false",
        "",
    ),
    (
        "dial_timeout = 3",
        (1, 16),
        "dial_timeout wants a string",
        "",
    ),
    (
        "dial_timeout = \"3\"",
        (1, 16),
        "\"3\" is no duration such as",
        "",
    ),
    (
        "dial_timeout = \"-3s\"",
        (1, 16),
        "\"-3s\" is no duration",
        "",
    ),
    ("dial_timeout = \"3 s\"", (1, 16), "is no duration", ""),
    ("dial_timeout = \"s\"", (1, 16), "is no duration", ""),
    ("proxy = \"my-proxy:8080\"", (1, 9), "it is no URL", ""),
    (
        "proxy = \"ftp://my-proxy\"",
        (1, 9),
        "one of http, https, socks5, socks5h",
        "",
    ),
    (
        "proxy = \"http://my-proxy/path\"",
        (1, 9),
        "a proxy has no path",
        "",
    ),
    (
        "proxy = \"http://my-proxy?a\"",
        (1, 9),
        "neither query nor fragment",
        "",
    ),
    (
        "server = \"ftp://a\"",
        (1, 1),
        "\"ftp\" is neither http nor https",
        "",
    ),
    (
        "server = \"https://u:p@a\"",
        (1, 1),
        "a URL here has no user",
        "",
    ),
    (
        "server = \"https://a#b\"",
        (1, 1),
        "neither query nor fragment",
        "",
    ),
    ("server = \"https://a:port\"", (1, 1), "it is no URL", ""),
    ("server = \"https://\"", (1, 1), "it is no URL", ""),
    (
        "server = 5",
        (1, 10),
        "server wants a string, not integer",
        "",
    ),
    ("host = 5", (1, 8), "host wants a table, not integer", ""),
    (
        "[host]\n\"https://a\" = 5",
        (2, 15),
        "host.\"https://a\" wants a table",
        "",
    ),
    ("[host.\"https://a b\"]", (1, 7), "it is no URL", ""),
    ("header = 1", (1, 10), "header wants a table", ""),
    (
        "[header]\n\"x y\" = \"1\"",
        (2, 1),
        "\"x y\" is no name of a header",
        "",
    ),
    (
        "[header]\nx = 1",
        (2, 5),
        "x wants a string or an array of strings",
        "",
    ),
    (
        "[header]\nx = [\"a\", \"b\\n\"]",
        (2, 11),
        "the value of x cannot be sent",
        "",
    ),
    ("a = ", (1, 5), "", ""),
    (
        "skip_verify = true\nskip_verify = true",
        (2, 1),
        "duplicate key",
        "",
    ),
];

#[test]
fn mistakes_are_refused_with_their_line() {
    for (text, at, reason, next) in MISTAKES {
        let tree = Tree::new(&[("h/hosts.toml", text)]);
        let err = tree.error("h");
        assert_eq!(err.at, Some(*at), "{text}: {err}");
        assert!(err.reason.contains(reason), "{text}: {err}");
        assert!(
            err.next.clone().unwrap_or_default().contains(next),
            "{text}: {err:?}"
        );
        let place = format!(
            "{}:{}:{}: ",
            tree.path("h/hosts.toml").display(),
            at.0,
            at.1
        );
        assert!(err.to_string().starts_with(&place), "{err}");
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let tree = Tree::new(&[("h/hosts.toml/x", ""), ("f", ""), ("u/x", "")]);
    assert_eq!(tree.error("h").file, tree.path("h/hosts.toml"));
    assert_eq!(tree.error("f").file, tree.path("f/hosts.toml"));
    fs::write(tree.path("u/hosts.toml"), b"a = 1\n# \xff").expect("write");
    let err = tree.error("u");
    assert_eq!((err.at, &*err.reason), (Some((2, 3)), "it is not UTF-8"));
    for host in ["", "..", ".", "a/b", "../etc"] {
        assert_eq!(
            tree.error(host).reason,
            "it is no name of a host",
            "{host:?}"
        );
    }
}
