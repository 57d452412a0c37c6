//! Where credentials are looked for, in which order.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Credential, Credentials, Found,
    file::{self, Step, canonical},
    helper,
};
use crate::env::Env;

/// How long a helper may take. Some ask a cloud; none should ask a person.
const HELPER_LIMIT: Duration = Duration::from_secs(30);

/// Whom to ask for the credentials of one pull or push: flags, then files in the order of
/// containers-auth.json(5), with the helpers that they name.
///
/// It knows the repository, since Podman's files may speak of a part of a registry.
pub struct Sources {
    registry: String,
    repository: String,
    given: Option<Given>,
    files: Vec<AuthFile>,
    home: Option<PathBuf>,
    path: Option<String>,
    pub(super) helper_limit: Duration,
}

/// A credential of a flag.
struct Given {
    credential: Credential,
    flag: &'static str,
    /// The endpoint that stands for the registry.
    stands_in: Option<String>,
}

struct AuthFile {
    path: PathBuf,
    /// Somebody said that it is there.
    must_exist: bool,
}

impl Sources {
    /// What is found without flags, for a repository (`library/alpine`) of a registry (`docker.io`).
    /// `uid` is the asking user's number, which has a directory in `/run/containers`.
    pub fn new(registry: &str, repository: &str, env: &Env, uid: u32) -> Sources {
        let files = match env.get("REGISTRY_AUTH_FILE") {
            Some(file) => vec![AuthFile {
                path: PathBuf::from(file),
                must_exist: true,
            }],
            None => usual_files(env, uid),
        };
        Sources {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            given: None,
            files,
            home: env.get("HOME").map(PathBuf::from),
            path: env.get("PATH").map(str::to_owned),
            helper_limit: HELPER_LIMIT,
        }
    }

    /// `--authfile`: looks in this file, which must be there, and in no other.
    #[must_use]
    pub fn authfile(mut self, file: &Path) -> Sources {
        self.files = vec![AuthFile {
            path: file.to_owned(),
            must_exist: true,
        }];
        self
    }

    /// A credential that was given by a flag, such as `-u`. It is for the registry that was named and for
    /// the endpoint that stands for it, the authority of the last of
    /// [`endpoints`](crate::hosts::endpoints). Mirrors do not see it: they are often somebody else's.
    /// containerd's client shows it to all.
    #[must_use]
    pub fn given(
        mut self,
        credential: Credential,
        flag: &'static str,
        stands_in: Option<&str>,
    ) -> Sources {
        self.given = Some(Given {
            credential,
            flag,
            stands_in: stands_in.map(str::to_owned),
        });
        self
    }

    /// Says where the credential for a host would come from, as the column AUTH of `cairn explain-host`
    /// has it. Files are read, helpers are named and not run.
    ///
    /// # Errors
    /// What is wrong with a file, in a sentence.
    pub fn explain(&self, host: &str) -> Result<String, String> {
        if let Some(given) = self.given_for(host) {
            return Ok(format!("{:?} ({})", given.credential, given.flag));
        }
        let mut asked = Vec::new();
        for file in &self.files {
            for step in self.steps(file, host)? {
                match step {
                    Step::Have(credential, line) => {
                        asked.push(format!("{credential:?} ({})", self.shown(file, line)));
                        return Ok(asked.join(", else "));
                    }
                    Step::Ask { helper, line, .. } => {
                        let place = self.shown(file, line);
                        asked.push(format!("{}{helper} ({place})", helper::PREFIX));
                    }
                }
            }
        }
        match asked.is_empty() {
            true => Ok("none".to_owned()),
            false => Ok(asked.join(", else ")),
        }
    }

    fn given_for(&self, host: &str) -> Option<&Given> {
        self.given.as_ref().filter(|given| {
            canonical(host) == canonical(&self.registry) || given.stands_in.as_deref() == Some(host)
        })
    }

    /// What a file has for a host. One that is not there has nothing.
    fn steps(&self, file: &AuthFile, host: &str) -> Result<Vec<Step>, String> {
        let wrong = |reason: &str| format!("cannot read {}: {reason}", self.shown(file, None));
        let text = match fs::read_to_string(&file.path) {
            Ok(text) => text,
            Err(err) if is_absent(&err) && !file.must_exist => return Ok(Vec::new()),
            Err(err) if err.kind() == io::ErrorKind::InvalidData => {
                return Err(wrong("it is not JSON"));
            }
            Err(err) => return Err(wrong(&err.to_string())),
        };
        file::steps(&text, host, &self.repository).map_err(|reason| wrong(&reason))
    }

    /// A file's name as its user writes it, and a line.
    fn shown(&self, file: &AuthFile, line: Option<usize>) -> String {
        let below_home = self
            .home
            .as_deref()
            .and_then(|home| file.path.strip_prefix(home).ok());
        let name = match below_home {
            Some(rest) => format!("~/{}", rest.display()),
            None => file.path.display().to_string(),
        };
        match line {
            Some(line) => format!("{name}:{line}"),
            None => name,
        }
    }
}

impl Credentials for Sources {
    fn find(&self, host: &str) -> Result<Option<Found>, String> {
        if let Some(given) = self.given_for(host) {
            return Ok(Some(Found {
                credential: given.credential.clone(),
                source: given.flag.to_owned(),
            }));
        }
        // A file that comes later is not read before it is needed: a mistake in it is no matter then.
        for file in &self.files {
            let place = self.shown(file, None);
            for step in self.steps(file, host)? {
                let (credential, source) = match step {
                    Step::Have(credential, _) => (Some(credential), place.clone()),
                    Step::Ask { helper, server, .. } => {
                        let name = format!("{}{helper}", helper::PREFIX);
                        let path = self.path.as_deref();
                        let found = helper::get(&helper, &server, path, self.helper_limit)
                            .map_err(|reason| format!("{name}, which {place} names, {reason}"))?;
                        (found, format!("{name} ({place})"))
                    }
                };
                if let Some(credential) = credential {
                    return Ok(Some(Found { credential, source }));
                }
            }
        }
        Ok(None)
    }

    fn looked_in(&self, host: &str) -> Vec<String> {
        let one = |file: &AuthFile| {
            let place = self.shown(file, None);
            let steps = self.steps(file, host).unwrap_or_default();
            let asked = steps.into_iter().find_map(|step| match step {
                Step::Ask { helper, .. } => Some(helper),
                Step::Have(..) => None,
            });
            match asked {
                Some(helper) => format!("{place} ({}{helper})", helper::PREFIX),
                None => place,
            }
        };
        self.files.iter().map(one).collect()
    }
}

/// The files that Podman reads, and among them Docker's. Without `$HOME`, as in a service, only the first.
fn usual_files(env: &Env, uid: u32) -> Vec<AuthFile> {
    let home = env.get("HOME").map(Path::new);
    let own = match env.get("XDG_RUNTIME_DIR") {
        Some(dir) => Path::new(dir).join("containers/auth.json"),
        None => PathBuf::from(format!("/run/containers/{uid}/auth.json")),
    };
    let config = match env.get("XDG_CONFIG_HOME") {
        Some(dir) => Some(PathBuf::from(dir)),
        None => home.map(|home| home.join(".config")),
    };
    let docker = match env.get("DOCKER_CONFIG") {
        Some(dir) => Some(PathBuf::from(dir)),
        None => home.map(|home| home.join(".docker")),
    };
    let files = [
        Some(own),
        config.map(|dir| dir.join("containers/auth.json")),
        docker.map(|dir| dir.join("config.json")),
    ];
    let present = files.into_iter().flatten().map(|path| AuthFile {
        path,
        must_exist: false,
    });
    present.collect()
}

fn is_absent(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
