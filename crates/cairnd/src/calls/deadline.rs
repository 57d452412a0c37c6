//! How long a client waits for its answer. It says so itself, and after that nobody reads what a call
//! still does.

use std::{convert::Infallible, future::Future, time::Duration};

use http::{HeaderMap, Response};
use tonic::{Status, body::Body};

/// At most eight digits and a unit (gRPC over HTTP/2, "Timeout").
const HEADER: &str = "grpc-timeout";

/// The time that a request leaves; `None` when it leaves all, or says it in no words of gRPC's.
pub(super) fn of(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(HEADER)?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_digit());
    let count: u64 = digits.parse().ok().filter(|_| plain)?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The answer, or word that the time is over. A stream that has begun by then goes on until its client
/// hangs up, which at its own deadline it does.
pub(super) async fn within(
    limit: Option<Duration>,
    answer: impl Future<Output = Result<Response<Body>, Infallible>>,
) -> Result<Response<Body>, Infallible> {
    let Some(limit) = limit else {
        return answer.await;
    };
    let answered = tokio::time::timeout(limit, answer).await;
    answered.unwrap_or_else(|_| {
        let status = Status::deadline_exceeded("context deadline exceeded");
        Ok(status.into_http())
    })
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use http::HeaderValue;
    use tonic::Code;

    use super::*;

    #[test]
    fn a_time_has_eight_digits_and_a_unit() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(
                HEADER,
                HeaderValue::from_bytes(text.as_bytes()).expect("a value"),
            );
            of(&headers)
        };
        assert_eq!(of("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(of("3M"), Some(Duration::from_secs(180)));
        assert_eq!(of("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(of("4m"), Some(Duration::from_millis(4)));
        assert_eq!(of("5u"), Some(Duration::from_micros(5)));
        assert_eq!(of("6n"), Some(Duration::from_nanos(6)));
        for none in ["", "S", "1", "1s", "+1S", "-1S", " 1S", "100000000S", "1µ"] {
            assert_eq!(of(none), None, "{none:?}");
        }
        assert_eq!(super::of(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_said() {
        let late = within(Some(Duration::from_millis(1)), pending())
            .await
            .expect("an answer");
        let status = Status::from_header_map(late.headers()).expect("a status");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        let answer = || ready(Ok(Response::new(Body::empty())));
        for limit in [Some(Duration::from_secs(60)), None] {
            let answer = within(limit, answer()).await.expect("an answer");
            assert!(Status::from_header_map(answer.headers()).is_none());
        }
    }
}
