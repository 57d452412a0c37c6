//! Disks that are really full, of bytes or of inodes: an error that says so, nothing lost, and
//! everything that frees space still works.

use std::process::Output;

use cairn_integration::{
    cairn::Cairn,
    fault::{Bench, Disk, IMAGES, Images, Reference, Verdict},
    image::{Layer, Layout, Packing},
};
use serde_json::json;

const A: &[&str] = &["images", "import", "{i}/a.tar"];
const B: &[&str] = &["images", "import", "--base-name", "localhost/b", "{i}/b"];
const BIG: &[&str] = &["images", "import", "--base-name", "localhost/x", "{i}/big"];
const MANY: &[&str] = &["images", "import", "--base-name", "localhost/x", "{i}/many"];

fn images() -> Images {
    let images = Images::new();
    let big = Layer::new().file("big", &Images::noise(40 << 20, 9));
    Layout::create(&images.path().join("big")).image(
        "1",
        &[(big.finish(), Packing::Gzip)],
        &json!({}),
    );
    let mut many = Layer::new();
    for number in 0..3000 {
        many = many.file(&format!("d/{number}"), b"");
    }
    Layout::create(&images.path().join("many")).image(
        "1",
        &[(many.finish(), Packing::Gzip)],
        &json!({}),
    );
    images
}

/// What all parts share.
struct World {
    images: Images,
    reference: Reference,
    engine: &'static str,
}

impl World {
    fn new(engine: &'static str) -> World {
        let images = images();
        let steps = IMAGES.iter();
        let steps = steps.filter(|step| ["import", "import shared"].contains(&step.title));
        let steps: Vec<_> = steps.collect();
        let reference = Bench::new(&Cairn::binary(), &images, engine).reference(&steps);
        World {
            images,
            reference,
            engine,
        }
    }

    fn bench(&self, size: &str, options: &[&str]) -> Bench {
        let disk = Disk::new(size, options);
        Bench::on(disk, &Cairn::binary(), &self.images, self.engine)
    }
}

#[test]
fn full_disks_with_redb() {
    let world = World::new("redb");
    an_image_too_large_for_the_disk(&world);
    an_image_with_more_files_than_inodes(&world);
    nothing_is_left(&world);
    room_for_some(&world);
    no_room_for_a_new_store(&world);
}

#[test]
fn full_disks_with_sled() {
    let world = World::new("sled");
    nothing_is_left(&world);
    room_for_some(&world);
    no_room_for_a_new_store(&world);
}

#[track_caller]
fn ok<T>(verdict: Verdict<T>) -> T {
    verdict.unwrap_or_else(|reason| panic!("{reason}"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Row 15 of the table of mistakes: what is full, how much is left, what was being written, and what
/// to do.
#[track_caller]
fn says_full(bench: &Bench, args: &[&str], what: &str, cause: &str) {
    let output = bench.run(args, None, None);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
    let root = bench.root().display().to_string();
    let first = text.lines().find(|line| line.starts_with("error: "));
    let first = first.unwrap_or_else(|| panic!("no error in {text}"));
    let expected = format!("error: cannot import image localhost/x:1: no {what} left on {root} (");
    assert!(first.starts_with(&expected), "{text}");
    assert!(first.contains(" free"), "{text}");
    assert!(text.contains(cause), "{text}");
    assert!(text.contains("  next:      cairn "), "{text}");
    assert!(text.contains("gc"), "{text}");
}

const WRITING: &str = "  cause:     write layer sha256:";
const KEPT: &str = " of the disk are kept free";

fn an_image_too_large_for_the_disk(world: &World) {
    let (bench, reference) = (world.bench("192M", &[]), &world.reference);
    ok(bench.plain(A));
    bench.disk().fill(30 << 10);
    // Nothing of it is begun.
    says_full(&bench, BIG, "space", KEPT);
    let begun = stderr(&bench.run(BIG, None, None));
    assert!(!begun.contains("write layer"), "{begun}");
    ok(bench.check(reference, &["a:1"]));
    ok(bench.plain(&["gc"]));
    // A smaller one has room.
    ok(bench.plain(B));
    ok(bench.check(reference, &["a:1", "b:two"]));
    // It has room packed, and not unpacked as well.
    bench.disk().unfill();
    bench.disk().fill(65 << 10);
    says_full(&bench, BIG, "space", WRITING);
    ok(bench.plain(&["gc"]));
    bench.disk().unfill();
    ok(bench.plain(BIG));
    ok(bench.plain(&["images", "rm", "localhost/x:1"]));
    ok(bench.plain(&["gc"]));
    ok(bench.check(reference, &["a:1", "b:two"]));
    ok(bench.empty());
}

fn an_image_with_more_files_than_inodes(world: &World) {
    let bench = world.bench("64M", &["-N", "600"]);
    let reference = &world.reference;
    ok(bench.plain(A));
    says_full(&bench, MANY, "inodes", WRITING);
    ok(bench.check(reference, &["a:1"]));
    ok(bench.plain(&["gc"]));
    ok(bench.plain(B));
    ok(bench.check(reference, &["a:1", "b:two"]));
    ok(bench.empty());
}

/// With nothing left at all, what is there can be read, and removed.
fn nothing_is_left(world: &World) {
    let (bench, reference) = (world.bench("64M", &[]), &world.reference);
    ok(bench.plain(A));
    ok(bench.plain(B));
    bench.disk().fill(0);
    for args in [
        &["images", "ls"][..],
        &["images", "inspect", "localhost/a:1"],
        &["content", "ls"],
        &["snapshots", "ls"],
        &["df"],
        &["images", "rm", "localhost/b:two"],
        &["gc"],
    ] {
        ok(bench.plain(args));
    }
    bench.disk().unfill();
    ok(bench.check(reference, &["a:1"]));
    bench.disk().fill(0);
    ok(bench.plain(&["images", "rm", "localhost/a:1"]));
    ok(bench.plain(&["gc"]));
    bench.disk().unfill();
    ok(bench.empty());
}

/// The disk is full wherever it may be: in a layer, a blob, a document, a database.
fn room_for_some(world: &World) {
    let (bench, reference) = (world.bench("64M", &[]), &world.reference);
    ok(bench.plain(&["images", "ls"]));
    let (mut failed, mut succeeded) = (0, 0);
    for room in (0..1200).step_by(75) {
        // An opening on a full disk gives up the room that is kept for it; that is gone, too.
        bench.disk().fill(0);
        ok(bench.plain(&["images", "ls"]));
        bench.disk().unfill();
        bench.disk().fill(room);
        let output = bench.run(A, None, None);
        let text = stderr(&output);
        bench.disk().unfill();
        assert!(!text.contains("panicked"), "{room} KiB: {text}");
        match output.status.code() {
            Some(0) => {
                succeeded += 1;
                ok(bench.check(reference, &["a:1"]));
                ok(bench.plain(&["images", "rm", "localhost/a:1"]));
            }
            Some(1) => {
                failed += 1;
                assert!(text.contains("error: cannot "), "{room} KiB: {text}");
                assert!(text.contains("no space left"), "{room} KiB: {text}");
                ok(bench.check(reference, &[]));
            }
            _ => panic!("{room} KiB: {}: {text}", output.status),
        }
        ok(bench.plain(&["gc"]));
    }
    assert!(
        failed > 3 && succeeded > 3,
        "{failed} failed, {succeeded} succeeded"
    );
    ok(bench.empty());
}

/// A store that cannot even be made leaves nothing that is in the way later.
fn no_room_for_a_new_store(world: &World) {
    for room in [0, 8, 32, 128, 512, 2048] {
        let bench = world.bench("48M", &[]);
        bench.disk().fill(room);
        let output = bench.run(&["images", "ls"], None, None);
        let text = stderr(&output);
        assert!(!text.contains("panicked"), "{room} KiB: {text}");
        assert!(
            output.status.success() || text.contains("error: cannot open "),
            "{room} KiB: {text}"
        );
        bench.disk().unfill();
        ok(bench.plain(A));
        ok(bench.check(&world.reference, &["a:1"]));
    }
}
