//! Traces by OTLP, in builds with the feature `otel`: the span of each call, as part of the trace that
//! its client is in (`traceparent`, W3C Trace Context), sent to a collector. Without the feature
//! nothing of this is in the program.

#[cfg(feature = "otel")]
mod otlp;

#[cfg(not(feature = "otel"))]
pub use inert::Traces;
#[cfg(not(feature = "otel"))]
pub(crate) use inert::{begin, end, manifest, phase};
#[cfg(feature = "otel")]
pub use otlp::Traces;
#[cfg(feature = "otel")]
pub(crate) use otlp::{begin, end, manifest, phase};

#[cfg(not(feature = "otel"))]
mod inert {
    use std::fmt::Display;

    use cairn_node::Phase;
    use cairn_types::Digest;
    use http::HeaderMap;
    use tonic::Code;
    use tracing::Span;
    use tracing_subscriber::layer::Identity;

    use crate::config::Config;

    /// There are none.
    pub enum Traces {}

    impl Traces {
        /// Nothing is sent.
        ///
        /// # Errors
        /// None.
        pub fn start(_: &Config) -> Result<Option<Traces>, String> {
            Ok(None)
        }

        /// Adds nothing to the log.
        pub fn layer(&self) -> Identity {
            match *self {}
        }

        /// There is nothing to send.
        pub fn end(self) {
            match self {}
        }
    }

    pub(crate) fn begin(_: &Span, _: &HeaderMap, _: &str) {}

    pub(crate) fn end(_: &Span, _: Code, _: &str) {}

    pub(crate) fn manifest(_: &dyn Display) {}

    pub(crate) fn phase(_: &Span, _: &Digest, _: Phase) {}
}
