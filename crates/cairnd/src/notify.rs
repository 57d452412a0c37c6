//! What the service manager is told. Without one, nothing is.

use std::time::Duration;

use cairn_meta::Tx;
use cairn_node::Node;
use sd_notify::NotifyState;
use tracing::{debug, warn};

/// Calls are served from now on.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// No new calls are served from now on.
pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Calls are served later than the manager waits for; within so much time it hears again.
pub fn later(status: &str, within: Duration) {
    let within = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
    tell(&[
        NotifyState::ExtendTimeoutUsec(within),
        NotifyState::Status(status),
    ]);
}

/// One sentence for `systemctl status`.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// The configuration is being read again; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(err) => warn!("cannot tell the service manager of a reload: {err}"),
    }
}

/// Says that the daemon is alive for as long as it is: every beat goes through the threads that calls
/// use and the one that writes records, so that a daemon that hangs there is restarted.
pub async fn watchdog(node: Node) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    debug!("watched by the service manager, which waits for {limit:?}");
    let mut beats = tokio::time::interval(beat(limit));
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let node = node.clone();
        // A store that turned read-only still serves what it has.
        let answered = tokio::task::spawn_blocking(move || {
            let _ = node
                .meta()
                .write(|_: &mut Tx| Ok::<(), cairn_meta::Error>(()));
        });
        if answered.await.is_ok() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// As sd_watchdog_enabled(3) advises, with room for a slow beat.
fn beat(limit: Duration) -> Duration {
    (limit / 3).max(Duration::from_millis(1))
}

fn tell(states: &[NotifyState]) {
    if let Err(err) = sd_notify::notify(states) {
        warn!("cannot tell the service manager: {err}");
    }
}
