//! Credentials that a client is asked for, on a stream of its own (containerd
//! `core/transfer/registry`).

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use cairn_proto::containerd::types::transfer::{AuthRequest, AuthResponse, AuthType};
use cairn_registry::credentials::{Credential, Credentials, Found};
use tokio::{runtime::Handle, time::timeout};

use crate::streams::{Awaited, Pipe, pack, unpack};

/// How long a client may take to answer: time for a person to look up a password. containerd's own
/// does not answer at all when it fails to find any.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where they come from, as people are told.
const SOURCE: &str = "the client";

/// Asks the client of a call.
pub(super) struct Asked {
    reference: String,
    runtime: Handle,
    patience: Duration,
    /// Taken away when an answer did not come: it would pass for that to the next question.
    client: Mutex<Option<Client>>,
}

struct Client {
    pipe: Pipe,
    call: Awaited,
}

impl Asked {
    /// For an image by this reference.
    pub(super) fn new(pipe: Pipe, reference: &str, call: Awaited) -> Asked {
        Asked {
            reference: reference.to_owned(),
            runtime: Handle::current(),
            patience: PATIENCE,
            client: Mutex::new(Some(Client { pipe, call })),
        }
    }
}

impl Credentials for Asked {
    /// Waits for the client; one question at a time.
    fn find(&self, host: &str) -> Result<Option<Found>, String> {
        let question = AuthRequest {
            host: host.to_owned(),
            reference: self.reference.clone(),
            wwwauthenticate: Vec::new(),
        };
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Client { pipe, call }) = &mut *client else {
            return Err("the client did not answer before".to_owned());
        };
        let asking = async {
            if pipe.outgoing.send(pack(&question)).await.is_err() {
                return Err("the client is gone".to_owned());
            }
            tokio::select! {
                answer = pipe.incoming.message() => answer.map_err(|err| err.message().to_owned()),
                () = call.given_up() => Err("the call was given up".to_owned()),
            }
        };
        // The timer is the runtime's.
        let asking = async { timeout(self.patience, asking).await };
        let answer = match self.runtime.block_on(asking) {
            Ok(answer) => answer?,
            Err(_) => {
                *client = None;
                return Err(format!("the client gave no answer in {:?}", self.patience));
            }
        };
        let answer = answer.ok_or("the client wants to be asked no more")?;
        let answer = unpack::<AuthResponse>(&answer)
            .ok_or_else(|| format!("the client answered with {}", answer.type_url))?;
        let answer = answer.map_err(|status| status.message().to_owned())?;
        let credential = credential(&answer)?;
        let source = SOURCE.to_owned();
        Ok(credential.map(|credential| Found { credential, source }))
    }

    fn looked_in(&self, _host: &str) -> Vec<String> {
        vec![SOURCE.to_owned()]
    }
}

/// What an answer says; a client that has nothing sends an empty token.
fn credential(answer: &AuthResponse) -> Result<Option<Credential>, String> {
    let secret = answer.secret.clone();
    match answer.auth_type() {
        AuthType::Credentials if answer.username.is_empty() => Ok(None),
        AuthType::Credentials => Ok(Some(Credential::Basic {
            user: answer.username.clone(),
            secret,
        })),
        AuthType::Refresh => Ok((!secret.is_empty()).then_some(Credential::Identity(secret))),
        AuthType::Header => match secret.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Ok(Some(Credential::Bearer(token.trim().to_owned())))
            }
            _ => Err("the client answered with a header that is no bearer token".to_owned()),
        },
        AuthType::None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: AuthType, user: &str, secret: &str, expected: Result<Option<Credential>, ()>) {
        let answer = AuthResponse {
            auth_type: kind.into(),
            secret: secret.to_owned(),
            username: user.to_owned(),
            expire_at: None,
        };
        assert_eq!(credential(&answer).map_err(|_| ()), expected, "{kind:?}");
    }

    #[test]
    fn answers_are_credentials_or_none() {
        let basic = Credential::Basic {
            user: "u".to_owned(),
            secret: "s".to_owned(),
        };
        check(AuthType::Credentials, "u", "s", Ok(Some(basic)));
        check(AuthType::Credentials, "", "s", Ok(None));
        let token = Credential::Identity("s".to_owned());
        check(AuthType::Refresh, "", "s", Ok(Some(token)));
        check(AuthType::Refresh, "", "", Ok(None));
        check(AuthType::None, "u", "s", Ok(None));
        let bearer = Credential::Bearer("t".to_owned());
        check(AuthType::Header, "", "Bearer t", Ok(Some(bearer)));
        check(AuthType::Header, "", "Basic dTpz", Err(()));
    }
}
