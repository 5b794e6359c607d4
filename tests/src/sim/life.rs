//! One life of a store on the simulated disk: from an open to a cut, a kill or a close.

use std::{
    fmt,
    future::Future,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use levada_core::{Chance, ChannelName, Lease, PutError, Want, inspect::Inspect};
use levada_store::{
    Backend, ChannelKind, ChannelSpec, DeadLetterSpec, OnDeadLettersFull, OnFull, OpenError,
    StoreParams, Stores,
    testing::{self, Ahead, Pace, Stepper},
};

use super::disk::SimDisk;

/// The channels of every simulated store; the last one is small and refuses what it cannot take.
pub(super) const CHANNELS: [&str; 3] = ["first", "second", "small"];
pub(super) const SMALL: usize = 2;
pub(super) const SMALL_EVENTS: u64 = 150;

/// How the stores of one seed are set up.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) ahead: Ahead,
    pub(super) dead_letters: DeadLetterSpec,
    pub(super) cache_bytes: usize,
}

impl Setup {
    pub(super) fn draw(chance: &Chance) -> Self {
        let least = 16_384 << (2 * chance.below(3));
        let dead_letters = match chance.below(3) {
            0 => DeadLetterSpec {
                capacity_bytes: 8 << 10,
                on_full: OnDeadLettersFull::DropOldest,
            },
            _ => DeadLetterSpec::default(),
        };
        Self {
            ahead: Ahead {
                chunk: 16 << 10,
                least,
                most: 1 << 20,
                cap: u64::MAX,
                pace: Pace::Chance(Chance::seeded(chance.bits())),
            },
            dead_letters,
            // Most rows are read back from the disk, or none.
            cache_bytes: if chance.below(2) == 0 {
                64 << 10
            } else {
                4 << 20
            },
        }
    }
}

/// An open store, what was leased from it, and who waits for an answer.
pub(super) struct Life {
    pub(super) waiting: Vec<Waiting>,
    pub(super) leases: Vec<Held>,
    pub(super) store: Arc<Stores>,
    stepper: Stepper,
    /// Before everything: what is due at a time is not due yet.
    early: Instant,
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Life")
            .field("leases", &self.leases.len())
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

/// Events in the hands of a sink.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) channel: usize,
    pub(super) numbers: Vec<u64>,
    pub(super) lease: Lease,
}

/// Somebody who waits for the writer.
pub(super) struct Waiting {
    pub(super) answer: Answer,
    pub(super) expected: Expected,
    /// The number of the put that waits; none for a settlement, which the store keeps in mind.
    pub(super) put: Option<u64>,
}

pub(super) type Answer = Pin<Box<dyn Future<Output = Result<(), Refused>>>>;

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    Conflict,
    Full,
    /// Whether it is stored, nobody knows.
    Unknown,
    Other(String),
}

impl From<PutError> for Refused {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Conflict { .. } => Self::Conflict,
            PutError::Full { .. } => Self::Full,
            PutError::Store { reason } if reason.contains("is not known") => Self::Unknown,
            other => Self::Other(other.to_string()),
        }
    }
}

/// What the answer must be if the writer works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Done,
    Conflict,
}

/// Polls once, without anybody to wake.
pub(super) fn poll<T>(future: &mut (impl Future<Output = T> + Unpin + ?Sized)) -> Option<T> {
    match Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

impl Life {
    /// Opens the store that is on the disk.
    pub(super) fn open(
        dir: &Path,
        disk: &SimDisk,
        setup: &Setup,
        chance: &Chance,
    ) -> Result<Self, OpenError> {
        let early = Instant::now();
        let params = StoreParams {
            dead_letters: setup.dead_letters,
            cache_bytes: setup.cache_bytes,
            chance: chance.clone(),
            backend: Backend::Disk(Arc::new(disk.clone()), setup.ahead.clone()),
            ..StoreParams::new(dir, CHANNELS.into_iter().map(spec).collect())
        };
        let (store, stepper) = testing::open_stepped(params)?;
        Ok(Self {
            waiting: Vec::new(),
            leases: Vec::new(),
            store,
            stepper,
            early,
        })
    }

    /// Has the writer do what waits, and what is due if it is late; whether there was something.
    pub(super) fn step(&mut self, late: bool) -> bool {
        let wait = Duration::from_secs(if late { 3600 } else { 0 });
        self.stepper.step(self.early + wait)
    }

    /// Whether the store works.
    pub(super) fn works(&self) -> bool {
        self.store.store().is_some_and(|info| info.state == "ok")
    }

    /// Closes in order; what still waited has its answer afterwards.
    pub(super) fn close(self) -> (Option<String>, Vec<Waiting>) {
        drop(self.leases);
        drop(self.store);
        (self.stepper.close().unclean, self.waiting)
    }

    /// Up to so many events from one channel, if there are any.
    pub(super) fn lease(&self, channel: usize, events: usize) -> Option<Result<Lease, String>> {
        let want = Want {
            events,
            bytes: 1 << 40,
            wait: Duration::ZERO,
            ..Want::default()
        };
        let name = channel_name(channel);
        let mut lease = levada_core::Store::lease(&*self.store, &name, want);
        poll(&mut lease).map(|lease| lease.map_err(|error| error.to_string()))
    }
}

pub(super) fn channel_name(channel: usize) -> ChannelName {
    ChannelName::new(CHANNELS[channel]).expect("is a name")
}

fn spec(name: &str) -> ChannelSpec {
    let small = name == CHANNELS[SMALL];
    ChannelSpec {
        name: ChannelName::new(name).expect("is a name"),
        kind: ChannelKind::Durable,
        capacity_bytes: 64 << 20,
        capacity_events: small.then_some(SMALL_EVENTS),
        on_full: OnFull::Reject,
        lanes: None,
    }
}
