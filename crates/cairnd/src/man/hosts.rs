//! cairn-hosts.toml(5): where hosts of registries are spoken of, and in which words.

use clap_mangen::roff::{Roff, bold, roman};

/// Sections before and after the keys; lines as in the sections of the daemon's page.
const BEFORE: &[(&str, &str)] = &[
    (
        "NAME",
        "cairn-hosts.toml - which hosts are asked for the images of a registry",
    ),
    (
        "DESCRIPTION",
        "What cairn pulls from a registry, and pushes to it, goes by the file hosts.toml in the directory \
         of its name, /etc/cairn/certs.d/registry.example.com/hosts.toml for example; with a port, in \
         registry.example.com:5000 or registry.example.com_5000_. What is said in _default is for every \
         registry that has no directory of its own. Files are read at each pull.\n\
         The directories are those of registry.config_path in cairn-config.toml(5), or of --hosts-dir. The \
         first that has a directory for the registry counts. They are containerd's, and so are the words.\n\
         Who would be asked, says:\n\
         \tcairn explain-host registry.example.com",
    ),
    (
        "EXAMPLES",
        "A mirror of Docker's registry, in /etc/cairn/certs.d/docker.io/hosts.toml. When it fails, docker.io \
         is asked:\n\
         \t[host.\"https://mirror.example.com\"]\n\
         \tcapabilities = [\"pull\", \"resolve\"]\n\
         A registry that speaks http, in the directory of its name:\n\
         \tserver = \"http://registry.example.com\"\n\
         A registry with an authority of its own needs no file: put the certificate at ca.crt in the \
         directory of its name.",
    ),
];

const KEYS: &[(&str, &str)] = &[
    (
        "server = URL",
        "Stands for the registry itself, and is asked last. It has the keys below as well, outside of any \
         table.",
    ),
    (
        "[host.URL]",
        "Is asked before it, in the order of the file.",
    ),
    (
        "capabilities = [\"pull\", \"resolve\", \"push\", \"referrers\"]",
        "What a host may be asked for: blobs and manifests by their digests; what a tag means; to store \
         them; who refers to a manifest. Without it, all of them.",
    ),
    (
        "ca = FILE or [FILE, …]",
        "Authorities that are trusted besides the system's, as PEM.",
    ),
    (
        "client = FILE, [FILE, …] or [[CERT, KEY], …]",
        "Certificates that are shown.",
    ),
    ("skip_verify = true", "Any certificate will do."),
    (
        "[host.URL.header]",
        "Headers of every request to the host, as x-token = \"…\".",
    ),
    (
        "override_path = true",
        "The URL has the whole path; otherwise /v2 comes behind it.",
    ),
    ("dial_timeout = \"5s\"", "For a connection to come about."),
    (
        "proxy = URL",
        "Through whom the host is asked; \"\" for nobody, whatever the environment says.",
    ),
];

/// The page.
pub(super) fn page() -> Roff {
    let mut roff = Roff::new();
    roff.control("TH", ["cairn-hosts.toml", "5"]);
    roff.control("nh", []);
    for (name, text) in BEFORE {
        roff.control("SH", [*name]);
        super::section(&mut roff, text);
    }
    roff.control("SH", ["KEYS"]);
    for (key, text) in KEYS {
        roff.control("TP", []);
        roff.text([bold(*key)]);
        roff.text([roman(*text)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(
        "cairn-explain-host(1), cairn-config.toml(5), cairnd(8)",
    )]);
    roff
}
