//! Tokens: asked of the server that a registry names, by either of its two ways (distribution,
//! docs/spec/auth/token.md and oauth.md).

use std::{collections::BTreeSet, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Method, StatusCode, header};
use reqwest::Response;
use serde::Deserialize;
use url::Url;

use crate::{
    answer::tame,
    body::{Body, refusal},
    credentials::Credential,
    error::{Cause, Failed},
    net::{Ask, Net, Payload},
    options::Options,
};

/// How long a token is good when its server does not say (token.md: "defaults to 60 seconds").
const LIFE: Duration = Duration::from_secs(60);

/// No token is believed to be good for longer.
const LIFE_MAX: Duration = Duration::from_secs(86_400);

/// Bytes of a token server's answer. Tokens that carry many rights have tens of KiB.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Who we are to a token server.
const CLIENT_ID: &str = "cairn";

/// What a request needs leave for: `repository:shop/web:pull`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scopes(BTreeSet<String>);

impl Scopes {
    pub(crate) fn pull(repository: &str) -> Scopes {
        Scopes(BTreeSet::from([format!("repository:{repository}:pull")]))
    }

    pub(crate) fn push(repository: &str) -> Scopes {
        Scopes(BTreeSet::from([format!(
            "repository:{repository}:pull,push"
        )]))
    }

    /// Whether they are to store something.
    pub(crate) fn store(&self) -> bool {
        self.0.iter().any(|scope| scope.ends_with(",push"))
    }

    #[must_use]
    pub(crate) fn and(mut self, other: &Scopes) -> Scopes {
        self.0.extend(other.0.iter().cloned());
        self
    }

    /// The scopes that a challenge names, one beside the other.
    pub(crate) fn parse(text: &str) -> Scopes {
        Scopes(text.split_ascii_whitespace().map(str::to_owned).collect())
    }
}

/// Where tokens are to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Realm {
    pub(crate) url: Url,
    pub(crate) service: Option<String>,
}

/// A token, and for how long it is good.
pub(crate) struct Token {
    pub(crate) value: HeaderValue,
    pub(crate) life: Duration,
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    /// Seconds; some write texts.
    #[serde(default)]
    expires_in: serde_json::Value,
}

/// Asks for a token. The way of GET has the credential in a header, that of OAuth 2 in a form: a refresh
/// token knows only the latter; a password goes there where the former is not allowed.
pub(crate) async fn fetch(
    net: &Net,
    options: &Options,
    realm: &Realm,
    scopes: &Scopes,
    credential: Option<&Credential>,
) -> Result<Token, Cause> {
    let (ask, secret) = match credential {
        Some(Credential::Identity(refresh)) => {
            let grant = [("grant_type", "refresh_token"), ("refresh_token", refresh)];
            (by_form(realm, scopes, &grant), None)
        }
        Some(Credential::Basic { user, secret }) => (
            by_query(realm, scopes, Some(user)),
            Some(basic(user, secret)?),
        ),
        Some(Credential::Bearer(_)) | None => (by_query(realm, scopes, None), None),
    };
    let sent = net.send(&ask, secret.as_ref()).await;
    let mut response = sent.map_err(|cause| unreached(realm, cause))?;
    if let (StatusCode::METHOD_NOT_ALLOWED, Some(Credential::Basic { user, secret })) =
        (response.status(), credential)
    {
        let grant = [
            ("grant_type", "password"),
            ("username", user),
            ("password", secret),
        ];
        let sent = net.send(&by_form(realm, scopes, &grant), None).await;
        response = sent.map_err(|cause| unreached(realm, cause))?;
    }
    read(realm, response, options).await
}

/// The header of a name and its secret (RFC 7617), which logs are not to show.
pub(crate) fn basic(user: &str, secret: &str) -> Result<HeaderValue, Cause> {
    let text = STANDARD.encode(format!("{user}:{secret}"));
    hidden(&format!("Basic {text}"))
}

/// The header of a token.
pub(crate) fn bearer(token: &str) -> Result<HeaderValue, Cause> {
    hidden(&format!("Bearer {token}"))
}

fn hidden(text: &str) -> Result<HeaderValue, Cause> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Cause::Credentials("a token has characters that none may have".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn by_query(realm: &Realm, scopes: &Scopes, user: Option<&String>) -> Ask {
    let mut url = realm.url.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = &realm.service {
            query.append_pair("service", service);
        }
        for scope in &scopes.0 {
            query.append_pair("scope", scope);
        }
        if let Some(user) = user {
            query.append_pair("account", user);
        }
    }
    let mut ask = Ask::new(Method::GET, url);
    ask.of_tokens = true;
    ask
}

fn by_form(realm: &Realm, scopes: &Scopes, grant: &[(&str, &str)]) -> Ask {
    let scopes: Vec<&str> = scopes.0.iter().map(String::as_str).collect();
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(grant)
        .append_pair("service", realm.service.as_deref().unwrap_or_default())
        .append_pair("client_id", CLIENT_ID)
        .append_pair("scope", &scopes.join(" "));
    let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
    let mut ask = Ask::new(Method::POST, realm.url.clone()).header(header::CONTENT_TYPE, form_type);
    ask.payload = Payload::Bytes(form.finish().into());
    ask.secret = true;
    ask.of_tokens = true;
    ask
}

/// What keeps the server of tokens from answering is told of it, and not of the registry.
fn unreached(realm: &Realm, cause: Cause) -> Cause {
    let issuer = match &cause {
        Cause::NoSuchHost
        | Cause::Connect(_)
        | Cause::ConnectTimeout(_)
        | Cause::AnswerTimeout(_)
        | Cause::Broken { .. }
        | Cause::PlainHttp
        | Cause::Certificate(_)
        | Cause::ClientCertificate
        | Cause::Tls(_) => None,
        Cause::UnknownAuthority { issuer } => issuer.clone(),
        _ => return cause,
    };
    let passes = cause.passes();
    let realm = realm.url.host_str().unwrap_or_default().to_owned();
    let host = realm.clone();
    let mut why = Failed { host, cause }.brief();
    if let Some(issuer) = issuer {
        why += &format!(", {issuer}");
    }
    Cause::Token { realm, why, passes }
}

async fn read(realm: &Realm, response: Response, options: &Options) -> Result<Token, Cause> {
    let status = response.status();
    let refused = |why: String, passes| Cause::Token {
        realm: realm.url.host_str().unwrap_or_default().to_owned(),
        why,
        passes,
    };
    if status == StatusCode::UNAUTHORIZED {
        return Err(Cause::Unauthorized {
            shown: None,
            looked_in: Vec::new(),
            answer: refusal(response, options).await,
        });
    }
    if !status.is_success() {
        let passes = crate::retry::passes(status);
        return Err(refused(format!("it answered {}", status.as_u16()), passes));
    }
    let bytes = Body::new(response, options).all(ANSWER_BYTES_MAX).await?;
    // What serde says of a text quotes it.
    let reply: Reply = serde_json::from_slice(&bytes).map_err(|err| {
        refused(
            format!("its answer is no JSON ({:?})", err.classify()),
            false,
        )
    })?;
    let token = [reply.access_token, reply.token].into_iter().flatten();
    let token = token.into_iter().find(|token| !token.is_empty());
    let token = token.ok_or_else(|| refused(tame("no token is in its answer"), false))?;
    Ok(Token {
        value: bearer(&token)?,
        life: reply
            .expires_in
            .as_u64()
            .map_or(LIFE, |seconds| Duration::from_secs(seconds).min(LIFE_MAX)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7617, section 2.
    #[test]
    fn basic_is_that_of_the_rfc_and_hidden() {
        let value = basic("Aladdin", "open sesame").expect("header");
        assert_eq!(value, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(format!("{value:?}"), "Sensitive");
    }

    /// Whatever it is that TLS did not like, it is the server of tokens that it was about.
    #[test]
    fn the_server_of_tokens_is_named() {
        let realm = Realm {
            url: Url::parse("https://auth.example.com/token").expect("address"),
            service: None,
        };
        for cause in [
            Cause::ClientCertificate,
            Cause::Certificate("expired".to_owned()),
            Cause::Tls("no common version".to_owned()),
        ] {
            let told = unreached(&realm, cause);
            let Cause::Token { realm, .. } = &told else {
                panic!("{told:?}");
            };
            assert_eq!(realm, "auth.example.com");
        }
    }

    /// The request of token.md, "Requesting a Token".
    #[test]
    fn the_query_is_that_of_the_specification() {
        let realm = Realm {
            url: Url::parse("https://auth.docker.io/token").expect("address"),
            service: Some("registry.docker.io".to_owned()),
        };
        let ask = by_query(&realm, &Scopes::push("samalba/my-app"), None);
        assert_eq!(
            ask.url.as_str(),
            "https://auth.docker.io/token?service=registry.docker.io&scope=repository%3Asamalba%2Fmy-app%3Apull%2Cpush"
        );
    }
}
