//! A client of one repository, as the configuration and one request have it, and the threads that it waits
//! in.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use cairn_registry::{
    Client, Exchange, Observer, Options, Policy, Reference, Retry, Tag, Trace,
    credentials::Credentials,
    hosts::{self, Endpoint},
};
use cairn_types::{Digest, ErrorKind, ImageName};
use tokio::runtime::{Builder, Handle, Runtime};

use super::Remote;
use crate::{Event, Failure, Node, failure::words};

/// They wait, encrypt and hash; layers are unpacked elsewhere.
const THREADS: usize = 2;

const ATTEMPTED: &str = "reach registry";

/// With a host at its end, the label by which a blob tells in which repositories it is known there.
const SOURCE: &str = "containerd.io/distribution.source.";

/// The threads in which clients of registries wait, made when the first one is.
#[derive(Default)]
pub(crate) struct Threads(Mutex<Option<Runtime>>);

impl Threads {
    fn handle(&self) -> io::Result<Handle> {
        let mut runtime = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if runtime.is_none() {
            let new = Builder::new_multi_thread()
                .worker_threads(THREADS)
                .thread_name("cairn-registry")
                .enable_all()
                .build()?;
            *runtime = Some(new);
        }
        let there = runtime.as_ref().map(|runtime| runtime.handle().clone());
        there.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// To wait for the threads would panic where the last owner of a store is itself waited for in a runtime.
impl Drop for Threads {
    fn drop(&mut self) {
        let runtime = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An image's name, taken apart as registries want it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteName {
    /// `docker.io`, `registry.example.com:5000`.
    pub registry: String,
    /// `library/alpine`.
    pub repository: String,
    /// Where it has one.
    pub tag: Option<Tag>,
    /// Where it ends with one.
    pub digest: Option<Digest>,
}

impl RemoteName {
    /// Takes a full name apart.
    ///
    /// # Errors
    /// One without a registry, or with a tag or digest that cannot be one; stores keep any text as a name.
    pub fn parse(name: &ImageName) -> Result<RemoteName, Failure> {
        let refused = |reason: &str| {
            Failure::new(ErrorKind::InvalidArgument, "ask a registry for", reason)
                .object("image", name)
                .next("give its full name: REGISTRY/REPOSITORY:TAG")
        };
        let (rest, digest) = match name.as_str().split_once('@') {
            Some((rest, digest)) => {
                let digest = Digest::parse(digest);
                (rest, Some(digest.map_err(|err| refused(&err.to_string()))?))
            }
            None => (name.as_str(), None),
        };
        let (registry, path) = rest
            .split_once('/')
            .filter(|(host, _)| host.contains(['.', ':']) || *host == "localhost")
            .ok_or_else(|| refused("no registry is in its name"))?;
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => {
                let tag = Tag::parse(tag).ok_or_else(|| refused("its tag cannot be one"))?;
                (repository, Some(tag))
            }
            None => (path, None),
        };
        Ok(RemoteName {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag,
            digest,
        })
    }

    /// The label by which a blob tells in which repositories of this registry it is known, commas between; a
    /// push takes it over from one of them. As containerd writes it (`core/remotes/docker/handler.go`), the
    /// host is without its port; a neighbour at another port then costs a request that leads nowhere.
    pub fn source_label(&self) -> String {
        format!("{SOURCE}{}", hostname(&self.registry))
    }

    /// What to ask for: the digest where there is one, else the tag, else `latest`.
    pub fn reference(&self) -> Option<Reference> {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Some(Reference::Digest(digest.clone())),
            (None, Some(tag)) => Some(Reference::Tag(tag.clone())),
            (None, None) => Tag::parse("latest").map(Reference::Tag),
        }
    }
}

/// A registry's name without its port, and an address of IPv6 without its brackets.
fn hostname(registry: &str) -> &str {
    if let Some((address, _)) = registry.strip_prefix('[').and_then(|r| r.split_once(']')) {
        return address;
    }
    registry.split(':').next().unwrap_or(registry)
}

/// All that a client is made of, for those who want it a little otherwise.
pub(crate) struct Reach {
    pub(crate) name: RemoteName,
    /// Best first.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) options: Options,
    credentials: Arc<dyn Credentials>,
}

impl Reach {
    /// # Errors
    /// A name that no repository can have; a certificate, key or proxy that cannot be used.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let RemoteName {
            registry,
            repository,
            ..
        } = &self.name;
        let options = self.options.clone();
        let client = Client::new(
            registry,
            repository,
            &self.endpoints,
            &self.credentials,
            options,
        );
        client.map_err(|err| Failure::of(ATTEMPTED, &err).object("registry", registry))
    }
}

impl Node {
    /// Where clients of registries wait. Made with the first call; it ends with the store.
    ///
    /// # Errors
    /// No threads can be started.
    pub fn registry_runtime(&self) -> Result<Handle, Failure> {
        self.inner.threads.handle().map_err(|err| {
            let reason = "no threads can be started";
            Failure::new(ErrorKind::ResourceExhausted, "reach registries", reason)
                .cause(words(&err))
        })
    }

    /// A client of the repository that a name has in it.
    ///
    /// # Errors
    /// A name without a registry, or whose repository cannot be one; a file of hosts with a mistake; a
    /// certificate, key or proxy that cannot be used.
    pub fn registry_client(&self, name: &ImageName, remote: &Remote) -> Result<Client, Failure> {
        self.reach(RemoteName::parse(name)?, remote, Vec::new())?
            .client()
    }

    /// Finds out how the repository of a name is to be asked. Besides those of [`Node::observe_registries`]
    /// those `also` here are told of what goes on. Reads files and asks nobody.
    ///
    /// # Errors
    /// A file of hosts with a mistake.
    pub(crate) fn reach(
        &self,
        name: RemoteName,
        remote: &Remote,
        also: Vec<Arc<dyn Observer>>,
    ) -> Result<Reach, Failure> {
        let ours = self.registry_options();
        let mut hosts = remote.hosts.clone();
        if hosts.dirs.is_empty() {
            hosts.dirs.clone_from(&ours.hosts_dirs);
        }
        let endpoints = hosts::endpoints(&name.registry, &hosts);
        let endpoints = endpoints.map_err(|err| err.failure())?;
        let all = self.inner.registry_observer.get().cloned();
        let observers = all.into_iter().chain(also).collect();
        let options = Options {
            connect_timeout: ours.connect_timeout,
            header_timeout: ours.header_timeout,
            min_rate: ours.min_rate,
            min_rate_window: ours.min_rate_window,
            retry: Policy {
                tries: ours.retries.saturating_add(1),
                ..Policy::default()
            },
            upload_chunk: ours.upload_chunk,
            observer: Arc::new(All(observers)),
            ..Options::default()
        };
        Ok(Reach {
            name,
            endpoints,
            options,
            credentials: Arc::clone(&remote.credentials),
        })
    }

    /// All hosts that the configuration speaks of ([`hosts::named`]). Reads files.
    pub fn registry_hosts(&self) -> BTreeSet<String> {
        hosts::named(&self.registry_options().hosts_dirs)
    }

    /// Tells `observer` of every request to a registry from now on. Only the first observer is told.
    pub fn observe_registries(&self, observer: Arc<dyn Observer>) {
        let _ = self.inner.registry_observer.set(observer);
    }
}

/// Several observers.
struct All(Vec<Arc<dyn Observer>>);

impl Observer for All {
    fn ended(&self, exchange: &Exchange<'_>) {
        self.0.iter().for_each(|one| one.ended(exchange));
    }

    fn received(&self, host: &str, bytes: u64) {
        self.0.iter().for_each(|one| one.received(host, bytes));
    }

    fn sent(&self, host: &str, bytes: u64) {
        self.0.iter().for_each(|one| one.sent(host, bytes));
    }

    fn retry(&self, retry: &Retry<'_>) {
        self.0.iter().for_each(|one| one.retry(retry));
    }

    fn trace(&self) -> Option<&Trace> {
        self.0.iter().find_map(|one| one.trace())
    }
}

impl Remote {
    /// Whoever makes lines of requests, if that was asked for; each goes to `tell` as an event.
    pub(crate) fn tracer(
        &self,
        tell: impl Fn(Event) + Send + Sync + 'static,
    ) -> Option<Arc<dyn Observer>> {
        let trace = Trace::new(self.trace?, move |line| tell(Event::Traced(line)));
        Some(Arc::new(trace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RemoteName, Failure> {
        RemoteName::parse(&ImageName::parse(text).expect("name"))
    }

    #[test]
    fn names_come_apart() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, registry, repository, tag, by) in [
            (
                "docker.io/library/alpine:3.20".to_owned(),
                "docker.io",
                "library/alpine",
                Some("3.20"),
                None,
            ),
            (
                format!("localhost:5000/a/b:x@{digest}"),
                "localhost:5000",
                "a/b",
                Some("x"),
                Some(&digest),
            ),
            (
                format!("localhost/b@{digest}"),
                "localhost",
                "b",
                None,
                Some(&digest),
            ),
        ] {
            let name = parse(&text).expect("parsed");
            assert_eq!((&*name.registry, &*name.repository), (registry, repository));
            assert_eq!(name.tag.as_ref().map(Tag::as_str), tag);
            let own = name.digest.as_ref().map(ToString::to_string);
            assert_eq!(own.as_ref(), by);
        }
        let plain = parse("r.example.com/a").expect("parsed").reference();
        assert_eq!(plain.map(|r| r.to_string()), Some("latest".to_owned()));
        for bad in [
            "alpine",
            "library/alpine:3",
            "r.io/a:b c",
            "r.io/a@sha256:1",
        ] {
            assert_eq!(parse(bad).expect_err(bad).kind, ErrorKind::InvalidArgument);
        }
    }

    /// Go's `url.Hostname` of the same.
    #[test]
    fn hosts_have_no_port() {
        for (registry, host) in [
            ("docker.io", "docker.io"),
            ("127.0.0.1:5000", "127.0.0.1"),
            ("[::1]:5000", "::1"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(hostname(registry), host);
        }
    }

    #[tokio::test]
    async fn threads_end_where_nobody_may_wait() {
        let threads = Threads::default();
        let handle = threads.handle().expect("threads");
        let (ended, told) = tokio::sync::oneshot::channel::<()>();
        handle.spawn(async move {
            let _ended = ended;
            std::future::pending::<()>().await;
        });
        drop(threads);
        // What was going on is dropped, and nothing panicked.
        assert!(told.await.is_err());
    }
}
