//! Messages with secrets in them, as they may be logged.

use std::fmt;

use crate::cairn::v1::{BasicCredential, CredentialAnswer, credential_answer::Credential};

impl fmt::Debug for BasicCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.user)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::Basic(basic) => basic.fmt(f),
            Credential::Identity(_) => f.write_str("identity token"),
            Credential::Bearer(_) => f.write_str("token"),
        }
    }
}

impl fmt::Debug for CredentialAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialAnswer")
            .field("host", &self.host)
            .field("credential", &self.credential)
            .field("source", &self.source)
            .field("looked_in", &self.looked_in)
            .field("wrong", &self.wrong)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_told() {
        let basic = BasicCredential {
            user: "alice".to_owned(),
            secret: "hidden".to_owned(),
        };
        for (credential, shown) in [
            (Credential::Basic(basic), "user alice"),
            (Credential::Identity("hidden".to_owned()), "identity token"),
            (Credential::Bearer("hidden".to_owned()), "token"),
        ] {
            let answer = CredentialAnswer {
                credential: Some(credential),
                ..CredentialAnswer::default()
            };
            let text = format!("{answer:?}");
            assert!(text.contains(shown) && !text.contains("hidden"), "{text}");
        }
    }
}
