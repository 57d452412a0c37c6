//! Records as lines of JSON: what an export consists of.
//!
//! ```text
//! {"format":"cairn-records","version":1,"layout":1,"written_by":"cairn 0.1.0","engine":"redb",…}
//! {"table":"image","key":["default","docker.io/library/alpine:3.20"],"record":{…}}
//! …
//! {"records":57,"digest":"sha256:…"}
//! ```
//!
//! A record that JSON cannot give back to the last bit, because it is damaged or a newer version's, has
//! its `bytes` instead, and a key that is no list of names its `key_bytes`; both as hexadecimal digits.
//! The digest is that of all lines before it, so that what was cut or touched is known.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    record,
    records::{hex, json},
    schema,
};

const FORMAT: &str = "cairn-records";
const VERSION: u32 = 1;

/// Whose records an export has, and who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The layout of the store, which says what its records mean.
    pub layout: u32,
    /// Program and version.
    pub written_by: String,
    /// Which engine kept them.
    pub engine: String,
    /// The store's own name, where it has one.
    pub uuid: Option<String>,
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
    layout: u32,
    written_by: String,
    engine: String,
    uuid: Option<String>,
}

/// What of the first line all versions have in common.
#[derive(Deserialize)]
struct Begin {
    format: String,
    version: u32,
}

/// One record.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Row {
    table: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_bytes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

/// The last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct End {
    /// How many lines have a record.
    pub(crate) records: u64,
    /// Of all lines before this one.
    pub(crate) digest: String,
}

/// What a line behind the first is.
pub(crate) enum Line {
    /// Key and value.
    Record(Vec<u8>, Vec<u8>),
    /// The last.
    End(End),
}

/// The first line, with its end.
pub(crate) fn head(origin: &Origin) -> Vec<u8> {
    let Origin {
        layout,
        written_by,
        engine,
        uuid,
    } = origin.clone();
    line(&Head {
        format: FORMAT.to_owned(),
        version: VERSION,
        layout,
        written_by,
        engine,
        uuid,
    })
}

/// The last line, with its end.
pub(crate) fn end(end: &End) -> Vec<u8> {
    line(end)
}

/// The line of a record, with its end.
pub(crate) fn of_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let (tag, rest) = key.split_first().unwrap_or((&0, &[]));
    let table = schema::table_name(*tag);
    let mut row = Row {
        table: table.to_owned(),
        ..Row::default()
    };
    match components(rest).filter(|_| schema::tag_of(table) == Some(*tag)) {
        Some(components) => row.key = Some(components),
        None => row.key_bytes = Some(hex::text(key)),
    }
    let payload = record::payload(key, value).ok();
    match payload.and_then(|payload| json::of_payload(table, payload)) {
        Some(record) => row.record = Some(record),
        None => row.bytes = Some(hex::text(value)),
    }
    line(&row)
}

/// The names that a key behind its tag consists of, if it does.
fn components(rest: &[u8]) -> Option<Vec<String>> {
    if rest.is_empty() {
        return Some(Vec::new());
    }
    let text = std::str::from_utf8(rest).ok()?.strip_suffix('\0')?;
    Some(text.split('\0').map(str::to_owned).collect())
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("plain fields and names as keys serialise");
    bytes.push(b'\n');
    bytes
}

/// Reads the first line; the error is the reason.
pub(crate) fn read_head(bytes: &[u8]) -> Result<Origin, String> {
    let Ok(begin) = parse::<Begin>(bytes) else {
        return Err("this is no export of records".to_owned());
    };
    if begin.format != FORMAT {
        return Err(format!("an export is of {FORMAT}, not of {}", begin.format));
    }
    if begin.version != VERSION {
        return Err(format!(
            "version {} of the format is not known, only {VERSION} is",
            begin.version
        ));
    }
    let head: Head = parse(bytes)?;
    Ok(Origin {
        layout: head.layout,
        written_by: head.written_by,
        engine: head.engine,
        uuid: head.uuid,
    })
}

/// Reads any other; the error is the reason.
pub(crate) fn read(bytes: &[u8]) -> Result<Line, String> {
    if bytes.starts_with(b"{\"records\":") {
        return parse(bytes).map(Line::End);
    }
    let row: Row = parse(bytes)?;
    let key = match (row.key, row.key_bytes) {
        (Some(components), None) => encoded(&row.table, &components)?,
        (None, Some(digits)) => hex::bytes(&digits)?,
        _ => return Err("one of key and key_bytes is wanted".to_owned()),
    };
    // What begins with it is the journal's, and no record.
    if key.first().is_none_or(|tag| *tag == 0) {
        return Err("a key without a table".to_owned());
    }
    let value = match (row.record, row.bytes) {
        (Some(record), None) => {
            let payload = json::to_payload(&row.table, record)?;
            record::seal_payload(&key, &payload)
        }
        (None, Some(digits)) => hex::bytes(&digits)?,
        _ => return Err("one of record and bytes is wanted".to_owned()),
    };
    Ok(Line::Record(key, value))
}

fn encoded(table: &str, components: &[String]) -> Result<Vec<u8>, String> {
    let tag = schema::tag_of(table).ok_or_else(|| format!("no table {table:?} is known"))?;
    let mut key = vec![tag];
    for component in components {
        if component.contains('\0') {
            return Err("a name with a NUL byte".to_owned());
        }
        key.extend(component.as_bytes());
        key.push(0);
    }
    Ok(key)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|err| {
        // Where in the line is no help: the line is named by whoever reads it.
        let text = err.to_string();
        text.split(" at line ").next().unwrap_or(&text).to_owned()
    })
}
