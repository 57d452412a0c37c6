//! Transcripts on a real store: `$ ` lines run in a shell, the rest is what must be seen.

mod support;

use support::Scene;

#[test]
fn images() {
    Scene::with_archives().play(include_str!("transcripts/images.txt"));
}

#[test]
fn objects() {
    Scene::with_archives().play(include_str!("transcripts/objects.txt"));
}

#[test]
fn documents() {
    Scene::with_archives().play(include_str!("transcripts/documents.txt"));
}

#[test]
fn names_and_aliases() {
    Scene::with_archives().play(include_str!("transcripts/names.txt"));
}

#[test]
fn labels() {
    Scene::with_archives().play(include_str!("transcripts/labels.txt"));
}

#[test]
fn uploads() {
    Scene::with_archives().play(include_str!("transcripts/uploads.txt"));
}

#[test]
fn leases() {
    Scene::with_archives().play(include_str!("transcripts/leases.txt"));
}

#[test]
fn layers() {
    Scene::with_archives().play(include_str!("transcripts/layers.txt"));
}

#[test]
fn program() {
    Scene::with_archives().play(include_str!("transcripts/program.txt"));
}
#[test]
fn namespaces() {
    Scene::with_archives().play(include_str!("transcripts/namespaces.txt"));
}
