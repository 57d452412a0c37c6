//! Writing a file that was asked for: whole under its name, or not there.
//!
//! Half an archive under the right name is worse than none.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use cairn_types::ErrorKind;

use crate::error::{Problem, io_reason, quote};

/// Has `write` write a file beside `path`, and puts it in its place when it is whole. What is no
/// file (a device, a pipe) is written to directly.
pub fn save<T>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<T, Problem>,
) -> Result<T, Problem> {
    let special = std::fs::metadata(path).is_ok_and(|m| !m.is_file());
    if special {
        let mut file = File::options()
            .write(true)
            .open(path)
            .map_err(|err| failed(path, &err))?;
        return write(&mut file);
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let mut file = File::create(&partial).map_err(|err| failed(path, &err))?;
    let finished = write(&mut file).and_then(|value| {
        // Before its name: a name that a power cut leaves over nothing would be half a file.
        let synced = file.sync_all();
        let placed = synced.and_then(|()| std::fs::rename(&partial, path));
        placed.map_err(|err| failed(path, &err)).map(|()| value)
    });
    if finished.is_err() {
        // The first error is the one to hear about.
        let _ = std::fs::remove_file(&partial);
    }
    finished
}

fn failed(path: &Path, err: &io::Error) -> Problem {
    let (kind, reason) = match err.kind() {
        io::ErrorKind::NotFound => (
            ErrorKind::NotFound,
            "its directory does not exist".to_owned(),
        ),
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::PermissionDenied, "permission denied".to_owned())
        }
        io::ErrorKind::IsADirectory => (ErrorKind::InvalidArgument, "it is a directory".to_owned()),
        io::ErrorKind::StorageFull => {
            let reason = "no space left on its file system".to_owned();
            (ErrorKind::ResourceExhausted, reason)
        }
        _ => (ErrorKind::Internal, io_reason(err)),
    };
    let mut problem = Problem::new(kind, "write", &path.display().to_string(), reason);
    if let Some((noun, _)) = &mut problem.object {
        "file".clone_into(noun);
    }
    if let (io::ErrorKind::NotFound, Some(parent)) = (err.kind(), path.parent()) {
        let parent = quote(&parent.display().to_string());
        problem = problem.next(format!("mkdir -p {parent}"));
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("out");
        save(&path, |file| {
            file.write_all(b"old").expect("write");
            Ok(())
        })
        .expect("save");
        let refused = save(&path, |file| {
            file.write_all(b"new").expect("write");
            Err::<(), _>(Problem::usage("no"))
        });
        assert!(refused.is_err());
        assert_eq!(std::fs::read(&path).expect("read"), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 1);
        let problem = save(&dir.path().join("a/b"), |_| Ok(())).expect_err("no directory");
        assert!(
            problem
                .message()
                .ends_with("a/b: its directory does not exist"),
            "{problem}"
        );
    }
}
