//! Pulls from Debian's registry: what comes is what was pushed by skopeo, once, and goes on where it broke.

mod common;
#[allow(dead_code, reason = "each test file uses a part")]
#[path = "../../registry/tests/wire/common/registry.rs"]
mod registry;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use cairn_node::{
    Caller, Event, Failure, Phase, Progress, PullRequest, Pulled, RegistryOptions, Sharing, Silent,
};
use cairn_types::{Digest, ErrorKind, ImageName, Namespace};
use common::*;
use registry::Registry;

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const SOURCE: &str = "containerd.io/distribution.source.";

/// Copies an image of a layout into a registry, as it is.
fn push(layout: &Path, tag: &str, registry: &Registry, name: &str) {
    let from = format!("oci:{}:{tag}", text(layout));
    let to = format!("docker://{}/{name}", registry.host());
    run(
        "skopeo",
        &[
            "copy",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
            &from,
            &to,
        ],
    );
}

fn name(registry: &Registry, rest: &str) -> ImageName {
    ImageName::parse(&format!("{}/{rest}", registry.host())).expect("name")
}

fn request(ns: &Namespace, name: ImageName) -> PullRequest {
    PullRequest::new(Caller::of(ns.clone()), name)
}

fn pull(store: &Store, name: ImageName) -> Result<Pulled, Failure> {
    store.node.pull(request(&store.ns, name), &Silent)
}

/// Bytes that nothing makes smaller.
fn noise(length: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Printable, and different from its neighbours.
        bytes.extend(state.to_le_bytes().map(|byte| b'0' + byte % 64));
    }
    String::from_utf8(bytes).expect("printable")
}

/// A layout with one image of one layer of some megabytes.
fn large(megabytes: usize) -> Layout {
    let plain = tar(&[("noise", &noise(megabytes << 20))]);
    let mut layout = Layout::new();
    let manifest = layout.manifest(&host(), &[(OCI_LAYER, plain.clone(), plain)]);
    layout.name(manifest, "large");
    layout.finish();
    layout
}

#[test]
fn what_comes_is_what_was_pushed() {
    let registry = Registry::start();
    let layout = simple();
    push(layout.path(), "shop/web:1", &registry, "shop/web:1");
    let store = Store::new();
    let name = name(&registry, "shop/web:1");
    let pulled = pull(&store, name.clone()).expect("pull");
    let wanted = layout.entries[0]["digest"].as_str().expect("digest");
    assert_eq!(pulled.images[0].target.digest.to_string(), wanted);
    assert_eq!(pulled.layers.len(), 2);
    for layer in &pulled.layers {
        assert_eq!(layer.host.as_deref(), Some(&*registry.host()));
        assert_eq!(layer.attempts, 1);
        assert!(layer.chain_id.is_some() && layer.timing.is_some());
    }
    assert_eq!(pulled.fetched_bytes, pulled.images[0].content_size);
    assert_eq!(pulled.reused_bytes, 0);
    let target = store.mount(&name);
    assert_eq!(
        fs::read_to_string(target.join("etc/motd")).expect("file"),
        "welcome\n"
    );
    assert!(!target.join("bin/hello").exists());
    store.unmount(&target);
    let info = store.node.image(&store.ns, &name).expect("image");
    assert!(info.complete, "{info:?}");
    let label = format!("{SOURCE}127.0.0.1");
    for blob in store.node.content().list(&store.ns).expect("blobs") {
        assert_eq!(
            blob.labels.get(&label).map(String::as_str),
            Some("shop/web")
        );
    }
    // All but the question what the tag means is here.
    let again = pull(&store, name.clone()).expect("pull again");
    assert_eq!(
        (again.fetched_bytes, again.reused_bytes),
        (0, pulled.fetched_bytes)
    );
    // Nobody is asked for what is here.
    drop(registry);
    let mut missing = request(&store.ns, name);
    missing.missing_only = true;
    let here = store.node.pull(missing, &Silent).expect("it is here");
    assert_eq!(here.images[0].target, pulled.images[0].target);
    assert_eq!(here.layers[0].chain_id, pulled.layers[0].chain_id);
}

/// A blob is known in every repository that it came from.
#[test]
fn sources_add_up() {
    let registry = Registry::start();
    let layout = simple();
    push(layout.path(), "shop/web:1", &registry, "shop/web:1");
    push(layout.path(), "shop/web:1", &registry, "a/copy:1");
    let store = Store::new();
    for rest in ["shop/web:1", "a/copy:1", "shop/web:1"] {
        pull(&store, name(&registry, rest)).expect("pull");
    }
    let label = format!("{SOURCE}127.0.0.1");
    for blob in store.node.content().list(&store.ns).expect("blobs") {
        let known = blob.labels.get(&label).map(String::as_str);
        assert_eq!(known, Some("a/copy,shop/web"), "{}", blob.digest);
    }
}

#[test]
fn only_the_wanted_platform_comes() {
    let registry = Registry::start();
    let mut layout = Layout::new();
    let mut manifests = Vec::new();
    for platform in ["linux/amd64", "linux/arm64"] {
        let own = tar(&[("arch", platform)]);
        let (os, architecture) = platform.split_once('/').expect("platform");
        let mut manifest = layout.manifest(platform, &[(OCI_LAYER, own.clone(), own)]);
        manifest["platform"] = serde_json::json!({"os": os, "architecture": architecture});
        manifests.push(manifest);
    }
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests,
    });
    let index = layout.json(OCI_INDEX, &index);
    layout.name(index, "multi");
    layout.finish();
    push(layout.path(), "multi", &registry, "multi:1");
    let store = Store::new();
    let name = name(&registry, "multi:1");
    let mut arm = request(&store.ns, name.clone());
    arm.platforms = vec!["linux/arm64".parse().expect("platform")];
    let pulled = store.node.pull(arm, &Silent).expect("pull");
    let platform = pulled.images[0].platform.as_ref().map(ToString::to_string);
    assert_eq!(platform.as_deref(), Some("linux/arm64"));
    let blobs = store.node.content().list(&store.ns).expect("blobs");
    assert_eq!(blobs.len(), 4, "index, manifest, configuration, layer");

    let mut riscv = request(&store.ns, name.clone());
    riscv.platforms = vec!["linux/riscv64".parse().expect("platform")];
    let failure = store.node.pull(riscv, &Silent).expect_err("not there");
    assert_eq!(
        failure.to_string().lines().next(),
        Some(&*format!(
            "cannot pull image {name}: no manifest for linux/riscv64"
        ))
    );
    assert_eq!(failure.causes, ["it has linux/amd64, linux/arm64"]);
    assert!(
        failure
            .next
            .contains(&format!("cairn images pull --platform linux/arm64 {name}")),
        "{failure:?}"
    );
    let mut all = request(&store.ns, name);
    all.all_platforms = true;
    store.node.pull(all, &Silent).expect("pull");
    assert_eq!(
        store.node.content().list(&store.ns).expect("blobs").len(),
        7
    );
}

/// Stops a pull after so many bytes of its layers.
struct Impatient {
    limit: u64,
    done: AtomicU64,
    events: Mutex<Vec<Event>>,
}

impl Impatient {
    fn new(limit: u64) -> Impatient {
        Impatient {
            limit,
            done: AtomicU64::new(0),
            events: Mutex::default(),
        }
    }
}

impl Progress for Impatient {
    fn event(&self, event: Event) {
        if let Event::Layer { done, phase, .. } = &event
            && matches!(phase, Phase::Fetch | Phase::FetchUnpack)
        {
            self.done.store(*done, Ordering::Relaxed);
        }
        self.events.lock().expect("events").push(event);
    }

    fn given_up(&self) -> bool {
        self.done.load(Ordering::Relaxed) >= self.limit
    }
}

/// Also by a process that began anew: what came before is in the store.
#[test]
fn a_pull_goes_on_where_it_was_stopped() {
    let registry = Registry::start();
    let layout = large(24);
    push(layout.path(), "large", &registry, "large:1");
    let mut store = Store::new();
    let name = name(&registry, "large:1");
    let mut slow = request(&store.ns, name.clone());
    slow.remote.limit_rate = 16 << 20;
    let impatient = Impatient::new(8 << 20);
    let failure = store.node.pull(slow, &impatient).expect_err("stopped");
    assert_eq!(failure.kind, ErrorKind::Canceled, "{failure:?}");
    assert_eq!(store.node.images(&store.ns).expect("images"), []);
    let ingests = store.node.content().ingests(&store.ns).expect("ingests");
    let [ingest] = &*ingests else {
        panic!("{ingests:?}");
    };
    let came = ingest.offset;
    assert!(came >= 8 << 20, "{came}");

    let root = store.node.root().to_owned();
    let other = open(&store.dir.path().join("other")).expect("another store");
    drop(std::mem::replace(&mut store.node, other));
    store.node = open(&root).expect("open again");
    let progress = Impatient::new(u64::MAX);
    let pulled = store.node.pull(request(&store.ns, name.clone()), &progress);
    let pulled = pulled.expect("pull");
    let all = pulled.images[0].content_size;
    assert!(
        pulled.fetched_bytes <= all - came,
        "{} of {all} after {came}",
        pulled.fetched_bytes
    );
    let events = progress.events.lock().expect("events");
    let resumed = events.iter().find_map(|event| match event {
        Event::Resumed { at, .. } => Some(*at),
        _ => None,
    });
    assert_eq!(resumed, Some(came));
    let target = store.mount(&name);
    assert_eq!(
        fs::read_to_string(target.join("noise")).expect("file"),
        noise(24 << 20)
    );
    store.unmount(&target);
    assert_eq!(
        store
            .node
            .content()
            .ingests(&store.ns)
            .expect("ingests")
            .len(),
        0
    );
}

/// Also when garbage is collected in between, as it is when a daemon starts.
#[test]
fn what_came_of_a_pull_that_broke_off_is_kept() {
    let registry = Registry::start();
    let small = tar(&[("small", &noise(1 << 20))]);
    let big = tar(&[("noise", &noise(24 << 20))]);
    let mut layout = Layout::new();
    let layers = [
        (OCI_LAYER, small.clone(), small),
        (OCI_LAYER, big.clone(), big),
    ];
    let manifest = layout.manifest(&host(), &layers);
    layout.name(manifest, "two");
    layout.finish();
    push(layout.path(), "two", &registry, "two:1");
    let store = Store::new();
    let name = name(&registry, "two:1");
    let mut slow = request(&store.ns, name.clone());
    slow.remote.limit_rate = 16 << 20;
    let stopped = store.node.pull(slow, &Impatient::new(12 << 20));
    assert_eq!(stopped.expect_err("stopped").kind, ErrorKind::Canceled);
    store.node.gc(false).expect("collect");
    assert_eq!(
        store.node.content().list(&store.ns).expect("blobs").len(),
        1
    );
    assert_eq!(store.node.leases(&store.ns).expect("leases").len(), 1);
    let pulled = pull(&store, name).expect("pull");
    assert!(pulled.fetched_bytes < 13 << 20, "{pulled:?}");
    assert!(pulled.reused_bytes > 1 << 20, "{pulled:?}");
    assert_eq!(store.node.leases(&store.ns).expect("leases"), []);
    store.node.gc(false).expect("collect");
    let info = store.node.images(&store.ns).expect("images");
    assert!(info[0].complete && info[0].unpacked_size.is_some());
}

/// What was left of an upload may be anything after a power cut.
#[test]
fn a_damaged_rest_is_fetched_again() {
    let registry = Registry::start();
    let layout = large(4);
    push(layout.path(), "large", &registry, "large:1");
    let store = Store::new();
    let name = name(&registry, "large:1");
    let mut slow = request(&store.ns, name.clone());
    slow.remote.limit_rate = 8 << 20;
    let stopped = store.node.pull(slow, &Impatient::new(2 << 20));
    assert_eq!(stopped.expect_err("stopped").kind, ErrorKind::Canceled);
    let ingests = fs::read_dir(store.node.root().join("content/ingest")).expect("directory");
    for file in ingests {
        let path = file.expect("entry").path();
        let mut bytes = fs::read(&path).expect("upload");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).expect("damage");
    }
    pull(&store, name.clone()).expect("pull");
    let info = store.node.image(&store.ns, &name).expect("image");
    assert!(info.complete);
}

#[test]
fn ten_at_once_fetch_and_unpack_each_layer_once() {
    let registry = Registry::start();
    let layout = large(8);
    push(layout.path(), "large", &registry, "large:1");
    let store = Store::new();
    let name = name(&registry, "large:1");
    let fetched = AtomicU64::new(0);
    thread::scope(|scope| {
        for number in 0..10 {
            let (store, name, fetched) = (&store, name.clone(), &fetched);
            scope.spawn(move || {
                let ns = Namespace::parse(["a", "b", "c"][number % 3]).expect("namespace");
                let pulled = store.node.pull(request(&ns, name), &Silent).expect("pull");
                fetched.fetch_add(pulled.fetched_bytes, Ordering::Relaxed);
                assert_eq!(pulled.layers.len(), 1);
            });
        }
    });
    let came = fetched.load(Ordering::Relaxed);
    // Documents are small, and may come to each.
    assert!((8 << 20..9 << 20).contains(&came), "{came}");
    for ns in ["a", "b", "c"] {
        let ns = Namespace::parse(ns).expect("namespace");
        let info = store.node.image(&ns, &name).expect("image");
        assert!(info.complete && info.unpacked_size.is_some(), "{info:?}");
    }
    assert_eq!(begun(&store), 1);
}

/// How many unpackings were begun: directories are numbered.
fn begun(store: &Store) -> u64 {
    let next = store.node.snapshots().stage().expect("stage");
    let path = next.dir().path();
    let path = text(&path).strip_suffix("/fs").expect("a tree");
    let number = path.rsplit('/').next().and_then(|name| name.parse().ok());
    number.map(|next: u64| next - 1).expect("a number")
}

/// Whoever waits for another namespace's part of a stack has made its own meanwhile, and keeps it.
#[test]
fn what_images_have_in_common_is_unpacked_once() {
    let registry = Registry::start();
    let base = tar(&[("noise", &noise(8 << 20))]);
    let mut layout = Layout::new();
    for tag in ["one", "two"] {
        let layers = [base.clone(), tar(&[(tag, tag)])];
        let layers = layers.map(|plain| (OCI_LAYER, plain.clone(), plain));
        let manifest = layout.manifest(&host(), &layers);
        layout.name(manifest, tag);
    }
    layout.finish();
    let store = Store::new();
    for tag in ["one", "two"] {
        push(layout.path(), tag, &registry, &format!("both:{tag}"));
    }
    thread::scope(|scope| {
        for (space, tag) in [("a", "one"), ("b", "two")] {
            let (store, name) = (&store, name(&registry, &format!("both:{tag}")));
            scope.spawn(move || {
                let ns = Namespace::parse(space).expect("namespace");
                let pulled = store.node.pull(request(&ns, name), &Silent).expect("pull");
                assert_eq!(pulled.layers.len(), 2);
            });
        }
    });
    assert_eq!(begun(&store), 3);
}

#[test]
fn a_stopped_pull_leaves_its_part_to_others() {
    let registry = Registry::start();
    let layout = large(8);
    push(layout.path(), "large", &registry, "large:1");
    let store = Store::new();
    let name = name(&registry, "large:1");
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            let mut slow = request(&store.ns, name.clone());
            slow.remote.limit_rate = 8 << 20;
            store.node.pull(slow, &Impatient::new(4 << 20))
        });
        let second = scope.spawn(|| pull(&store, name.clone()));
        assert!(second.join().expect("second").is_ok());
        // Whichever came first.
        let first = first.join().expect("first");
        assert!(first.is_ok() || first.is_err_and(|err| err.kind == ErrorKind::Canceled));
    });
    assert!(store.node.image(&store.ns, &name).expect("image").complete);
}

/// A way to a registry that lets each connection have so many bytes a second.
struct Narrow {
    address: SocketAddr,
    /// Bytes that each connection brought.
    brought: Arc<Mutex<Vec<u64>>>,
}

impl Narrow {
    fn to(registry: &Registry, rate: u64) -> Narrow {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        let brought = Arc::new(Mutex::new(Vec::new()));
        let (upstream, counts) = (registry.host(), Arc::clone(&brought));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(&*upstream).expect("registry");
                let number = {
                    let mut counts = counts.lock().expect("counts");
                    counts.push(0);
                    counts.len() - 1
                };
                let (mut from, mut to) = (
                    client.try_clone().expect("socket"),
                    server.try_clone().expect("socket"),
                );
                thread::spawn(move || std::io::copy(&mut from, &mut to));
                let counts = Arc::clone(&counts);
                thread::spawn(move || {
                    narrow(server, client, rate, &|bytes| {
                        counts.lock().expect("counts")[number] += bytes;
                    })
                });
            }
        });
        Narrow { address, brought }
    }
}

fn narrow(mut from: TcpStream, mut to: TcpStream, rate: u64, count: &dyn Fn(u64)) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(got @ 1..) = from.read(&mut buffer) {
        thread::sleep(Duration::from_micros(got as u64 * 1_000_000 / rate));
        if to.write_all(&buffer[..got]).is_err() {
            break;
        }
        count(got as u64);
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// One connection that is slow gets company; what comes by several is put together in order.
#[test]
fn a_slow_connection_is_not_left_alone() {
    let registry = Registry::start();
    let layout = large(32);
    push(layout.path(), "large", &registry, "large:1");
    let narrow = Narrow::to(&registry, 8 << 20);
    let store = Store::new();
    let name = ImageName::parse(&format!("{}/large:1", narrow.address)).expect("name");
    let pulled = pull(&store, name.clone()).expect("pull");
    let brought = narrow.brought.lock().expect("counts").clone();
    let carried = brought.iter().filter(|bytes| **bytes > 1 << 20).count();
    assert!(carried > 2, "{brought:?}");
    // What the first connection had sent beyond the place where the others began is not counted, since
    // nobody read it.
    let all: u64 = brought.iter().sum();
    assert!(all < pulled.images[0].content_size * 21 / 20, "{brought:?}");
    let target = store.mount(&name);
    assert_eq!(
        fs::read_to_string(target.join("noise")).expect("file"),
        noise(32 << 20)
    );
    store.unmount(&target);
}

#[test]
fn what_cannot_be_unpacked_is_kept_packed() {
    let registry = Registry::start();
    let mut layout = Layout::new();
    let plain = tar(&[("a", "a")]);
    let kind = "application/vnd.acme.layer.v9";
    let manifest = layout.manifest(
        &host(),
        &[
            (GZIP, pack("gzip", &plain), plain.clone()),
            (kind, plain.clone(), plain),
        ],
    );
    layout.name(manifest, "odd");
    layout.finish();
    push(layout.path(), "odd", &registry, "odd:1");
    let store = Store::new();
    let name = name(&registry, "odd:1");
    let failure = pull(&store, name.clone()).expect_err("unknown");
    assert_eq!(
        failure.reason,
        format!("layer 2 of 2 has unknown type {kind}")
    );
    assert_eq!(
        failure.next,
        [format!(
            "keep it packed: cairn images pull --no-unpack {name}"
        )]
    );
    let mut packed = request(&store.ns, name.clone());
    packed.unpack = false;
    let pulled = store.node.pull(packed, &Silent).expect("pull");
    assert_eq!(pulled.images[0].unpacked_size, None);
    assert!(store.node.image(&store.ns, &name).expect("image").complete);
}

/// Each is small enough by itself.
#[test]
fn documents_of_one_image_have_a_limit_together() {
    let registry = Registry::start();
    let mut layout = Layout::new();
    let padding = "x".repeat(7 << 19);
    let manifests: Vec<_> = (0..19)
        .map(|number: usize| {
            let config = serde_json::json!({
                "architecture": "amd64", "os": "linux", "author": number.to_string(),
                "rootfs": {"type": "layers", "diff_ids": []},
            });
            let config = layout.json(OCI_CONFIG, &config);
            layout.json(
                OCI_MANIFEST,
                &serde_json::json!({
                    "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config,
                    "layers": [], "annotations": {"padding": padding},
                }),
            )
        })
        .collect();
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests,
    });
    let index = layout.json(OCI_INDEX, &index);
    layout.name(index, "many");
    layout.finish();
    push(layout.path(), "many", &registry, "many:1");
    let store = Store::new();
    let failure = pull(&store, name(&registry, "many:1")).expect_err("too many");
    assert_eq!(failure.kind, ErrorKind::InvalidArgument, "{failure:?}");
    assert_eq!(
        failure.reason,
        "its documents have more than 64.0 MiB together"
    );
    store.assert_empty();
}

#[test]
fn nothing_is_there_of_what_is_not() {
    let registry = Registry::start();
    let store = Store::new();
    let failure = pull(&store, name(&registry, "shop/web:9")).expect_err("not there");
    assert_eq!(failure.kind, ErrorKind::NotFound, "{failure:?}");
    store.assert_empty();
}

/// Namespaces that have nothing of one another each fetch for themselves, and for nobody else.
#[test]
fn isolated_namespaces_fetch_for_themselves() {
    let registry = Registry::start();
    let layout = large(2);
    push(layout.path(), "large", &registry, "large:1");
    let dir = scratch();
    let mut options =
        cairn_node::NodeOptions::new(dir.path().join("root"), cairn_node::EngineKind::Redb);
    options.sharing = Sharing::Isolated;
    options.registry = RegistryOptions::default();
    let node = cairn_node::Node::open(options).expect("open");
    let name = name(&registry, "large:1");
    for ns in ["a", "b"] {
        let ns = Namespace::parse(ns).expect("namespace");
        let pulled = node
            .pull(request(&ns, name.clone()), &Silent)
            .expect("pull");
        assert_eq!(pulled.fetched_bytes, pulled.images[0].content_size);
    }
    let digest = Digest::sha256(b"nothing of this name");
    assert_eq!(node.content().size_of_any(&digest).expect("look"), None);
}
