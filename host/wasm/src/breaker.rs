//! Stops calling a handler that fails all the time (delivery contract, D3.7): nothing is lost to
//! it, its callers wait, and one batch now and then shows whether it works again.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use levada_core::{Chance, InterceptError};
use levada_net::Backoff;
use levada_telemetry::{Counter, Gauge};
use tokio::time::Instant;
use tracing::{error, info};

/// Events that are looked back on, and how many of them may fail.
const EVENTS: u32 = 100;
const MOST_FAILED: u32 = 50;

/// So many batches in a row of which nothing was handled are too many.
const MOST_BARREN: u32 = 3;

/// Waits between two probes.
const PROBE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What became of the events of one batch. Rejects are handled; events known to be guilty, which
/// were not tried again, are in neither number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) handled: u32,
    pub(crate) failed: u32,
}

/// The breaker of one handler.
#[derive(Debug)]
pub(crate) struct Breaker {
    handler: String,
    state: Mutex<State>,
    open: Gauge,
    trips: Counter,
}

#[derive(Debug)]
struct State {
    /// The latest events, one bit each: 1 for failed.
    events: u128,
    /// Batches in a row of which nothing was handled.
    barren: u32,
    gate: Gate,
    back_off: Backoff,
}

#[derive(Debug)]
enum Gate {
    Closed,
    Open { why: String, until: Instant },
    Probing { why: String },
}

/// Leave to handle one batch. Dropped without an end, it leaves no trace.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

impl Breaker {
    pub(crate) fn new(
        handler: impl fmt::Display,
        chance: Chance,
        open: Gauge,
        trips: Counter,
    ) -> Self {
        open.set(0);
        Self {
            handler: handler.to_string(),
            state: Mutex::new(State {
                events: 0,
                barren: 0,
                gate: Gate::Closed,
                back_off: Backoff::new(PROBE.0, PROBE.1, chance),
            }),
            open,
            trips,
        }
    }

    /// Leave to handle a batch.
    ///
    /// # Errors
    /// [`InterceptError::Broken`] while the breaker is open and no probe is due.
    pub(crate) fn admit(&self) -> Result<Pass<'_>, InterceptError> {
        let mut state = self.lock();
        let (why, left) = match &state.gate {
            Gate::Closed => return Ok(self.pass(false)),
            Gate::Open { why, until } => (why, until.saturating_duration_since(Instant::now())),
            Gate::Probing { why } => (why, PROBE.0),
        };
        if left.is_zero() {
            let why = why.clone();
            state.gate = Gate::Probing { why };
            return Ok(self.pass(true));
        }
        Err(InterceptError::Broken {
            reason: format!("the breaker is open: {why}"),
            after: Some(left),
        })
    }

    /// How long it will be open until a probe is due; nothing if it is not open.
    pub(crate) fn open_for(&self) -> Option<Duration> {
        match &self.lock().gate {
            Gate::Open { until, .. } => Some(until.saturating_duration_since(Instant::now())),
            Gate::Closed | Gate::Probing { .. } => None,
        }
    }

    fn pass(&self, probe: bool) -> Pass<'_> {
        Pass {
            breaker: self,
            probe,
        }
    }

    fn trip(&self, state: &mut State, why: String) {
        let wait = state.back_off.next_wait();
        if matches!(state.gate, Gate::Closed) {
            self.trips.add(1);
            let handler = &self.handler;
            error!(%handler, %why, "the breaker opens: events wait until a probe is handled");
        }
        self.open.set(1);
        let until = Instant::now() + wait;
        state.gate = Gate::Open { why, until };
    }

    fn close(&self, state: &mut State) {
        (state.events, state.barren) = (0, 0);
        state.back_off.reset();
        state.gate = Gate::Closed;
        self.open.set(0);
        info!(handler = %self.handler, "the breaker closes: a probe was handled");
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// The batch was handled as far as it can be; `last` says what failed last.
    pub(crate) fn end(mut self, tally: Tally, last: Option<&str>) {
        let mut state = self.breaker.lock();
        if tally == Tally::default() {
            return;
        }
        if self.probe {
            self.probe = false;
            if tally.handled > tally.failed {
                self.breaker.close(&mut state);
            } else {
                let why = why("the probe", last);
                self.breaker.trip(&mut state, why);
            }
        } else if matches!(state.gate, Gate::Closed)
            && let Some(what) = state.record(tally)
        {
            let why = why(&what, last);
            self.breaker.trip(&mut state, why);
        }
    }
}

fn why(what: &str, last: Option<&str>) -> String {
    let last = last.map(|last| format!(" ({last})")).unwrap_or_default();
    format!("{what} failed{last}")
}

impl Drop for Pass<'_> {
    /// A probe that had no end: the next batch is one.
    fn drop(&mut self) {
        if !self.probe {
            return;
        }
        let mut state = self.breaker.lock();
        if let Gate::Probing { why } = &state.gate {
            let (why, until) = (why.clone(), Instant::now());
            state.gate = Gate::Open { why, until };
        }
    }
}

impl State {
    /// Notes a batch; what is too much, if something is.
    fn record(&mut self, tally: Tally) -> Option<String> {
        // Which of a batch came first does not matter here: failures are noted last.
        self.shift(tally.handled, 0);
        self.shift(tally.failed, u128::MAX);
        let barren = self.barren + 1;
        self.barren = if tally.handled == 0 { barren } else { 0 };
        let failed = self.events.count_ones();
        if failed > MOST_FAILED {
            return Some(format!("{failed} of the last {EVENTS} events"));
        }
        let too_many = self.barren >= MOST_BARREN;
        too_many.then(|| format!("{MOST_BARREN} batches in a row"))
    }

    fn shift(&mut self, events: u32, bits: u128) {
        let events = events.min(EVENTS);
        let new = bits & ((1 << events) - 1);
        self.events = ((self.events << events) | new) & ((1 << EVENTS) - 1);
    }
}

#[cfg(test)]
mod tests;
