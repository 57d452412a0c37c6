//! Debian's registry of images, on a port of its own.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// An empty registry on the loopback address.
pub(crate) struct Registry {
    address: SocketAddr,
    process: Child,
    _work: TempDir,
}

impl Registry {
    /// By plain HTTP.
    pub(crate) fn start() -> Registry {
        Registry::configured("")
    }

    /// By TLS, with a certificate and its key, and for bearers of certificates of `clients` alone, where
    /// one is given.
    pub(crate) fn secure(certificate: &Path, key: &Path, clients: Option<&Path>) -> Registry {
        let mut tls = format!("  tls:\n    certificate: {certificate:?}\n    key: {key:?}\n");
        if let Some(clients) = clients {
            tls += &format!("    clientcas: [{clients:?}]\n");
        }
        Registry::configured(&tls)
    }

    /// `more` stands below `http:`, and after it.
    pub(crate) fn configured(more: &str) -> Registry {
        let work = TempDir::new().expect("temporary directory");
        let address = free();
        let config = work.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {:?}}}}}\n\
             http:\n  addr: \"{address}\"\n  secret: test\n{more}",
            work.path().join("root")
        );
        fs::write(&config, text).expect("configuration");
        let log = fs::File::create(work.path().join("log")).expect("log");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start docker-registry");
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            let log = fs::read_to_string(work.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "no registry:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Registry {
            address,
            process,
            _work: work,
        }
    }

    /// Host and port.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }
}

/// A port that was free a moment ago.
fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    listener.local_addr().expect("address")
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
