//! Debian's registry of images, on a port of its own: for everybody, by TLS, for a user, or for who has a
//! token of [`TokenServer`].

pub mod certs;
mod jwt;
mod put;
mod tokens;

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

pub use jwt::KeyHint;
pub use tokens::{Given, Rules, TokenServer};

use crate::{peers, wait};
use certs::Certs;

/// A registry with storage of its own, which ends with it.
pub struct Registry {
    address: SocketAddr,
    process: Child,
    work: TempDir,
    access: Access,
}

/// What its clients need.
#[derive(Clone, Debug, Default)]
struct Access {
    secure: bool,
    user: Option<(String, String)>,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::start()
    }
}

impl Registry {
    /// By plain HTTP, for everybody.
    pub fn start() -> Registry {
        Registry::of(work(), "", "", Access::default())
    }

    /// By TLS, with a certificate for the loopback address and `localhost` that [`Registry::ca`] signed.
    pub fn secure() -> Registry {
        Registry::by_tls(|_, _| String::new())
    }

    /// The same, for who shows a certificate of that authority: [`Registry::client`].
    pub fn for_certificates() -> Registry {
        Registry::by_tls(|certs, trusted| {
            certs.signed("client", "ca");
            for (name, there) in [("client.crt", "client.cert"), ("client.key", "client.key")] {
                fs::copy(certs.path(name), trusted.join(there)).expect("certificate");
            }
            format!("    clientcas: [{:?}]\n", certs.path("ca.crt"))
        })
    }

    /// `more` stands below `tls`, and may add to the directory that tools are given.
    fn by_tls(more: impl FnOnce(&Certs, &Path) -> String) -> Registry {
        let work = work();
        let certs = Certs::at(work.path());
        certs.authority("ca", "/O=Example/CN=Example Internal CA");
        let tls = tls_table(&work, &certs, &["ca"]);
        let tls = format!("{tls}{}", more(&certs, &work.path().join(TRUSTED)));
        let access = Access {
            secure: true,
            user: None,
        };
        Registry::of(work, &tls, "", access)
    }

    /// By TLS, with a certificate that `certs`' authority `ca` signs, for bearers of tokens of `server`;
    /// tools of others are to trust all of `authorities`.
    pub fn secure_for_tokens(
        server: &TokenServer,
        certs: &Certs,
        authorities: &[&str],
    ) -> Registry {
        let work = work();
        let tls = tls_table(&work, certs, authorities);
        let access = Access {
            secure: true,
            user: server.user(),
        };
        Registry::of(work, &tls, &bearers(server), access)
    }

    /// By plain HTTP, for one user with a password.
    pub fn for_user(user: &str, password: &str) -> Registry {
        let work = work();
        let file = work.path().join("htpasswd");
        fs::write(&file, format!("{user}:{}\n", bcrypt(password))).expect("users");
        let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {file:?}\n");
        let access = Access {
            secure: false,
            user: Some((user.to_owned(), password.to_owned())),
        };
        Registry::of(work, "", &auth, access)
    }

    /// By plain HTTP, for bearers of tokens of `server`.
    pub fn for_tokens(server: &TokenServer) -> Registry {
        let access = Access {
            secure: false,
            user: server.user(),
        };
        Registry::of(work(), "", &bearers(server), access)
    }

    /// `http` stands below that key of the configuration, `more` at its top.
    fn of(work: TempDir, http: &str, more: &str, access: Access) -> Registry {
        let address = free();
        let config = work.path().join("config.yml");
        // Manifests of before 2016, and layers that lie elsewhere, are refused unless it says otherwise.
        let text = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage:\n  delete: {{enabled: true}}\n  filesystem: {{rootdirectory: {:?}}}\n\
             validation: {{manifests: {{urls: {{allow: ['^http://127\\.0\\.0\\.1:']}}}}}}\n\
             compatibility: {{schema1: {{enabled: true}}}}\n\
             {more}http:\n  addr: \"{address}\"\n  secret: test\n{http}",
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
        let registry = Registry {
            address,
            process,
            work,
            access,
        };
        let listens = || TcpStream::connect(address).is_ok();
        wait::until(listens, || format!("no registry:\n{}", registry.log()));
        registry
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Host and port, as they stand before a repository's name.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The certificate to trust, of one by TLS.
    pub fn ca(&self) -> PathBuf {
        self.work.path().join(TRUSTED).join("ca.crt")
    }

    /// The certificate and the key that a client may show, of one for certificates.
    pub fn client(&self) -> [PathBuf; 2] {
        ["client.crt", "client.key"].map(|name| self.work.path().join(name))
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.work.path().join("log")).unwrap_or_default()
    }

    /// Where it keeps a blob, by its own layout of files.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').expect("digest");
        let blobs = self.work.path().join("root/docker/registry/v2/blobs");
        blobs.join(algorithm).join(&hex[..2]).join(hex).join("data")
    }
}

/// What the configuration says below `http`, with a certificate of the authority `ca`.
fn tls_table(work: &TempDir, certs: &Certs, authorities: &[&str]) -> String {
    certs.signed("server", "ca");
    // Tools that are given a directory want a key to each certificate beside it, or neither.
    let trusted = work.path().join(TRUSTED);
    fs::create_dir(&trusted).expect("directory");
    for name in authorities {
        let file = format!("{name}.crt");
        fs::copy(certs.path(&file), trusted.join(&file)).expect("certificate");
    }
    let (certificate, key) = (certs.path("server.crt"), certs.path("server.key"));
    format!("  tls:\n    certificate: {certificate:?}\n    key: {key:?}\n")
}

/// What it says of who may come with tokens.
fn bearers(server: &TokenServer) -> String {
    format!(
        "auth:\n  token:\n    realm: {:?}\n    service: {:?}\n    issuer: {:?}\n    \
         rootcertbundle: {:?}\n",
        server.url(),
        tokens::SERVICE,
        tokens::ISSUER,
        server.certificate(),
    )
}

/// Where the certificates are that others need.
const TRUSTED: &str = "trusted";

fn work() -> TempDir {
    TempDir::new().expect("temporary directory")
}

/// A port that was free a moment ago.
fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    listener.local_addr().expect("address")
}

/// As `htpasswd -B` makes it, the only form that the registry takes: by crypt(3), which Perl has.
fn bcrypt(password: &str) -> String {
    let program = "print crypt($ARGV[0], q($2y$05$) . q(CairnCairnCairnCairnC) . q(u))";
    let hash = peers::run("perl", &["-e", program, password]);
    assert!(hash.starts_with("$2y$05$"), "crypt: {hash:?}");
    hash
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "the registry logged:\n{}", self.log());
        }
    }
}
