//! The service manager: what it is told, the sockets it passes, its watchdog.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener},
    },
    process::{Command, Stdio},
};

use cairn_meta::{View, schema};
use cairn_node::{EngineKind, ImportRequest, Node, NodeOptions, Silent, Source};
use cairn_types::{Labels, Namespace, SnapshotKey};

use crate::{
    common::{archive::Archive, layer::Layer},
    daemon::{PATIENCE, Place, quiet, run},
};

/// A manager that hears.
struct Manager(UnixDatagram);

impl Manager {
    fn at(place: &Place, command: &mut Command) -> Manager {
        let path = place.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        command.env("NOTIFY_SOCKET", path);
        Manager(socket)
    }

    fn hear(&self) -> String {
        let mut text = vec![0; 4096];
        let len = self.0.recv(&mut text).expect("word from the daemon");
        String::from_utf8_lossy(&text[..len]).into_owned()
    }

    /// All that is said up to a message with this line.
    fn until(&self, wanted: &str) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            let text = self.hear();
            let found = text.lines().any(|line| line == wanted);
            heard.push(text);
            if found {
                return heard;
            }
        }
    }
}

#[test]
fn it_is_told_of_each_stage() {
    let place = Place::new();
    let mut command = place.command();
    let manager = Manager::at(&place, &mut command);
    let mut daemon = place.spawn(command);
    let heard = manager.until("READY=1");
    assert_eq!(heard[0], "STATUS=opening the store\n");
    let status = format!("STATUS=serving at {}\n", place.socket().display());
    assert!(heard.last().unwrap().ends_with(&status), "{heard:?}");
    // Whoever was told that it is ready can connect.
    std::os::unix::net::UnixStream::connect(place.socket()).unwrap();
    daemon.signal(rustix::process::Signal::HUP);
    assert!(manager.hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    manager.until("READY=1");
    daemon.signal(rustix::process::Signal::TERM);
    manager.until("STOPPING=1");
    assert!(daemon.ended().success());
}

/// A store after a power cut: a layer that may be torn, and on top of it what somebody wrote.
fn torn(place: &Place) {
    let node = Node::open(NodeOptions::new(place.path("root"), EngineKind::Redb)).unwrap();
    let layer = Layer::new().dir("etc/").file("etc/motd", "hello");
    let archive = Archive::new("docker.io/shop/web:1", &[layer.bytes()]);
    fs::write(place.path("web.tar"), &archive.bytes).unwrap();
    let ns = Namespace::parse("default").unwrap();
    let source = Source::Path(place.path("web.tar"));
    let request = ImportRequest::new(ns.clone(), source);
    node.import(request, &Silent).unwrap();
    let layer = node.snapshots().list(&ns).unwrap().remove(0).key;
    let own = SnapshotKey::parse("work").unwrap();
    let prepared = node
        .snapshots()
        .prepare(&ns, &own, Some(&layer), Labels::new());
    prepared.unwrap();
    let written = node.meta().write(|tx| {
        for (key, mut record) in tx.scan(&schema::SNAPSHOTS, &())? {
            record.boot_id = "another".to_owned();
            tx.put(&schema::SNAPSHOTS, &key, &record)?;
        }
        Ok::<_, cairn_meta::Error>(())
    });
    written.unwrap();
}

/// Or it would end the daemon, which would begin anew, for ever.
#[test]
fn it_is_asked_for_time_to_unpack_layers_again() {
    let place = Place::new();
    torn(&place);
    let mut command = place.command();
    let manager = Manager::at(&place, &mut command);
    let mut daemon = place.spawn(command);
    let heard = manager.until("READY=1");
    let asked = |text: &String| text.starts_with("EXTEND_TIMEOUT_USEC=");
    assert!(heard.iter().any(asked), "{heard:?}");
    assert!(daemon.stop().success());
    // There is nothing to unpack any more.
    let mut daemon = {
        let mut command = place.command();
        command.env("NOTIFY_SOCKET", place.path("notify"));
        place.spawn(command)
    };
    let heard = manager.until("READY=1");
    assert!(!heard.iter().any(asked), "{heard:?}");
    assert!(daemon.stop().success());
}

#[test]
fn a_failing_start_says_why() {
    let place = Place::new();
    fs::create_dir(place.path("root")).unwrap();
    fs::write(
        place.path("root/layout"),
        "{\"layout\":9,\"written_by\":\"cairn 9.0\"}",
    )
    .unwrap();
    let mut command = place.command();
    let manager = Manager::at(&place, &mut command);
    let mut daemon = place.spawn(command);
    assert_eq!(daemon.ended().code(), Some(1));
    assert_eq!(manager.hear(), "STATUS=opening the store\n");
    let why = manager.hear();
    assert!(why.contains("store layout 9"), "{why}");
}

#[test]
fn the_watchdog_is_fed() {
    let place = Place::new();
    let mut command = place.command();
    let manager = Manager::at(&place, &mut command);
    command.env("WATCHDOG_USEC", "300000");
    let _daemon = place.spawn(command);
    for _ in 0..4 {
        manager.until("WATCHDOG=1");
    }
}

/// The daemon with these sockets as descriptors 3 and up, as systemd passes them.
fn activated(place: &Place, sockets: [&UnixListener; 2], names: &str) -> Command {
    let script = "export LISTEN_PID=$$; exec \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]);
    let plain = place.command();
    command.arg(plain.get_program()).args(plain.get_args());
    quiet(&mut command);
    let fd = |socket: &UnixListener| OwnedFd::from(socket.try_clone().unwrap());
    command.stdin(Stdio::from(fd(sockets[0])));
    command.stdout(Stdio::from(fd(sockets[1])));
    command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names);
    command
}

#[tokio::test]
async fn a_passed_socket_outlives_the_daemon() {
    let place = Place::new();
    fs::create_dir(place.path("run")).unwrap();
    let public = UnixListener::bind(place.socket()).unwrap();
    let other = UnixListener::bind(place.path("run/other.sock")).unwrap();
    let mut daemon = place.start_as(activated(&place, [&other, &public], "backend:public"));
    assert!(!place.version().await.unwrap().is_empty());
    assert!(daemon.stop().success());
    assert!(place.socket().exists());
    // Who comes between two daemons waits for the next.
    let waiting = tokio::spawn({
        let uri = format!("unix://{}", place.socket().display());
        async move {
            tonic::transport::Endpoint::from_shared(uri)
                .unwrap()
                .connect()
                .await
        }
    });
    let mut daemon = place.start_as(activated(&place, [&public, &other], "public:backend"));
    waiting.await.unwrap().unwrap();
    assert!(!place.version().await.unwrap().is_empty());
    assert!(daemon.stop().success());
}

#[test]
fn sockets_of_other_names_are_refused() {
    let place = Place::new();
    let a = UnixListener::bind(place.path("a")).unwrap();
    let b = UnixListener::bind(place.path("b")).unwrap();
    let mut command = activated(&place, [&a, &b], "x:y");
    let (status, _, stderr) = run(&mut command);
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("none is named public"), "{stderr}");
}

#[test]
fn a_second_daemon_is_told_whose_the_place_is() {
    let place = Place::new();
    let daemon = place.start();
    let holder = format!("cairnd (pid {})", daemon.pid());
    let (status, _, stderr) = run(&mut place.command());
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains(&format!("locked by {holder}")), "{stderr}");
    let other = Place::new();
    let mut command = other.command();
    command.arg("--address").arg(place.socket());
    let (status, _, stderr) = run(&mut command);
    assert_eq!(status.code(), Some(1));
    assert!(
        stderr.contains(&format!("{holder} listens there already")),
        "{stderr}"
    );
    assert!(place.socket().exists());
}
