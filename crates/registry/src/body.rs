//! The body of an answer, which has to come at a minimum rate.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::Response;

use crate::{
    answer::{ANSWER_BYTES_MAX, Answer},
    error::Cause,
    net,
    observer::Watch,
    options::Options,
    trace::{Heard, Told},
};

/// A body that is being read.
pub(crate) struct Body {
    response: Response,
    window: Duration,
    window_bytes: u64,
    /// What was waited for, and what came, in the present window.
    waited: Duration,
    came: u64,
    watch: Option<Watch>,
    heard: Option<Heard>,
}

impl Body {
    pub(crate) fn new(response: Response, options: &Options) -> Body {
        Body {
            watch: response.extensions().get().cloned(),
            heard: response
                .extensions()
                .get::<Told>()
                .map(|told| told.body(&response)),
            response,
            // A window of no length would be turned without end.
            window: options.min_rate_window.max(Duration::from_millis(1)),
            window_bytes: options.window_bytes(),
            waited: Duration::ZERO,
            came: 0,
        }
    }

    /// The next bytes, or `None` at the end. Only the time that is spent in here counts against the rate:
    /// a stream that nobody reads is not slow.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Cause> {
        loop {
            let since = Instant::now();
            let left = self.window.saturating_sub(self.waited);
            let next = tokio::time::timeout(left, self.response.chunk()).await;
            self.waited += since.elapsed();
            if let Ok(next) = next {
                let bytes = next.map_err(|err| self.broke(net::cause(&err)))?;
                let count = bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
                self.came += count;
                if let Some(watch) = &self.watch {
                    watch.received(count);
                }
                match (&mut self.heard, &bytes) {
                    (Some(heard), Some(bytes)) => heard.piece(bytes),
                    (Some(heard), None) => heard.ended(),
                    (None, _) => {}
                }
                if bytes.is_some() && self.waited >= self.window {
                    self.turn()?;
                }
                return Ok(bytes);
            }
            self.turn()?;
        }
    }

    fn turn(&mut self) -> Result<(), Cause> {
        let bytes = std::mem::take(&mut self.came);
        self.waited = Duration::ZERO;
        if bytes < self.window_bytes {
            return Err(self.broke(Cause::TooSlow {
                bytes,
                window: self.window,
            }));
        }
        Ok(())
    }

    fn broke(&mut self, cause: Cause) -> Cause {
        if let Some(heard) = &mut self.heard {
            heard.broke(&cause);
        }
        cause
    }

    /// All of it.
    ///
    /// # Errors
    /// [`Cause::TooLarge`] as soon as there are more than `limit` bytes.
    pub(crate) async fn all(mut self, limit: u64) -> Result<Bytes, Cause> {
        let mut bytes = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if bytes.len() as u64 + piece.len() as u64 > limit {
                return Err(Cause::TooLarge { limit });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }
}

/// What an answer that refuses says in its body, as far as it can be read.
pub(crate) async fn refusal(response: Response, options: &Options) -> Answer {
    let body = Body::new(response, options).all(ANSWER_BYTES_MAX).await;
    body.map_or_else(|_| Answer::default(), |body| Answer::parse(&body))
}
