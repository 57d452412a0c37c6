//! Leases, namespaces, uploads, mounts, plugins and events.

use cairn_types::Labels;
use jiff::Timestamp;

use crate::{
    model::{Event, Ingest, Lease, Namespace, Plugin, Resource},
    size,
    table::{Cell, Column, Table, printable},
};

/// REF OFFSET TOTAL AGE.
pub fn ingests(ingests: &[Ingest], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        Column::left("REF"),
        Column::right("OFFSET"),
        Column::right("TOTAL"),
        Column::left("AGE"),
    ]);
    for ingest in ingests {
        table.row(vec![
            Cell::text(&*ingest.reference),
            Cell::bytes(Some(ingest.offset)),
            Cell::bytes(ingest.total),
            Cell::text(size::age(ingest.started_at.0, now)),
        ]);
    }
    table
}

/// ID CREATED EXPIRES LABELS.
pub fn leases(leases: &[Lease], now: Timestamp) -> Table {
    let headers = ["ID", "CREATED", "EXPIRES", "LABELS"].map(Column::left);
    let mut table = Table::new(&headers);
    for lease in leases {
        let expires = lease
            .expires_at
            .map_or_else(|| "never".to_owned(), |at| size::remaining(at.0, now));
        table.row(vec![
            Cell::text(&*lease.id),
            Cell::text(size::age(lease.created_at.0, now)),
            Cell::text(expires),
            Cell::Labels(lease.labels.clone()),
        ]);
    }
    table
}

/// TYPE ID. The id of a blob or snapshot may be a digest.
pub fn resources(resources: &[Resource]) -> Table {
    let mut table = Table::new(&["TYPE", "ID"].map(Column::left));
    for resource in resources {
        table.row(vec![
            Cell::text(&*resource.kind),
            Cell::Digest(printable(&resource.id)),
        ]);
    }
    table
}

/// NAME IMAGES SNAPSHOTS SIZE LABELS.
pub fn namespaces(namespaces: &[Namespace]) -> Table {
    let mut table = Table::new(&[
        Column::left("NAME"),
        Column::right("IMAGES"),
        Column::right("SNAPSHOTS"),
        Column::right("SIZE"),
        Column::left("LABELS"),
    ]);
    for namespace in namespaces {
        table.row(vec![
            Cell::text(&*namespace.name),
            Cell::number(namespace.images),
            Cell::number(namespace.snapshots),
            Cell::bytes(Some(namespace.size)),
            Cell::Labels(namespace.labels.clone()),
        ]);
    }
    table
}

/// TYPE ID PLATFORMS STATUS.
pub fn plugins(plugins: &[Plugin]) -> Table {
    let mut table = Table::new(&["TYPE", "ID", "PLATFORMS", "STATUS"].map(Column::left));
    for plugin in plugins {
        table.row(vec![
            Cell::text(&*plugin.kind),
            Cell::text(&*plugin.id),
            Cell::text(plugin.platforms.join(",")),
            Cell::text(plugin.status),
        ]);
    }
    table
}

/// All that is known of one.
pub fn plugin(plugin: &Plugin) -> String {
    let list = |words: &[String]| match words {
        [] => "-".to_owned(),
        words => words.join(", "),
    };
    let mut rows = vec![
        ("type", plugin.kind.clone()),
        ("id", plugin.id.clone()),
        ("platforms", list(&plugin.platforms)),
        ("capabilities", list(&plugin.capabilities)),
        ("status", plugin.status.to_owned()),
    ];
    rows.extend(plugin.error.iter().map(|text| ("error", text.clone())));
    let exports = plugin.exports.iter().map(|(k, v)| format!("{k}={v}"));
    rows.extend(exports.map(|text| ("exports", text)));
    super::pairs(&rows)
}

/// `TIME NAMESPACE TOPIC {json}`, as ctr writes it.
pub fn events(event: &Event) -> String {
    let (time, namespace) = (size::time_exact(event.time.0), printable(&event.namespace));
    let topic = printable(&event.topic);
    format!("{time} {namespace} {topic} {}", event.event)
}

/// `K=V` on a line each; `-` when there is none.
pub fn label_lines(labels: &Labels) -> String {
    let line =
        |(key, value): (&String, &String)| format!("{}\n", printable(&format!("{key}={value}")));
    match labels.is_empty() {
        true => "-\n".to_owned(),
        false => labels.iter().map(line).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{model::Time, out::Stream};

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).expect("moment"))
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let owned = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        owned.collect()
    }

    const PIPE: Stream = Stream {
        columns: None,
        color: false,
    };

    #[test]
    fn when_leases_end() {
        let lease = |id: &str, expires_at: Option<i64>| Lease {
            id: id.to_owned(),
            created_at: at(1_000_000),
            expires_at: expires_at.map(at),
            labels: labels(&[("a", "b")]),
            resources: None,
        };
        let all = [
            lease("day", Some(1_000_060 + 86_399)),
            lease("ever", None),
            lease("past", Some(1_000_060)),
        ];
        assert_eq!(
            leases(&all, at(1_000_060).0).render(PIPE, false),
            "\
ID    CREATED       EXPIRES      LABELS
day   1 minute ago  in 23 hours  a=b
ever  1 minute ago  never        a=b
past  1 minute ago  expired      a=b
"
        );
    }

    #[test]
    fn an_event_is_one_line() {
        let event = Event {
            time: at(0),
            namespace: "dev".to_owned(),
            topic: "/images/delete".to_owned(),
            kind: "containerd.services.images.v1.ImageDelete".to_owned(),
            event: json!({"name": "a\nb"}),
        };
        assert_eq!(
            events(&event),
            r#"1970-01-01T00:00:00.000000000Z dev /images/delete {"name":"a\nb"}"#
        );
    }

    #[test]
    fn labels_after_a_change() {
        assert_eq!(
            label_lines(&labels(&[("a", "b"), ("c", "d\ne")])),
            "a=b\nc=d\\ne\n"
        );
        assert_eq!(label_lines(&Labels::new()), "-\n");
    }
}
