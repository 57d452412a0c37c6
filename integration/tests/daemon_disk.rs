//! A disk that fails under the daemon: it says so, changes nothing more, hands out what it has, and has
//! everything it acknowledged when the disk is mended. One that is full only makes it refuse.

#![allow(missing_docs)]

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use cairn_integration::{daemon::Daemon, fault::Disk, image::digest};
use cairn_proto::containerd::services::{
    content::v1::{WriteAction, WriteContentRequest, content_client::ContentClient},
    namespaces::v1::{CreateNamespaceRequest, Namespace, namespaces_client::NamespacesClient},
};
use tokio::runtime::Runtime;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

const READ_ONLY: &str = "cairn_store_read_only{store=\"public\"}";
/// Every refusal of a change has it, and the one line of the log.
const SENTENCE: &str = "the store is read-only since ";

/// A connection to the daemon, and what waits for its answers.
struct Caller {
    runtime: Runtime,
    channel: Channel,
}

impl Caller {
    fn of(daemon: &Daemon) -> Caller {
        let runtime = Runtime::new().expect("runtime");
        let uri = format!("unix://{}", daemon.path("sock").display());
        let endpoint = Endpoint::from_shared(uri).expect("address");
        let channel = runtime.block_on(endpoint.connect()).expect("connection");
        Caller { runtime, channel }
    }

    /// Stores a blob that no collection removes; what went wrong.
    fn put(&self, bytes: &[u8]) -> Result<String, String> {
        let name = digest(bytes);
        let commit = WriteContentRequest {
            action: WriteAction::Commit.into(),
            r#ref: format!("put-{name}"),
            total: i64::try_from(bytes.len()).expect("size"),
            expected: name.clone(),
            data: bytes.to_vec().into(),
            labels: [("containerd.io/gc.root".to_owned(), "x".to_owned())].into(),
            ..WriteContentRequest::default()
        };
        let mut order = Request::new(tokio_stream::iter([commit]));
        let ns = "default".parse().expect("namespace");
        order.metadata_mut().insert("containerd-namespace", ns);
        let mut client = ContentClient::new(self.channel.clone());
        let written = self.runtime.block_on(async {
            let mut answers = client.write(order).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok::<(), Status>(())
        });
        written.map_err(|status| status.message().to_owned())?;
        Ok(name)
    }

    /// Makes a namespace of which there is much to record.
    fn create(&self, name: &str) -> Result<(), Status> {
        let labels = (0..15).map(|number| (format!("label{number}"), name.repeat(400)));
        let namespace = Some(Namespace {
            name: name.to_owned(),
            labels: labels.collect(),
        });
        let mut client = NamespacesClient::new(self.channel.clone());
        let created = client.create(CreateNamespaceRequest { namespace });
        self.runtime.block_on(created).map(drop)
    }

    fn health(&self) -> ServingStatus {
        let mut client = HealthClient::new(self.channel.clone());
        let service = "containerd.services.content.v1.Content".to_owned();
        let answer = client.check(HealthCheckRequest { service });
        let answer = self.runtime.block_on(answer).expect("health");
        answer.into_inner().status()
    }
}

/// A document of the endpoint of figures, with its head.
fn get(daemon: &Daemon, path: &str) -> String {
    let mut stream = UnixStream::connect(daemon.path("metrics.sock")).expect("endpoint");
    let request = format!("GET {path} HTTP/1.1\r\nHost: cairn\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    answer
}

/// Has a disk that was well fail while changes come in, until one is refused because of the whole store;
/// what was acknowledged. A blob that finds no room is a matter of that blob alone.
fn break_under(daemon: &Daemon, caller: &Caller, disk: &Disk) -> Vec<String> {
    let small = (0..5_u8).map(|number| caller.put(&[number; 5000]).expect("stored"));
    let mut kept: Vec<String> = small.collect();
    let opened = fs::File::open(disk.path()).expect("disk");
    rustix::fs::syncfs(&opened).expect("sync");
    drop(opened);
    disk.fail();
    let mut refusals = Vec::new();
    for number in b'a'..=b'z' {
        match caller.put(&vec![number; 1 << 20]) {
            Ok(name) => kept.push(name),
            Err(reason) => refusals.push(reason),
        }
        let name = char::from(number).to_string();
        let made = daemon.attempt(&["namespaces", "create", &name]);
        refusals.extend(made.err());
        if refusals.iter().any(|reason| reason.contains(SENTENCE)) {
            return kept;
        }
    }
    panic!("a disk that fails takes everything, but for {refusals:?}");
}

/// From now on there is one answer for all that would change something.
fn assert_unwell(daemon: &Daemon, caller: &Caller, kept: &str) {
    for refused in [
        caller.put(b"more"),
        daemon.attempt(&["namespaces", "create", "n"]),
        daemon.attempt(&["content", "rm", kept]),
    ] {
        let said = refused.expect_err("refused");
        assert!(said.contains(SENTENCE), "{said}");
    }
    let healthz = get(daemon, "/healthz");
    assert!(healthz.starts_with("HTTP/1.1 503 "), "{healthz}");
    assert!(healthz.contains(SENTENCE), "{healthz}");
    assert!(get(daemon, "/metrics").contains(&format!("{READ_ONLY} 1")));
    let log = fs::read_to_string(daemon.path("log")).expect("log");
    assert_eq!(log.matches(SENTENCE).count(), 1, "said once: {log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_failing_disk_makes_the_store_read_only() {
    let disk = Disk::new("256M", &[]);
    let mut daemon = Daemon::with_store(&disk.path().join("root"));
    let caller = Caller::of(&daemon);
    assert_eq!(caller.health(), ServingStatus::Serving);
    assert!(get(&daemon, "/metrics").contains(&format!("{READ_ONLY} 0")));
    let kept = break_under(&daemon, &caller, &disk);
    daemon.until("a daemon that says so", || {
        caller.health() == ServingStatus::NotServing
    });
    assert_unwell(&daemon, &caller, &kept[0]);
    let listed = daemon.ok(&["content", "ls", "-q"]);
    for name in &kept {
        assert!(listed.contains(name), "{name} is not in {listed}");
    }
    assert_eq!(daemon.ok(&["content", "get", &kept[3]]).len(), 5000);

    daemon.kill();
    disk.mend();
    daemon.restart();
    assert_eq!(Caller::of(&daemon).health(), ServingStatus::Serving);
    for name in &kept {
        let bytes = daemon.ok(&["content", "get", name]);
        assert_eq!(digest(bytes.as_bytes()), *name, "it was acknowledged");
    }
    daemon.ok(&["namespaces", "create", "n"]);
}

/// Records find no room for hours, and then they do.
#[test]
fn a_full_disk_breaks_nothing() {
    let disk = Disk::new("64M", &[]);
    let mut daemon = Daemon::with_store(&disk.path().join("root"));
    let caller = Caller::of(&daemon);
    disk.fill(0);
    let mut made = Vec::new();
    let refused = loop {
        let name = format!("n{:08}", made.len());
        match caller.create(&name) {
            Ok(()) => made.push(name),
            Err(refused) => break refused,
        }
        assert!(made.len() < 5000, "a full disk takes everything");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("no space left"), "{refused}");
    // It says so as often as it is asked, and is well.
    let refused = caller.create("more").expect_err("no room");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(caller.health(), ServingStatus::Serving);
    assert!(get(&daemon, "/metrics").contains(&format!("{READ_ONLY} 0")));

    disk.unfill();
    for _ in 0..100 {
        let name = format!("n{:08}", made.len());
        caller.create(&name).expect("there is room");
        made.push(name);
    }
    daemon.kill();
    daemon.restart();
    let listed = daemon.ok(&["namespaces", "ls", "-q"]);
    for name in &made {
        assert!(listed.contains(name), "{name} was acknowledged");
    }
}
