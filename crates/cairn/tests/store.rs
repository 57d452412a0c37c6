//! Transcripts on a real store: `$ ` lines run in a shell, the rest is what must be seen.
//!
//! Each is played twice: by a program that opens the store itself, and by one that talks to a daemon.
//! What is seen must be the same.

mod support;

use support::{Scene, attested, large};

#[track_caller]
fn both(transcript: &str) {
    Scene::with_archives().play(transcript);
    Scene::with_archives().served().play(transcript);
}

#[test]
fn images() {
    both(include_str!("transcripts/images.txt"));
}

#[test]
fn objects() {
    both(include_str!("transcripts/objects.txt"));
}

#[test]
fn registries() {
    both(include_str!("transcripts/registry.txt"));
}

#[test]
fn documents() {
    both(include_str!("transcripts/documents.txt"));
}

#[test]
fn what_keeps_a_thing() {
    both(include_str!("transcripts/why.txt"));
}

#[test]
fn layers_that_are_not_kept() {
    both(include_str!("transcripts/discard.txt"));
}

#[test]
fn layers_that_come_plain() {
    both(include_str!("transcripts/compress.txt"));
}

#[test]
fn names_and_aliases() {
    both(include_str!("transcripts/names.txt"));
}

/// The only outputs that tell where the server is.
#[test]
fn where_the_server_is() {
    Scene::with_archives().play(include_str!("transcripts/embedded.txt"));
    Scene::with_archives()
        .served()
        .play(include_str!("transcripts/daemon.txt"));
}

#[test]
fn labels() {
    both(include_str!("transcripts/labels.txt"));
}

#[test]
fn uploads() {
    both(include_str!("transcripts/uploads.txt"));
}

#[test]
fn leases() {
    both(include_str!("transcripts/leases.txt"));
}

#[test]
fn layers() {
    both(include_str!("transcripts/layers.txt"));
}

#[test]
fn program() {
    both(include_str!("transcripts/program.txt"));
}

#[test]
fn namespaces() {
    both(include_str!("transcripts/namespaces.txt"));
}

#[test]
fn bundles() {
    both(include_str!("transcripts/bundles.txt"));
}

#[test]
fn attestations() {
    let name = "docker.io/library/attested:1";
    for scene in [Scene::with_archives(), Scene::with_archives().served()] {
        scene.put("attested.tar", &attested(name));
        scene.play(include_str!("transcripts/attestations.txt"));
    }
}

#[test]
fn checks() {
    for scene in [Scene::new(), Scene::new().served()] {
        scene.put("large.tar", &large().oci("docker.io/library/large:1"));
        scene.play(include_str!("transcripts/fsck.txt"));
    }
}

#[test]
fn mounts() {
    both(include_str!("transcripts/mounts.txt"));
}

#[test]
fn usage() {
    both(include_str!("transcripts/usage.txt"));
}

/// What a shell asks for; only a daemon answers, so there is a store without one where it is silent.
#[test]
fn completion() {
    let scene = Scene::with_archives();
    scene.ok("cairn load -q -i busybox.tar");
    assert_eq!(scene.ok("cairn complete -- images rm ''"), "");
    scene
        .served()
        .play(include_str!("transcripts/completion.txt"));
}
