//! A repository, and the hosts that may be asked for it, one after the other.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;
use cairn_types::Digest;

use crate::{
    credentials::Credentials,
    error::{Cause, Error, Failed, What},
    host::{Host, Patience},
    hosts::{Capabilities, Endpoint},
    net::Foreign,
    options::Options,
    reference::is_repository,
    token::Scopes,
    turns::Wrong,
};

/// What a host has to be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Pull,
    Resolve,
    Push,
    Referrers,
}

impl Need {
    fn met(self, by: Capabilities) -> bool {
        match self {
            Need::Pull => by.pull,
            // A tag's meaning is asked of those only that are trusted with it; its bytes come from there, too.
            Need::Resolve => by.pull && by.resolve,
            Need::Push => by.push,
            Need::Referrers => by.referrers,
        }
    }
}

/// Asks for the content of one repository.
///
/// Reading goes to the first endpoint that may be asked, and on to the next when it fails in whatever
/// way; only the last is waited for, and bytes that are wrong are asked for once more. Storing goes to the first that may be, and nowhere else, since an
/// image is of no use in parts. Clones share connections, tokens and what was learned of each host. A
/// future that is dropped ends its request at once.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) registry: String,
    pub(crate) repository: String,
    pub(crate) hosts: Vec<Arc<Host>>,
    pub(crate) options: Options,
    /// The document of the last resolution that needed its bytes, so that they are not fetched again.
    memo: Mutex<Option<(Digest, Bytes)>>,
    /// What addresses in images are asked by, from when it is first needed.
    foreign: OnceLock<Result<Foreign, Cause>>,
    /// Who is not believed any more of which blob.
    pub(crate) wrong: Wrong,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client of {}", self.name())
    }
}

impl Client {
    /// A client for a repository as it is named to users (`docker.io`, `library/alpine`). Reads the
    /// certificates that the endpoints name, and opens no connection.
    ///
    /// # Errors
    /// A name that no repository can have; a certificate, key or proxy that cannot be used.
    pub fn new(
        registry: &str,
        repository: &str,
        endpoints: &[Endpoint],
        credentials: &Arc<dyn Credentials>,
        options: Options,
    ) -> Result<Client, Error> {
        let failed = |failed| {
            let name = format!("{registry}/{repository}");
            Error::new(name, What::Client, failed)
        };
        if !is_repository(repository) {
            return Err(failed(Vec::new()));
        }
        let hosts = endpoints
            .iter()
            .map(|endpoint| {
                let host = Host::new(registry, repository, endpoint, credentials, &options);
                host.map(Arc::new)
            })
            .collect::<Result<Vec<_>, Failed>>()
            .map_err(|one| failed(vec![one]))?;
        Ok(Client(Arc::new(Shared {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            hosts,
            options,
            memo: Mutex::new(None),
            foreign: OnceLock::new(),
            wrong: Wrong::default(),
        })))
    }

    /// Registry and repository, as users name them.
    pub fn name(&self) -> String {
        format!("{}/{}", self.0.registry, self.0.repository)
    }

    pub(crate) fn repository(&self) -> &str {
        &self.0.repository
    }

    /// Who may be asked, and how patiently.
    pub(crate) fn hosts(&self, need: Need) -> Vec<(&Host, Patience)> {
        let able = self.0.hosts.iter().map(|host| &**host);
        let able: Vec<&Host> = able.filter(|host| need.met(host.capabilities)).collect();
        let last = able.len().saturating_sub(1);
        let patience = |i| {
            if i == last {
                Patience::Waits
            } else {
                Patience::Once
            }
        };
        let able = able.into_iter().enumerate();
        able.map(|(i, host)| (host, patience(i))).collect()
    }

    /// The one host to store at.
    pub(crate) fn push_host(&self, what: &What) -> Result<&Host, Error> {
        let able = self.hosts(Need::Push);
        let first = able.first().map(|(host, _)| *host);
        first.ok_or_else(|| self.error(what.clone(), Vec::new()))
    }

    pub(crate) fn foreign(&self) -> Result<&Foreign, &Cause> {
        let new = || {
            let homes = self.0.hosts.iter().map(|host| host.net.home());
            Foreign::new(homes, &self.0.options)
        };
        self.0.foreign.get_or_init(new).as_ref()
    }

    pub(crate) fn error(&self, what: What, failed: Vec<Failed>) -> Error {
        Error::new(self.name(), what, failed)
    }

    pub(crate) fn pull_scopes(&self) -> Scopes {
        Scopes::pull(self.repository())
    }

    pub(crate) fn push_scopes(&self) -> Scopes {
        Scopes::push(self.repository())
    }

    pub(crate) fn remember(&self, digest: &Digest, bytes: &Bytes) {
        let mut memo = self.0.memo.lock().unwrap_or_else(PoisonError::into_inner);
        *memo = Some((digest.clone(), bytes.clone()));
    }

    pub(crate) fn remembered(&self, digest: &Digest) -> Option<Bytes> {
        let memo = self.0.memo.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, bytes) = memo.as_ref()?;
        (known == digest).then(|| bytes.clone())
    }
}
