//! The dashboard and the alert rules that are shipped ask for nothing that is not served.

use std::collections::{BTreeMap, BTreeSet};

use cairn_proto::{
    cairn::v1::{CollectRequest, store_client::StoreClient},
    containerd::services::content::v1::{InfoRequest, content_client::ContentClient},
};
use serde_json::Value;

use crate::{
    daemon::{Place, get, put, request, wait_for},
    figures::unpack,
    registries::{Registry, pull_nothing},
};

const DASHBOARD: &str = include_str!("../../grafana/dashboard.json");
const ALERTS: &str = include_str!("../../grafana/alerts.yaml");

/// Labels with their values, by the name of a series.
type Served = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// What a scrape has.
fn served(text: &str) -> Served {
    let mut served = Served::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let end = line.find(['{', ' ']).unwrap_or(line.len());
        if end == 0 {
            continue;
        }
        let labels = served.entry(line[..end].to_owned()).or_default();
        let (inside, _) = line[end..].rsplit_once('}').unwrap_or_default();
        // No value of ours has a comma.
        for label in inside.trim_start_matches('{').split(',') {
            if let Some((name, value)) = label.split_once('=') {
                let value = value.trim_matches('"').to_owned();
                labels.entry(name.to_owned()).or_default().insert(value);
            }
        }
    }
    served
}

/// What an expression of PromQL is made of; words, and all else sign by sign.
#[derive(Debug, PartialEq)]
enum Token<'e> {
    Word(&'e str),
    Text(&'e str),
    Sign(char),
}

fn tokens(expr: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = expr.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "_:$.".contains(c);
        let length = match first {
            '"' => rest[1..].find('"').expect("the end of a text") + 2,
            '[' => rest.find(']').expect("the end of a range") + 1,
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let part = &rest[..length];
        match first {
            '"' => tokens.push(Token::Text(part.trim_matches('"'))),
            '[' => {}
            c if is_word(c) => tokens.push(Token::Word(part)),
            c => tokens.push(Token::Sign(c)),
        }
        rest = rest[length..].trim_start();
    }
    tokens
}

/// The labels that Prometheus itself gives a series.
const ITS_OWN: [&str; 2] = ["job", "instance"];
/// Words that a parenthesis with labels follows.
const WITH_LABELS: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

/// Series and labels of an expression.
#[derive(Default)]
struct Asked<'e> {
    series: Vec<&'e str>,
    /// Of the series just before: label, operator's first sign, value.
    selected: Vec<(&'e str, &'e str, bool, &'e str)>,
    grouped: Vec<&'e str>,
}

fn asked(expr: &str) -> Asked<'_> {
    let tokens = tokens(expr);
    let mut asked = Asked::default();
    let mut at = 0;
    while at < tokens.len() {
        let next = tokens.get(at + 1);
        match &tokens[at] {
            Token::Word(word) if WITH_LABELS.contains(word) => {
                assert_eq!(next, Some(&Token::Sign('(')), "{expr}");
                at += 2;
                while tokens[at] != Token::Sign(')') {
                    if let Token::Word(label) = tokens[at] {
                        asked.grouped.push(label);
                    }
                    at += 1;
                }
            }
            Token::Sign('{') => {
                let series = *asked.series.last().expect("a series before its selectors");
                while tokens[at] != Token::Sign('}') {
                    if let Token::Word(label) = tokens[at] {
                        let same =
                            matches!(tokens[at + 1..at + 3], [Token::Sign('='), Token::Text(_)]);
                        let value = tokens[at..].iter().find_map(|token| match token {
                            Token::Text(text) => Some(*text),
                            _ => None,
                        });
                        let value = value.expect("a value");
                        asked.selected.push((series, label, same, value));
                    }
                    at += 1;
                }
            }
            Token::Word(word) if is_series(word, next) => asked.series.push(word),
            _ => {}
        }
        at += 1;
    }
    asked
}

/// Not a number, a function, an aggregation or an operator.
fn is_series(word: &str, next: Option<&Token<'_>>) -> bool {
    let is_called = next == Some(&Token::Sign('('));
    let is_aggregation = matches!(next, Some(Token::Word(by)) if WITH_LABELS.contains(by));
    let is_operator = ["and", "or", "unless", "bool", "offset"].contains(&word);
    let is_number = word.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    !(is_called || is_aggregation || is_operator || is_number)
}

/// Every label that may be asked for is one of a series of the expression, or Prometheus' own.
fn check(expr: &str, served: &Served) {
    let asked = asked(expr);
    assert!(!asked.series.is_empty(), "{expr}");
    for series in &asked.series {
        assert!(served.contains_key(*series), "no {series} for {expr}");
    }
    for (series, label, same, value) in asked.selected {
        if ITS_OWN.contains(&label) {
            continue;
        }
        let values = served[series].get(label);
        let values = values.unwrap_or_else(|| panic!("{series} has no {label}: {expr}"));
        assert!(
            !same || values.contains(value),
            "{label} of {series} is none of {values:?}: {expr}"
        );
    }
    for label in asked.grouped {
        let known = |series: &&str| served[*series].contains_key(label);
        let known = ITS_OWN.contains(&label) || asked.series.iter().any(known);
        assert!(known, "no {label} for {expr}");
    }
}

/// The expressions of the panels, and of what is chosen from.
fn of_the_dashboard() -> Vec<String> {
    let board: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let mut all: Vec<String> = targets
        .flatten()
        .map(|target| target["expr"].as_str().expect("an expression").to_owned())
        .collect();
    for variable in board["templating"]["list"].as_array().expect("variables") {
        let query = variable["query"].as_str().expect("a query");
        if let Some(inside) = query.strip_prefix("label_values(") {
            let (series, label) = inside.trim_end_matches(')').split_once(", ").expect("two");
            all.push(format!("sum by ({label}) ({series})"));
        }
    }
    all
}

/// Those of the rules: behind `expr:`, or in the deeper lines below it.
fn of_the_rules() -> Vec<String> {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = ALERTS.lines().collect();
    let begins = (0..lines.len()).filter(|at| lines[*at].trim_start().starts_with("expr:"));
    begins
        .map(|at| {
            let here = lines[at].trim_start().trim_start_matches("expr:").trim();
            let below = lines[at + 1..].iter();
            let below = below.take_while(|line| depth(line) > depth(lines[at]));
            match here {
                "|-" => below.fold(String::new(), |all, line| all + line.trim() + "\n"),
                _ => here.to_owned(),
            }
        })
        .collect()
}

#[tokio::test]
async fn all_that_is_asked_for_is_served() {
    let place = Place::with("[metrics]\naddress = \"metrics.sock\"\n[gc]\nstartup_delay = \"0\"\n");
    let _daemon = place.start();
    let channel = place.channel().await;
    // Something of each kind, so that every series has come by.
    put(&channel, b"seven b").await.unwrap();
    unpack(&channel).await;
    let collect = CollectRequest { dry_run: false };
    let mut store = StoreClient::new(channel.clone());
    store.collect(request(collect)).await.unwrap();
    let unknown = InfoRequest {
        digest: format!("sha256:{}", "0".repeat(64)),
    };
    pull_nothing(&channel, &Registry::start().host).await;
    let mut content = ContentClient::new(channel);
    content.info(request(unknown)).await.unwrap_err();
    let socket = place.path("run/metrics.sock");
    let text = wait_for("the figures of the calls", || {
        let (_, text) = get(&socket, "/metrics");
        text.contains("grpc_code=\"NotFound\"").then_some(text)
    });
    let served = served(&text);
    let panels = of_the_dashboard();
    let rules = of_the_rules();
    assert!(panels.len() > 40, "{panels:#?}");
    assert_eq!(rules.len(), ALERTS.matches("- alert:").count());
    for expr in panels.iter().chain(&rules) {
        check(expr, &served);
    }
}

#[test]
fn what_an_expression_asks_for() {
    let expr = "sum by (le, kind) (rate(a_bucket{job=~\"$job\", kind=\"x\"}[5m])) * 2 > 0.5 and on (job) b";
    let asked = asked(expr);
    assert_eq!(asked.series, ["a_bucket", "b"]);
    assert_eq!(asked.grouped, ["le", "kind", "job"]);
    assert_eq!(
        asked.selected,
        [
            ("a_bucket", "job", false, "$job"),
            ("a_bucket", "kind", true, "x")
        ]
    );
    let text = "# TYPE a_bucket histogram\na_bucket{kind=\"x\",le=\"+Inf\"} 1\nb 2\n";
    check(expr, &served(text));
    let refused = |expr: &str| std::panic::catch_unwind(|| check(expr, &served(text))).is_err();
    for expr in [
        "c",
        "b{kind=\"x\"}",
        "a_bucket{kind=\"y\"}",
        "sum by (kind) (b)",
    ] {
        assert!(refused(expr), "{expr}");
    }
}
