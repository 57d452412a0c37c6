//! When a request is worth repeating, and how long to wait before: the one place where that is decided.

use std::{
    fmt,
    future::Future,
    hash::{BuildHasher, Hasher, RandomState},
    pin::Pin,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};

/// A wait that is under way.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tells the time, and lets it pass. Tests have one of their own.
pub trait Clock: Send + Sync {
    /// For how long something took, and until when it is good.
    fn now(&self) -> Instant;
    /// The day and hour, for dates that servers send.
    fn wall(&self) -> SystemTime;
    /// Ends when so much time has passed.
    fn sleep(&self, wait: Duration) -> Sleep;
}

/// What spreads waits, so that clients that failed together do not come back together.
pub trait Dice: Send + Sync {
    /// A number from 0 to below 1.
    fn roll(&self) -> f64;
}

/// The system's clock and dice.
pub struct System;

impl Clock for System {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, wait: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(wait))
    }
}

impl Dice for System {
    fn roll(&self) -> f64 {
        // The standard library draws the keys of its hash tables from the system. A wait needs no better.
        let bits = RandomState::new().build_hasher().finish() >> 40;
        f64::from(u32::try_from(bits).unwrap_or(0)) / f64::from(1_u32 << 24)
    }
}

/// How often, and how long apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Requests in all, the first one included; of a body that breaks, breaks in a row without a byte
    /// in between.
    pub tries: u32,
    /// Before the second try; each later wait is twice the one before.
    pub first_wait: Duration,
    /// No wait of our own is longer.
    pub wait_max: Duration,
    /// A server that asks for more than this (`Retry-After`) is not waited for.
    pub retry_after_max: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            tries: 5,
            first_wait: Duration::from_millis(500),
            wait_max: Duration::from_secs(30),
            retry_after_max: Duration::from_secs(60),
        }
    }
}

impl Policy {
    /// How long to wait after `tried` requests that failed, or `None` when it is time to give up.
    /// `asked` is what the server wants; `roll` takes up to a half off a wait of our own.
    pub fn wait(&self, tried: u32, asked: Option<Duration>, roll: f64) -> Option<Duration> {
        if tried >= self.tries {
            return None;
        }
        if let Some(asked) = asked {
            return (asked <= self.retry_after_max).then_some(asked);
        }
        let doubled = 2_u32.saturating_pow(tried.saturating_sub(1));
        let whole = self.first_wait.saturating_mul(doubled).min(self.wait_max);
        Some(whole.mul_f64(1.0 - roll.clamp(0.0, 1.0) / 2.0))
    }
}

/// Whether a server that answers so may answer otherwise a little later.
pub(crate) fn passes(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        )
}

/// What `Retry-After` asks for: seconds, or a date (RFC 9110, 10.2.3). A date that is past asks for
/// nothing.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// What was tried of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Requests.
    pub times: u32,
    /// From the first of them to the end of the last.
    pub during: Duration,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.times == 1 { "try" } else { "tries" };
        write!(
            f,
            "{} {plural} in {} s",
            self.times,
            self.during.as_secs_f64().round()
        )
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))])
    }

    /// The two examples of RFC 9110, 10.2.3; the date in seconds is `date -d`'s.
    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_799);
        let before = date - Duration::from_secs(7);
        let written = headers("Fri, 31 Dec 1999 23:59:59 GMT");
        assert_eq!(retry_after(&written, before), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after(&written, date + Duration::from_secs(1)),
            Some(Duration::ZERO)
        );
        assert_eq!(
            retry_after(&headers("120"), date),
            Some(Duration::from_secs(120))
        );
        for nothing in ["-1", "soon", ""] {
            assert_eq!(retry_after(&headers(nothing), date), None, "{nothing}");
        }
    }

    #[test]
    fn waits_double_up_to_a_limit_and_end() {
        let policy = Policy {
            tries: 5,
            first_wait: Duration::from_secs(1),
            wait_max: Duration::from_secs(3),
            retry_after_max: Duration::from_secs(10),
        };
        let seconds = |tried, roll| policy.wait(tried, None, roll).map(|w| w.as_secs_f64());
        assert_eq!(seconds(1, 0.0), Some(1.0));
        assert_eq!(seconds(2, 0.0), Some(2.0));
        assert_eq!(seconds(3, 0.0), Some(3.0));
        assert_eq!(seconds(4, 0.5), Some(2.25));
        assert_eq!(seconds(5, 0.0), None);
        let asked = |seconds| policy.wait(1, Some(Duration::from_secs(seconds)), 0.9);
        assert_eq!(asked(10), Some(Duration::from_secs(10)));
        assert_eq!(asked(11), None);
    }

    #[test]
    fn dice_stay_within_their_bounds() {
        let rolls: Vec<f64> = (0..64).map(|_| System.roll()).collect();
        assert!(rolls.iter().all(|roll| (0.0..1.0).contains(roll)));
        assert!(rolls.iter().any(|roll| *roll != rolls[0]));
    }
}
