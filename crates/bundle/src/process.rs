//! What a container runs: arguments and environment, from the image and the request.

use std::path::Path;

use crate::{BundleRequest, cwd, users::Identity};

/// What docker sets when the image says nothing.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most bytes of arguments and environment together: what the kernel takes by default
/// (`execve(2)`: a quarter of the 8 MiB stack). More would fail at the start, with less said.
const BYTES_MAX: usize = 2 << 20;
/// Most bytes of one of them (`MAX_ARG_STRLEN`).
const STRING_BYTES_MAX: usize = (128 << 10) - 1;

/// The image's part of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ImageProcess<'a> {
    pub(crate) entrypoint: &'a [String],
    pub(crate) cmd: &'a [String],
    pub(crate) env: &'a [String],
}

/// Why there is nothing to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProcessError {
    /// Neither the image nor the request names a program.
    NothingToRun,
    /// Not acceptable to `execve`.
    Unfit(String),
}

/// Program and arguments: as `docker run` puts them together.
pub(crate) fn arguments(
    image: &ImageProcess<'_>,
    request: &BundleRequest,
) -> Result<Vec<String>, ProcessError> {
    let args: Vec<String> = match &request.entrypoint {
        // An entrypoint of one's own makes the image's defaults meaningless.
        Some(program) => std::iter::once(program)
            .chain(&request.args)
            .cloned()
            .collect(),
        None if request.args.is_empty() => {
            image.entrypoint.iter().chain(image.cmd).cloned().collect()
        }
        None => image
            .entrypoint
            .iter()
            .chain(&request.args)
            .cloned()
            .collect(),
    };
    if args.first().is_none_or(String::is_empty) {
        return Err(ProcessError::NothingToRun);
    }
    fit("its arguments", &args)?;
    Ok(args)
}

/// The environment: docker's defaults, then the image's, then the request's; a later one of the same
/// name replaces the value and keeps the place.
pub(crate) fn environment(
    image: &ImageProcess<'_>,
    request: &BundleRequest,
    hostname: &str,
    identity: &Identity,
) -> Result<Vec<String>, ProcessError> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if request.tty {
        env.push("TERM=xterm".to_owned());
    }
    let home = identity.home.as_deref().unwrap_or(match identity.uid {
        0 => "/root",
        _ => "/",
    });
    env.push(format!("HOME={home}"));
    for entry in image.env {
        set(&mut env, entry);
    }
    for entry in &request.env {
        match entry.split_once('=') {
            Some(("", _)) => {
                return Err(ProcessError::Unfit(format!(
                    "variable {entry:?} has no name"
                )));
            }
            Some(_) => set(&mut env, entry),
            // As docker's -e NAME: the caller's own, or nothing.
            None => {
                if let Ok(value) = std::env::var(entry) {
                    set(&mut env, &format!("{entry}={value}"));
                }
            }
        }
    }
    fit("its environment", &env)?;
    Ok(env)
}

/// What has no `=` or no name is not an assignment, and runtimes refuse to start with it.
fn set(env: &mut Vec<String>, entry: &str) {
    let Some((name, _)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return;
    };
    let same = |known: &String| {
        known
            .split_once('=')
            .is_some_and(|(known, _)| known == name)
    };
    match env.iter().position(same) {
        Some(at) => entry.clone_into(&mut env[at]),
        None => env.push(entry.to_owned()),
    }
}

fn fit(what: &str, strings: &[String]) -> Result<(), ProcessError> {
    let unfit = |why: &str| Err(ProcessError::Unfit(format!("{what} {why}")));
    if strings.iter().any(|s| s.contains('\0')) {
        return unfit("contain a NUL byte");
    }
    let pointer = size_of::<usize>();
    let total: usize = strings.iter().map(|s| s.len() + 1 + pointer).sum();
    if total > BYTES_MAX || strings.iter().any(|s| s.len() > STRING_BYTES_MAX) {
        return unfit("are longer than a program can be given");
    }
    Ok(())
}

/// Runc's grammar of container ids, which is crun's, too; and never a path.
pub(crate) fn is_id(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+-.".contains(&b);
    !text.is_empty()
        && text.len() <= 128
        && text != "."
        && text != ".."
        && text.bytes().all(allowed)
}

/// An id made of a directory's name, what is no part of an id replaced.
pub(crate) fn id_of(dir: &Path) -> String {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let fitting = |c: char| {
        if is_id(c.encode_utf8(&mut [0; 4])) || c == '.' {
            c
        } else {
            '-'
        }
    };
    let id: String = name.chars().map(fitting).take(128).collect();
    // With a hyphen in front it would be an option of the runtime's.
    match id.trim_start_matches('-') {
        id if is_id(id) => id.to_owned(),
        _ => "container".to_owned(),
    }
}

/// A host name (`hostname(7)`: letters, digits, hyphens and dots, 64 bytes on Linux) out of an id.
/// Never empty: that would leave the container with the host's.
pub(crate) fn hostname_of(id: &str) -> String {
    let fitting = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    let name: String = id.chars().map(fitting).take(63).collect();
    match name.trim_matches(['-', '.']) {
        "" => "container".to_owned(),
        name => name.to_owned(),
    }
}

/// Whether a name that was asked for can be a host's.
pub(crate) fn is_hostname(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// Where a path of the image's configuration may not be: covering these with a volume would undo what
/// the runtime mounts there.
pub(crate) fn is_kernels(path: &str) -> bool {
    let path = cwd::clean(path);
    path == "/"
        || ["/proc", "/sys", "/dev"].iter().any(|own| {
            path.strip_prefix(own)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> BundleRequest {
        BundleRequest::new(
            cairn_types::Namespace::parse("default").expect("namespace"),
            cairn_types::ImageName::parse("localhost/t:1").expect("name"),
            "/run/demo".into(),
        )
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn arguments_go_together_as_docker_puts_them() {
        let (entry, cmd) = (strings(&["/entry", "-x"]), strings(&["serve"]));
        let both = ImageProcess {
            entrypoint: &entry,
            cmd: &cmd,
            env: &[],
        };
        let only_cmd = ImageProcess {
            cmd: &cmd,
            ..ImageProcess::default()
        };
        let mut with = request();
        assert_eq!(
            arguments(&both, &with).expect("both"),
            strings(&["/entry", "-x", "serve"])
        );
        assert_eq!(arguments(&only_cmd, &with).expect("cmd"), cmd);
        let nothing = arguments(&ImageProcess::default(), &with);
        assert_eq!(nothing, Err(ProcessError::NothingToRun));
        with.args = strings(&["-c", "x"]);
        assert_eq!(
            arguments(&both, &with).expect("args"),
            strings(&["/entry", "-x", "-c", "x"])
        );
        assert_eq!(
            arguments(&only_cmd, &with).expect("args"),
            strings(&["-c", "x"])
        );
        with.entrypoint = Some("/own".to_owned());
        assert_eq!(
            arguments(&both, &with).expect("own"),
            strings(&["/own", "-c", "x"])
        );
        with.args = strings(&["a\0b"]);
        assert!(matches!(
            arguments(&both, &with),
            Err(ProcessError::Unfit(_))
        ));
        with.args = vec!["x".repeat(STRING_BYTES_MAX + 1)];
        assert!(matches!(
            arguments(&both, &with),
            Err(ProcessError::Unfit(_))
        ));
    }

    #[test]
    fn later_variables_replace_earlier_ones() {
        let env = strings(&["PATH=/bin", "A=1", "no assignment", "=x", "B=a=b"]);
        let image = ImageProcess {
            env: &env,
            ..ImageProcess::default()
        };
        let mut with = request();
        with.env = strings(&["A=2", "C=", "CAIRN_SURELY_UNSET"]);
        let identity = Identity {
            uid: 0,
            gid: 0,
            groups: vec![0],
            home: None,
        };
        let made = environment(&image, &with, "demo", &identity).expect("environment");
        let expected = [
            "PATH=/bin",
            "HOSTNAME=demo",
            "HOME=/root",
            "A=2",
            "B=a=b",
            "C=",
        ];
        assert_eq!(made, strings(&expected));
        with.env = strings(&["=x"]);
        assert!(environment(&image, &with, "demo", &identity).is_err());
    }

    #[test]
    fn b06_ids_are_never_paths() {
        for id in ["demo", "a.b_c+d-e", "0"] {
            assert!(is_id(id), "{id}");
        }
        for id in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a b",
            "ä",
            "a\n",
            &"x".repeat(129),
        ] {
            assert!(!is_id(id), "{id:?}");
        }
        assert_eq!(id_of(Path::new("/run/my bundle")), "my-bundle");
        assert_eq!(id_of(Path::new("/run/v1.2")), "v1.2");
        assert_eq!(id_of(Path::new("/")), "container");
        assert_eq!(id_of(Path::new("/run/-rf")), "rf");
        assert_eq!(id_of(Path::new("/run/\u{e9}")), "container");
        assert_eq!(hostname_of("_-."), "container");
        assert_eq!(hostname_of("a_b+c."), "a-b-c");
    }
}
