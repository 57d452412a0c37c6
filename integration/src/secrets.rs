//! Secrets that must be nowhere: not in what was said, and in no file.

use std::{fs, path::Path};

/// Looks for each of `secrets` in a text and in all files below these paths.
#[track_caller]
pub fn nowhere(secrets: &[String], said: &str, paths: &[&Path]) {
    for secret in secrets {
        assert!(
            !secret.is_empty() && !said.contains(secret),
            "{secret} in\n{said}"
        );
    }
    for path in paths {
        search(secrets, path);
    }
}

#[track_caller]
fn search(secrets: &[String], path: &Path) {
    let Ok(about) = fs::symlink_metadata(path) else {
        return;
    };
    if about.is_dir() {
        for entry in fs::read_dir(path).expect("directory") {
            search(secrets, &entry.expect("entry").path());
        }
    } else if about.is_file() {
        let bytes = fs::read(path).expect("file");
        let text = String::from_utf8_lossy(&bytes);
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} in {}", path.display());
        }
    }
}
