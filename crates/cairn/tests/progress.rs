//! Long work as a terminal shows it.

mod support;

use indicatif::{InMemoryTerm, TermLike};
use support::*;

/// What a terminal shows that gets this.
fn drawn(text: &str) -> Vec<String> {
    let screen = InMemoryTerm::new(24, 100);
    // As the line discipline of a terminal has it.
    let text = text.replace('\n', "\r\n");
    screen.write_str(&text).expect("a screen");
    screen.contents().lines().map(str::to_owned).collect()
}

#[track_caller]
fn is_done(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [layer, bar, done, unit, "/", total, of, "done"] = &*words else {
        panic!("{line}");
    };
    assert!(
        layer.len() == 12 && layer.bytes().all(|b| b.is_ascii_hexdigit()),
        "{line}"
    );
    assert_eq!(*bar, "━".repeat(20), "{line}");
    assert_eq!((done, unit), (total, of), "{line}");
}

/// Transcripts are of terminals, which have bars; when a terminal is only pretended, what it would get is
/// written.
#[test]
fn bars_are_drawn_where_a_terminal_is_pretended() {
    for (scene, how) in [
        (Scene::with_archives(), "--progress tty"),
        (Scene::with_archives(), ""),
        (Scene::with_archives().served(), ""),
    ] {
        let seen = scene.run(&format!("cairn load -i busybox.tar {how}"));
        assert_eq!(seen.code, 0, "{}", seen.stderr);
        assert!(seen.stderr.contains("\x1b["), "{:?}", seen.stderr);
        let lines = drawn(&seen.stderr);
        let [head, first, second, took] = &*lines else {
            panic!("{lines:#?}");
        };
        let expected = "import docker.io/library/busybox:1.36  linux/amd64  2 layers  8.5 KiB";
        assert_eq!(head, expected);
        is_done(first);
        is_done(second);
        assert!(took.starts_with("  2 layers took fetch "), "{took}");
    }
}

#[test]
fn bars_need_a_terminal() {
    let scene = Scene::with_archives();
    let seen = scene.run("CAIRN_FORCE_TTY= cairn load -i busybox.tar --progress tty");
    let told = "error: --progress=tty needs a terminal on standard error\n  next:      \
                --progress=plain\n";
    assert_eq!((seen.code, &*seen.stderr, &*seen.stdout), (2, told, ""));
    assert!(!scene.root().exists(), "something was attempted");
    // Where nobody says how, there are lines.
    let seen = scene.run("CAIRN_FORCE_TTY= cairn load -i busybox.tar");
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    assert!(!seen.stderr.contains(['\x1b', '\r']), "{:?}", seen.stderr);
    assert!(seen.stderr.contains("(100%)\n"), "{}", seen.stderr);
}
