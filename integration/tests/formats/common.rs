//! An image with one small file.

use cairn_integration::{image::architecture, raw::Tar};
use serde_json::{Value, json};

/// Its layer.
pub(crate) fn tar() -> Vec<u8> {
    Tar::new().file("who", b"me").finish()
}

/// A configuration of this machine's platform with these layers.
pub(crate) fn config(diff_ids: &[String]) -> Value {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
}
