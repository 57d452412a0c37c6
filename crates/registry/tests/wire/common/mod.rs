//! What the tests of the client have in common: a server that does as it is told, a clock, a registry.

pub(crate) mod certs;
pub(crate) mod registry;
pub(crate) mod server;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use cairn_registry::{
    Client, Clock, Dice, Options, Sleep,
    credentials::{Anonymous, Credential, Credentials, Found},
    hosts::{Capabilities, Endpoint, Origin, Tls},
};

/// The registry's own endpoint, by plain HTTP.
pub(crate) fn origin(authority: &str) -> Endpoint {
    Endpoint {
        scheme: "http",
        https_first: false,
        authority: authority.to_owned(),
        path: "/v2".to_owned(),
        capabilities: Capabilities::ALL,
        headers: Vec::new(),
        tls: Tls::default(),
        proxy: None,
        dial_timeout: None,
        is_origin: true,
        from: Origin::Name,
    }
}

/// A mirror that may be asked by digest only.
pub(crate) fn mirror(authority: &str) -> Endpoint {
    Endpoint {
        is_origin: false,
        capabilities: Capabilities {
            pull: true,
            ..Capabilities::default()
        },
        ..origin(authority)
    }
}

/// A clock whose waits are over at once, and which remembers them.
pub(crate) struct FakeClock {
    start: Instant,
    passed: Mutex<Duration>,
    waits: Mutex<Vec<Duration>>,
}

impl FakeClock {
    pub(crate) fn new() -> Arc<FakeClock> {
        Arc::new(FakeClock {
            start: Instant::now(),
            passed: Mutex::new(Duration::ZERO),
            waits: Mutex::new(Vec::new()),
        })
    }

    pub(crate) fn pass(&self, time: Duration) {
        *self.passed.lock().expect("clock") += time;
    }

    /// In seconds.
    pub(crate) fn waits(&self) -> Vec<f64> {
        let waits = self.waits.lock().expect("clock");
        waits.iter().map(Duration::as_secs_f64).collect()
    }

    /// Sun, 06 Nov 1994 08:49:37 GMT, the moment of RFC 9110's examples, and what has passed since.
    fn epoch() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Instant {
        self.start + *self.passed.lock().expect("clock")
    }

    fn wall(&self) -> SystemTime {
        FakeClock::epoch() + *self.passed.lock().expect("clock")
    }

    fn sleep(&self, wait: Duration) -> Sleep {
        self.waits.lock().expect("clock").push(wait);
        self.pass(wait);
        Box::pin(std::future::ready(()))
    }
}

struct Fair;

impl Dice for Fair {
    fn roll(&self) -> f64 {
        0.0
    }
}

/// Options whose waits pass on this clock.
pub(crate) fn options(clock: &Arc<FakeClock>) -> Options {
    Options {
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        dice: Arc::new(Fair),
        ..Options::default()
    }
}

/// A client of `registry.example.com/shop/web`, for nobody in particular.
pub(crate) fn client(endpoints: &[Endpoint]) -> Client {
    client_with(endpoints, options(&FakeClock::new()))
}

pub(crate) fn client_with(endpoints: &[Endpoint], options: Options) -> Client {
    client_as(endpoints, options, Arc::new(Anonymous))
}

pub(crate) fn client_as(
    endpoints: &[Endpoint],
    options: Options,
    credentials: Arc<dyn Credentials>,
) -> Client {
    Client::new(
        "registry.example.com",
        "shop/web",
        endpoints,
        &credentials,
        options,
    )
    .expect("client")
}

/// One credential for every host.
pub(crate) struct Everywhere(pub(crate) Credential);

impl Credentials for Everywhere {
    fn find(&self, _: &str) -> Result<Option<Found>, String> {
        Ok(Some(Found {
            credential: self.0.clone(),
            source: "a test".to_owned(),
        }))
    }
}

/// Bytes of which no two neighbourhoods are alike.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}
