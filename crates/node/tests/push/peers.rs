//! A registry that tells what it was asked, a line that can be cut, and who listens.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cairn_node::{Event, Failure, Node, Phase, Progress, PushRequest, Pushed};
use cairn_types::{Digest, ImageName};

use crate::common::{Layout, Scratch, Store, run, scratch, text};

/// An empty registry on the loopback address.
pub(crate) struct Registry {
    address: SocketAddr,
    process: Child,
    work: Scratch,
}

impl Registry {
    pub(crate) fn start() -> Registry {
        Registry::configured("", None)
    }

    /// `more` stands after where its storage is, which is `root`, where one is given.
    pub(crate) fn configured(more: &str, root: Option<PathBuf>) -> Registry {
        let work = scratch();
        let address = free();
        let config = work.path().join("config.yml");
        let root = root.unwrap_or_else(|| work.path().join("root"));
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\n\
             storage: {{filesystem: {{rootdirectory: {root:?}}}{more}}}\n\
             http: {{addr: \"{address}\", secret: test}}\n"
        );
        fs::write(&config, text).expect("configuration");
        let log = |name: &str| fs::File::create(work.path().join(name)).expect("log");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(log("access"))
            .stderr(log("log"))
            .spawn()
            .expect("start docker-registry");
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            let log = fs::read_to_string(work.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "no registry:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Registry {
            address,
            process,
            work,
        }
    }

    /// Host and port.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `PUT /v2/…` of each request so far, without queries, by its own account.
    pub(crate) fn asked(&self) -> Vec<String> {
        let access = fs::read_to_string(self.work.path().join("access")).expect("access log");
        let lines = access.lines().filter_map(|line| line.split('"').nth(1));
        let line = |line: &str| {
            let words: Vec<&str> = line.split(' ').take(2).collect();
            words.join(" ").split('?').next().map(str::to_owned)
        };
        lines.filter_map(line).collect()
    }

    /// Requests since there were `before` that carried bytes of blobs.
    #[track_caller]
    pub(crate) fn carried(&self, before: usize) -> Vec<String> {
        let asked = self.asked();
        assert!(asked.len() > before, "it was not asked at all");
        let carried = asked[before..].iter().filter(|line| {
            line.contains("/blobs/uploads/")
                && (line.starts_with("PUT") || line.starts_with("PATCH"))
        });
        carried.cloned().collect()
    }

    /// The digest that skopeo finds under a name, having fetched and checked all that it means.
    #[track_caller]
    pub(crate) fn pulled(&self, name: &str) -> String {
        let dir = scratch();
        let source = format!("docker://{}/{name}", self.address);
        let target = format!("oci:{}:x", text(&dir.path().join("layout")));
        let arguments = [
            "copy",
            "-q",
            "--all",
            "--preserve-digests",
            "--src-tls-verify=false",
        ];
        run("skopeo", &[&arguments[..], &[&source, &target]].concat());
        let index = fs::read(dir.path().join("layout/index.json")).expect("index");
        let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
        let digest = index["manifests"][0]["digest"].as_str();
        digest.expect("digest").to_owned()
    }

    /// A manifest's bytes, if there is one of that name.
    pub(crate) fn manifest(&self, repository: &str, reference: &str) -> Option<serde_json::Value> {
        let url = format!(
            "http://{}/v2/{repository}/manifests/{reference}",
            self.address
        );
        let accept = "Accept: application/vnd.oci.image.index.v1+json, \
                      application/vnd.oci.image.manifest.v1+json";
        let answer = run("curl", &["-s", "-H", accept, &url]);
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        answer.get("errors").is_none().then_some(answer)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that was free a moment ago.
fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    listener.local_addr().expect("address")
}

/// A line to a server that breaks once, after so many bytes from its clients, or swallows the rest.
pub(crate) struct Line {
    pub(crate) address: SocketAddr,
}

impl Line {
    pub(crate) fn cut_after(bytes: u64, to: SocketAddr) -> Line {
        Line::with(bytes, to, false)
    }

    pub(crate) fn stalled_after(bytes: u64, to: SocketAddr) -> Line {
        Line::with(bytes, to, true)
    }

    fn with(bytes: u64, to: SocketAddr, stalls: bool) -> Line {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        let left = Arc::new(AtomicU64::new(bytes));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(to) else {
                    continue;
                };
                let left = Arc::clone(&left);
                std::thread::spawn(move || carry(&client, &server, &left, stalls));
            }
        });
        Line { address }
    }
}

fn carry(client: &TcpStream, server: &TcpStream, left: &AtomicU64, stalls: bool) {
    let back = (
        server.try_clone().expect("clone"),
        client.try_clone().expect("clone"),
    );
    let answers = std::thread::spawn(move || {
        let (mut from, mut to) = back;
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let (mut from, mut to) = (client, server);
    let mut buffer = vec![0; 64 << 10];
    while let Ok(got @ 1..) = from.read(&mut buffer) {
        let before = left.load(Ordering::SeqCst);
        if before > 0 && before <= got as u64 {
            if stalls {
                // It takes everything and answers nothing.
                let _ = std::io::copy(&mut from, &mut std::io::sink());
                break;
            }
            left.store(0, Ordering::SeqCst);
            break;
        }
        left.store(before.saturating_sub(got as u64), Ordering::SeqCst);
        if to.write_all(&buffer[..got]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
    let _ = answers.join();
}

/// Remembers what it is told, and gives up when it is told so.
#[derive(Default)]
pub(crate) struct Ears {
    pub(crate) events: Mutex<Vec<Event>>,
    /// Gives up once a blob is under way.
    pub(crate) impatient: bool,
}

impl Progress for Ears {
    fn event(&self, event: Event) {
        self.events.lock().expect("events").push(event);
    }

    fn given_up(&self) -> bool {
        let events = self.events.lock().expect("events");
        self.impatient
            && events
                .iter()
                .any(|event| matches!(event, Event::Asked { .. }))
    }
}

impl Ears {
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().expect("events").clone()
    }

    /// The phases of each layer, each phase once in a row.
    pub(crate) fn phases(&self) -> BTreeMap<Digest, Vec<Phase>> {
        let mut phases: BTreeMap<Digest, Vec<Phase>> = BTreeMap::new();
        for event in self.events() {
            if let Event::Layer { digest, phase, .. } = event {
                let own = phases.entry(digest).or_default();
                if own.last() != Some(&phase) {
                    own.push(phase);
                }
            }
        }
        phases
    }
}

pub(crate) fn name(text: &str) -> ImageName {
    ImageName::parse(text).expect("name")
}

/// Pushes `local` (below `docker.io/`) to `remote`, which has its registry in it.
pub(crate) fn push(store: &Store, local: &str, remote: &str) -> Result<Pushed, Failure> {
    push_with(store, local, remote, &Ears::default(), |_| ())
}

pub(crate) fn push_with(
    store: &Store,
    local: &str,
    remote: &str,
    ears: &Ears,
    change: impl FnOnce(&mut PushRequest),
) -> Result<Pushed, Failure> {
    let local = name(&format!("docker.io/{local}"));
    let mut request = PushRequest::new(store.ns.clone(), local, name(remote));
    change(&mut request);
    store.node.push(request, ears)
}

/// A store with what a layout has for every platform, packed only.
pub(crate) fn filled(layout: &Layout) -> Store {
    let store = Store::new();
    let source = cairn_node::Source::Path(layout.path().to_owned());
    let imported = store.import_with(source, |request| {
        request.all_platforms = true;
        request.unpack = false;
    });
    imported.expect("import");
    store
}

/// Whom a blob came from, as its labels say.
pub(crate) fn source_of(node: &Node, store: &Store, digest: &Digest) -> Option<String> {
    let info = node.content().info(&store.ns, digest).expect("blob");
    let label = "containerd.io/distribution.source.127.0.0.1";
    info.labels.get(label).cloned()
}

/// A layer of one file that does not pack.
pub(crate) fn large(len: usize) -> Vec<u8> {
    let dir = scratch();
    let mut state = 1_u32;
    let bytes: Vec<u8> = (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect();
    fs::write(dir.path().join("file"), bytes).expect("file");
    let out = dir.path().join("out.tar");
    run(
        "tar",
        &[
            "--mtime=@0",
            "-cf",
            text(&out),
            "-C",
            text(dir.path()),
            "file",
        ],
    );
    fs::read(out).expect("tar")
}
