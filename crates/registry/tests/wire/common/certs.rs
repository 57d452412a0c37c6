//! Certificates as people make them: by `openssl`, with its defaults.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use tempfile::TempDir;

/// A directory of them.
pub(crate) struct Certs(TempDir);

impl Certs {
    pub(crate) fn new() -> Certs {
        Certs(TempDir::new().expect("temporary directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `NAME.crt` and `NAME.key`, signed by itself.
    pub(crate) fn own(&self, name: &str, subject: &str, more: &[&str]) {
        let mut args = vec![
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", subject,
        ];
        let (key, out) = (format!("{name}.key"), format!("{name}.crt"));
        args.extend(["-keyout", &key, "-out", &out]);
        args.extend(more);
        self.openssl(&args);
    }

    /// The same, for the loopback address, and no longer valid.
    pub(crate) fn own_of_yesterday(&self, name: &str) {
        let (key, csr, out) = self.request(name);
        let extensions = "basicConstraints=critical,CA:TRUE\nsubjectAltName=IP:127.0.0.1\n";
        std::fs::write(self.path("ext"), extensions).expect("extensions");
        self.openssl(&[
            "x509", "-req", "-in", &csr, "-signkey", &key, "-days", "-1", "-extfile", "ext",
            "-out", &out,
        ]);
    }

    /// `NAME.crt` and `NAME.key`, signed by `CA.crt`, for the loopback address.
    pub(crate) fn signed(&self, name: &str, ca: &str) {
        let (_, csr, out) = self.request(name);
        std::fs::write(self.path("ext"), "subjectAltName=IP:127.0.0.1\n").expect("extensions");
        let (ca_crt, ca_key) = (format!("{ca}.crt"), format!("{ca}.key"));
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &csr,
            "-CA",
            &ca_crt,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "ext",
            "-out",
            &out,
        ]);
    }

    /// A key, and a request for a certificate; and the name that it is to have.
    fn request(&self, name: &str) -> (String, String, String) {
        let file = |ending: &str| format!("{name}.{ending}");
        let (key, csr, out) = (file("key"), file("csr"), file("crt"));
        let subject = format!("/CN={name}");
        self.openssl(&[
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-keyout", &key, "-out",
            &csr,
        ]);
        (key, csr, out)
    }

    /// What a server of a test needs to show `NAME.crt`. It notes what clients show, and takes anything.
    pub(crate) fn server(&self, name: &str) -> (ServerConfig, Arc<Seen>) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let seen = Arc::new(Seen {
            schemes: provider
                .signature_verification_algorithms
                .supported_schemes(),
            clients: AtomicUsize::new(0),
        });
        let certificate = CertificateDer::from_pem_file(self.path(&format!("{name}.crt")));
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key")));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(Arc::clone(&seen) as Arc<dyn ClientCertVerifier>)
            .with_single_cert(vec![certificate.expect("certificate")], key.expect("key"))
            .expect("configuration");
        (config, seen)
    }

    fn openssl(&self, args: &[&str]) {
        let ran = Command::new("openssl")
            .args(args)
            .current_dir(self.dir())
            .output()
            .expect("openssl");
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "openssl {args:?}: {said}");
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }
}

/// Counts the clients that show a certificate.
#[derive(Debug)]
pub(crate) struct Seen {
    schemes: Vec<SignatureScheme>,
    clients: AtomicUsize,
}

impl Seen {
    pub(crate) fn clients(&self) -> usize {
        self.clients.load(Ordering::SeqCst)
    }
}

impl ClientCertVerifier for Seen {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.clients.fetch_add(1, Ordering::SeqCst);
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
