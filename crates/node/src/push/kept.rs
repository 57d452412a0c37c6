//! Uploads that a push did not finish, for the next one to go on with.
//!
//! ```text
//! <root>/pushes/    0700
//!   HEX             0600, the session of one blob at one repository; who has its address can write to it
//! ```
//!
//! A record that is lost costs the bytes again, and one that is wrong is refused by its registry, so what
//! cannot be read or written is passed by. Registries forget sessions after a day or a week.

use std::{
    collections::HashSet,
    ffi::OsStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cairn_registry::{Sessions, UploadState};
use cairn_sys::{Dir, durable};
use cairn_types::{Descriptor, Digest, Namespace};
use serde::{Deserialize, Serialize};

use crate::{Failure, Node, node::own_dir};

/// Where they are in the root.
pub(crate) const DIR: &str = "pushes";
/// How long one is believed in.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// What is smaller is sooner sent again.
const BLOB_BYTES_MIN: u64 = 1 << 20;
/// Registries put their state into addresses.
const RECORD_BYTES_MAX: u64 = 64 << 10;

/// The blobs that pushes of this process are sending, by the names of their records.
#[derive(Default)]
pub(crate) struct Sending(Mutex<HashSet<String>>);

impl Sending {
    fn all(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a session is for.
#[derive(Serialize, Deserialize, PartialEq)]
struct Of {
    namespace: String,
    /// The repository, by its address.
    place: String,
    blob: Digest,
}

impl Of {
    /// Of the record, whatever is in a place's address.
    fn name(&self) -> String {
        let key = format!("{}\n{}\n{}", self.namespace, self.place, self.blob);
        Digest::sha256(key.as_bytes()).hex().to_owned()
    }
}

/// A session.
#[derive(Serialize, Deserialize)]
struct Record {
    of: Of,
    location: String,
}

/// The sessions of one push.
pub(super) struct Kept {
    /// Not the store: tasks that were given up may have this a little longer than that is open.
    sending: Arc<Sending>,
    ns: Namespace,
    dir: Dir,
    /// Those that are this push's to use.
    own: Mutex<HashSet<String>>,
}

impl Kept {
    /// Also removes what is too old.
    pub(super) fn of(node: &Node, ns: &Namespace) -> Result<Kept, Failure> {
        let dir = own_dir(node.root(), &node.inner.dir, DIR, 0o700)?;
        let kept = Kept {
            sending: Arc::clone(&node.inner.sending),
            ns: ns.clone(),
            dir,
            own: Mutex::default(),
        };
        let entries = kept.dir.entries().unwrap_or_default();
        for entry in entries.iter().filter(|entry| !kept.is_young(&entry.name)) {
            kept.remove(&entry.name);
        }
        Ok(kept)
    }

    /// One that says a time to come is not, or a clock that was wrong once would keep it for ever.
    fn is_young(&self, name: &OsStr) -> bool {
        let Ok(stat) = self.dir.stat(name) else {
            return false;
        };
        let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else {
            return false;
        };
        let written = u64::try_from(stat.st_mtime).map(Duration::from_secs);
        let age = written.ok().and_then(|written| now.checked_sub(written));
        age.is_some_and(|age| age < AGE_MAX)
    }

    fn own(&self) -> MutexGuard<'_, HashSet<String>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this push may use the session, which no other does then.
    fn claim(&self, name: &str) -> bool {
        if self.own().contains(name) {
            return true;
        }
        let claimed = self.sending.all().insert(name.to_owned());
        claimed && self.own().insert(name.to_owned())
    }

    fn of_blob(&self, place: &str, blob: &Descriptor) -> Of {
        Of {
            namespace: self.ns.to_string(),
            place: place.to_owned(),
            blob: blob.digest.clone(),
        }
    }

    fn read(&self, name: &str, of: &Of) -> Option<UploadState> {
        let name = OsStr::new(name);
        let bytes = self.dir.read_file(name, RECORD_BYTES_MAX);
        let record = bytes.ok().filter(|_| self.is_young(name));
        let record: Record = serde_json::from_slice(&record?).ok()?;
        let location = record.location;
        (record.of == *of).then_some(UploadState { location })
    }

    fn write(&self, name: &str, of: Of, state: &UploadState) {
        let location = state.location.clone();
        let written = serde_json::to_vec(&Record { of, location });
        let written = written.map_err(|err| err.to_string()).and_then(|bytes| {
            let written = durable::write_file(&self.dir, OsStr::new(name), &bytes, 0o600);
            written.map_err(|err| err.to_string())
        });
        if let Err(err) = written {
            tracing::debug!(err, "keep an upload");
        }
    }

    fn remove(&self, name: &OsStr) {
        if let Err(err) = self.dir.unlink(name) {
            tracing::debug!(?name, %err, "forget an upload");
        }
    }
}

/// Disks are waited for beside what else the threads of registries do.
impl Sessions for Kept {
    fn kept(&self, place: &str, blob: &Descriptor) -> Option<UploadState> {
        let of = self.of_blob(place, blob);
        let name = of.name();
        if !self.claim(&name) {
            return None;
        }
        tokio::task::block_in_place(|| self.read(&name, &of))
    }

    fn keep(&self, place: &str, blob: &Descriptor, state: &UploadState) {
        let of = self.of_blob(place, blob);
        let name = of.name();
        if blob.size >= BLOB_BYTES_MIN && self.claim(&name) {
            tokio::task::block_in_place(|| self.write(&name, of, state));
        }
    }

    fn forget(&self, place: &str, blob: &Descriptor) {
        let name = self.of_blob(place, blob).name();
        if blob.size >= BLOB_BYTES_MIN && self.claim(&name) {
            tokio::task::block_in_place(|| self.remove(OsStr::new(&name)));
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut sending = self.sending.all();
        for name in self.own().iter() {
            sending.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, time::SystemTime};

    use cairn_types::media;

    use super::*;
    use crate::{EngineKind, NodeOptions};

    const PLACE: &str = "https://r.example.com/v2/shop/web";

    fn store() -> (tempfile::TempDir, Node, Namespace) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let options = NodeOptions::new(dir.path().join("root"), EngineKind::Redb);
        let node = Node::open(options).expect("open");
        (dir, node, Namespace::parse("n").expect("namespace"))
    }

    fn blob(size: u64) -> Descriptor {
        Descriptor::new(media::OCI_LAYER, Digest::sha256(b"layer"), size)
    }

    fn state(location: &str) -> UploadState {
        UploadState {
            location: location.to_owned(),
        }
    }

    fn files(node: &Node) -> Vec<std::path::PathBuf> {
        let dir = node.root().join(DIR);
        let entries = fs::read_dir(dir).expect("directory");
        entries.map(|entry| entry.expect("entry").path()).collect()
    }

    #[test]
    fn a_session_outlives_its_push() {
        let (_dir, node, ns) = store();
        let (large, small) = (blob(BLOB_BYTES_MIN), blob(BLOB_BYTES_MIN - 1));
        let first = Kept::of(&node, &ns).expect("kept");
        first.keep(PLACE, &small, &state("https://r/1"));
        assert_eq!(files(&node).len(), 0, "not worth it");
        first.keep(PLACE, &large, &state("https://r/1"));
        first.keep(PLACE, &large, &state("https://r/2"));
        let [file] = &files(&node)[..] else {
            panic!("one file");
        };
        for (path, mode) in [(file.as_path(), 0o600), (&node.root().join(DIR), 0o700)] {
            let meta = fs::metadata(path).expect("status");
            assert_eq!(meta.permissions().mode() & 0o7777, mode);
        }
        // Two that write to one session would spoil it.
        let second = Kept::of(&node, &ns).expect("kept");
        assert_eq!(second.kept(PLACE, &large), None);
        second.keep(PLACE, &large, &state("https://r/other"));
        second.forget(PLACE, &large);
        drop(first);
        assert_eq!(second.kept(PLACE, &large), Some(state("https://r/2")));
        let other = Namespace::parse("other").expect("namespace");
        let third = Kept::of(&node, &other).expect("kept");
        assert_eq!(third.kept(PLACE, &large), None);
        assert_eq!(second.kept("https://r.example.com/v2/a", &large), None);
        second.forget(PLACE, &large);
        assert_eq!(files(&node).len(), 0);
    }

    #[test]
    fn what_is_old_or_damaged_is_none() {
        let (_dir, node, ns) = store();
        let large = blob(BLOB_BYTES_MIN);
        let keep = || {
            let kept = Kept::of(&node, &ns).expect("kept");
            kept.keep(PLACE, &large, &state("https://r/1"));
            files(&node)[0].clone()
        };
        let kept = || {
            let kept = Kept::of(&node, &ns).expect("kept");
            kept.kept(PLACE, &large)
        };
        keep();
        assert_eq!(kept(), Some(state("https://r/1")));
        fs::write(keep(), "{").expect("damage");
        assert_eq!(kept(), None);
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
        for wrong in [now - AGE_MAX - hour, now + hour] {
            let file = fs::File::options().write(true).open(keep());
            let file = file.expect("file");
            file.set_modified(wrong).expect("time");
            assert_eq!(kept(), None);
            assert_eq!(files(&node).len(), 0, "it was removed");
        }
    }
}
