//! Certificates, made by `openssl` as people make them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A directory of them: `NAME.crt` and `NAME.key`, good for two days.
pub struct Certs(PathBuf);

impl Certs {
    /// In this directory.
    pub fn at(dir: &Path) -> Certs {
        Certs(dir.to_owned())
    }

    /// A file of it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// One that signs itself and others.
    pub fn authority(&self, name: &str, subject: &str) {
        let (key, certificate) = files(name);
        self.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            CURVE,
            "-nodes",
            "-days",
            "2",
            "-subj",
            subject,
            "-keyout",
            &key,
            "-out",
            &certificate,
        ]);
    }

    /// One of `ca`'s for a server on the loopback address, also by a name that only a test knows.
    pub fn signed(&self, name: &str, ca: &str) {
        let (key, certificate) = files(name);
        let subject = format!("/CN={name}");
        self.openssl(&[
            "req", "-newkey", "ec", "-pkeyopt", CURVE, "-nodes", "-subj", &subject, "-keyout",
            &key, "-out", "csr",
        ]);
        let names = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.example.com\n";
        fs::write(self.path("ext"), names).expect("extensions");
        let (ca_key, ca) = files(ca);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            "csr",
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "ext",
            "-out",
            &certificate,
        ]);
    }

    fn openssl(&self, arguments: &[&str]) {
        openssl(&self.0, arguments);
    }
}

const CURVE: &str = "ec_paramgen_curve:prime256v1";

fn files(name: &str) -> (String, String) {
    (format!("{name}.key"), format!("{name}.crt"))
}

/// Runs it in a directory; what it wrote.
pub(super) fn openssl(dir: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    let ran = command.args(arguments).current_dir(dir).output();
    let ran = ran.expect("start openssl");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "openssl {arguments:?}: {said}");
    ran.stdout
}
