//! Signals: the first one drains, the second one stops at once; SIGHUP reloads.

use std::io;

use levada_core::Stopper;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::Sender,
};
use tracing::{info, warn};

/// The signals an agent listens to.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes the signals; from now on none of them kills the process.
    pub(crate) fn take() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Passes signals on for as long as it is polled: SIGHUP to `hang_ups`, where one is enough
    /// however many come.
    pub(crate) async fn pass_on(mut self, stopper: Stopper, hang_ups: Sender<()>) {
        let mut asked = false;
        loop {
            let name = tokio::select! {
                Some(()) = self.terminate.recv() => "SIGTERM",
                Some(()) = self.interrupt.recv() => "SIGINT",
                Some(()) = self.hang_up.recv() => {
                    let _one_waits_already = hang_ups.try_send(()).is_err();
                    continue;
                }
            };
            if asked {
                warn!(signal = name, "stopping at once");
                stopper.now();
            } else {
                info!(signal = name, "stopping; a second signal stops at once");
                stopper.drain();
                asked = true;
            }
        }
    }
}
