//! What a call is about, as fields of its span: so every line that is logged inside names it, and a
//! trace has it as attributes.

use std::{
    fmt::Display,
    sync::atomic::{AtomicBool, Ordering},
};

use tracing::{Level, Span, level_filters::LevelFilter};

/// Whether somebody wants the fields whatever the level of the log is.
static ALWAYS: AtomicBool = AtomicBool::new(false);

/// From now on the fields are kept at every level, as for traces.
pub(crate) fn keep() {
    ALWAYS.store(true, Ordering::Relaxed);
}

/// Says that the call under way is about this; `field` is one of those that its span has empty.
///
/// The span is there at every level, so that errors name their call. To write a field takes longer
/// than some calls, though, and who logs no calls has their objects in the words of the errors. So it
/// is written only where calls are logged, or traced, and costs the others a look at the level.
pub(crate) fn about(field: &'static str, value: &(impl Display + ?Sized)) {
    if LevelFilter::current() >= Level::DEBUG || ALWAYS.load(Ordering::Relaxed) {
        // As text, which the log quotes: a client may have chosen it.
        Span::current().record(field, &*value.to_string());
    }
}
