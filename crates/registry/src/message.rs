//! An error of a registry as a person reads it: reason, causes, and what to do next.

use cairn_types::{Classified, Failure};

use crate::error::{Cause, Error, Failed, What};

impl Error {
    /// What the user sees: cannot `attempted` `image`: … (rows 9 to 14 of the table of messages).
    /// `pull` is the command that would be typed again, up to its flags: `cairn images pull`.
    pub fn failure(&self, attempted: &str, image: &str, pull: &str) -> Failure {
        let mut failure =
            Failure::new(self.kind(), attempted, self.reason()).object("image", image);
        let failed = &self.details().failed;
        let several = failed.len() > 1;
        for one in failed.iter().filter(|_| several) {
            failure = failure.cause(one.to_string());
        }
        for cause in self.last().map(causes).into_iter().flatten() {
            failure = failure.cause(cause);
        }
        let mut steps = self.steps(image, pull);
        let explain = format!("cairn explain-host {image}");
        if several && !steps.contains(&explain) {
            steps.push(explain);
        }
        for step in steps {
            failure = failure.next(step);
        }
        failure
    }

    fn steps(&self, image: &str, pull: &str) -> Vec<String> {
        let Some(Failed { host, cause }) = self.last() else {
            return vec![format!("cairn explain-host {image}")];
        };
        let hosts = format!("/etc/cairn/certs.d/{host}");
        match cause {
            Cause::Unauthorized { .. } | Cause::Denied(_) => vec![
                format!("docker login {host}"),
                format!("{pull} -u USER {image}"),
            ],
            Cause::NotFound {
                repository,
                by_http,
                answer,
                ..
            } if matches!(self.details().what, What::Resolve(_)) && !answer.has("NAME_UNKNOWN") => {
                let scheme = if *by_http { "http" } else { "https" };
                vec![format!(
                    "curl -s {scheme}://{host}/v2/{repository}/tags/list"
                )]
            }
            Cause::PlainHttp => vec![
                format!("{pull} --plain-http {image}"),
                format!("server = \"http://{host}\" in {hosts}/hosts.toml"),
            ],
            Cause::UnknownAuthority { .. } => vec![
                format!("put its certificate at {hosts}/ca.crt"),
                format!("{pull} --tlscacert FILE {image}"),
            ],
            Cause::ClientCertificate => vec![
                format!("{pull} --tlscert FILE --tlskey FILE {image}"),
                format!("client = [[\"FILE\", \"KEY\"]] in {hosts}/hosts.toml"),
            ],
            Cause::Status {
                status: 429,
                storing,
                ..
            } => {
                let mut steps = vec![format!("docker login {host}")];
                // Nothing is stored by way of a mirror.
                if !storing {
                    steps.push("a mirror: man cairn-hosts.toml".to_owned());
                }
                steps
            }
            Cause::Schema1 => vec!["have it built or pushed again by a newer tool".to_owned()],
            Cause::NoSuchHost | Cause::Connect(_) | Cause::ConnectTimeout(_) => {
                vec![format!("cairn explain-host {image}")]
            }
            _ => Vec::new(),
        }
    }
}

/// What is to be said besides the sentence of the host that decided.
fn causes(failed: &Failed) -> Vec<String> {
    let mut causes = Vec::new();
    match &failed.cause {
        Cause::Unauthorized {
            shown: None,
            looked_in,
            ..
        } => causes.push(match looked_in.as_slice() {
            [] => "no credentials sent".to_owned(),
            places => format!("no credentials sent; looked in {}", places.join(", ")),
        }),
        Cause::Unauthorized {
            shown: Some(shown), ..
        } => causes.push(format!("{} (from {}) was refused", shown.who, shown.source)),
        Cause::UnknownAuthority {
            issuer: Some(issuer),
        } => causes.push(format!("issuer {issuer}")),
        _ => {}
    }
    causes.extend(failed.cause.answer().map(ToString::to_string));
    causes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        answer::{Answer, Complaint},
        error::Shown,
        reference::{Reference, Tag},
        retry::Tried,
    };

    const W: &str = "registry.example.com/shop/web:2.1";

    fn error(failed: &[(&str, Cause)]) -> Error {
        let tag = Tag::parse("2.1").expect("tag");
        let failed = failed.iter().map(|(host, cause)| Failed {
            host: (*host).to_owned(),
            cause: cause.clone(),
        });
        let what = What::Resolve(Reference::Tag(tag));
        Error::new(
            "registry.example.com/shop/web".to_owned(),
            what,
            failed.collect(),
        )
    }

    #[track_caller]
    fn check(failed: &[(&str, Cause)], first: &str, causes: &[&str], next: &[&str]) {
        let failure = error(failed).failure("pull image", W, "cairn images pull");
        assert_eq!(
            failure.to_string(),
            format!("cannot pull image {W}: {first}")
        );
        assert_eq!(failure.causes, causes);
        assert_eq!(failure.next, next);
    }

    fn said(code: &str, message: &str) -> Answer {
        Answer(vec![Complaint {
            code: code.to_owned(),
            message: message.to_owned(),
        }])
    }

    const HOST: &str = "registry.example.com";

    /// Row 9 of the table of messages.
    #[test]
    fn who_is_not_let_in_is_told_who_asked() {
        let logins = [
            "docker login registry.example.com",
            "cairn images pull -u USER registry.example.com/shop/web:2.1",
        ];
        let unauthorized = |shown| Cause::Unauthorized {
            shown,
            looked_in: Vec::new(),
            answer: Answer::default(),
        };
        check(
            &[(HOST, unauthorized(None))],
            "registry.example.com refused (401 unauthorized)",
            &["no credentials sent"],
            &logins,
        );
        let alice = Shown {
            who: "user alice".to_owned(),
            source: "~/.docker/config.json".to_owned(),
        };
        check(
            &[(HOST, unauthorized(Some(alice)))],
            "registry.example.com refused (401 unauthorized)",
            &["user alice (from ~/.docker/config.json) was refused"],
            &logins,
        );
    }

    /// Row 10, as far as the registry says which it is.
    #[test]
    fn what_is_missing_is_told_apart() {
        let missing = |answer| Cause::NotFound {
            object: "tag 2.1".to_owned(),
            repository: "shop/web".to_owned(),
            by_http: false,
            answer,
        };
        let by_http = Cause::NotFound {
            object: "tag 2.1".to_owned(),
            repository: "shop/web".to_owned(),
            by_http: true,
            answer: Answer::default(),
        };
        check(
            &[(HOST, by_http)],
            "registry.example.com has no tag 2.1 in shop/web",
            &[],
            &["curl -s http://registry.example.com/v2/shop/web/tags/list"],
        );
        check(
            &[(HOST, missing(said("MANIFEST_UNKNOWN", "manifest unknown")))],
            "registry.example.com has no tag 2.1 in shop/web",
            &["MANIFEST_UNKNOWN: manifest unknown"],
            &["curl -s https://registry.example.com/v2/shop/web/tags/list"],
        );
        check(
            &[(HOST, missing(said("NAME_UNKNOWN", "")))],
            "registry.example.com has no repository shop/web",
            &["NAME_UNKNOWN"],
            &[],
        );
        // With a mirror before it, the registry still says what helps.
        check(
            &[
                ("mirror.example.com", Cause::NoSuchHost),
                (HOST, missing(said("MANIFEST_UNKNOWN", ""))),
            ],
            "all 2 hosts failed",
            &[
                "mirror.example.com: no such host",
                "registry.example.com has no tag 2.1 in shop/web",
                "MANIFEST_UNKNOWN",
            ],
            &[
                "curl -s https://registry.example.com/v2/shop/web/tags/list",
                "cairn explain-host registry.example.com/shop/web:2.1",
            ],
        );
    }

    /// Rows 11, 12 and 14.
    #[test]
    fn one_host_speaks_for_itself() {
        check(
            &[(HOST, Cause::PlainHttp)],
            "registry.example.com speaks plain http, not https",
            &[],
            &[
                "cairn images pull --plain-http registry.example.com/shop/web:2.1",
                "server = \"http://registry.example.com\" in /etc/cairn/certs.d/registry.example.com/hosts.toml",
            ],
        );
        check(
            &[(
                HOST,
                Cause::UnknownAuthority {
                    issuer: Some("CN=Example Internal CA".to_owned()),
                },
            )],
            "certificate of registry.example.com is signed by an unknown authority",
            &["issuer CN=Example Internal CA"],
            &[
                "put its certificate at /etc/cairn/certs.d/registry.example.com/ca.crt",
                "cairn images pull --tlscacert FILE registry.example.com/shop/web:2.1",
            ],
        );
        check(
            &[(HOST, Cause::ClientCertificate)],
            "registry.example.com wants a certificate of its clients, and was shown none that it trusts",
            &[],
            &[
                "cairn images pull --tlscert FILE --tlskey FILE registry.example.com/shop/web:2.1",
                "client = [[\"FILE\", \"KEY\"]] in /etc/cairn/certs.d/registry.example.com/hosts.toml",
            ],
        );
        let tried = Tried {
            times: 5,
            during: Duration::from_millis(61_200),
        };
        let enough = |storing| Cause::Status {
            status: 429,
            storing,
            tried,
            after: None,
            answer: Answer::default(),
        };
        check(
            &[("docker.io", enough(false))],
            "docker.io allows no more pulls now (429), gave up after 5 tries in 61 s",
            &[],
            &["docker login docker.io", "a mirror: man cairn-hosts.toml"],
        );
        check(
            &[("docker.io", enough(true))],
            "docker.io allows no more pushes now (429), gave up after 5 tries in 61 s",
            &[],
            &["docker login docker.io"],
        );
    }

    /// Row 13.
    #[test]
    fn each_host_is_named_with_its_cause() {
        let failed = [
            (
                "mirror.example.com",
                Cause::ConnectTimeout(Duration::from_secs(5)),
            ),
            ("registry.example.com", Cause::NoSuchHost),
        ];
        check(
            &failed,
            "all 2 hosts failed",
            &[
                "mirror.example.com: connect timed out after 5 s",
                "registry.example.com: no such host",
            ],
            &["cairn explain-host registry.example.com/shop/web:2.1"],
        );
        assert_eq!(
            error(&failed).to_string(),
            "all 2 hosts failed: mirror.example.com: connect timed out after 5 s; registry.example.com: no such host"
        );
    }
}
