//! Why a request or a body failed, told apart from the errors of libraries.

use std::{error::Error as StdError, io};

use cairn_types::failure::words;
use rustls::{AlertDescription, CertificateError, OtherError};

use crate::{answer::tame, error::Cause, reach::Refused, tls::UnknownAuthority};

/// Tells why a request or a body failed. The texts of `reqwest` have the address in them, query and all,
/// so only what lies below is looked at.
pub(crate) fn cause(err: &(dyn StdError + 'static)) -> Cause {
    let mut next = Some(err);
    let mut connecting = false;
    while let Some(err) = next {
        if let Some(err) = err.downcast_ref::<reqwest::Error>() {
            connecting |= err.is_connect();
        }
        if let Some(Refused(why)) = err.downcast_ref() {
            return Cause::Redirect(why.clone());
        }
        match find_tls(err) {
            // Who has an answer to a certificate of ours may have it after the handshake.
            Some(tls @ rustls::Error::AlertReceived(_)) => return tls_cause(tls),
            Some(tls) if connecting => return tls_cause(tls),
            // In the middle of a body a wrong record is a connection that broke.
            _ => {}
        }
        next = err.source();
    }
    let why = innermost(err);
    match why.strip_prefix("failed to lookup address information: ") {
        // EAI_AGAIN is a name server that does not answer; the others say that there is no such name.
        Some(lookup) if lookup.starts_with("Temporary failure") => {
            Cause::Connect("the name server does not answer".to_owned())
        }
        Some(_) => Cause::NoSuchHost,
        None if connecting => Cause::Connect(why),
        None => Cause::Broken { at: 0, why },
    }
}

/// An error of `io` hides what it was made of from `source`, which names what lies below that.
fn find_tls<'a>(err: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = err.downcast_ref() {
        return Some(tls);
    }
    let inner: &'a (dyn StdError + Send + Sync + 'static) =
        err.downcast_ref::<io::Error>()?.get_ref()?;
    find_tls(inner)
}

fn tls_cause(err: &rustls::Error) -> Cause {
    match err {
        // The beginning of `HTTP/1.1 400 Bad Request` is no record of TLS.
        rustls::Error::InvalidMessage(_) => Cause::PlainHttp,
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
            match inner.downcast_ref::<UnknownAuthority>() {
                Some(unknown) => Cause::UnknownAuthority {
                    issuer: unknown.issuer.clone(),
                },
                None => Cause::Certificate(tame(&inner.to_string())),
            }
        }
        rustls::Error::InvalidCertificate(err) => Cause::Certificate(tame(&err.to_string())),
        // Go's servers before 1.23 say "bad" where none was shown.
        rustls::Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA,
        ) => Cause::ClientCertificate,
        err => Cause::Tls(tame(&err.to_string())),
    }
}

/// What the lowest error says, for people.
pub(super) fn innermost(err: &(dyn StdError + 'static)) -> String {
    let mut lowest = err;
    while let Some(below) = lowest.source() {
        lowest = below;
    }
    match lowest.downcast_ref::<io::Error>() {
        Some(err) if err.raw_os_error().is_some() => words(err),
        _ => tame(&lowest.to_string()),
    }
}
