//! The stop signal: first drain, then now.

use tokio::sync::watch;

/// How far a shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Draining,
    Now,
}

/// The side that asks to stop.
#[derive(Debug, Clone)]
pub struct Stopper(watch::Sender<Phase>);

/// The side that listens. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<Phase>);

impl Stopper {
    /// A new signal and its first listener.
    #[must_use]
    pub fn new() -> (Self, Stop) {
        let (tx, rx) = watch::channel(Phase::Running);
        (Self(tx), Stop(rx))
    }

    /// Another listener.
    #[must_use]
    pub fn listen(&self) -> Stop {
        Stop(self.0.subscribe())
    }

    /// Asks to stop in order: finish what is in hand, take nothing new.
    pub fn drain(&self) {
        self.0
            .send_if_modified(|phase| advance(phase, Phase::Draining));
    }

    /// Asks to stop at once.
    pub fn now(&self) {
        self.0.send_if_modified(|phase| advance(phase, Phase::Now));
    }
}

impl Stop {
    /// Waits until a stop in order, or at once, was asked for. Safe to cancel.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits until a stop at once was asked for. Safe to cancel.
    pub async fn now(&self) {
        self.reached(Phase::Now).await;
    }

    /// Whether any stop was asked for.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.0.borrow() >= Phase::Draining
    }

    async fn reached(&self, phase: Phase) {
        let mut rx = self.0.clone();
        if rx.wait_for(|now| *now >= phase).await.is_err() {
            // The asking side is gone without a word: nobody will stop this part through it.
            std::future::pending::<()>().await;
        }
    }
}

fn advance(phase: &mut Phase, to: Phase) -> bool {
    let further = to > *phase;
    *phase = (*phase).max(to);
    further
}
