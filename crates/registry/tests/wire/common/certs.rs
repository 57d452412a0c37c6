//! Certificates as people make them: by `openssl`, with its defaults.

use std::{
    path::{Path, PathBuf},
    process::Command,
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
