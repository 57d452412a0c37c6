//! One endpoint: requests to it with what it wants to be shown, repeated while that helps.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Method, StatusCode};
use reqwest::Response;
use url::Url;

use crate::{
    auth::Auth,
    body::refusal,
    challenge,
    credentials::{Anonymous, Credentials},
    error::{Cause, Failed, What},
    hosts::{Capabilities, Endpoint},
    net::{Ask, Foreign, Net},
    observer::Retry,
    options::Options,
    retry::{self, Tried},
    token::Scopes,
};

/// Whether to wait for a host that may do better later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// There is nobody else to ask.
    Waits,
    /// There is.
    Once,
    /// It is repeated by whoever asks, in another way.
    ByCaller,
}

/// How long a host that could not be reached is passed by, where there is another to ask. Without this each
/// layer would wait for it anew.
const REST: Duration = Duration::from_secs(30);

/// An endpoint for one repository.
pub(crate) struct Host {
    /// As the user knows it.
    label: String,
    pub(crate) capabilities: Capabilities,
    /// What all its addresses begin with.
    base: String,
    /// The registry whose content is asked for, told to all but itself.
    namespace: Option<String>,
    pub(crate) net: Net,
    auth: Auth,
    options: Options,
    /// Why it could not be reached, and until when to believe that.
    resting: Mutex<Option<(Instant, Cause)>>,
    /// Most bytes of one request of an upload.
    chunk: AtomicU64,
}

impl Host {
    pub(crate) fn new(
        registry: &str,
        repository: &str,
        endpoint: &Endpoint,
        credentials: &Arc<dyn Credentials>,
        options: &Options,
    ) -> Result<Host, Failed> {
        let label = if endpoint.is_origin {
            registry.to_owned()
        } else {
            endpoint.authority.clone()
        };
        let net = Net::new(endpoint, &label, options).map_err(|cause| Failed {
            host: label.clone(),
            cause,
        })?;
        let path = endpoint.path.trim_matches('/');
        let path = if path.is_empty() {
            String::new()
        } else {
            format!("/{path}")
        };
        Ok(Host {
            auth: Auth::new(
                endpoint.authority.clone(),
                endpoint.scheme == "https",
                Arc::clone(credentials),
            ),
            label,
            capabilities: endpoint.capabilities,
            base: format!(
                "{}://{}{path}/{repository}",
                endpoint.scheme, endpoint.authority
            ),
            namespace: (!endpoint.is_origin).then(|| registry.to_owned()),
            net,
            options: options.clone(),
            resting: Mutex::new(None),
            chunk: AtomicU64::new(options.upload_chunk.unwrap_or(u64::MAX)),
        })
    }

    /// A host that an image names. It gets nothing of what registries do.
    pub(crate) fn foreign(
        foreign: Result<&Foreign, &Cause>,
        url: &Url,
        options: &Options,
    ) -> Result<Host, Failed> {
        let label = Host::foreign_label(url).to_owned();
        let foreign = foreign.map_err(|cause| Failed {
            host: label.clone(),
            cause: cause.clone(),
        })?;
        Ok(Host {
            auth: Auth::new(label.clone(), true, Arc::new(Anonymous)),
            capabilities: Capabilities::default(),
            base: String::new(),
            namespace: None,
            net: Net::foreign(foreign, url, &label, options),
            label,
            options: options.clone(),
            resting: Mutex::new(None),
            chunk: AtomicU64::new(u64::MAX),
        })
    }

    /// The repository, as all its addresses begin.
    pub(crate) fn place(&self) -> &str {
        &self.base
    }

    /// What a host that an image names is known by: itself and its port.
    pub(crate) fn foreign_label(url: &Url) -> &str {
        &url[url::Position::BeforeHost..url::Position::AfterPort]
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    pub(crate) fn failed(&self, cause: Cause) -> Failed {
        Failed {
            host: self.label.clone(),
            cause,
        }
    }

    /// Bytes of one request of an upload; `None` for a blob in one.
    pub(crate) fn chunk(&self) -> Option<u64> {
        let chunk = self.chunk.load(Ordering::Relaxed);
        (chunk != u64::MAX).then_some(chunk)
    }

    /// More than these bytes of an upload are not to be in one request from now on.
    pub(crate) fn limit_chunks(&self, bytes: u64) {
        tracing::debug!(host = self.label, bytes, "uploads go in chunks");
        self.chunk.fetch_min(bytes, Ordering::Relaxed);
    }

    /// The address of something in the repository, with the query `pairs`.
    pub(crate) fn url(&self, tail: &str, pairs: &[(&str, &str)]) -> Result<Url, Cause> {
        let mut url = Url::parse(&format!("{}/{tail}", self.base))
            .map_err(|_| Cause::Config("its path makes no address".to_owned()))?;
        if !pairs.is_empty() || self.namespace.is_some() {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(pairs);
            if let Some(namespace) = &self.namespace {
                query.append_pair("ns", namespace);
            }
        }
        Ok(url)
    }

    pub(crate) fn ask(&self, method: Method, tail: &str) -> Result<Ask, Cause> {
        Ok(Ask::new(method, self.url(tail, &[])?))
    }

    /// Sends a request until it is answered by anything but "not now". What it is refused with, 401 left
    /// out, is for the caller to read.
    pub(crate) async fn send(
        &self,
        ask: &Ask,
        scopes: &Scopes,
        patience: Patience,
    ) -> Result<Response, Cause> {
        let began = self.options.clock.now();
        if patience == Patience::Once
            && let Some(cause) = self.resting(began)
        {
            return Err(cause);
        }
        let mut times = 0;
        loop {
            times += 1;
            let cause = match self.authorized(ask, scopes).await {
                Ok(response) if !retry::passes(response.status()) => return Ok(response),
                Ok(response) => {
                    let during = self.options.clock.now().duration_since(began);
                    let tried = Tried { times, during };
                    self.status(response, tried, scopes.store()).await
                }
                Err(cause) => cause,
            };
            let wait = match patience {
                Patience::Waits if cause.passes() => self.wait(times, &cause),
                _ => None,
            };
            let Some(wait) = wait else {
                self.rest(&cause);
                return Err(cause);
            };
            let of = self.options.retry.tries;
            self.again(ask.what.as_ref(), (times + 1, of), wait, &cause);
            self.options.clock.sleep(wait).await;
        }
    }

    fn resting(&self, now: Instant) -> Option<Cause> {
        let resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, cause) = resting.as_ref()?;
        (now < *until).then(|| cause.clone())
    }

    fn rest(&self, cause: &Cause) {
        if matches!(
            cause,
            Cause::NoSuchHost
                | Cause::Connect(_)
                | Cause::ConnectTimeout(_)
                | Cause::AnswerTimeout(_)
        ) {
            let until = self.options.clock.now() + REST;
            let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
            *resting = Some((until, cause.clone()));
        }
    }

    fn wait(&self, times: u32, cause: &Cause) -> Option<Duration> {
        let roll = self.options.dice.roll();
        self.options.retry.wait(times, cause.after(), roll)
    }

    /// Waits before a body goes on that broke `times` times without a byte in between, and says whether it
    /// is to. After the first time there is nothing to wait for, unless the host says so: most connections
    /// break once.
    pub(crate) async fn pause(&self, what: &What, times: u32, cause: &Cause) -> bool {
        let Some(wait) = self.wait(times, cause) else {
            return false;
        };
        let wait = match times > 1 || cause.after().is_some() {
            true => wait,
            false => Duration::ZERO,
        };
        let of = self.options.retry.tries;
        self.again(Some(what), (times + 1, of), wait, cause);
        if !wait.is_zero() {
            self.options.clock.sleep(wait).await;
        }
        true
    }

    /// Tells that something failed and is asked for again after a wait: as the how manieth try, of how many.
    pub(crate) fn again(
        &self,
        what: Option<&What>,
        (attempt, attempts_max): (u32, u32),
        wait: Duration,
        cause: &Cause,
    ) {
        tracing::debug!(host = self.label, attempt, ?wait, "again");
        self.net.watch.retry(&Retry {
            what,
            failed: &self.failed(cause.clone()),
            attempt,
            attempts_max,
            wait,
        });
    }

    /// A request, and once more with something else to show where it is refused.
    async fn authorized(&self, ask: &Ask, scopes: &Scopes) -> Result<Response, Cause> {
        // An upload may lead to another host, which is shown nothing.
        let ours = self.net.is_home(&ask.url);
        let mut renewed = false;
        loop {
            let pass = match ours {
                true => self.auth.pass(&self.net, &self.options, scopes).await?,
                false => None,
            };
            let header = pass.as_ref().map(|pass| &pass.header);
            let response = self.net.send(ask, header).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            let challenges = challenge::of(response.headers());
            // What storage wants to be shown is not for us to give.
            let wanted = !renewed && ours && self.net.is_home(response.url());
            let shown = pass.as_ref();
            if !wanted || !self.auth.refused(scopes, shown, &challenges).await? {
                let answer = refusal(response, &self.options).await;
                return Err(self.auth.unauthorized(pass.is_some(), answer).await);
            }
            renewed = true;
        }
    }

    /// What an answer that is none comes to, `object` being what was asked for.
    pub(crate) async fn refusal(
        &self,
        response: Response,
        object: impl std::fmt::Display,
        repository: &str,
    ) -> Cause {
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Cause::NotFound {
                object: object.to_string(),
                repository: repository.to_owned(),
                by_http: response.url().scheme() == "http",
                answer: refusal(response, &self.options).await,
            };
        }
        let once = Tried {
            times: 1,
            during: Duration::ZERO,
        };
        self.status(response, once, false).await
    }

    async fn status(&self, response: Response, tried: Tried, storing: bool) -> Cause {
        let status = response.status();
        let after = retry::retry_after(response.headers(), self.options.clock.wall());
        let answer = refusal(response, &self.options).await;
        match status {
            StatusCode::FORBIDDEN => Cause::Denied(answer),
            status => Cause::Status {
                status: status.as_u16(),
                storing,
                tried,
                after,
                answer,
            },
        }
    }
}
