//! What can go wrong, and when.

use crate::fault::Dice;

use super::Seen;

/// What is done to a request, or to its answer.
///
/// An offset counts in the body of the answer, or of the request when it has one of its own, modulo its
/// length: so a number that is drawn blindly always hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends before any answer.
    Hang,
    /// The connection ends after so many bytes of the body.
    Cut(u64),
    /// Nothing comes any more after so many bytes, until the client leaves.
    Stall(u64),
    /// The byte at this offset is another.
    Flip(u64),
    /// The answer says that it is so many bytes longer than it is, and then ends.
    Longer(u64),
    /// The answer says that it is so many bytes shorter, and is.
    Shorter(u64),
    /// The registry does not hear of it; the answer is this, with these fields.
    Status(u16, Vec<(String, String)>),
    /// The registry does not hear of it: its body is larger than what is let through. As nginx does it
    /// (`client_max_body_size`), the answer comes before the body has been read.
    TooLarge,
    /// The registry does not hear of `Range`.
    WithoutRange,
    /// The client is sent elsewhere: this, and the request's path, is where.
    Redirect(String),
    /// The body comes at so many bytes a second.
    Trickle(u64),
}

impl Fault {
    /// Too many requests; the client is told when to come again, in the words of `Retry-After`: seconds,
    /// or a date (RFC 9110, 10.2.3).
    pub fn too_many(retry_after: &str) -> Fault {
        Fault::later(429, retry_after)
    }

    /// The registry is out of order, and says for how long.
    pub fn unavailable(retry_after: &str) -> Fault {
        Fault::later(503, retry_after)
    }

    fn later(status: u16, retry_after: &str) -> Fault {
        let field = ("Retry-After".to_owned(), retry_after.to_owned());
        Fault::Status(status, vec![field])
    }
}

/// Lets no body of more than `limit` bytes through.
pub fn limit(limit: u64) -> impl FnMut(&Seen) -> Option<Fault> + Send + 'static {
    move |seen| {
        let length = seen.head.get("content-length");
        let length: u64 = length.and_then(|text| text.parse().ok()).unwrap_or(0);
        (length > limit).then_some(Fault::TooLarge)
    }
}

/// Decides about a request before the registry hears of it.
pub type Script = dyn FnMut(&Seen) -> Option<Fault> + Send;

/// The same fault for the first `count` requests for bytes of blobs, each at another place.
pub fn times(
    count: usize,
    seed: u64,
    fault: impl Fn(u64) -> Fault + Send + 'static,
) -> impl FnMut(&Seen) -> Option<Fault> + Send + 'static {
    let mut dice = Dice(seed);
    let mut left = count;
    move |seen| {
        if !seen.is_fetch() || left == 0 {
            return None;
        }
        left -= 1;
        Some(fault(dice.roll(1 << 30) as u64))
    }
}

/// Now and then, of a hundred requests for `percent`, something that goes over and costs no bytes: at most
/// `count` times.
pub fn storm(
    seed: u64,
    percent: usize,
    count: usize,
) -> impl FnMut(&Seen) -> Option<Fault> + Send + 'static {
    let mut dice = Dice(seed);
    let mut left = count;
    move |seen| {
        if !matches!(seen.method.as_str(), "GET" | "HEAD") || left == 0 {
            return None;
        }
        if dice.roll(100) >= percent {
            return None;
        }
        left -= 1;
        let at = dice.roll(1 << 30) as u64;
        Some(match (seen.is_fetch(), dice.roll(5)) {
            (true, 0..=2) => Fault::Cut(at),
            (_, 3) => Fault::unavailable("0"),
            _ => Fault::Hang,
        })
    }
}
