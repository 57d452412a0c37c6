//! What a user wants otherwise in `config.json`: a document that is laid over ours (RFC 7396).
//!
//! A bundle's configuration has far more keys than a command line can have flags.

use oci_spec::runtime::Spec;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Lays `over` on `base`: objects member by member, where `null` takes a member away; anything else,
/// a list too, takes the place of what was there.
pub(crate) fn merge(base: &mut Value, over: &Value) {
    let Value::Object(over) = over else {
        over.clone_into(base);
        return;
    };
    if !base.is_object() {
        *base = Value::Object(Map::new());
    }
    let Some(members) = base.as_object_mut() else {
        return;
    };
    // As deep as the document, which its parser has limited.
    for (key, value) in over {
        match value {
            Value::Null => drop(members.remove(key)),
            value => merge(members.entry(key.as_str()).or_insert(Value::Null), value),
        }
    }
}

/// Why a document is no runtime's configuration. Its runtime would say so, too, but in its own words
/// and at another time.
pub(crate) fn check(document: &Value) -> Result<(), String> {
    // The only key that every one has, and the only one that the types fill in by themselves.
    if !document.get("ociVersion").is_some_and(Value::is_string) {
        return Err("it has no ociVersion".to_owned());
    }
    Spec::deserialize(document)
        .map(drop)
        .map_err(|err| err.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The table of RFC 7396, appendix A.
    #[test]
    fn the_table_of_the_specification() {
        for (base, over, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!([1, 2]),
                json!({"a": "b", "c": null}),
                json!({"a": "b"}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            let mut merged = base.clone();
            merge(&mut merged, &over);
            assert_eq!(merged, expected, "{base} {over}");
        }
    }

    #[test]
    fn what_a_runtime_would_not_read_is_refused() {
        let sound = json!({"ociVersion": "1.0.2", "process": {
            "cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["sh"],
        }, "x-of-somebody": {"a": 1}});
        check(&sound).expect("a configuration");
        for over in [
            json!({"ociVersion": null}),
            json!({"process": {"args": "sh"}}),
            json!({"linux": {"namespaces": [{"type": "nope"}]}}),
            json!([]),
        ] {
            let mut merged = sound.clone();
            merge(&mut merged, &over);
            check(&merged).expect_err(&over.to_string());
        }
    }
}
