//! Keeps a part running: what breaks is built and opened again after a back-off.
//!
//! A part that panics is caught here; it takes neither the process nor another part down.

use std::{error::Error, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt;
use levada_core::{Chance, Needs, OpenError, Stop};
use tokio::time::{self, Instant};
use tracing::{error, info, warn};

use crate::{
    back_off::BackOff,
    metrics::PartMetrics,
    status::{Cell, Doing, State},
};

/// A source or sink with everything it needs to run.
#[async_trait]
pub(crate) trait Runner: Send {
    /// Builds the part anew and opens it.
    async fn open(&mut self) -> Result<(), OpenError>;

    /// Runs until asked to stop. May be dropped at any await.
    async fn run(&mut self) -> Result<(), Failure>;

    /// Ends in order.
    async fn close(&mut self);
}

/// Why a part ended before it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The error and its causes.
    pub(crate) text: String,
    pub(crate) needs: Needs,
}

/// What the supervisor of one part uses.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) cell: Arc<Cell>,
    pub(crate) stop: Stop,
    pub(crate) chance: Chance,
    pub(crate) metrics: PartMetrics,
}

/// Waits before a part is opened again.
const REOPEN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// A part that ran so long begins its back-off anew.
const STEADY: Duration = Duration::from_secs(60);

impl Keeper {
    /// Runs a part that is open, until it has finished or the stop signal ends it.
    pub(crate) async fn keep(self, mut runner: Box<dyn Runner>) {
        tokio::select! {
            biased;
            () = self.stop.now() => {}
            () = self.keep_going(&mut *runner) => {}
        }
        if self.cell.state() == State::Finished {
            return;
        }
        self.cell.enter(State::Stopped, Doing::Nothing);
    }

    async fn keep_going(&self, runner: &mut dyn Runner) {
        let mut back_off = BackOff::new(REOPEN.0, REOPEN.1, self.chance.clone());
        loop {
            self.cell.enter(State::Running, Doing::Waiting);
            let began = Instant::now();
            match caught(runner.run()).await {
                Ok(Ok(())) => return self.end(runner).await,
                Ok(Err(failure)) => self.broke(&failure),
                Err(panic) => self.panicked(&panic),
            }
            if began.elapsed() >= STEADY {
                back_off.reset();
            }
            if !self.reopen(runner, &mut back_off).await {
                return;
            }
        }
    }

    async fn end(&self, runner: &mut dyn Runner) {
        if let Err(panic) = caught(runner.close()).await {
            self.panicked(&panic);
        }
        if !self.stop.is_draining() {
            info!(part = %self.cell.part, "finished");
            self.cell.enter(State::Finished, Doing::Nothing);
        }
    }

    /// Tries until the part is open; `false` if the agent stops first.
    async fn reopen(&self, runner: &mut dyn Runner, back_off: &mut BackOff) -> bool {
        loop {
            let until = Instant::now() + back_off.next();
            self.cell.enter(State::Reopening, Doing::BackOff(until));
            tokio::select! {
                biased;
                () = self.stop.draining() => return false,
                () = time::sleep_until(until) => {}
            }
            self.metrics.restarts.add(1);
            self.cell.restarted();
            match caught(runner.open()).await {
                Ok(Ok(())) => {
                    info!(part = %self.cell.part, "open again");
                    return true;
                }
                Ok(Err(error)) => {
                    let text = chain_text(&error);
                    self.cell.error(&text);
                    warn!(part = %self.cell.part, error = %text, "cannot open part");
                }
                Err(panic) => self.panicked(&panic),
            }
        }
    }

    fn broke(&self, failure: &Failure) {
        self.cell.error(&failure.text);
        match failure.needs {
            Needs::Time => warn!(part = %self.cell.part, error = %failure.text, "part ended"),
            Needs::Human => {
                self.cell.enter(State::Failed, Doing::Nothing);
                error!(part = %self.cell.part, error = %failure.text, "part needs a human");
            }
        }
    }

    fn panicked(&self, panic: &str) {
        self.metrics.panics.add(1);
        self.cell.error(&format!("panicked: {panic}"));
        error!(part = %self.cell.part, panic, "part panicked");
    }
}

/// Waits for a future and gives the text of its panic, if it panics.
pub(crate) async fn caught<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let caught = AssertUnwindSafe(future).catch_unwind().await;
    caught.map_err(|payload| {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned());
        text.or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_default()
    })
}

/// An error and its causes in one line.
pub(crate) fn chain_text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
