//! Filters over many records, as a listing asks them.

use std::{borrow::Cow, cell::LazyCell, hint::black_box};

use cairn_types::{
    Labels,
    filter::{self, Fields, Filters},
};
use criterion::{Criterion, Throughput};

const RECORDS: usize = 10_000;

pub(crate) fn bench(criterion: &mut Criterion) {
    let images = LazyCell::new(|| (0..RECORDS).map(Image::new).collect::<Vec<_>>());
    let mut group = criterion.benchmark_group("filter");
    group
        .throughput(Throughput::Elements(RECORDS as u64))
        .sample_size(50);
    // What is asked, and how many hold.
    let cases: [(&str, &[&str], usize); 4] = [
        ("a name", &["name==registry.example.com/shop/web:4711"], 1),
        (
            "a label",
            &[r#"labels."com.example.tier"==front"#],
            RECORDS / 4,
        ),
        (
            "a pattern",
            &[r#"name~="^registry\\.example\\.com/.*:99""#],
            111,
        ),
        (
            "one of three",
            &[
                "name==registry.example.com/shop/web:1",
                r#"name==registry.example.com/shop/web:2,labels."com.example.tier"==front"#,
                r#"labels."com.example.owner""#,
            ],
            RECORDS / 10 + 1,
        ),
    ];
    for (name, asked, hold) in cases {
        group.bench_function(name, |bencher| {
            let filters = Filters::parse(asked).expect("filters that parse");
            bencher.iter(|| {
                let passed = black_box(&*images)
                    .iter()
                    .filter(|image| filters.pass(*image));
                assert_eq!(passed.count(), hold);
            });
        });
    }
    group.finish();
}

struct Image {
    name: String,
    labels: Labels,
}

impl Image {
    fn new(number: usize) -> Image {
        let tier = ["front", "back", "cache", "batch"][number % 4];
        let mut labels = Labels::from([
            ("com.example.tier".to_owned(), tier.to_owned()),
            (
                "org.opencontainers.image.version".to_owned(),
                number.to_string(),
            ),
        ]);
        if number.is_multiple_of(10) {
            labels.insert("com.example.owner".to_owned(), "somebody".to_owned());
        }
        Image {
            name: format!("registry.example.com/shop/web:{number}"),
            labels,
        }
    }
}

impl Fields for Image {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match &*path[0] {
            "name" => Some(Cow::Borrowed(&self.name)),
            "labels" => filter::label(&self.labels, &path[1..]),
            _ => None,
        }
    }
}
