//! Who asks: from flags, Docker's and Podman's files, and the helpers that those name.

use std::fmt;

/// What a registry, or its token server, is shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and its secret.
    Basic {
        /// The name.
        user: String,
        /// Its password or token.
        secret: String,
    },
    /// A refresh token, for which a token server gives others.
    Identity(String),
    /// A token that registries take as it is.
    Bearer(String),
}

/// A secret is never told.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::Basic { user, .. } => write!(f, "user {user}"),
            Credential::Identity(_) => f.write_str("identity token"),
            Credential::Bearer(_) => f.write_str("token"),
        }
    }
}

/// A credential, and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The credential.
    pub credential: Credential,
    /// As people are told: `-u`, a file's path, a helper's name and the file that names it.
    pub source: String,
}

/// Finds who asks a host. It may run a program, and is called once for each host of a pull.
pub trait Credentials: Send + Sync {
    /// The credential for a host (with its port where one is written), if there is one.
    ///
    /// # Errors
    /// What is wrong with a file or a helper, in a sentence.
    fn find(&self, host: &str) -> Result<Option<Found>, String>;
}

/// Nobody in particular.
pub struct Anonymous;

impl Credentials for Anonymous {
    fn find(&self, _: &str) -> Result<Option<Found>, String> {
        Ok(None)
    }
}
