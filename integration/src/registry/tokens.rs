//! A server of tokens, by Docker's "Token Authentication Specification" and its form for OAuth 2.
//!
//! <https://distribution.github.io/distribution/spec/auth/token/>,
//! <https://distribution.github.io/distribution/spec/auth/oauth/>

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    certs::Certs,
    jwt::{KeyHint, Signer},
};
use crate::{
    front::Front,
    http::{Answer, Request, Server},
};

pub(super) const SERVICE: &str = "registry.test";
pub(super) const ISSUER: &str = "tokens.test";

/// The registry takes a token for a minute after its end, for clocks that differ.
const LEEWAY_SECS: i64 = 60;

/// Whom tokens are given, and what kind.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Names and passwords of who may do everything.
    pub users: Vec<(String, String)>,
    /// Everybody may pull.
    pub public: bool,
    /// How long the registry takes a token.
    pub lifetime: Duration,
    /// How long clients are told that it is good, when that is not the same.
    pub announced: Option<Duration>,
    /// How tokens name their key.
    pub hint: KeyHint,
    /// Requests by `POST` are answered.
    pub oauth: bool,
}

impl Default for Rules {
    /// For nobody, five minutes.
    fn default() -> Rules {
        Rules {
            users: Vec::new(),
            public: false,
            lifetime: Duration::from_secs(300),
            announced: None,
            hint: KeyHint::Certificate,
            oauth: true,
        }
    }
}

impl Rules {
    /// For one user, who may do everything.
    pub fn for_user(user: &str, password: &str) -> Rules {
        Rules {
            users: vec![(user.to_owned(), password.to_owned())],
            ..Rules::default()
        }
    }
}

/// A request for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// `GET`, or what `grant_type` says.
    pub grant: String,
    /// Who asked, when it is known.
    pub user: Option<String>,
    /// For what, as `repository:shop/web:pull`.
    pub scopes: Vec<String>,
    /// Whether there was a token.
    pub granted: bool,
}

/// A server of tokens on the loopback address.
pub struct TokenServer {
    server: Server,
    /// What stands before it when it is by TLS.
    front: Option<Front>,
    shared: Arc<Shared>,
}

struct Shared {
    rules: Mutex<Rules>,
    signer: Signer,
    given: Mutex<Vec<Given>>,
    /// Refresh tokens by whose they are.
    refresh: Mutex<Vec<(String, String)>>,
}

impl TokenServer {
    /// Starts it.
    pub fn start(rules: Rules) -> TokenServer {
        let shared = Arc::new(Shared {
            signer: Signer::new(rules.hint),
            rules: Mutex::new(rules),
            given: Mutex::default(),
            refresh: Mutex::default(),
        });
        let answering = Arc::clone(&shared);
        let server = Server::start(move |request| answering.answer(request));
        TokenServer {
            server,
            front: None,
            shared,
        }
    }

    /// By TLS, with a certificate that an authority of `certs` signs.
    pub fn secure(rules: Rules, certs: &Certs, authority: &str) -> TokenServer {
        certs.signed("tokens", authority);
        let mut tokens = TokenServer::start(rules);
        let front = Front::secure(certs, "tokens", tokens.server.address());
        tokens.front = Some(front);
        tokens
    }

    /// The realm of challenges.
    pub fn url(&self) -> String {
        match &self.front {
            Some(front) => format!("https://{}/token", front.address()),
            None => self.server.url("/token"),
        }
    }

    /// Of the key that signs, for those who check.
    pub fn certificate(&self) -> PathBuf {
        self.shared.signer.certificate()
    }

    /// The first of its users.
    pub(super) fn user(&self) -> Option<(String, String)> {
        lock(&self.shared.rules).users.first().cloned()
    }

    /// From now on the registry takes tokens for so long, and clients are told of another time.
    pub fn give_for(&self, lifetime: Duration, announced: Duration) {
        let mut rules = lock(&self.shared.rules);
        (rules.lifetime, rules.announced) = (lifetime, Some(announced));
    }

    /// All requests, in order.
    pub fn given(&self) -> Vec<Given> {
        lock(&self.shared.given).clone()
    }

    /// A refresh token of a user's, as if he had logged in elsewhere.
    pub fn identity(&self, user: &str) -> String {
        self.shared.identity(user)
    }
}

/// What a request asks for.
struct Wish {
    grant: String,
    service: String,
    scopes: Vec<String>,
    /// `None` for nobody in particular; `Some(None)` for somebody who is not who he says.
    user: Option<Option<String>>,
    /// A refresh token, too.
    offline: bool,
}

impl Shared {
    fn answer(&self, request: &Request) -> Answer {
        let wish = match request.method.as_str() {
            "GET" => self.get(request),
            "POST" if lock(&self.rules).oauth => self.post(request),
            _ => return Answer::status(405),
        };
        let user = wish.user.clone().flatten();
        // Public is what everybody may pull; whoever names himself must be who he says.
        let granted = match &wish.user {
            None => lock(&self.rules).public,
            Some(user) => user.is_some(),
        } && wish.service == SERVICE;
        lock(&self.given).push(Given {
            grant: wish.grant.clone(),
            user: user.clone(),
            scopes: wish.scopes.clone(),
            granted,
        });
        match granted {
            true => self.token(&wish, user.as_deref()),
            false => refused(),
        }
    }

    fn get(&self, request: &Request) -> Wish {
        let user = request.head.get("authorization").map(|said| {
            let (user, password) = basic(said)?;
            self.known(&user, &password).then_some(user)
        });
        Wish {
            grant: "GET".to_owned(),
            service: one(&request.query, "service"),
            scopes: scopes(&request.query),
            user,
            offline: one(&request.query, "offline_token") == "true",
        }
    }

    fn post(&self, request: &Request) -> Wish {
        let form = request.form();
        let grant = one(&form, "grant_type");
        let user = match grant.as_str() {
            "password" => {
                let (user, password) = (one(&form, "username"), one(&form, "password"));
                self.known(&user, &password).then_some(user)
            }
            "refresh_token" => {
                let token = one(&form, "refresh_token");
                let known = lock(&self.refresh);
                let found = known.iter().find(|(_, known)| *known == token);
                found.map(|(user, _)| user.clone())
            }
            _ => None,
        };
        Wish {
            service: one(&form, "service"),
            scopes: scopes(&form),
            user: Some(user),
            offline: one(&form, "access_type") == "offline" || grant == "refresh_token",
            grant,
        }
    }

    fn known(&self, user: &str, password: &str) -> bool {
        let rules = lock(&self.rules);
        rules
            .users
            .iter()
            .any(|(name, secret)| name == user && secret == password)
    }

    fn token(&self, wish: &Wish, user: Option<&str>) -> Answer {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = i64::try_from(now.expect("after 1970").as_secs()).expect("seconds");
        let rules = lock(&self.rules).clone();
        let lifetime = i64::try_from(rules.lifetime.as_secs()).expect("seconds");
        let access = wish.scopes.iter().filter_map(|scope| access(scope, user));
        let claims = json!({
            "iss": ISSUER,
            "sub": user.unwrap_or_default(),
            "aud": wish.service,
            "exp": now + lifetime - LEEWAY_SECS,
            "nbf": now - LEEWAY_SECS,
            "iat": now,
            "jti": format!("{now}-{}", lock(&self.given).len()),
            "access": access.collect::<Vec<Value>>(),
        });
        let token = self.signer.sign(&claims);
        let announced = rules.announced.unwrap_or(rules.lifetime);
        let mut answer = json!({ "expires_in": announced.as_secs() });
        // Either name is in use, the newer one by OAuth 2 alone.
        match wish.grant.as_str() {
            "GET" => answer["token"] = json!(token),
            _ => answer["access_token"] = json!(token),
        }
        if let Some(user) = user.filter(|_| wish.offline) {
            answer["refresh_token"] = json!(self.identity(user));
        }
        Answer::status(200)
            .with("Content-Type", "application/json")
            .body(answer.to_string())
    }

    fn identity(&self, user: &str) -> String {
        let mut known = lock(&self.refresh);
        let token = format!("refresh-{}-{user}", known.len());
        known.push((user.to_owned(), token.clone()));
        token
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused() -> Answer {
    let text = json!({ "errors": [{ "code": "UNAUTHORIZED", "message": "no such user" }] });
    Answer::status(401)
        .with("Content-Type", "application/json")
        .body(text.to_string())
}

fn basic(said: &str) -> Option<(String, String)> {
    let (scheme, encoded) = said.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn one(pairs: &[(String, String)], name: &str) -> String {
    let found = pairs.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.clone()).unwrap_or_default()
}

/// Several come as several pairs, or in one with blanks between.
fn scopes(pairs: &[(String, String)]) -> Vec<String> {
    let values = pairs.iter().filter(|(name, _)| name == "scope");
    let scopes = values.flat_map(|(_, value)| value.split_whitespace());
    scopes.map(str::to_owned).collect()
}

/// What a token says of `TYPE:NAME:ACTION,ACTION`; nobody in particular may pull alone.
fn access(scope: &str, user: Option<&str>) -> Option<Value> {
    let (kind, rest) = scope.split_once(':')?;
    // A name may have a port in it.
    let (name, actions) = rest.rsplit_once(':')?;
    let actions = actions
        .split(',')
        .filter(|action| user.is_some() || *action == "pull");
    let actions: Vec<&str> = actions.collect();
    Some(json!({ "type": kind, "name": name, "actions": actions }))
}
