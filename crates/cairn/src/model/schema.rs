//! JSON Schemas of the documents, for those who write programs against them: `crates/cairn/schema`
//! has them as files, and this is what makes and compares them.
//!
//! `CAIRN_WRITE_SCHEMAS=1 cargo test -p cairn schema` writes the files anew. A difference that takes a
//! key away, renames it or changes its type breaks a promise; one that adds a key does not.

use std::{borrow::Cow, env, fs, path::Path};

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};

use super::*;

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "RFC 3339 in UTC, with nanoseconds.",
            "type": "string",
            "format": "date-time",
        })
    }
}

/// What a snapshot is.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[allow(dead_code, reason = "stands for the store's own type")]
pub(super) enum Kind {
    /// A read-only look at a committed one.
    View,
    /// Writable.
    Active,
    /// Immutable.
    Committed,
}

fn schema<T: JsonSchema>() -> String {
    // As they are written: every key is there, and what is unknown is null.
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let text = serde_json::to_string_pretty(&schema).expect("JSON");
    format!("{text}\n")
}

#[test]
fn the_schema_files_are_those_of_the_documents() {
    let documents = [
        ("blob", schema::<Blob>()),
        ("bundle", schema::<Bundle>()),
        ("disk", schema::<Disk>()),
        ("error", schema::<Failure>()),
        ("event", schema::<Event>()),
        ("fsck", schema::<Fsck>()),
        ("gc", schema::<Gc>()),
        ("host", schema::<Host>()),
        ("image", schema::<Image>()),
        ("info", schema::<Info>()),
        ("ingest", schema::<Ingest>()),
        ("kept", schema::<Kept>()),
        ("lease", schema::<Lease>()),
        ("mount", schema::<Mount>()),
        ("namespace", schema::<Namespace>()),
        ("plugin", schema::<Plugin>()),
        ("progress", schema::<Progress>()),
        ("pull", schema::<Transfer>()),
        ("push", schema::<Transfer>()),
        ("resource", schema::<Resource>()),
        ("snapshot", schema::<Snapshot>()),
        ("snapshot-usage", schema::<SnapshotUsage>()),
        ("timing", schema::<Timed>()),
        ("usage", schema::<Usage>()),
        ("version", schema::<Versions>()),
    ];
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    if env::var_os("CAIRN_WRITE_SCHEMAS").is_some() {
        fs::create_dir_all(&dir).expect("directory");
        for (name, text) in &documents {
            fs::write(dir.join(format!("{name}.json")), text).expect("write");
        }
    }
    let files = fs::read_dir(&dir).expect("schema files").count();
    assert_eq!(
        files,
        documents.len(),
        "a document without file, or the reverse"
    );
    for (name, text) in &documents {
        let file = fs::read_to_string(dir.join(format!("{name}.json")));
        assert_eq!(file.expect(name), *text, "{name}.json");
    }
}
