//! TLS before something that listens in the clear, and a proxy that connects clients to where they say.
//!
//! Both pass bytes on in both directions at once, which a thread for each connection cannot do with TLS.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};
use tokio_rustls::TlsAcceptor;

use crate::registry::certs::Certs;

/// Listens on a free port of the loopback address until it is dropped.
pub struct Front {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Front {
    /// Before `upstream`, with a certificate of `certs`.
    pub fn secure(certs: &Certs, name: &str, upstream: SocketAddr) -> Front {
        let acceptor = acceptor(certs, name);
        Front::start(move |client| {
            let acceptor = acceptor.clone();
            async move {
                let client = acceptor.accept(client).await?;
                join(client, TcpStream::connect(upstream).await?).await
            }
        })
    }

    fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Front
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("bind");
        let address = listener.local_addr().expect("address");
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let _ = client.set_nodelay(true);
                // A client that leaves, or does not like the certificate, is what a test is about.
                tokio::spawn(serve(client));
            }
        });
        Front {
            address,
            runtime: Some(runtime),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A proxy of HTTP by TLS, for tunnels alone (RFC 9110, 9.3.6).
pub struct Tunnels {
    front: Front,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnels {
    /// With a certificate of `certs`.
    pub fn secure(certs: &Certs, name: &str) -> Tunnels {
        let acceptor = acceptor(certs, name);
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&asked);
        let front = Front::start(move |client| {
            let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
            async move {
                let mut client = acceptor.accept(client).await?;
                let head = head(&mut client).await?;
                let line = head.lines().next().unwrap_or_default().to_owned();
                lock(&log).push(line.clone());
                let Some(to) = line
                    .strip_prefix("CONNECT ")
                    .and_then(|l| l.split(' ').next())
                else {
                    let refusal = b"HTTP/1.1 405 no\r\ncontent-length: 0\r\n\r\n";
                    return client.write_all(refusal).await;
                };
                let server = TcpStream::connect(to).await?;
                client.write_all(b"HTTP/1.1 200 yes\r\n\r\n").await?;
                client.flush().await?;
                join(client, server).await
            }
        });
        Tunnels { front, asked }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.front.address())
    }

    /// The first line of each request.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.asked).clone()
    }
}

fn lock(asked: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn head(from: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(from.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn join(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut server: TcpStream,
) -> io::Result<()> {
    let _ = server.set_nodelay(true);
    io::copy_bidirectional(&mut client, &mut server)
        .await
        .map(|_| ())
}

fn acceptor(certs: &Certs, name: &str) -> TlsAcceptor {
    let certificate = pem(&certs.path(&format!("{name}.crt")));
    let key = pem(&certs.path(&format!("{name}.key")));
    let certificate = CertificateDer::from_pem_slice(&certificate).expect("certificate");
    let key = PrivateKeyDer::from_pem_slice(&key).expect("key");
    // The default of the process belongs to whoever has it set.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("certificate and key");
    TlsAcceptor::from(Arc::new(config))
}

fn pem(path: &Path) -> Vec<u8> {
    fs::read(path).expect("PEM")
}
