//! The proxy that breaks what passes through it, by clients that show what came.
#![allow(missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use cairn_integration::{
    fault_proxy::{Fault, Proxy, Seen, storm, times},
    fixture::text,
    http,
    image::{Layer, Layout, Packing, digest, noise},
    peers::{self, Containerd},
    registry::Registry,
    wait,
};
use serde_json::json;
use tempfile::TempDir;

/// A registry with a blob of this size, a proxy before it, and a place for what comes.
struct Scene {
    work: TempDir,
    proxy: Proxy,
    blob: Vec<u8>,
    digest: String,
    registry: Registry,
}

const REPOSITORY: &str = "shop/web";

impl Scene {
    fn new(size: usize) -> Scene {
        let registry = Registry::start();
        let blob = noise(size, 1);
        let digest = registry.put_blob(REPOSITORY, "sha256", &blob);
        Scene {
            work: TempDir::new().expect("temporary directory"),
            proxy: Proxy::start(registry.address()),
            blob,
            digest,
            registry,
        }
    }

    /// Breaks the next request alone.
    fn once(&self, fault: Fault) {
        let mut fault = Some(fault);
        self.proxy.script(move |_| fault.take());
    }

    fn out(&self) -> PathBuf {
        self.work.path().join("out")
    }

    fn url(&self) -> String {
        format!(
            "http://{}/v2/{REPOSITORY}/blobs/{}",
            self.proxy.host(),
            self.digest
        )
    }

    /// Fetches the blob; curl's exit code, and what came.
    fn fetch(&self, more: &[&str]) -> (Option<i32>, Vec<u8>) {
        let _ = fs::remove_file(self.out());
        let ended = curl(more, &self.out(), &self.url());
        (
            ended.status.code(),
            fs::read(self.out()).unwrap_or_default(),
        )
    }

    fn last(&self) -> Seen {
        self.proxy.seen().pop().expect("asked")
    }
}

fn curl(more: &[&str], out: &Path, url: &str) -> Output {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--output", text(out)])
        .args(more)
        .arg(url);
    command.output().expect("start curl")
}

/// curl(1), EXIT CODES: a body that is too short; nothing at all; no end in time.
const PARTIAL: Option<i32> = Some(18);
const EMPTY: Option<i32> = Some(52);
const LATE: Option<i32> = Some(28);
const WELL: Option<i32> = Some(0);

#[test]
fn what_is_not_broken_comes_as_it_is() {
    let scene = Scene::new(200_000);
    assert_eq!(scene.fetch(&[]), (WELL, scene.blob.clone()));
    assert_eq!(scene.proxy.blob_bytes(), 200_000);
    assert_eq!(scene.proxy.fetches(Some(&scene.digest)), 1);
    let part = scene.fetch(&["--range", "199000-"]);
    assert_eq!(part, (WELL, scene.blob[199_000..].to_vec()));
    assert_eq!((scene.last().status, scene.last().sent), (206, 1000));
    assert_eq!(scene.proxy.faults(), 0);
}

#[test]
fn images_go_through_it_both_ways() {
    let scene = Scene::new(10);
    let layout = scene.work.path().join("layout");
    let layer = Layer::new()
        .file("big", &scene.blob.repeat(20_000))
        .finish();
    let listed = Layout::create(&layout).image("one", &[(layer, Packing::Plain)], &json!({}));
    let name = format!("{}/shop/new:1", scene.proxy.host());
    let (from, to) = (
        format!("oci:{}:one", text(&layout)),
        format!("docker://{name}"),
    );
    let flags = [
        "copy",
        "-q",
        "--preserve-digests",
        "--dest-tls-verify=false",
    ];
    peers::run("skopeo", &[&flags[..], &[&from, &to]].concat());
    assert!(scene.proxy.uploaded_bytes() > 200_000);
    let containerd = Containerd::start();
    containerd.ok(&["images", "pull", "--plain-http", &name]);
    let digest = listed["digest"].as_str().expect("digest").to_owned();
    assert_eq!(containerd.images(), [(name.clone(), digest.clone())]);
    assert!(scene.proxy.blob_bytes() > 200_000);
    let again = format!("{}/shop/again:1", scene.proxy.host());
    containerd.ok(&["images", "push", "--plain-http", &again, &name]);
    let there = scene.registry.manifest("shop/again", "1").expect("there");
    assert_eq!(there.digest, digest);
}

#[test]
fn a_connection_is_cut() {
    let scene = Scene::new(100_000);
    scene.once(Fault::Cut(70_000));
    assert_eq!(scene.fetch(&[]), (PARTIAL, scene.blob[..70_000].to_vec()));
    assert_eq!(scene.proxy.blob_bytes(), 70_000);
    assert_eq!(scene.last().fault, Some(Fault::Cut(70_000)));
    scene.once(Fault::Cut(100_001));
    assert_eq!(scene.fetch(&[]), (PARTIAL, scene.blob[..1].to_vec()));
    scene.once(Fault::Hang);
    assert_eq!(scene.fetch(&[]), (EMPTY, Vec::new()));
    assert_eq!(scene.fetch(&[]), (WELL, scene.blob.clone()));
}

#[test]
fn twenty_cuts_in_one_blob() {
    let scene = Scene::new(3_000_000);
    scene.proxy.script(times(20, 5, Fault::Cut));
    let whole = scene.blob.len() as u64;
    for _ in 0..200 {
        let ended = curl(&["--continue-at", "-"], &scene.out(), &scene.url());
        if ended.status.success() {
            break;
        }
    }
    assert_eq!(fs::read(scene.out()).expect("whole"), scene.blob);
    assert_eq!(scene.proxy.faults(), 20);
    assert_eq!(scene.proxy.blob_bytes(), whole, "nothing twice");
}

#[test]
fn nothing_comes_any_more() {
    let scene = Scene::new(100_000);
    scene.once(Fault::Stall(40_000));
    let came = scene.fetch(&["--max-time", "1"]);
    assert_eq!(came, (LATE, scene.blob[..40_000].to_vec()));
}

#[test]
fn bytes_and_lengths_are_wrong() {
    let scene = Scene::new(100_000);
    scene.once(Fault::Flip(99_999));
    let (code, came) = scene.fetch(&[]);
    assert_eq!((code, came.len()), (WELL, 100_000));
    let wrong: Vec<usize> = (0..came.len())
        .filter(|&at| came[at] != scene.blob[at])
        .collect();
    assert_eq!(wrong, [99_999]);
    scene.once(Fault::Longer(5));
    assert_eq!(scene.fetch(&[]), (PARTIAL, scene.blob.clone()));
    scene.once(Fault::Shorter(5));
    assert_eq!(scene.fetch(&[]), (WELL, scene.blob[..99_995].to_vec()));
    assert_eq!(scene.fetch(&[]), (WELL, scene.blob.clone()));
}

#[test]
fn the_registry_is_not_asked() {
    let scene = Scene::new(10_000);
    let form = "%{http_code}";
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (fault, status, when) in [
        (Fault::too_many("7"), "429", "7"),
        (Fault::unavailable(date), "503", date),
    ] {
        scene.once(fault);
        let heads = scene.work.path().join("heads");
        let dump = ["--dump-header", text(&heads), "--write-out", form];
        let ended = curl(&dump, &scene.out(), &scene.url());
        assert_eq!(String::from_utf8_lossy(&ended.stdout), status);
        let heads = fs::read_to_string(heads).expect("fields");
        assert!(
            heads.contains(&format!("Retry-After: {when}\r\n")),
            "{heads}"
        );
        assert_eq!(scene.last().sent, 0);
    }
}

#[test]
fn a_range_is_ignored() {
    let scene = Scene::new(10_000);
    scene.once(Fault::WithoutRange);
    let ended = curl(&["--range", "9000-"], &scene.out(), &scene.url());
    assert!(ended.status.success());
    assert_eq!(scene.last().status, 200);
    assert_eq!(fs::read(scene.out()).expect("whole"), scene.blob);
}

#[test]
fn another_host_hears_what_the_client_tells_it() {
    let scene = Scene::new(10_000);
    let path = format!("/v2/{REPOSITORY}/blobs/{}", scene.digest);
    let elsewhere = http::files(vec![(path, scene.blob.clone())]);
    let told = ["--location", "--user", "alice:secret"];
    for (more, heard) in [
        (&told[..], false),
        (&["--location-trusted", "-u", "alice:secret"], true),
    ] {
        scene.once(Fault::Redirect(format!(
            "http://localhost:{}",
            elsewhere.address().port()
        )));
        assert_eq!(scene.fetch(more), (WELL, scene.blob.clone()));
        let asked = elsewhere.asked().pop().expect("asked");
        assert_eq!(
            asked.head.get("authorization").is_some(),
            heard,
            "{asked:?}"
        );
        assert!(scene.last().head.get("authorization").is_some());
    }
    let part = curl(
        &["--range", "9000-9099"],
        &scene.out(),
        &elsewhere.url(&asked_path(&elsewhere)),
    );
    assert!(part.status.success());
    assert_eq!(fs::read(scene.out()).expect("part"), scene.blob[9000..9100]);
}

fn asked_path(server: &http::Server) -> String {
    server.asked().pop().expect("asked").path
}

#[test]
fn it_is_as_slow_as_it_is_told() {
    let scene = Scene::new(1 << 20);
    scene.once(Fault::Trickle(100_000));
    let (code, came) = scene.fetch(&["--max-time", "1"]);
    assert_eq!(code, LATE);
    assert!(came.len() <= 130_000, "{}", came.len());
    assert_eq!(came, scene.blob[..came.len()]);
    scene.proxy.throttle(200_000);
    let (code, came) = scene.fetch(&["--max-time", "1"]);
    assert_eq!(code, LATE);
    assert!(came.len() <= 230_000, "{}", came.len());

    // Three at once take as long as one; whoever was too late is to be gone.
    scene.proxy.throttle(4 << 20);
    let gone = || scene.proxy.fetching() == 0;
    wait::until(gone, || "one is still being sent".to_owned());
    scene.proxy.forget();
    let fetch = |name: &str| curl(&[], &scene.work.path().join(name), &scene.url()).status;
    std::thread::scope(|scope| {
        let all = ["a", "b", "c"].map(|name| scope.spawn(move || fetch(name)));
        for one in all {
            assert!(one.join().expect("fetched").success());
        }
    });
    assert_eq!(scene.proxy.peak_fetches(), 3);
    assert_eq!(scene.proxy.peak_connections(), 3);
    assert_eq!(scene.proxy.fetches(None), 3);
}

#[test]
fn an_upload_is_cut() {
    let scene = Scene::new(10);
    let registry = &scene.registry;
    let file = scene.work.path().join("up");
    let bytes = scene.blob.repeat(10_000);
    fs::write(&file, &bytes).expect("file");
    let begun = http::ask(
        scene.proxy.address(),
        "POST",
        &format!("/v2/{REPOSITORY}/blobs/uploads/"),
        &http::fields(&[]),
        &[],
    );
    let place = begun.head.get("location").expect("where to").to_owned();
    assert!(
        place.contains(&scene.proxy.host()),
        "it leads back to the proxy: {place}"
    );
    let target = format!("{place}&digest={}", digest(&bytes));
    scene.once(Fault::Cut(60_000));
    let put = [
        "--request",
        "PUT",
        "--data-binary",
        &format!("@{}", text(&file)),
    ];
    assert_eq!(curl(&put, &scene.out(), &target).status.code(), EMPTY);
    assert_eq!(scene.last().received, 60_000);
    assert!(!registry.has_blob(REPOSITORY, &digest(&bytes)));
}

#[test]
fn a_storm_is_the_same_each_time() {
    let faults = || {
        let scene = Scene::new(50_000);
        scene.proxy.script(storm(9, 50, 12));
        for _ in 0..60 {
            curl(&[], &scene.out(), &scene.url());
        }
        let seen = scene.proxy.seen();
        let faults = seen.into_iter().filter_map(|seen| seen.fault);
        faults.collect::<Vec<_>>()
    };
    let first = faults();
    assert_eq!(first.len(), 12);
    assert!(
        first.iter().any(|fault| matches!(fault, Fault::Cut(_))),
        "{first:?}"
    );
    assert_eq!(first, faults());
}
