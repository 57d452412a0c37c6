//! Whether somebody still waits for a call's answer. Its streams say nothing of that: they are calls of
//! their own, and a client may give one up without the others.

use tokio::sync::watch;

/// Tells whoever works for a call that it was given up. Clones tell the same.
#[derive(Clone, Debug)]
pub struct Awaited(watch::Receiver<()>);

impl Awaited {
    /// For a call that goes on until what is returned first is dropped.
    pub fn new() -> (impl Send + Sync + use<>, Awaited) {
        let (call, awaited) = watch::channel(());
        (call, Awaited(awaited))
    }

    /// Whether nobody waits any more.
    pub fn is_given_up(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Waits until nobody does.
    pub async fn given_up(&mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_is_given_up_when_it_is_dropped() {
        let (call, mut awaited) = Awaited::new();
        let other = awaited.clone();
        assert!(!awaited.is_given_up());
        drop(call);
        assert!(awaited.is_given_up());
        awaited.given_up().await;
        assert!(other.is_given_up());
    }
}
