//! Who asks: from flags, Docker's and Podman's files, and the helpers that those name.
//!
//! [`Sources`] is what a pull or push uses, [`Anonymous`] what asks for nothing of anybody. The crate
//! `docker_credential` reads such files as well. It takes Docker Desktop's own tokens for the registry's,
//! knows neither parts of a registry nor `registrytoken`, waits for a helper without end, calls it an
//! error when one has nothing, and shows secrets in `Debug`; what would be left of it is the shape of
//! five fields.

mod file;
mod helper;
mod sources;
#[cfg(test)]
mod tests;

use std::fmt;

pub use sources::Sources;

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

    /// Where [`find`](Credentials::find) looks for them, as people are told: `no credentials sent; looked
    /// in A, B`. Empty if nowhere.
    fn looked_in(&self, _host: &str) -> Vec<String> {
        Vec::new()
    }
}

/// A user of `-u USER[:PASS]`, and the password if it is there.
pub fn user(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (text, None),
    }
}

/// Nobody in particular.
pub struct Anonymous;

impl Credentials for Anonymous {
    fn find(&self, _: &str) -> Result<Option<Found>, String> {
        Ok(None)
    }
}
