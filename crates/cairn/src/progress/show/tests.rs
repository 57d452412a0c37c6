//! Work as it is seen on a terminal, in a log and by a program, at moments that the tests choose.

use indicatif::InMemoryTerm;

use super::*;

/// One megabyte.
const MIB: u64 = 1 << 20;

/// Somebody who is shown something.
struct Seen {
    told: Told,
    screen: InMemoryTerm,
    said: Arc<Mutex<String>>,
    began: Instant,
}

fn digest(number: usize) -> String {
    format!("sha256:{number:012x}{:052}", 0)
}

impl Seen {
    fn new(mode: Mode, verb: &'static str) -> Seen {
        let screen = InMemoryTerm::new(40, 140);
        let said: Arc<Mutex<String>> = Arc::default();
        let (drawn, spoken, began) = (screen.clone(), Arc::clone(&said), Instant::now());
        let told = Told {
            mode,
            verb,
            title: None,
            say: Box::new(move |text| spoken.lock().expect("lock").push_str(text)),
            target: Box::new(move || ProgressDrawTarget::term_like(Box::new(drawn.clone()))),
            shown: Mutex::new(Shown::new(began)),
        };
        Seen {
            told,
            screen,
            said,
            began,
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    fn event(&self, ms: u64, event: Event) {
        self.told.event(event, self.at(ms));
    }

    /// So many layers of one megabyte, all of which wait.
    fn resolved(&self, layers: usize) {
        self.event(0, resolved("w", 0..layers));
        for number in 0..layers {
            self.layer(0, number, Phase::Waiting, 0);
        }
    }

    fn layer(&self, ms: u64, number: usize, phase: Phase, done: u64) {
        self.event(
            ms,
            Event::Layer {
                digest: digest(number),
                phase,
                done,
                total: MIB,
            },
        );
    }

    fn tick(&self, ms: u64) {
        self.told.tick(self.at(ms));
    }

    fn said(&self) -> String {
        std::mem::take(&mut *self.said.lock().expect("lock"))
    }
}

fn resolved(name: &str, layers: impl IntoIterator<Item = usize>) -> Event {
    Event::Resolved {
        name: name.to_owned(),
        platform: "linux/amd64".to_owned(),
        layers: layers.into_iter().map(|n| (digest(n), MIB)).collect(),
    }
}

fn retry_of(number: usize) -> Event {
    Event::Retry {
        digest: digest(number),
        host: "mirror.example.com".to_owned(),
        attempt: (2, 5),
        wait: Duration::from_secs(3),
        cause: "timed out".to_owned(),
    }
}

/// > at most 8 layer lines, then `… 12 more waiting`; finished lines stay
#[test]
fn a_terminal_has_eight_layers_and_what_is_done_above_them() {
    let seen = Seen::new(Mode::Tty, "pull");
    seen.resolved(12);
    seen.layer(1000, 10, Phase::FetchUnpack, 0);
    seen.layer(1000, 0, Phase::FetchUnpack, 0);
    seen.layer(2000, 0, Phase::FetchUnpack, MIB);
    seen.layer(3000, 0, Phase::Done, MIB);
    seen.layer(3100, 10, Phase::FetchUnpack, MIB / 2);
    assert_eq!(
        seen.screen.contents(),
        "\
pull w  linux/amd64  12 layers  12.0 MiB
  000000000000  ━━━━━━━━━━━━━━━━━━━━   1.0 MiB / 1.0 MiB               done
  000000000001  ────────────────────       0 B / 1.0 MiB               waiting
  000000000002  ────────────────────       0 B / 1.0 MiB               waiting
  000000000003  ────────────────────       0 B / 1.0 MiB               waiting
  000000000004  ────────────────────       0 B / 1.0 MiB               waiting
  000000000005  ────────────────────       0 B / 1.0 MiB               waiting
  000000000006  ────────────────────       0 B / 1.0 MiB               waiting
  000000000007  ────────────────────       0 B / 1.0 MiB               waiting
  00000000000a  ━━━━━━━━━━──────────  512.0 KiB / 1.0 MiB   243.8 KiB/s  fetch + unpack
  … 3 more waiting
  total 1 of 12  ━━━─────────────────   1.5 MiB / 12.0 MiB  731.4 KiB/s  15 s left, 3 s"
    );
    for number in 1..12 {
        seen.layer(4000, number, Phase::HereAlready, MIB);
    }
    let drawn = seen.screen.contents();
    let lines: Vec<&str> = drawn.lines().collect();
    assert_eq!(lines.len(), 1 + 12 + 1, "{drawn}");
    assert!(lines[12].ends_with("1.0 MiB / 1.0 MiB               here already"));
    assert!(
        lines[13].starts_with("  total 12 of 12  ━━━━━━━━━━━━━━━━━━━━  "),
        "{drawn}"
    );
    seen.event(5000, Event::Done);
    let drawn = seen.screen.contents();
    assert_eq!(drawn.lines().collect::<Vec<_>>(), lines[..13]);
}

/// What happens to a layer stands where its phase would, until it goes on.
#[test]
fn a_terminal_shows_what_befell_a_layer() {
    let seen = Seen::new(Mode::Tty, "pull");
    seen.resolved(1);
    let line = || seen.screen.contents().lines().nth(1).map(str::to_owned);
    let ends = |words: &str| {
        let line = line().expect("a line");
        assert!(line.ends_with(words), "{line}");
    };
    ends("waiting");
    seen.layer(0, 0, Phase::Fetch, 0);
    ends("fetch");
    seen.event(0, retry_of(0));
    ends("retry 2 of 5 in 3 s (mirror.example.com: timed out)");
    let (digest, host, attempt) = (digest(0), "h".to_owned(), 2);
    let asked = Event::Asked {
        digest: digest.clone(),
        host,
        attempt,
    };
    seen.event(0, asked);
    ends("fetch");
    let at = MIB / 2;
    seen.event(0, Event::Resumed { digest, at });
    ends("resumed at 512.0 KiB");
    seen.layer(0, 0, Phase::Unpack, at);
    ends("unpack");
}

/// Nothing happens, and that is seen.
#[test]
fn a_terminal_shows_what_stands_still() {
    let seen = Seen::new(Mode::Tty, "pull");
    seen.resolved(2);
    seen.layer(1000, 0, Phase::Fetch, 0);
    seen.layer(2000, 0, Phase::Fetch, MIB / 4);
    let last = || {
        seen.screen
            .contents()
            .lines()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        last(),
        [
            "  000000000000  ━━━━━───────────────  256.0 KiB / 1.0 MiB   256.0 KiB/s  fetch",
            "  000000000001  ────────────────────       0 B / 1.0 MiB               waiting",
            "  total 0 of 2  ━━━─────────────────  256.0 KiB / 2.0 MiB   128.0 KiB/s  14 s left, 2 s",
        ]
    );
    for ms in [3000, 4000, 5000, 6000] {
        seen.tick(ms);
    }
    assert_eq!(
        last(),
        [
            "  000000000000  ━━━━━───────────────  256.0 KiB / 1.0 MiB               fetch",
            "  000000000001  ────────────────────       0 B / 1.0 MiB               waiting",
            "  total 0 of 2  ━━━─────────────────  256.0 KiB / 2.0 MiB               6 s",
        ]
    );
}

/// Work that fails takes its changing lines with it.
#[test]
fn a_terminal_is_left_clean() {
    let seen = Seen::new(Mode::Tty, "pull");
    let screen = seen.screen.clone();
    seen.resolved(2);
    seen.layer(0, 0, Phase::Done, MIB);
    let show = Show::of(seen.told);
    assert_eq!(screen.contents().lines().count(), 4);
    drop(show);
    assert_eq!(
        screen.contents(),
        "pull w  linux/amd64  2 layers  2.0 MiB\n  \
         000000000000  ━━━━━━━━━━━━━━━━━━━━   1.0 MiB / 1.0 MiB               done"
    );
}

/// The second hand moves without anybody's doing.
#[test]
fn time_passes_by_itself() {
    let seen = Seen::new(Mode::Tty, "pull");
    let screen = seen.screen.clone();
    let show = Show::of(seen.told);
    show.event(resolved("w", 0..1));
    let patience = Duration::from_secs(60);
    let began = Instant::now();
    while !screen.contents().ends_with("  1 s") {
        assert!(began.elapsed() < patience, "{}", screen.contents());
        thread::sleep(Duration::from_millis(10));
    }
}

/// > one line per phase and, in a long phase, one every 10 s; no carriage return, no escape code
#[test]
fn a_log_has_a_line_for_each_phase_and_for_every_ten_seconds() {
    let seen = Seen::new(Mode::Plain, "pull");
    seen.resolved(2);
    assert_eq!(seen.said(), "pull w  linux/amd64  2 layers  2.0 MiB\n");
    seen.layer(0, 0, Phase::FetchUnpack, 0);
    assert_eq!(seen.said(), "pull w: fetch + unpack\n");
    seen.layer(100, 1, Phase::FetchUnpack, 0);
    seen.layer(5_000, 0, Phase::FetchUnpack, MIB / 2);
    seen.tick(9_900);
    assert_eq!(seen.said(), "");
    seen.tick(10_000);
    assert_eq!(seen.said(), "pull w: fetched 512.0 KiB of 2.0 MiB (25%)\n");
    seen.tick(19_900);
    assert_eq!(seen.said(), "");
    seen.tick(20_000);
    assert_eq!(seen.said(), "pull w: fetched 512.0 KiB of 2.0 MiB (25%)\n");
    seen.event(21_000, retry_of(1));
    let told = "pull w: layer 000000000001: retry 2 of 5 in 3 s (mirror.example.com: timed out)\n";
    assert_eq!(seen.said(), told);
    // A line that was said is one.
    seen.tick(30_900);
    assert_eq!(seen.said(), "");
    seen.layer(31_000, 0, Phase::Sync, MIB);
    assert_eq!(seen.said(), "pull w: sync\n");
    seen.layer(31_000, 0, Phase::Done, MIB);
    seen.layer(32_000, 1, Phase::FetchUnpack, MIB);
    seen.layer(32_000, 1, Phase::Sync, MIB);
    seen.layer(32_000, 1, Phase::Done, MIB);
    assert_eq!(seen.said(), "");
    seen.event(32_000, Event::Done);
    assert_eq!(seen.said(), "pull w: fetched 2.0 MiB of 2.0 MiB (100%)\n");
    seen.tick(60_000);
    assert_eq!(seen.said(), "");
}

fn timed(number: usize, first: u64) -> Event {
    let timing = model::TimingMs {
        fetch: first,
        inflate: first + 1,
        untar: first + 2,
        sync: first + 3,
        commit: first + 4,
    };
    Event::Timed {
        digest: digest(number),
        chain_id: "sha256:c".to_owned(),
        timing,
    }
}

#[test]
fn the_end_says_what_the_time_went_into() {
    let took = "2 layers took fetch 1.1 s, inflate 1.1 s, untar 1.1 s, sync 1.1 s, commit 1.1 s";
    let seen = Seen::new(Mode::Plain, "pull");
    seen.resolved(2);
    seen.event(0, timed(0, 50));
    seen.event(0, timed(1, 1010));
    seen.event(0, Event::Done);
    let said = seen.said();
    assert!(said.ends_with(&format!("(0%)\npull w: {took}\n")), "{said}");
    let seen = Seen::new(Mode::Tty, "pull");
    seen.resolved(1);
    seen.event(0, timed(0, 1));
    seen.event(0, Event::Done);
    let took = "  1 layer took fetch 1 ms, inflate 2 ms, untar 3 ms, sync 4 ms, commit 5 ms";
    assert_eq!(seen.screen.contents().lines().last(), Some(took));
}

#[test]
fn a_log_does_not_say_the_verb_for_a_phase() {
    let seen = Seen::new(Mode::Plain, "push");
    seen.resolved(1);
    seen.said();
    seen.layer(0, 0, Phase::Push, 0);
    assert_eq!(seen.said(), "");
}

/// Several platforms, or several images of an archive, with layers that are the same.
#[test]
fn what_is_resolved_together_is_one_piece_of_work() {
    let seen = Seen::new(Mode::Plain, "import");
    seen.event(0, resolved("a", [0, 1, 1]));
    seen.event(0, resolved("a", [1, 2]));
    for number in 0..3 {
        seen.layer(0, number, Phase::Done, MIB);
    }
    seen.event(0, Event::Done);
    let said = seen.said();
    let last = said.lines().last();
    assert_eq!(
        last,
        Some("import a: stored 3.0 MiB of 3.0 MiB (100%)"),
        "{said}"
    );
    seen.event(0, resolved("a", [0]));
    seen.event(0, resolved("b", [1]));
    seen.layer(0, 0, Phase::Fetch, 0);
    let said = seen.said();
    assert_eq!(
        said.lines().last(),
        Some("import 2 images: fetch"),
        "{said}"
    );
    // What is resolved after that is other work.
    seen.event(0, resolved("c", [3]));
    seen.layer(0, 3, Phase::Fetch, 0);
    let said = seen.said();
    assert_eq!(said.lines().last(), Some("import c: fetch"), "{said}");
}

#[test]
fn a_program_has_objects() {
    let seen = Seen::new(Mode::Json, "pull");
    seen.event(0, resolved("w", 0..1));
    seen.layer(0, 0, Phase::Fetch, 0);
    let digest = digest(0);
    let asked = Event::Asked {
        digest: digest.clone(),
        host: "h".to_owned(),
        attempt: 2,
    };
    seen.event(0, asked);
    // Too soon for another one.
    seen.layer(50, 0, Phase::Fetch, MIB / 4);
    seen.layer(1000, 0, Phase::Fetch, MIB);
    let at = 7;
    let resumed = Event::Resumed {
        digest: digest.clone(),
        at,
    };
    seen.event(1000, resumed);
    seen.event(1000, retry_of(0));
    seen.layer(1000, 0, Phase::Done, MIB);
    seen.event(1000, timed(0, 1));
    seen.event(1000, Event::Done);
    let expected = format!(
        r#"{{"event":"resolved","ref":"w","platform":"linux/amd64","layers":1,"total":1048576}}
{{"event":"phase","ref":"w","phase":"fetch","done":0,"total":1048576}}
{{"event":"layer","ref":"w","digest":"{digest}","phase":"fetch","done":0,"total":1048576,"rate":null,"host":null,"attempt":1}}
{{"event":"layer","ref":"w","digest":"{digest}","phase":"fetch","done":1048576,"total":1048576,"rate":1048576,"host":"h","attempt":2}}
{{"event":"resumed","ref":"w","digest":"{digest}","at":7}}
{{"event":"retry","ref":"w","digest":"{digest}","host":"mirror.example.com","attempt":2,"attempts":5,"wait_ms":3000,"cause":"timed out"}}
{{"event":"layer","ref":"w","digest":"{digest}","phase":"done","done":1048576,"total":1048576,"rate":1048576,"host":"h","attempt":2}}
{{"event":"timing","ref":"w","digest":"{digest}","chain_id":"sha256:c","timing_ms":{{"fetch":1,"inflate":2,"untar":3,"sync":4,"commit":5}}}}
{{"event":"done","ref":"w"}}
"#
    );
    assert_eq!(seen.said(), expected);
    assert_eq!(seen.screen.contents(), "");
}
