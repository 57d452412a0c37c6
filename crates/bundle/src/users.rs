//! Who a container's process is: names and numbers by the image's own `/etc/passwd` and
//! `/etc/group` (image-spec `config.md`, property `User`).
//!
//! The host's files would name other people, so no library call that asks the host will do. Links
//! are followed inside the image only, and nothing but a regular file of at most 1 MiB is read.

use cairn_sys::Dir;
use cairn_types::{Classified, ErrorKind};

/// Most bytes of either file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Docker's names are shorter; longer ones are no names.
const NAME_BYTES_MAX: usize = 256;

/// The process's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups. The primary one is among them: a process may otherwise drop it from
    /// its set and pass where the group is refused (CVE-2022-2989 and its kin).
    pub(crate) groups: Vec<u32>,
    /// The user's directory by the image's file.
    pub(crate) home: Option<String>,
}

/// Why there is no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UserError {
    /// Neither a name nor a number.
    #[error("user {0:?} is neither NAME[:GROUP] nor UID[:GID]")]
    Malformed(String),
    /// No line of that name.
    #[error("the image's /etc/passwd has no user {0:?}")]
    NoUser(String),
    /// No line of that name.
    #[error("the image's /etc/group has no group {0:?}")]
    NoGroup(String),
    /// The file is there and cannot be read.
    #[error("the image's {0} cannot be read: {1}")]
    Unreadable(&'static str, String),
}

impl Classified for UserError {
    fn kind(&self) -> ErrorKind {
        match self {
            UserError::Malformed(_) => ErrorKind::InvalidArgument,
            UserError::NoUser(_) | UserError::NoGroup(_) => ErrorKind::NotFound,
            UserError::Unreadable(..) => ErrorKind::FailedPrecondition,
        }
    }
}

/// Looks up `text` (`""` is root) in the image whose root is `root`.
pub(crate) fn look_up(root: &Dir, text: &str) -> Result<Identity, UserError> {
    let malformed = || UserError::Malformed(text.chars().take(64).collect());
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let bad = |name: &str| name.len() > NAME_BYTES_MAX || name.contains([':', '\n', '\0']);
    if bad(user) || group.is_some_and(bad) {
        return Err(malformed());
    }
    let passwd = read(root, "/etc/passwd")?;
    let entry = find(&passwd, user);
    let (uid, primary, name, home) = match entry {
        Some(fields) => {
            let number = |i: usize| fields.get(i).and_then(|text| id(text));
            let uid = number(2).ok_or_else(|| UserError::NoUser(user.to_owned()))?;
            let home = fields.get(5).filter(|home| home.starts_with('/'));
            (
                uid,
                number(3).unwrap_or(0),
                Some(fields[0].clone()),
                home.cloned(),
            )
        }
        None if looks_like_a_number(user) => (id(user).ok_or_else(malformed)?, 0, None, None),
        None => return Err(UserError::NoUser(user.to_owned())),
    };
    let groups_file = read(root, "/etc/group")?;
    // A group that is asked for stands alone; otherwise those of the user come along.
    let (gid, mut others) = match group.filter(|group| !group.is_empty()) {
        None => (primary, memberships(&groups_file, name.as_deref())),
        Some(group) => {
            let listed = find(&groups_file, group);
            let listed = listed.and_then(|fields| fields.get(2).and_then(|gid| id(gid)));
            let gid = match listed {
                Some(gid) => gid,
                None if looks_like_a_number(group) => id(group).ok_or_else(malformed)?,
                None => return Err(UserError::NoGroup(group.to_owned())),
            };
            (gid, Vec::new())
        }
    };
    let mut groups = vec![gid];
    others.retain(|other| *other != gid);
    others.dedup();
    groups.append(&mut others);
    Ok(Identity {
        uid,
        gid,
        groups,
        home,
    })
}

/// The fields of the line whose name or number is `wanted`, a name before a number.
fn find(lines: &[Vec<String>], wanted: &str) -> Option<Vec<String>> {
    let by_name = lines.iter().find(|fields| fields[0] == wanted);
    let by_number = || {
        let wanted = id(wanted)?;
        lines
            .iter()
            .find(|fields| fields.get(2).and_then(|text| id(text)) == Some(wanted))
    };
    by_name.or_else(by_number).cloned()
}

/// Groups that list the user, in order of their numbers.
fn memberships(lines: &[Vec<String>], name: Option<&str>) -> Vec<u32> {
    let Some(name) = name else { return Vec::new() };
    let is_member = |fields: &&Vec<String>| {
        fields
            .get(3)
            .is_some_and(|members| members.split(',').any(|member| member == name))
    };
    let mut groups: Vec<u32> = lines
        .iter()
        .filter(is_member)
        .filter_map(|fields| fields.get(2).and_then(|text| id(text)))
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// The lines of such a file that have a name; an absent file has none.
fn read(root: &Dir, path: &'static str) -> Result<Vec<Vec<String>>, UserError> {
    let bytes = match root.read_in_root(path.as_bytes(), FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(UserError::Unreadable(path, err.to_string())),
    };
    let text = String::from_utf8_lossy(&bytes);
    Ok(text
        .lines()
        .map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>())
        .filter(|fields| !fields[0].is_empty() && !fields[0].starts_with('#'))
        .collect())
}

fn looks_like_a_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+')
        && text[1..].bytes().all(|b| b.is_ascii_digit())
}

/// A user or group number. The highest one means "nobody new" to the kernel (`setresuid(2)`), and a
/// sign or a number that wraps would make somebody else of it, root even.
fn id(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    const PASSWD: &str = "\
        root:x:0:0:root:/root:/bin/sh\n\
        # a comment\n\
        \n\
        app:x:1000:1001::/home/app:/bin/sh\n\
        42:x:7:8::/odd:/bin/sh\n\
        broken:x:zero:0:::\n";
    const GROUP: &str =
        "root:x:0:\nstaff:x:50:app,other\napp:x:1001:\naudio:x:29:app\nbad:x:-1:app\n";

    fn image() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(temp.path().join("etc")).expect("etc");
        fs::write(temp.path().join("etc/passwd"), PASSWD).expect("passwd");
        fs::write(temp.path().join("etc/group"), GROUP).expect("group");
        let dir = Dir::open(temp.path()).expect("open");
        (temp, dir)
    }

    #[test]
    fn m19_every_form_of_the_specification() {
        let (_temp, root) = image();
        let of = |text: &str| {
            let who = look_up(&root, text).unwrap_or_else(|err| panic!("{text}: {err}"));
            (who.uid, who.gid, who.groups)
        };
        for (text, uid, gid, groups) in [
            ("", 0, 0, vec![0]),
            ("root", 0, 0, vec![0]),
            ("app", 1000, 1001, vec![1001, 29, 50]),
            ("1000", 1000, 1001, vec![1001, 29, 50]),
            ("app:staff", 1000, 50, vec![50]),
            ("app:77", 1000, 77, vec![77]),
            ("1000:50", 1000, 50, vec![50]),
            ("4000:staff", 4000, 50, vec![50]),
            ("4000", 4000, 0, vec![0]),
            ("00001", 1, 0, vec![0]),
            (":staff", 0, 50, vec![50]),
            ("app:", 1000, 1001, vec![1001, 29, 50]),
            // A name that looks like a number is a name first.
            ("42", 7, 8, vec![8]),
            ("4294967294", 4_294_967_294, 0, vec![0]),
        ] {
            assert_eq!(of(text), (uid, gid, groups), "{text:?}");
        }
        assert_eq!(
            look_up(&root, "app").expect("app").home.as_deref(),
            Some("/home/app")
        );
    }

    #[test]
    fn m19_what_would_become_somebody_else_is_refused() {
        let (_temp, root) = image();
        for text in [
            "4294967295",
            "4294967296",
            "-1",
            "+0",
            "18446744073709551616",
            "0:4294967296",
            "a:b:c",
            "nobody",
            "app:nogroup",
            "broken",
            "app\n0",
            &"x".repeat(1 << 20),
        ] {
            assert!(look_up(&root, text).is_err(), "{:.40}", text);
        }
    }

    #[test]
    fn the_host_is_not_asked() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let root = Dir::open(temp.path()).expect("open");
        assert_eq!(
            look_up(&root, "daemon"),
            Err(UserError::NoUser("daemon".to_owned()))
        );
        assert_eq!(look_up(&root, "5").expect("a number").uid, 5);
        fs::create_dir(temp.path().join("etc")).expect("etc");
        symlink("/etc/hostname/../passwd", temp.path().join("etc/group")).expect("link");
        symlink("/../../../../etc/shadow", temp.path().join("etc/passwd")).expect("link");
        assert!(look_up(&root, "root").is_err());
    }

    #[test]
    fn a_file_that_is_none_is_not_read() {
        let (temp, root) = image();
        let passwd = temp.path().join("etc/passwd");
        fs::remove_file(&passwd).expect("remove");
        nix_mkfifo(&passwd);
        assert!(matches!(
            look_up(&root, "app"),
            Err(UserError::Unreadable(..))
        ));
        fs::remove_file(&passwd).expect("remove");
        fs::write(&passwd, vec![b'a'; (1 << 20) + 1]).expect("long");
        assert!(matches!(
            look_up(&root, "app"),
            Err(UserError::Unreadable(..))
        ));
    }

    fn nix_mkfifo(path: &std::path::Path) {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)
            .expect("fifo");
    }
}
