//! What is shown to one endpoint: nothing until it asks, then what it asks for, and each token for as long
//! as it is good.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::HeaderValue;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};
use url::Url;

use crate::{
    answer::Answer,
    challenge::Challenge,
    credentials::{Credential, Credentials, Found},
    error::{Cause, Shown},
    net::Net,
    options::Options,
    token::{self, Realm, Scopes},
};

/// A token is renewed so long before its end, at most; of one with a short life a tenth.
const MARGIN_MAX: Duration = Duration::from_secs(10);

/// How an endpoint wants to be asked.
#[derive(Clone, PartialEq, Eq)]
enum Scheme {
    Basic,
    Bearer(Realm),
}

/// The state of one endpoint.
pub(crate) struct Auth {
    /// As credentials know it.
    host: String,
    secure: bool,
    credentials: Arc<dyn Credentials>,
    found: OnceCell<Option<Found>>,
    scheme: Mutex<Option<Scheme>>,
    slots: Mutex<BTreeMap<Scopes, Arc<AsyncMutex<Slot>>>>,
    numbers: AtomicU64,
}

/// The token for one set of scopes. Whoever needs it while it is fetched waits for the lock, and finds it.
#[derive(Default)]
struct Slot {
    token: Option<Held>,
    /// What the endpoint named besides: a mirror may know the repository by another name.
    named: Scopes,
}

struct Held {
    value: HeaderValue,
    until: Instant,
    number: u64,
}

/// What a request was shown.
#[derive(Clone)]
pub(crate) struct Pass {
    pub(crate) header: HeaderValue,
    /// Which token it was; a name and its secret have no number, since there is no other.
    number: Option<u64>,
}

impl Auth {
    pub(crate) fn new(host: String, secure: bool, credentials: Arc<dyn Credentials>) -> Auth {
        Auth {
            host,
            secure,
            credentials,
            found: OnceCell::new(),
            scheme: Mutex::new(None),
            slots: Mutex::new(BTreeMap::new()),
            numbers: AtomicU64::new(0),
        }
    }

    /// What to show for these scopes, as far as is known.
    pub(crate) async fn pass(
        &self,
        net: &Net,
        options: &Options,
        scopes: &Scopes,
    ) -> Result<Option<Pass>, Cause> {
        let Some(scheme) = self.scheme() else {
            return Ok(None);
        };
        let credential = self.found().await?.map(|found| &found.credential);
        let fixed = |header| {
            Ok(Some(Pass {
                header,
                number: None,
            }))
        };
        match (scheme, credential) {
            (Scheme::Basic, Some(Credential::Basic { user, secret })) => {
                fixed(token::basic(user, secret)?)
            }
            (Scheme::Basic, _) => Ok(None),
            (Scheme::Bearer(_), Some(Credential::Bearer(token))) => fixed(token::bearer(token)?),
            (Scheme::Bearer(realm), credential) => {
                let pass = self.token(net, options, scopes, &realm, credential);
                pass.await.map(Some)
            }
        }
    }

    async fn token(
        &self,
        net: &Net,
        options: &Options,
        scopes: &Scopes,
        realm: &Realm,
        credential: Option<&Credential>,
    ) -> Result<Pass, Cause> {
        let slot = self.slot(scopes);
        let mut slot = slot.lock().await;
        let asked_at = options.clock.now();
        if let Some(held) = slot.token.as_ref().filter(|held| asked_at < held.until) {
            return Ok(held.pass());
        }
        if self.secure && realm.url.scheme() == "http" && credential.is_some() {
            let host = realm.url.host_str().unwrap_or_default().to_owned();
            return Err(Cause::InsecureRealm(host));
        }
        let scopes = scopes.clone().and(&slot.named);
        let token = match token::fetch(net, options, realm, &scopes, credential).await {
            Err(Cause::Unauthorized { answer, .. }) => {
                return Err(self.unauthorized(true, answer).await);
            }
            token => token?,
        };
        let margin = MARGIN_MAX.min(token.life / 10);
        let held = Held {
            value: token.value,
            // Counted from before it was asked for, since that is when its server began to count at the
            // earliest; our clock and no date of theirs, since theirs may be wrong.
            until: asked_at + (token.life - margin),
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
        };
        let pass = held.pass();
        slot.token = Some(held);
        Ok(pass)
    }

    /// Takes in that a request was refused (401) which had shown `pass`. Says whether there is something
    /// else to show.
    pub(crate) async fn refused(
        &self,
        scopes: &Scopes,
        pass: Option<&Pass>,
        challenges: &[Challenge],
    ) -> Result<bool, Cause> {
        let found = self.found().await?;
        let Some((scheme, named)) = choose(challenges, found.map(|found| &found.credential)) else {
            return Ok(false);
        };
        let before = self.set_scheme(scheme.clone());
        let slot = self.slot(scopes);
        let mut slot = slot.lock().await;
        let known = slot.named.clone().and(&named) == slot.named;
        slot.named = slot.named.clone().and(&named);
        let Some(pass) = pass else {
            return Ok(true);
        };
        let Some(number) = pass.number else {
            return Ok(before.as_ref() != Some(&scheme));
        };
        // Another request may have fetched a new one meanwhile, which is still to be tried.
        if slot
            .token
            .as_ref()
            .is_some_and(|held| held.number == number)
        {
            slot.token = None;
        }
        // A token without the rights that are asked for now comes again without them, unless more is asked.
        let insufficient = challenges
            .iter()
            .any(|challenge| challenge.get("error") == Some("insufficient_scope"));
        Ok(!insufficient || !known)
    }

    /// The refusal as it is told: with whose credential, if one was `shown`, or where none was found.
    pub(crate) async fn unauthorized(&self, shown: bool, answer: Answer) -> Cause {
        let found = self.found().await.unwrap_or_default();
        let shown = found.filter(|_| shown).map(|found| Shown {
            who: format!("{:?}", found.credential),
            source: found.source.clone(),
        });
        let looked_in = match shown {
            Some(_) => Vec::new(),
            None => self.credentials.looked_in(&self.host),
        };
        Cause::Unauthorized {
            shown,
            looked_in,
            answer,
        }
    }

    async fn found(&self) -> Result<Option<&Found>, Cause> {
        let find = || async {
            let (credentials, host) = (Arc::clone(&self.credentials), self.host.clone());
            // A helper is a program, and may take its time.
            let found = tokio::task::spawn_blocking(move || credentials.find(&host)).await;
            match found {
                Ok(found) => found.map_err(Cause::Credentials),
                Err(_) => Err(Cause::Credentials("looking for them failed".to_owned())),
            }
        };
        self.found.get_or_try_init(find).await.map(Option::as_ref)
    }

    fn slot(&self, scopes: &Scopes) -> Arc<AsyncMutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(scopes.clone()).or_default())
    }

    fn scheme(&self) -> Option<Scheme> {
        let scheme = self.scheme.lock().unwrap_or_else(PoisonError::into_inner);
        scheme.clone()
    }

    fn set_scheme(&self, new: Scheme) -> Option<Scheme> {
        let mut scheme = self.scheme.lock().unwrap_or_else(PoisonError::into_inner);
        scheme.replace(new)
    }
}

impl Held {
    fn pass(&self) -> Pass {
        Pass {
            header: self.value.clone(),
            number: Some(self.number),
        }
    }
}

/// The first challenge that can be met. Basic can only with a name; for a token nobody in particular may
/// ask as well.
fn choose(challenges: &[Challenge], credential: Option<&Credential>) -> Option<(Scheme, Scopes)> {
    challenges
        .iter()
        .find_map(|challenge| match (challenge.scheme.as_str(), credential) {
            ("basic", Some(Credential::Basic { .. })) => Some((Scheme::Basic, Scopes::default())),
            ("bearer", _) => {
                let url = Url::parse(challenge.get("realm")?).ok()?;
                let service = challenge.get("service").map(str::to_owned);
                let named = Scopes::parse(challenge.get("scope").unwrap_or_default());
                matches!(url.scheme(), "http" | "https")
                    .then(|| (Scheme::Bearer(Realm { url, service }), named))
            }
            _ => None,
        })
}
