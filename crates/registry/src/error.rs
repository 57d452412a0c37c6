//! Why a registry did not do what it was asked, host by host.

use std::{fmt, time::Duration};

use cairn_types::{Classified, Digest, ErrorKind};

use crate::{answer::Answer, reference::Reference, retry::Tried};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// To have a client for the repository.
    Client,
    /// What a reference means.
    Resolve(Reference),
    /// A manifest or index.
    Manifest(Digest),
    /// A blob.
    Blob(Digest),
    /// All tags.
    Tags,
    /// Who refers to a manifest.
    Referrers(Digest),
    /// To store a blob.
    Upload(Digest),
    /// To store a manifest.
    Put(Reference),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Client => f.write_str("repository"),
            What::Resolve(Reference::Tag(tag)) | What::Put(Reference::Tag(tag)) => {
                write!(f, "tag {tag}")
            }
            What::Resolve(Reference::Digest(digest))
            | What::Put(Reference::Digest(digest))
            | What::Manifest(digest) => write!(f, "manifest {digest}"),
            What::Blob(digest) | What::Upload(digest) => write!(f, "blob {digest}"),
            What::Tags => f.write_str("list of tags"),
            What::Referrers(digest) => write!(f, "referrers of {digest}"),
        }
    }
}

/// With whose credentials a request was refused. The secret is not in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// `user alice`, `identity token`, `token`.
    pub who: String,
    /// Where the credential was found.
    pub source: String,
}

/// Why one host did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its name does not resolve.
    NoSuchHost,
    /// No connection came about.
    Connect(String),
    /// None came about in time.
    ConnectTimeout(Duration),
    /// It sent no headers in time.
    AnswerTimeout(Duration),
    /// The connection ended after so many bytes of the object.
    Broken {
        /// Offset in the object.
        at: u64,
        /// What the system says.
        why: String,
    },
    /// A body came, or went, too slowly.
    TooSlow {
        /// Bytes in the window.
        bytes: u64,
        /// The window.
        window: Duration,
    },
    /// It was asked by TLS and speaks plain HTTP.
    PlainHttp,
    /// Nobody who is trusted signed its certificate.
    UnknownAuthority {
        /// Who did, as the certificate says.
        issuer: Option<String>,
    },
    /// Its certificate is not valid for another reason.
    Certificate(String),
    /// It wants a certificate of its clients, and got none, or none that it trusts.
    ClientCertificate,
    /// TLS failed otherwise.
    Tls(String),
    /// It wants to know who asks, or did not like the answer.
    Unauthorized {
        /// What it was shown; `None` when nothing was.
        shown: Option<Shown>,
        /// Where credentials were looked for.
        looked_in: Vec<String>,
        /// Its words.
        answer: Answer,
    },
    /// It knows who asks and says no.
    Denied(Answer),
    /// It has no such thing.
    NotFound {
        /// The thing: `tag 2.1`.
        object: String,
        /// Of which repository.
        repository: String,
        /// It was asked by plain HTTP.
        by_http: bool,
        /// Its words.
        answer: Answer,
    },
    /// It answered with a status that does not help.
    Status {
        /// Of HTTP.
        status: u16,
        /// Something was to be stored, or it was looked for what has to be.
        storing: bool,
        /// How often, for how long.
        tried: Tried,
        /// How long it wants to be left alone (`Retry-After`).
        after: Option<Duration>,
        /// Its words.
        answer: Answer,
    },
    /// The server that gives tokens for it did not.
    Token {
        /// Host of that server.
        realm: String,
        /// Why not.
        why: String,
        /// It may do so later.
        passes: bool,
    },
    /// It wants credentials sent in the clear, by this host.
    InsecureRealm(String),
    /// It has an image of Docker's first schema.
    Schema1,
    /// Its bytes, or its header, have another digest.
    WrongDigest {
        /// What was asked for or sent.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// It has another number of bytes.
    WrongLength {
        /// What the descriptor says.
        expected: u64,
        /// What came or was announced.
        actual: u64,
    },
    /// It has more bytes than a document may have.
    TooLarge {
        /// Most bytes.
        limit: u64,
    },
    /// It sends a blob only from its first byte.
    NoRanges,
    /// Its answer does not follow the protocol.
    Malformed(String),
    /// It sent the request to where it may not go.
    Redirect(String),
    /// The bytes to be sent could not be read here.
    Source(String),
    /// Credentials could not be read, or a helper failed.
    Credentials(String),
    /// What the configuration says of this host cannot be used.
    Config(String),
}

impl Cause {
    /// Whether the same request may succeed a little later.
    pub fn passes(&self) -> bool {
        match self {
            Cause::Connect(_)
            | Cause::ConnectTimeout(_)
            | Cause::AnswerTimeout(_)
            | Cause::Broken { .. }
            | Cause::TooSlow { .. } => true,
            Cause::Status { status, .. } => {
                http::StatusCode::from_u16(*status).is_ok_and(crate::retry::passes)
            }
            Cause::Token { passes, .. } => *passes,
            _ => false,
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Cause::NoSuchHost
            | Cause::Connect(_)
            | Cause::ConnectTimeout(_)
            | Cause::AnswerTimeout(_)
            | Cause::Broken { .. }
            | Cause::TooSlow { .. } => ErrorKind::Unavailable,
            Cause::PlainHttp
            | Cause::UnknownAuthority { .. }
            | Cause::Certificate(_)
            | Cause::ClientCertificate
            | Cause::Tls(_)
            | Cause::InsecureRealm(_)
            | Cause::Redirect(_)
            | Cause::NoRanges
            | Cause::Credentials(_)
            | Cause::Config(_) => ErrorKind::FailedPrecondition,
            Cause::Unauthorized { .. } | Cause::Denied(_) => ErrorKind::PermissionDenied,
            Cause::NotFound { .. } => ErrorKind::NotFound,
            Cause::Status { status: 429, .. } => ErrorKind::ResourceExhausted,
            Cause::Schema1
            | Cause::Status {
                status: 405 | 501, ..
            } => ErrorKind::Unimplemented,
            Cause::Status { .. } | Cause::Token { .. } if self.passes() => ErrorKind::Unavailable,
            Cause::Status { .. } | Cause::Token { .. } | Cause::Malformed(_) => {
                ErrorKind::FailedPrecondition
            }
            Cause::WrongDigest { .. } | Cause::WrongLength { .. } => ErrorKind::DataLoss,
            Cause::TooLarge { .. } => ErrorKind::InvalidArgument,
            Cause::Source(_) => ErrorKind::Internal,
        }
    }

    /// How long the host wants to be left alone, where it says so.
    pub fn after(&self) -> Option<Duration> {
        match self {
            Cause::Status { after, .. } => *after,
            _ => None,
        }
    }

    /// The registry's own words, where it had any.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Cause::Unauthorized { answer, .. }
            | Cause::NotFound { answer, .. }
            | Cause::Status { answer, .. }
            | Cause::Denied(answer) => Some(answer).filter(|answer| !answer.0.is_empty()),
            _ => None,
        }
    }
}

/// A host, and why it did not do it. Printed, it is a sentence that begins with the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// As the user knows it: the registry's name, or a mirror's host and port.
    pub host: String,
    /// Its cause.
    pub cause: Cause,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        match &self.cause {
            Cause::NoSuchHost => write!(f, "{host}: no such host"),
            Cause::Connect(why) => write!(f, "{host}: {why}"),
            Cause::ConnectTimeout(after) => {
                write!(
                    f,
                    "{host}: connect timed out after {} s",
                    after.as_secs_f64()
                )
            }
            Cause::AnswerTimeout(after) => {
                write!(f, "{host}: no answer within {} s", after.as_secs_f64())
            }
            Cause::Broken { at, why } => {
                write!(f, "{host}: the connection broke after {at} bytes ({why})")
            }
            Cause::TooSlow { bytes, window } => {
                let window = window.as_secs_f64();
                write!(f, "{host}: only {bytes} bytes passed in {window} s")
            }
            Cause::PlainHttp => write!(f, "{host} speaks plain http, not https"),
            Cause::UnknownAuthority { .. } => {
                write!(f, "certificate of {host} is signed by an unknown authority")
            }
            Cause::Certificate(why) => write!(f, "certificate of {host} is not valid: {why}"),
            Cause::ClientCertificate => write!(
                f,
                "{host} wants a certificate of its clients, and was shown none that it trusts"
            ),
            Cause::Tls(why) => write!(f, "{host}: TLS failed: {why}"),
            Cause::NoRanges => write!(f, "{host} sends no part of a blob, only all of it"),
            Cause::Malformed(why) => write!(f, "{host} answered wrongly: {why}"),
            Cause::Redirect(why) => write!(f, "{host}: {why}"),
            Cause::Source(why) => write!(f, "cannot read what {host} is to be sent: {why}"),
            Cause::Credentials(why) => write!(f, "credentials for {host}: {why}"),
            Cause::Config(why) => write!(f, "{host}: {why}"),
            refusal => self.refused(refusal, f),
        }
    }
}

impl Failed {
    /// Why it failed, without the host's name and without what was done about it.
    pub fn brief(&self) -> String {
        if let Cause::Status { status, .. } = &self.cause {
            return named(*status);
        }
        let text = self.to_string();
        let rest = text.strip_prefix(&self.host);
        match rest.and_then(|rest| rest.strip_prefix(": ")) {
            Some(brief) => brief.to_owned(),
            None => text,
        }
    }

    /// What the host itself said, or showed to be wrong.
    fn refused(&self, cause: &Cause, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        match cause {
            Cause::Unauthorized { .. } => write!(f, "{host} refused (401 unauthorized)"),
            Cause::Denied(_) => write!(f, "{host} refused (403 forbidden)"),
            Cause::NotFound {
                repository, answer, ..
            } if answer.has("NAME_UNKNOWN") => write!(f, "{host} has no repository {repository}"),
            Cause::NotFound {
                object, repository, ..
            } => write!(f, "{host} has no {object} in {repository}"),
            Cause::Status {
                status: 429,
                storing,
                tried,
                ..
            } => {
                let what = if *storing { "pushes" } else { "pulls" };
                write!(
                    f,
                    "{host} allows no more {what} now (429), gave up after {tried}"
                )
            }
            Cause::Status { status, tried, .. } if cause.passes() => {
                write!(
                    f,
                    "{host} answered {}, gave up after {tried}",
                    named(*status)
                )
            }
            Cause::Status { status, .. } => write!(f, "{host} answered {}", named(*status)),
            Cause::Token { realm, why, .. } => {
                write!(
                    f,
                    "{realm}, which gives tokens for {host}, gave none: {why}"
                )
            }
            Cause::InsecureRealm(realm) => {
                write!(f, "{host} wants credentials sent to {realm} by plain http")
            }
            Cause::Schema1 => write!(
                f,
                "{host} has it as a Docker schema 1 image, a format that was given up in 2017"
            ),
            Cause::WrongDigest { expected, actual } => {
                write!(f, "{host} sent bytes of {actual}, not of {expected}")
            }
            Cause::WrongLength { expected, actual } => {
                write!(f, "{host} has {actual} bytes where {expected} are expected")
            }
            Cause::TooLarge { limit } => write!(f, "{host} sent more than {limit} bytes"),
            _ => write!(f, "{host} failed"),
        }
    }
}

pub(crate) fn named(status: u16) -> String {
    let reason = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason());
    match reason {
        Some(reason) => format!("{status} {}", reason.to_lowercase()),
        None => status.to_string(),
    }
}

/// A request that no host fulfilled. Its text names what was asked and every host with its cause; no
/// secret and no query of an address is in it.
#[derive(Clone, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct Error(Box<Details>);

/// What an [`Error`] says, in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// Host and path, as the user knows the repository.
    pub repository: String,
    /// What was asked for.
    pub what: What,
    /// Who was asked, in that order.
    pub failed: Vec<Failed>,
}

impl Error {
    pub(crate) fn new(repository: String, what: What, failed: Vec<Failed>) -> Error {
        Error(Box::new(Details {
            repository,
            what,
            failed,
        }))
    }

    /// The parts.
    pub fn details(&self) -> &Details {
        &self.0
    }

    /// The host that decided: the last one, before which all others had failed.
    pub fn last(&self) -> Option<&Failed> {
        self.0.failed.last()
    }

    /// Whether trying again later may help.
    pub fn passes(&self) -> bool {
        self.last().is_some_and(|failed| failed.cause.passes())
    }

    /// The first line: the host's sentence, or that there are several, whose sentences are the causes.
    pub fn reason(&self) -> String {
        match self.0.failed.as_slice() {
            [] if self.0.what == What::Client => {
                format!("{} cannot be a repository", self.0.repository)
            }
            [] => format!("no host may be asked for the {}", self.0.what),
            [one] => one.to_string(),
            several => format!("all {} hosts failed", several.len()),
        }
    }

    fn sentence(&self) -> String {
        let mut text = self.reason();
        if let several @ [_, _, ..] = self.0.failed.as_slice() {
            for (i, failed) in several.iter().enumerate() {
                text += if i == 0 { ": " } else { "; " };
                text += &failed.to_string();
            }
        }
        text
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self.last() {
            Some(failed) => failed.cause.kind(),
            None if self.0.what == What::Client => ErrorKind::InvalidArgument,
            None => ErrorKind::FailedPrecondition,
        }
    }
}
