//! The file of containerd's own test of its reader, and what that test expects.

use super::*;

/// The file of containerd's own test of its reader (`TestParseHostFile`).
const CONTAINERDS: &str = r#"
server = "https://test-default.registry"
ca = "/etc/path/default"
[header]
  x-custom-1 = "custom header"

[host."https://mirror.registry"]
  capabilities = ["pull"]
  ca = "/etc/certs/mirror.pem"
  skip_verify = false
  [host."https://mirror.registry".header]
    x-custom-2 = ["value1", "value2"]

[host."https://mirror-bak.registry/us"]
  capabilities = ["pull"]
  skip_verify = true

[host."http://mirror.registry"]
  capabilities = ["pull"]

[host."https://test-1.registry"]
  capabilities = ["pull", "resolve", "push", "referrers"]
  ca = ["/etc/certs/test-1-ca.pem", "/etc/certs/special.pem"]
  client = [["/etc/certs/client.cert", "/etc/certs/client.key"],["/etc/certs/client.pem", ""]]

[host."https://test-2.registry"]
  client = "/etc/certs/client.pem"

[host."https://test-3.registry"]
  client = ["/etc/certs/client-1.pem", "/etc/certs/client-2.pem"]

[host."https://no-referrers.registry"]
  capabilities = ["pull", "resolve", "push"]

[host."https://noncompliantmirror.registry/v2/namespaceprefix"]
  capabilities = ["pull"]
  override_path = true

[host."https://noprefixnoncompliant.registry"]
  override_path = true

[host."https://onlyheader.registry".header]
  x-custom-1 = "justaheader"

[host."https://dial-timeout.registry"]
  dial_timeout = "3s"
"#;

#[test]
fn containerds_own_file_is_read_as_containerd_reads_it() {
    let tree = Tree::new(&[("registry.example.com/hosts.toml", CONTAINERDS)]);
    let all = tree.endpoints("registry.example.com");
    let expected = [
        ("https://mirror.registry/v2", "pull"),
        ("https://mirror-bak.registry/us/v2", "pull"),
        ("http://mirror.registry/v2", "pull"),
        ("https://test-1.registry/v2", "pull,resolve,push,referrers"),
        ("https://test-2.registry/v2", "pull,resolve,push,referrers"),
        ("https://test-3.registry/v2", "pull,resolve,push,referrers"),
        ("https://no-referrers.registry/v2", "pull,resolve,push"),
        (
            "https://noncompliantmirror.registry/v2/namespaceprefix",
            "pull",
        ),
        (
            "https://noprefixnoncompliant.registry",
            "pull,resolve,push,referrers",
        ),
        (
            "https://onlyheader.registry/v2",
            "pull,resolve,push,referrers",
        ),
        (
            "https://dial-timeout.registry/v2",
            "pull,resolve,push,referrers",
        ),
        (
            "https://test-default.registry/v2",
            "pull,resolve,push,referrers",
        ),
    ];
    assert_eq!(urls(&all), expected.map(|(url, _)| url));
    for (endpoint, (url, words)) in all.iter().zip(expected) {
        assert_eq!(endpoint.capabilities, capabilities(words), "{url}");
        assert_eq!(endpoint.capabilities.to_string(), words);
        assert!(
            !endpoint.is_origin,
            "{url} is told whose content is asked for"
        );
        assert_eq!(endpoint.proxy, None, "{url}");
    }
    let verified: Vec<bool> = all.iter().map(|e| !e.tls.skip_verify).collect();
    assert_eq!(verified.iter().filter(|is| !**is).count(), 1);
    assert!(!verified[1]);
    assert_eq!(all[10].dial_timeout, Some(Duration::from_secs(3)));
    assert_eq!(all[9].dial_timeout, None);
}

#[test]
fn containerds_own_files_certificates_and_headers() {
    let tree = Tree::new(&[("registry.example.com/hosts.toml", CONTAINERDS)]);
    let all = tree.endpoints("registry.example.com");
    let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(all[0].tls.ca, paths(&["/etc/certs/mirror.pem"]));
    let two = ["/etc/certs/test-1-ca.pem", "/etc/certs/special.pem"];
    assert_eq!(all[3].tls.ca, paths(&two));
    assert_eq!(all[11].tls.ca, paths(&["/etc/path/default"]));
    let pem = |name: &str| PathBuf::from("/etc/certs").join(name);
    let pair = (pem("client.cert"), Some(pem("client.key")));
    assert_eq!(all[3].tls.client, [pair, (pem("client.pem"), None)]);
    assert_eq!(all[4].tls.client, [(pem("client.pem"), None)]);
    let two = [(pem("client-1.pem"), None), (pem("client-2.pem"), None)];
    assert_eq!(all[5].tls.client, two, "two certificates, and no pair");

    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let two = [
        header("x-custom-2", "value1"),
        header("x-custom-2", "value2"),
    ];
    assert_eq!(said(&all[0]), two);
    assert_eq!(said(&all[9]), [header("x-custom-1", "justaheader")]);
    assert_eq!(said(&all[11]), [header("x-custom-1", "custom header")]);
    let lines: Vec<usize> = all.iter().map(line).collect();
    assert_eq!(lines, [7, 14, 18, 21, 26, 29, 32, 35, 39, 42, 45, 2]);
}
