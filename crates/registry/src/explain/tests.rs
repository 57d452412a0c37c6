//! The rows of `cairn explain-host`.

use std::{fs, path::Path};

use super::*;
use crate::credentials::{Credential, Sources};

#[test]
fn every_row_says_where_it_comes_from() {
    let dir = tempfile::tempdir().expect("a directory");
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect(name);
        fs::write(&path, text).expect(name);
        path.display().to_string()
    };
    let file = put(
        "certs.d/registry.example.com/hosts.toml",
        "[host.\"https://mirror.example.com\"]\n  capabilities = [\"pull\", \"resolve\"]\n  \
         proxy = \"http://me:hidden@proxy:3128\"\n\n[host.\"http://10.0.0.1:5000\"]\n  skip_verify = true\n",
    );
    let config = "{\n  \"auths\": {\"10.0.0.1:5000\": {}},\n  \"credHelpers\": {\n    \
                  \"mirror.example.com\": \"pass\"\n  }\n}\n";
    put("home/.docker/config.json", config);
    let home = dir.path().join("home").display().to_string();
    let env: Env = [
        ("HOME", home.as_str()),
        ("HTTPS_PROXY", "proxy:1"),
        ("NO_PROXY", "10.0.0.0/8"),
    ]
    .into_iter()
    .collect();
    let options = Options {
        dirs: vec![dir.path().join("certs.d")],
        ..Options::default()
    };
    let endpoints = hosts::endpoints("registry.example.com", &options).expect("endpoints");
    let token = Credential::Identity("hidden".to_owned());
    let sources = Sources::new("registry.example.com", "shop/web", &env, 0).given(
        token,
        "--refresh",
        endpoints.last().map(|last| &*last.authority),
    );
    let rows = explain("registry.example.com", &options, &env).expect("rows");
    let shown: Vec<[String; 5]> = rows
        .iter()
        .map(|row| {
            let capabilities = row.capabilities.to_string();
            let auth = sources.explain(&row.host).expect("who asks");
            let from = row.from.to_string();
            [&row.url, &capabilities, &auth, &row.proxy, &from].map(String::clone)
        })
        .collect();
    let all = "pull,resolve,push,referrers";
    let expected = [
        [
            "https://mirror.example.com/v2",
            "pull,resolve",
            "docker-credential-pass (~/.docker/config.json:4)",
            &format!("http://***@proxy:3128 ({file}:1)"),
            &format!("{file}:1"),
        ],
        [
            "https or http://10.0.0.1:5000/v2",
            all,
            "none",
            "none",
            &format!("{file}:5"),
        ],
        [
            "https://registry.example.com/v2",
            all,
            "identity token (--refresh)",
            "http://proxy:1 (HTTPS_PROXY)",
            "name",
        ],
    ];
    assert_eq!(shown, expected.map(|row| row.map(str::to_owned)));
    assert!(!format!("{rows:?}").contains("hidden"));
}

#[test]
fn a_mistake_in_a_file_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("auth.json");
    fs::write(&file, "{").expect("write");
    let env = Env::default();
    let sources = Sources::new("docker.io", "library/alpine", &env, 0).authfile(&file);
    let rows = explain("docker.io", &Options::default(), &env).expect("rows");
    let expected = format!(
        "cannot read {}: it is not JSON (line 1, column 1)",
        file.display()
    );
    assert_eq!(sources.explain(&rows[0].host), Err(expected));
    assert_eq!(rows[0].url, "https://registry-1.docker.io/v2");

    let options = Options {
        dirs: vec![file.clone()],
        ..Options::default()
    };
    let err = explain("docker.io", &options, &env).expect_err("a file is no directory");
    assert_eq!(err.file, Path::new(&file).join("docker.io"));
}
