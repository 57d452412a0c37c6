//! Whose certificates an endpoint is believed, and which are shown to it.
//!
//! The authorities of the system come from its files by `rustls-native-certs`; `rustls-platform-verifier`
//! does the same on Linux, but does not say who signed what it refuses, nor does it take a server's own
//! certificate as a file of authorities names it.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError,
    RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};

use crate::hosts::Tls;

/// Nobody who is trusted signed a certificate. It comes out of a handshake inside of an error of `rustls`.
#[derive(Debug)]
pub(crate) struct UnknownAuthority {
    /// Who signed it, as it says itself.
    pub(crate) issuer: Option<String>,
}

impl fmt::Display for UnknownAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown authority")
    }
}

impl std::error::Error for UnknownAuthority {}

/// The configuration of an endpoint's connections. `ours` says whether it is shown client certificates;
/// hosts to which it redirects are not.
///
/// # Errors
/// A file that cannot be read or has nothing of use, in a sentence.
pub(crate) fn config(tls: &Tls, ours: bool) -> Result<ClientConfig, String> {
    // Given to each configuration: the default of the process belongs to the program, not to a library.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|err| format!("TLS: {err}"))?
        .dangerous()
        .with_custom_certificate_verifier(verifier(tls, &provider)?);
    let identities = if ours {
        identities(tls, &provider)?
    } else {
        Vec::new()
    };
    let mut config = if identities.is_empty() {
        builder.with_no_client_auth()
    } else {
        builder.with_client_cert_resolver(Arc::new(Identities(identities)))
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn verifier(
    tls: &Tls,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    if tls.skip_verify {
        return Ok(Arc::new(Blind::new(provider, true)));
    }
    let mut roots = RootCertStore::empty();
    // What the system has and nobody can read is the system's affair, and the others still count.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let mut named = Vec::new();
    for file in &tls.ca {
        for certificate in certificates(file)? {
            let added = roots.add(certificate.clone());
            added.map_err(|err| format!("{}: {err}", file.display()))?;
            named.push(certificate);
        }
    }
    if roots.is_empty() {
        // A verifier without roots cannot be made, and nothing could be verified by it.
        return Ok(Arc::new(Blind::new(provider, false)));
    }
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|err| format!("TLS: {err}"))?;
    Ok(Arc::new(Judge { inner, named }))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |err: pem::Error| format!("cannot read {}: {}", file.display(), pem_words(&err));
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    if certificates.is_empty() {
        return Err(format!("{} has no certificate in it", file.display()));
    }
    Ok(certificates)
}

fn pem_words(err: &pem::Error) -> String {
    match err {
        pem::Error::Io(err) => cairn_types::failure::words(err),
        pem::Error::NoItemsFound => "no such part in it".to_owned(),
        // The others quote the file, which may be a key.
        _ => "it is not in PEM format".to_owned(),
    }
}

fn identities(tls: &Tls, provider: &CryptoProvider) -> Result<Vec<Arc<CertifiedKey>>, String> {
    let one = |(certificate, key): &(PathBuf, Option<PathBuf>)| {
        let chain = certificates(certificate)?;
        let file = key.as_deref().unwrap_or(certificate);
        let said = |why: String| format!("cannot use the key in {}: {why}", file.display());
        let key = PrivateKeyDer::from_pem_file(file).map_err(|err| said(pem_words(&err)))?;
        let identity = CertifiedKey::from_der(chain, key, provider);
        identity.map(Arc::new).map_err(|err| said(err.to_string()))
    };
    tls.client.iter().map(one).collect()
}

/// Chooses among client certificates: one that an authority which the server names has signed, or the
/// first where it names none of theirs, as Go's client does.
#[derive(Debug)]
struct Identities(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Identities {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let wanted = |key: &&Arc<CertifiedKey>| {
            key.cert.iter().filter_map(issuer_der).any(|issuer| {
                let issuer = DistinguishedName::in_sequence(&issuer);
                hints.contains(&issuer.as_ref())
            })
        };
        let fitting = || self.0.iter().filter(fits);
        let chosen = fitting().find(wanted).or_else(|| fitting().next());
        chosen.cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Judges by the authorities of the system and those of the endpoint.
#[derive(Debug)]
struct Judge {
    inner: Arc<WebPkiServerVerifier>,
    /// The certificates of the endpoint's own files.
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self
            .inner
            .verify_server_cert(leaf, between, name, ocsp, now);
        match verdict {
            Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                Err(unknown(between.last().unwrap_or(leaf)))
            }
            // `openssl req -x509` makes a certificate that is its own authority, and many registries have
            // such a one. Its dates were looked at before this was found, its signature is its own, and
            // whether to trust it is what the file says.
            Err(rustls::Error::InvalidCertificate(err)) if is_own_authority(&err) => {
                if !self.named.contains(leaf) {
                    return Err(unknown(leaf));
                }
                verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn is_own_authority(err: &CertificateError) -> bool {
    let CertificateError::Other(OtherError(err)) = err else {
        return false;
    };
    err.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
}

fn unknown(top: &CertificateDer<'_>) -> rustls::Error {
    let issuer = issuer_der(top).and_then(|name| common_name(&name));
    let err = OtherError(Arc::new(UnknownAuthority { issuer }));
    rustls::Error::InvalidCertificate(CertificateError::Other(err))
}

/// The inside of a certificate's issuer: relative distinguished names in DER.
fn issuer_der(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    Some(parsed.issuer().to_vec())
}

/// `CN=…` of a name, or its organisation where it has no common name (X.501: a sequence of sets of pairs
/// of an identifier and a text).
fn common_name(name: &[u8]) -> Option<String> {
    let mut organisation = None;
    let mut rest = name;
    while let Some((_, set, after)) = element(rest) {
        rest = after;
        let (_, pair, _) = element(set)?;
        let (_, identifier, value) = element(pair)?;
        let (_, text, _) = element(value)?;
        let text = crate::answer::tame(&String::from_utf8_lossy(text));
        match identifier {
            // 2.5.4.3 and 2.5.4.10
            [0x55, 4, 3] => return Some(format!("CN={text}")),
            [0x55, 4, 10] => organisation = Some(format!("O={text}")),
            _ => {}
        }
    }
    organisation
}

/// The first element of DER: its tag, its content, what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (
            usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])),
            &rest[2..],
        ),
        // No name is longer.
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

/// Looks at no authority. It believes everybody who holds the key of the certificate that is shown, which
/// is what `skip_verify` asks for, or nobody, where there is no authority to be believed.
#[derive(Debug)]
struct Blind {
    provider: Arc<CryptoProvider>,
    believes: bool,
}

impl Blind {
    fn new(provider: &Arc<CryptoProvider>, believes: bool) -> Blind {
        Blind {
            provider: Arc::clone(provider),
            believes,
        }
    }
}

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.believes {
            return Ok(ServerCertVerified::assertion());
        }
        Err(unknown(between.last().unwrap_or(leaf)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, leaf, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
