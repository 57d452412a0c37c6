//! Figures of requests to registries: by name for those that the configuration speaks of, and together for
//! all others.

use std::{
    fs,
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use cairn_proto::cairn::v1::{
    PullOptions, PullRequest, images_client::ImagesClient, pull_request::Part,
};
use tempfile::TempDir;
use tonic::{Code, transport::Channel};

use crate::daemon::{Place, get, request, wait_for};

/// Debian's registry, empty.
pub(crate) struct Registry {
    pub(crate) host: String,
    process: Child,
    _work: TempDir,
}

impl Registry {
    pub(crate) fn start() -> Registry {
        let work = tempfile::tempdir().expect("directory");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let host = free.local_addr().expect("address").to_string();
        drop(free);
        let config = work.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {:?}}}}}\nhttp: {{addr: \"{host}\"}}\n",
            work.path().join("root")
        );
        fs::write(&config, text).expect("configuration");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start docker-registry");
        wait_for("the registry", || TcpStream::connect(&host).ok());
        Registry {
            host,
            process,
            _work: work,
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks for what no registry has.
pub(crate) async fn pull_nothing(channel: &Channel, host: &str) {
    let options = PullOptions {
        name: format!("{host}/shop/web:1"),
        ..PullOptions::default()
    };
    let message = PullRequest {
        part: Some(Part::Options(options)),
    };
    let mut images = ImagesClient::new(channel.clone());
    let answers = images.pull(request(tokio_stream::iter([message]))).await;
    let mut answers = answers.expect("answers").into_inner();
    let err = loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it was pulled"),
            Err(err) => break err,
        }
    };
    assert_eq!(err.code(), Code::NotFound, "{err}");
}

#[tokio::test]
async fn only_hosts_of_the_configuration_have_a_name() {
    let (known, stranger) = (Registry::start(), Registry::start());
    let dirs = tempfile::tempdir().expect("directory");
    let own = dirs.path().join(&known.host);
    fs::create_dir(&own).expect("directory");
    let hosts = format!("server = \"http://{}\"\n", known.host);
    fs::write(own.join("hosts.toml"), hosts).expect("hosts");
    let place = Place::with(&format!(
        "[metrics]\naddress = \"metrics.sock\"\n[registry]\nconfig_path = [{:?}]\n",
        dirs.path()
    ));
    let _daemon = place.start();
    let channel = place.channel().await;
    let socket = place.path("run/metrics.sock");
    let count = |series: &str| {
        let (_, text) = get(&socket, "/metrics");
        let value = text.lines().find_map(|line| {
            let value = line.strip_prefix(series)?.strip_prefix(' ')?;
            Some(value.parse::<f64>().expect("a number"))
        });
        (value, text)
    };
    let host = &known.host;
    for label in [host.as_str(), "other"] {
        let received = format!("cairn_registry_received_bytes_total{{host=\"{label}\"}}");
        assert_eq!(count(&received).0, Some(0.0), "{label}");
    }
    pull_nothing(&channel, host).await;
    pull_nothing(&channel, &stranger.host).await;
    for label in [host.as_str(), "other"] {
        let requests = format!("cairn_registry_requests_total{{host=\"{label}\",code=\"404\"}}");
        let received = format!("cairn_registry_received_bytes_total{{host=\"{label}\"}}");
        for series in [requests, received] {
            let (value, text) = count(&series);
            assert!(
                value.is_some_and(|value| value > 0.0),
                "{series} in\n{text}"
            );
        }
        let sent = format!("cairn_registry_sent_bytes_total{{host=\"{label}\"}}");
        assert_eq!(count(&sent).0, Some(0.0), "{label}");
    }
    let (_, text) = count("");
    assert!(!text.contains(&stranger.host), "{text}");
}
