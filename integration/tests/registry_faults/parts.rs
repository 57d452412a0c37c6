//! Layers that one connection brings too slowly, and that others help with.

use std::{collections::HashSet, process::Stdio, thread, time::Duration};

use cairn_integration::{
    daemon::Daemon,
    fault_proxy::{Fault, Seen, times},
    image::digest,
};

use crate::{Scene, first_layer, layers};

/// A request for a part of a blob, where the first one goes on to the end.
fn is_part(seen: &Seen) -> bool {
    let range = seen.head.get("range");
    seen.is_fetch() && range.is_some_and(|range| !range.ends_with('-'))
}

/// A layer that comes slowly enough for several connections, and its way.
fn wide() -> Scene {
    let scene = Scene::with(&[20_000_000]);
    scene.proxy.throttle(2_000_000);
    scene
}

/// Parts are asked for, and the first of them fails only when its turn has come: what the first connection
/// has brought is neither lost nor fetched again.
#[test]
fn parts_fail_late() {
    let scene = wide();
    let mut silent: HashSet<String> = HashSet::new();
    layers(&scene, move |seen| {
        let range = seen.head.get("range").filter(|_| is_part(seen))?;
        // Nothing comes for longer than the first connection takes to where the parts begin.
        Some(match silent.insert(range.to_owned()) {
            true => Fault::Stall(0),
            false => Fault::Status(416, Vec::new()),
        })
    });
    let mut command = scene.command();
    command.env("CAIRN_REGISTRY__MIN_RATE_WINDOW", "7s");
    scene.ends_whole(command, 105);
    assert!(scene.proxy.faults() > 1);
}

/// The first connection breaks when parts are under way.
#[test]
fn cut_beside_parts() {
    let scene = wide();
    first_layer(&scene, Fault::Cut(6_000_000));
    scene.whole(105);
    let seen = scene.proxy.seen();
    let range = |seen: &Seen| seen.head.get("range").map(str::to_owned);
    let again = seen
        .iter()
        .position(|seen| range(seen).as_deref() == Some("bytes=6000000-"));
    let part = seen.iter().position(is_part);
    assert!(part.is_some() && part < again, "{:#?}", scene.faults());
}

#[test]
fn twenty_cuts_of_parts() {
    let scene = Scene::with(&[64 << 20]);
    scene.proxy.throttle(8_000_000);
    let mut cuts = times(20, 17, Fault::Cut);
    scene
        .proxy
        .script(move |seen| is_part(seen).then(|| cuts(seen)).flatten());
    scene.whole(105);
    assert_eq!(scene.proxy.faults(), 20);
    assert!(scene.proxy.peak_fetches() > 1, "one connection alone");
}

/// What is under way is in memory, and that is the same for a layer of any size.
#[test]
fn parts_take_little_memory() {
    let scene = Scene::with(&[96 << 20]);
    scene.proxy.throttle(12_000_000);
    let daemon = Daemon::start();
    let name = scene.name();
    let pull = [
        "images",
        "pull",
        "--plain-http",
        "--progress",
        "none",
        &name,
    ];
    let before = daemon.anonymous_bytes();
    let begun = daemon.cairn(&pull).stdout(Stdio::null()).spawn();
    let (mut peak, mut child) = (0, begun.expect("start cairn"));
    while child.try_wait().expect("wait").is_none() {
        peak = peak.max(daemon.anonymous_bytes());
        thread::sleep(Duration::from_millis(5));
    }
    assert!(child.wait().expect("wait").success());
    let layer = &scene.image.layers[0];
    let got = daemon.cairn(&["content", "get", layer]).output();
    assert_eq!(&digest(&got.expect("start cairn").stdout), layer);
    assert!(scene.proxy.peak_fetches() > 1, "one connection alone");
    let (sent, most) = (scene.proxy.blob_bytes(), scene.image.bytes * 105 / 100);
    assert!(sent <= most, "{sent} of {most}: {:#?}", scene.faults());
    let more = peak.saturating_sub(before);
    assert!(more < 64 << 20, "{more} bytes of memory");
}
