//! Registries: what flags say of them, and who asks. Files of credentials are this user's, and his
//! helpers run as he does, so they are looked for here; where to ask is read by the server.

use std::path::PathBuf;

use cairn_proto::cairn::v1::{
    self, BasicCredential, credential_answer::Credential as Wire, images_client::ImagesClient,
};
use cairn_registry::{
    credentials::{Credential, Credentials, Sources},
    env::Env,
};
use cairn_types::{ErrorKind, ImageName};
use cairnd::{config::ConfigError, embedded};

use super::{
    Client, Result,
    door::{self, Door},
    link::{Link, client},
    opened, some, status,
};
use crate::{args::Global, error::Problem, model};

/// How a registry is reached, beside the configuration.
#[derive(Clone, Debug, Default)]
pub struct Remote {
    /// As the flag.
    pub plain_http: bool,
    /// As the flag.
    pub skip_verify: bool,
    /// As the flag; absolute, as are the others.
    pub hosts_dirs: Vec<PathBuf>,
    /// `--tlscacert`.
    pub ca: Option<PathBuf>,
    /// `--tlscert`.
    pub cert: Option<PathBuf>,
    /// `--tlskey`.
    pub key: Option<PathBuf>,
    /// Bytes a second; 0 for no limit.
    pub limit_rate: u64,
    /// Layers at once; 0 for as many as the server thinks good.
    pub max_concurrent: u32,
    /// As the flag.
    pub http_trace: bool,
    /// As the flag.
    pub http_dump: bool,
}

/// Who asks.
#[derive(Debug, Default)]
pub struct Who {
    /// A credential, and the flag that it was given by.
    pub given: Option<(Credential, &'static str)>,
    /// `--authfile`.
    pub authfile: Option<PathBuf>,
}

/// Whom a pull would ask, in that order, and as whom. `name` may be a registry alone. Where no daemon is
/// meant, files are read and no store is opened: one that is not there stays so, one that is in use is left
/// alone, and nobody needs rights to it.
pub fn explain_host(
    global: &Global,
    name: &str,
    remote: &Remote,
    who: &Who,
) -> Result<Vec<model::Host>> {
    let endpoints = match door::find(global)? {
        Door::Daemon(link) => endpoints(&link, name, remote)?,
        Door::Store(_) => {
            let registry = embedded::registry().map_err(|err| misconfigured(&err))?;
            let explained = embedded::explain_host(&registry, question(name, remote));
            let explained = explained.map_err(|status| status::problem(&status))?;
            explained.endpoints
        }
    };
    let stands_in = endpoints.last().map(|last| &*last.host);
    let sources = sources(name, who, stands_in);
    let known = |text: String| Some(text).filter(|text| text != "none");
    let host = |endpoint: v1::Endpoint| {
        let asks = sources.explain(&endpoint.host);
        let capabilities = endpoint.capabilities.split(',');
        model::Host {
            auth_source: known(asks.unwrap_or_else(|wrong| wrong)),
            capabilities: capabilities
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect(),
            url: endpoint.url,
            proxy: known(endpoint.proxy),
            from: model::HostFrom {
                file: some(endpoint.from_file),
                line: Some(endpoint.from_line).filter(|line| *line != 0),
                text: endpoint.from,
            },
        }
    };
    Ok(endpoints.into_iter().map(host).collect())
}

fn question(name: &str, remote: &Remote) -> v1::ExplainHostRequest {
    v1::ExplainHostRequest {
        name: name.to_owned(),
        remote: Some(wire(remote)),
    }
}

fn endpoints(link: &Link, name: &str, remote: &Remote) -> Result<Vec<v1::Endpoint>> {
    let mut images = client!(link, ImagesClient<_>);
    let answer = images.explain_host(link.request(question(name, remote)));
    Ok(link.wait(answer)?.into_inner().endpoints)
}

impl Client {
    /// Where credentials for an image's registry are to be looked for. What a flag gives is for the
    /// registry alone; who stands for it, its configuration says, and so the server.
    pub(super) fn sources(&self, name: &ImageName, remote: &Remote, who: &Who) -> Result<Sources> {
        let endpoints = match who.given {
            Some(_) => endpoints(&self.link, name.as_str(), remote)?,
            None => Vec::new(),
        };
        let stands_in = endpoints.last().map(|last| &*last.host);
        Ok(sources(name.as_str(), who, stands_in))
    }

    /// A server inside this process reaches registries as the daemon would.
    pub(super) fn configure(&self) -> Result<()> {
        if self.link.address().is_some() {
            return Ok(());
        }
        match &*opened() {
            Some(server) => server.configure().map_err(|err| misconfigured(&err)),
            None => Ok(()),
        }
    }
}

fn misconfigured(err: &ConfigError) -> Problem {
    let (kind, name) = (ErrorKind::InvalidArgument, &*err.file);
    let mut problem = Problem::new(kind, "read", name, &*err.reason);
    if name.is_empty() {
        "read the configuration".clone_into(&mut problem.attempted);
    }
    problem.location.clone_from(&err.place);
    problem.next.extend(err.next.clone());
    problem
}

/// For a full name, or a registry.
fn sources(name: &str, who: &Who, stands_in: Option<&str>) -> Sources {
    let (registry, path) = name.split_once('/').unwrap_or((name, ""));
    let path = path.split('@').next().unwrap_or_default();
    let repository = path
        .rsplit_once(':')
        .map_or(path, |(repository, _)| repository);
    let uid = nix::unistd::geteuid().as_raw();
    let mut sources = Sources::new(registry, repository, &Env::of_process(), uid);
    if let Some(file) = &who.authfile {
        sources = sources.authfile(file);
    }
    match &who.given {
        Some((credential, flag)) => sources.given(credential.clone(), flag, stands_in),
        None => sources,
    }
}

/// What is known for a host.
pub(super) fn answer(sources: &Sources, host: String) -> v1::CredentialAnswer {
    let looked_in = sources.looked_in(&host);
    let mut answer = v1::CredentialAnswer {
        host,
        looked_in,
        ..v1::CredentialAnswer::default()
    };
    match sources.find(&answer.host) {
        Ok(Some(found)) => {
            tracing::info!(
                "{} asks: {:?} ({})",
                answer.host,
                found.credential,
                found.source
            );
            answer.source = found.source;
            answer.credential = Some(match found.credential {
                Credential::Basic { user, secret } => Wire::Basic(BasicCredential { user, secret }),
                Credential::Identity(token) => Wire::Identity(token),
                Credential::Bearer(token) => Wire::Bearer(token),
            });
        }
        Ok(None) => tracing::info!("{} asks who this is: nobody in particular", answer.host),
        Err(wrong) => answer.wrong = wrong,
    }
    answer
}

pub(super) fn wire(remote: &Remote) -> v1::Remote {
    let text = |path: &PathBuf| path.display().to_string();
    let file = |path: &Option<PathBuf>| path.as_ref().map(text).unwrap_or_default();
    v1::Remote {
        plain_http: remote.plain_http,
        skip_verify: remote.skip_verify,
        hosts_dirs: remote.hosts_dirs.iter().map(text).collect(),
        ca: file(&remote.ca),
        cert: file(&remote.cert),
        key: file(&remote.key),
        limit_rate: remote.limit_rate,
        max_concurrent_downloads: remote.max_concurrent,
        http_trace: remote.http_trace,
        http_dump: remote.http_dump,
    }
}
