//! Payloads of records as JSON and back, without a bit lost, or not at all.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::wire;
use crate::Record;

/// The one table's way to JSON and back.
struct Way {
    to: fn(&[u8]) -> Option<Value>,
    back: fn(Value) -> Result<Vec<u8>, String>,
}

/// The record of a table whose keys say it all.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// The record of a counter.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counter {
    last: u64,
}

/// A payload as JSON; `None` when a record of this table, by its name in messages, would not be written
/// with the very same bytes.
pub(crate) fn of_payload(table: &str, payload: &[u8]) -> Option<Value> {
    let way = way(table)?;
    let value = (way.to)(payload)?;
    // What a newer version wrote may have fields that are not known here.
    let same = (way.back)(value.clone()).is_ok_and(|again| again == payload);
    same.then_some(value)
}

/// The payload that [`of_payload`] was given; the error is the reason.
pub(crate) fn to_payload(table: &str, value: Value) -> Result<Vec<u8>, String> {
    let way = way(table).ok_or("records of this table are not known")?;
    (way.back)(value)
}

fn way(table: &str) -> Option<Way> {
    let way = match table {
        "namespace" | "blob-link" | "lease" => message::<wire::Labelled>(),
        "image" => message::<wire::Image>(),
        "blob" => message::<wire::Blob>(),
        "ingest" => message::<wire::Ingest>(),
        "snapshot" => message::<wire::Snapshot>(),
        "bundle" => message::<wire::Bundle>(),
        "container" => message::<wire::Container>(),
        "child" | "lease-resource" => Way {
            to: |payload| {
                <()>::decode(payload).ok()?;
                serde_json::to_value(Nothing {}).ok()
            },
            back: |value| parse::<Nothing>(value).map(|_| ().encode()),
        },
        "counter" => Way {
            to: |payload| {
                let last = u64::decode(payload).ok()?;
                serde_json::to_value(Counter { last }).ok()
            },
            back: |value| parse::<Counter>(value).map(|counter| counter.last.encode()),
        },
        _ => return None,
    };
    Some(way)
}

fn message<M: prost::Message + Default + Serialize + DeserializeOwned>() -> Way {
    Way {
        to: |payload| serde_json::to_value(M::decode(payload).ok()?).ok(),
        back: |value| parse::<M>(value).map(|message| message.encode_to_vec()),
    }
}

fn parse<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|err| err.to_string())
}
