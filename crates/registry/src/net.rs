//! The connections of one endpoint: a request sent once, its redirects followed, its failure told apart.

mod cause;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use reqwest::Response;
use url::Url;

use crate::{
    error::{Cause, What},
    hosts::{Capabilities, Endpoint, Origin, Tls},
    observer::Watch,
    options::Options,
    proxy,
    reach::{Reach, Resolver},
    source::{Meter, Outgoing},
    tls,
    trace::{Dialing, Told},
};

use cause::innermost;

pub(crate) use cause::cause;

/// Redirects that are followed, as many as Go's client.
const REDIRECTS_MAX: usize = 10;

/// Bytes of a body that may be in buffers, here and in the kernel, when the last was taken from its source:
/// sixteen pieces of ours are what `hyper` holds.
const BUFFERED_BYTES: u64 = 1 << 20;

/// What a request is sent with.
#[derive(Clone)]
pub(crate) enum Payload {
    Nothing,
    Bytes(Bytes),
    Stream(Outgoing),
}

/// A request. It can be sent any number of times.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    /// What comes is held against a digest known before, so that it may come from anywhere.
    pub(crate) proven: bool,
    /// It asks for a token.
    pub(crate) of_tokens: bool,
    /// What it is about, for whoever is told when it is asked again.
    pub(crate) what: Option<What>,
    /// Its payload is nobody's but the host's that is asked.
    pub(crate) secret: bool,
}

impl Ask {
    pub(crate) fn new(method: Method, url: Url) -> Ask {
        Ask {
            method,
            url,
            headers: HeaderMap::new(),
            payload: Payload::Nothing,
            proven: false,
            of_tokens: false,
            what: None,
            secret: false,
        }
    }

    #[must_use]
    pub(crate) fn about(mut self, what: What) -> Ask {
        self.what = Some(what);
        self
    }

    #[must_use]
    pub(crate) fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Ask {
        self.headers.insert(name, value);
        self
    }
}

/// The connections to an endpoint and to where it redirects.
pub(crate) struct Net {
    home: Url,
    /// The same by https, where that is to be tried first and has not turned out to be plain http.
    secure_home: Option<Url>,
    is_plain: AtomicBool,
    /// Shows the endpoint's client certificates.
    http: reqwest::Client,
    /// Does not.
    abroad: reqwest::Client,
    headers: HeaderMap,
    dial: Duration,
    options: Options,
    reach: Arc<Reach>,
    /// It was named by an image, and is nothing that was configured.
    is_foreign: bool,
    pub(crate) watch: Watch,
}

impl Net {
    /// Reads the certificates that the endpoint names. `label` is what the user knows it by.
    pub(crate) fn new(endpoint: &Endpoint, label: &str, options: &Options) -> Result<Net, Cause> {
        let home = format!("{}://{}/", endpoint.scheme, endpoint.authority);
        let home = Url::parse(&home)
            .map_err(|err| Cause::Config(format!("{home} is no address: {err}")))?;
        let mut secure = home.clone();
        let secure = (endpoint.https_first && secure.set_scheme("https").is_ok()).then_some(secure);
        let dial = endpoint.dial_timeout.unwrap_or(options.connect_timeout);
        let reach = Arc::new(Reach::of(&home));
        let resolver = || {
            let mut known = proxy::hosts(endpoint, &options.env);
            known.extend(home.host_str().map(str::to_owned));
            let reach = Arc::clone(&reach);
            Resolver { reach, known }
        };
        let http = client(endpoint, options, resolver(), true)?;
        let abroad = if endpoint.tls.client.is_empty() {
            http.clone()
        } else {
            client(endpoint, options, resolver(), false)?
        };
        Ok(Net {
            home,
            secure_home: secure,
            is_plain: AtomicBool::new(false),
            http,
            abroad,
            headers: hidden(&endpoint.headers),
            dial,
            options: options.clone(),
            reach,
            is_foreign: false,
            watch: Watch::new(label, &options.observer),
        })
    }

    /// For an address that an image names, by what was made for all of its kind.
    pub(crate) fn foreign(foreign: &Foreign, url: &Url, label: &str, options: &Options) -> Net {
        Net {
            home: url.clone(),
            secure_home: None,
            is_plain: AtomicBool::new(false),
            http: foreign.http.clone(),
            abroad: foreign.http.clone(),
            headers: HeaderMap::new(),
            dial: options.connect_timeout,
            options: options.clone(),
            reach: Arc::clone(&foreign.reach),
            is_foreign: true,
            watch: Watch::new(label, &options.observer),
        }
    }

    pub(crate) fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    pub(crate) fn home(&self) -> &Url {
        &self.home
    }

    /// Whether an address is the endpoint's own. Only there go its credentials, headers and certificates.
    pub(crate) fn is_home(&self, url: &Url) -> bool {
        let homes = [Some(&self.home), self.secure_home.as_ref()];
        let mut homes = homes.into_iter().flatten();
        homes.any(|home| home.origin() == url.origin())
    }

    /// Sends a request and follows where it is sent on to. `secret` goes to the host that is asked, and
    /// to no other.
    pub(crate) async fn send(
        &self,
        ask: &Ask,
        secret: Option<&HeaderValue>,
    ) -> Result<Response, Cause> {
        if let Some(first) = self.by_https(ask) {
            let mut answers = 0;
            match self.follow(&first, secret, &mut answers).await {
                // Once it has answered by https, what it redirects to is no reason to ask in the clear.
                Err(cause) if answers == 0 && is_elsewhere(&cause, &first.url) => {
                    self.is_plain.store(true, Ordering::Relaxed);
                }
                answered => return answered,
            }
        }
        self.follow(ask, secret, &mut 0).await
    }

    /// The same request by https, where that is to be tried first.
    fn by_https(&self, ask: &Ask) -> Option<Ask> {
        let wanted = self.secure_home.is_some() && !self.is_plain.load(Ordering::Relaxed);
        if !wanted || ask.url.origin() != self.home.origin() {
            return None;
        }
        let mut first = ask.clone();
        first.url.set_scheme("https").ok()?;
        Some(first)
    }

    /// `answers` counts those that came, whatever they were.
    async fn follow(
        &self,
        ask: &Ask,
        secret: Option<&HeaderValue>,
        answers: &mut usize,
    ) -> Result<Response, Cause> {
        let mut url = ask.url.clone();
        while *answers <= REDIRECTS_MAX {
            let response = self.once(ask, &url, secret).await?;
            *answers += 1;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            url = onward(ask, &response)?;
        }
        Err(Cause::Redirect(format!(
            "more than {REDIRECTS_MAX} redirects"
        )))
    }

    async fn once(
        &self,
        ask: &Ask,
        url: &Url,
        secret: Option<&HeaderValue>,
    ) -> Result<Response, Cause> {
        let at_home = self.is_home(url);
        if !at_home || self.is_foreign {
            self.reach.check(url).await?;
        }
        let client = if at_home { &self.http } else { &self.abroad };
        let mut headers = HeaderMap::new();
        if at_home {
            headers.extend(self.headers.clone());
        }
        for (name, value) in &ask.headers {
            headers.insert(name, value.clone());
        }
        if let Some(secret) = secret.filter(|_| url.origin() == ask.url.origin()) {
            headers.insert(header::AUTHORIZATION, secret.clone());
        }
        let told = Told::begin(&self.watch, ask, url, &headers);
        let request = client
            .request(ask.method.clone(), url.clone())
            .headers(headers);
        let began = Instant::now();
        let delivery = self.deliver(request, &ask.payload);
        let answered = match &told {
            Some(told) => told.during(delivery).await,
            None => delivery.await,
        };
        let outcome = answered.as_ref().map(|answer| answer.status().as_u16());
        // The query stays out: addresses of storage are signed there.
        let (host, path) = (url.host_str().unwrap_or_default(), url.path());
        tracing::debug!(method = %ask.method, host, path, status = outcome.ok(), "request");
        let took = began.elapsed();
        self.watch.ended(ask.method.as_str(), url, outcome, took);
        if let Some(told) = &told {
            told.ended(&answered, took);
        }
        // Wherever its body is read, what comes of it is counted.
        answered.map(|mut answer| {
            let extensions = answer.extensions_mut();
            extensions.insert(self.watch.clone());
            if let Some(told) = told {
                extensions.insert(told);
            }
            answer
        })
    }

    async fn deliver(
        &self,
        request: reqwest::RequestBuilder,
        payload: &Payload,
    ) -> Result<Response, Cause> {
        match payload {
            Payload::Nothing => self.in_time(request.send()).await,
            Payload::Bytes(bytes) => {
                self.watch.sent(bytes.len() as u64);
                self.in_time(request.body(bytes.clone()).send()).await
            }
            Payload::Stream(outgoing) => {
                let (body, meter) = outgoing.body(&self.watch);
                let request = request
                    .header(header::CONTENT_LENGTH, outgoing.len())
                    .body(body);
                let after = outgoing.digestion + self.draining(outgoing.len());
                self.while_moving(request.send(), &meter, after).await
            }
        }
    }

    async fn in_time(
        &self,
        sent: impl Future<Output = reqwest::Result<Response>>,
    ) -> Result<Response, Cause> {
        // Connecting has its own limit inside of this one.
        match tokio::time::timeout(self.dial + self.options.header_timeout, sent).await {
            Ok(answered) => answered.map_err(|err| self.cause(&err)),
            Err(_) => Err(Cause::AnswerTimeout(self.options.header_timeout)),
        }
    }

    /// How long what was handed on may be on its way through buffers, at the least rate that is allowed.
    fn draining(&self, len: u64) -> Duration {
        match self.options.min_rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs(len.min(BUFFERED_BYTES) / rate),
        }
    }

    /// Waits for the answer to a body that is being sent, for as long as enough of it goes out.
    async fn while_moving(
        &self,
        sent: impl Future<Output = reqwest::Result<Response>>,
        meter: &Meter,
        after: Duration,
    ) -> Result<Response, Cause> {
        let mut sent = pin!(sent);
        let last = self.options.header_timeout + after;
        let mut connecting = self.dial;
        let mut before = 0;
        loop {
            let ended = meter.has_ended();
            let window = connecting
                + match ended {
                    true => last,
                    false => self.options.min_rate_window,
                };
            if let Ok(answered) = tokio::time::timeout(window, &mut sent).await {
                return answered.map_err(|err| match meter.failure() {
                    Some(why) => Cause::Source(why),
                    None => self.cause(&err),
                });
            }
            if ended {
                return Err(Cause::AnswerTimeout(last));
            }
            let bytes = meter.sent() - before;
            if !meter.has_ended() && bytes < self.options.window_bytes() {
                return Err(Cause::TooSlow { bytes, window });
            }
            before += bytes;
            connecting = Duration::ZERO;
        }
    }

    pub(crate) fn cause(&self, err: &reqwest::Error) -> Cause {
        if err.is_connect() && err.is_timeout() {
            return Cause::ConnectTimeout(self.dial);
        }
        cause(err)
    }
}

/// Headers that a configuration has: they may say who asks, and so nothing is to show them.
fn hidden(headers: &[(HeaderName, HeaderValue)]) -> HeaderMap {
    let hide = |(name, value): &(HeaderName, HeaderValue)| {
        let mut value = value.clone();
        value.set_sensitive(true);
        (name.clone(), value)
    };
    headers.iter().map(hide).collect()
}

/// Whether https is not to be had at an address, although http may be: its port speaks it, or no port was
/// named and nobody is at that of https. A certificate that is not believed is no such case.
fn is_elsewhere(cause: &Cause, url: &Url) -> bool {
    match cause {
        Cause::PlainHttp => true,
        Cause::Connect(_) | Cause::ConnectTimeout(_) => url.port().is_none(),
        _ => false,
    }
}

/// What all addresses that images name are asked by, as nobody.
pub(crate) struct Foreign {
    http: reqwest::Client,
    pub(crate) reach: Arc<Reach>,
}

impl Foreign {
    /// For images of a registry that has these endpoints.
    pub(crate) fn new<'a>(
        homes: impl Iterator<Item = &'a Url>,
        options: &Options,
    ) -> Result<Foreign, Cause> {
        let endpoint = nobody();
        let reach = Arc::new(Reach::of_image(homes));
        let resolver = Resolver {
            reach: Arc::clone(&reach),
            known: proxy::hosts(&endpoint, &options.env),
        };
        let http = client(&endpoint, options, resolver, true)?;
        Ok(Foreign { http, reach })
    }
}

/// What no configuration says anything of.
fn nobody() -> Endpoint {
    Endpoint {
        scheme: "https",
        https_first: false,
        authority: String::new(),
        path: String::new(),
        capabilities: Capabilities::default(),
        headers: Vec::new(),
        tls: Tls::default(),
        proxy: None,
        dial_timeout: None,
        is_origin: true,
        from: Origin::Name,
    }
}

fn client(
    endpoint: &Endpoint,
    options: &Options,
    resolver: Resolver,
    ours: bool,
) -> Result<reqwest::Client, Cause> {
    let dial = endpoint.dial_timeout.unwrap_or(options.connect_timeout);
    let tls = tls::config(&endpoint.tls, ours).map_err(Cause::Config)?;
    let builder = reqwest::Client::builder()
        .user_agent(concat!("cairn/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls)
        // One connection for each body: what one of them suffers, or is throttled to, the others do not.
        .http1_only()
        .connect_timeout(dial)
        .dns_resolver(Arc::new(resolver))
        // They are followed here, where it is known what may go along.
        .redirect(reqwest::redirect::Policy::none())
        .referer(false);
    let builder = match options.observer.trace() {
        Some(_) => builder.connector_layer(Dialing),
        None => builder,
    };
    let builder = through(builder, endpoint, options)?;
    builder
        .build()
        .map_err(|err| Cause::Config(innermost(&err)))
}

/// Has connections go through a proxy: the endpoint's own, or that of the environment, which is looked up
/// by us and not by `reqwest`, so that what `explain-host` says is what is done.
fn through(
    builder: reqwest::ClientBuilder,
    endpoint: &Endpoint,
    options: &Options,
) -> Result<reqwest::ClientBuilder, Cause> {
    for scheme in ["http", "https"] {
        let decided = match &endpoint.proxy {
            Some(_) => proxy::of_endpoint(endpoint, &options.env),
            None => proxy::of_environment(scheme, &endpoint.authority, &options.env),
        };
        // One that it does not know, `reqwest` would pass by, and ask directly what is not to be.
        if decided
            .proxy
            .as_deref()
            .is_some_and(|proxy| !is_proxy(proxy))
        {
            let why = format!("its proxy {decided} is none of http or https");
            return Err(Cause::Config(why));
        }
    }
    let builder = builder.no_proxy();
    match endpoint.proxy.as_deref() {
        Some("") => Ok(builder),
        Some(address) => {
            // Its error would quote the address, which may have a password in it.
            let proxy = reqwest::Proxy::all(address)
                .map_err(|_| Cause::Config("its proxy is no address".to_owned()))?;
            Ok(builder.proxy(proxy))
        }
        None => {
            let env = options.env.clone();
            let proxy = move |url: &Url| {
                let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
                proxy::of_environment(url.scheme(), authority, &env).proxy
            };
            Ok(builder.proxy(reqwest::Proxy::custom(proxy)))
        }
    }
}

fn is_proxy(address: &str) -> bool {
    let url = Url::parse(address);
    url.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads, if it may be followed.
fn onward(ask: &Ask, response: &Response) -> Result<Url, Cause> {
    let from = response.url();
    let reading = matches!(ask.method, Method::GET | Method::HEAD);
    if !reading && !matches!(response.status().as_u16(), 307 | 308) {
        // What a 302 makes of a method is everybody's guess, and mostly a GET, which stores nothing.
        return Err(Cause::Redirect(format!(
            "{} redirected ({})",
            ask.method,
            response.status().as_u16()
        )));
    }
    let location = location(response)?;
    if ask.secret && location.origin() != ask.url.origin() {
        let to = location.host_str().unwrap_or_default();
        let why = format!("wants credentials sent on to {to}");
        return Err(Cause::Redirect(why));
    }
    if !matches!(location.scheme(), "http" | "https") {
        return Err(Cause::Redirect(
            "redirected to something else than http".to_owned(),
        ));
    }
    if from.scheme() == "https" && location.scheme() == "http" && !ask.proven {
        let to = location.host_str().unwrap_or_default();
        return Err(Cause::Redirect(format!(
            "redirected from https to plain http at {to}"
        )));
    }
    Ok(location)
}

/// The address in `Location`, which may be relative to that which was asked.
pub(crate) fn location(response: &Response) -> Result<Url, Cause> {
    let text = response
        .headers()
        .get(header::LOCATION)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| Cause::Malformed("an answer without Location".to_owned()))?;
    response
        .url()
        .join(text)
        .map_err(|_| Cause::Malformed("a Location that is no address".to_owned()))
}
