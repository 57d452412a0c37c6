//! Bytes that are not what they should be: of one host, of all of them, and of the store.

use std::fs;

use cairn_integration::{
    fault_proxy::{Fault, Proxy},
    fixture::text,
};

use crate::Scene;

#[test]
fn a_byte_is_wrong() {
    // The others are here before it comes out.
    let scene = Scene::with(&[200_000, 3_000_000, 200_000, 200_000]);
    scene.proxy.throttle(2_000_000);
    let layer = scene.image.layers[1].clone();
    let bad = layer.clone();
    scene.proxy.script(move |seen| {
        (seen.is_fetch() && seen.path.ends_with(&bad)).then_some(Fault::Flip(2_900_000))
    });
    scene.fails(&[&layer, "sent bytes of sha256:", &format!("not of {layer}")]);
    assert_eq!(scene.proxy.fetches(Some(&layer)), 2, "once more, not more");
    let target = scene.cairn.output(&["content", "get", &layer]);
    assert!(!target.status.success(), "what is wrong is not kept");
    // Mended, only that one is fetched again.
    scene.proxy.heal();
    scene.proxy.forget();
    scene.whole(86);
}

/// Of a layer, the configuration and the manifest: each is fetched once more, from its beginning.
#[test]
fn a_byte_is_wrong_once() {
    let scene = Scene::new();
    let mut wrong: Vec<String> = scene.image.layers[1..3].to_vec();
    wrong.extend([scene.image.config.clone(), scene.image.digest.clone()]);
    let mut left = wrong.clone();
    scene.proxy.script(move |seen| {
        let at = left.iter().position(|one| seen.path.ends_with(one))?;
        (seen.method == "GET").then(|| left.remove(at))?;
        Some(Fault::Flip(900_000))
    });
    scene.whole(155);
    assert_eq!(scene.proxy.faults(), wrong.len());
    for one in scene.image.all() {
        let asked = times_asked(&scene.proxy, one);
        assert_eq!(asked, 1 + usize::from(wrong.contains(one)), "{one}");
    }
}

fn times_asked(proxy: &Proxy, digest: &str) -> usize {
    let seen = proxy.seen();
    let got = seen.iter().filter(|seen| seen.method == "GET");
    got.filter(|seen| seen.path.ends_with(digest)).count()
}

/// What a mirror has wrong comes from the registry, and only that.
#[test]
fn a_mirror_lies() {
    let scene = Scene::new();
    let (mirror, dir) = scene.mirror();
    let mut wrong = scene.image.layers[1..3].to_vec();
    wrong.extend([scene.image.config.clone(), scene.image.digest.clone()]);
    let bad = wrong.clone();
    mirror.script(move |seen| {
        let hit = bad.iter().any(|bad| seen.path.ends_with(bad));
        hit.then_some(Fault::Flip(900_000))
    });
    let name = scene.name();
    let pull = ["images", "pull", "--hosts-dir", text(&dir), &name];
    scene.cairn.ok(&pull);
    scene.is_here();
    for one in scene.image.all() {
        assert_eq!(times_asked(&mirror, one), 1, "{one}");
        let origin = times_asked(&scene.proxy, one);
        assert_eq!(origin, usize::from(wrong.contains(one)), "{one}");
    }
}

#[test]
fn all_hosts_lie() {
    let scene = Scene::new();
    let (mirror, dir) = scene.mirror();
    let layer = scene.image.layers[1].clone();
    for (proxy, at) in [(&mirror, 900_000), (&scene.proxy, 800_000)] {
        let bad = layer.clone();
        proxy.script(move |seen| seen.path.ends_with(&bad).then_some(Fault::Flip(at)));
    }
    let said = scene.fails_with(
        &["--hosts-dir", text(&dir)],
        &[&mirror.host(), &layer, &format!("not of {layer}")],
    );
    let sentences = said.matches("sent bytes of sha256:").count();
    assert_eq!(sentences, 2, "one for each: {said}");
    for proxy in [&mirror, &scene.proxy] {
        assert_eq!(times_asked(proxy, &layer), 1);
    }
    // The one that has it wrong once is asked again where the other does not have it.
    let (bad, mut left) = (layer.clone(), 1);
    mirror.script(move |seen| {
        let hit = seen.path.ends_with(&bad) && left > 0;
        left -= i32::from(hit);
        hit.then_some(Fault::Flip(900_000))
    });
    let bad = layer.clone();
    scene.proxy.script(move |seen| {
        let hit = seen.path.ends_with(&bad);
        hit.then(|| Fault::Status(404, Vec::new()))
    });
    let name = scene.name();
    scene
        .cairn
        .ok(&["images", "pull", "--hosts-dir", text(&dir), &name]);
    scene.is_here();
}

/// Found when it is unpacked, it is fetched again, and nothing else is.
#[test]
fn a_stored_layer_is_damaged() {
    let scene = Scene::new();
    scene.whole(100);
    let layer = &scene.image.layers[3];
    let path = layer.replace(':', "/");
    let path = scene.cairn.path("store/content/blobs").join(path);
    let mut bytes = fs::read(&path).expect("blob");
    bytes[500_000] ^= 1;
    fs::write(&path, bytes).expect("damage");
    let listed = scene.cairn.ok(&["-q", "snapshots", "ls"]);
    for key in listed.lines().rev() {
        let _ = scene.cairn.output(&["snapshots", "rm", "--recursive", key]);
    }
    scene.whole(126);
}
