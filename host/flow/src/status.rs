//! What every part does, and who waits for what.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use levada_core::{ChannelName, Clock, Contact, PartId, Peer, inspect::Inspect};
use levada_telemetry::{Gauge, Registry};
use serde::{Serialize, Serializer};
use tokio::time::Instant;

/// The state of every part of a flow. Cheap to clone; readable while the flow runs and afterwards.
#[derive(Clone)]
pub struct Status {
    cells: Arc<Mutex<Vec<Arc<Cell>>>>,
    inspect: Arc<dyn Inspect>,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PartStatus {
    pub part: PartId,
    pub state: State,
    /// Wall time of the last change of state, in milliseconds since 1970.
    pub since_ms: u64,
    pub waits_for: WaitsFor,
    pub last_error: Option<LastError>,
    /// How often the part was built and opened again.
    pub restarts: u64,
}

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Open, and not started yet.
    Open,
    /// In order; it may be waiting.
    Running,
    /// The last try failed; the next one comes by itself.
    Retrying,
    /// Broke, and will be built and opened again.
    Reopening,
    /// Asked for a human, or fails too often, and has had no success since. Tried again now and
    /// then.
    Failed,
    /// Has nothing more to do.
    Finished,
    /// Was stopped.
    Stopped,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Open,
        Self::Running,
        Self::Retrying,
        Self::Reopening,
        Self::Failed,
        Self::Finished,
        Self::Stopped,
    ];

    /// The state as metrics and JSON write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Reopening => "reopening",
            Self::Failed => "failed",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
        }
    }

    /// Whether health is red because of it.
    #[must_use]
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Reopening | Self::Failed)
    }
}

/// What a part waits for. In JSON it is the text of its `Display`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitsFor {
    Nothing,
    Events,
    /// Room in these channels.
    Room(Vec<ChannelName>),
    /// Its own earlier puts: its share of the bytes in flight is used up.
    InFlight,
    Interceptors,
    /// The store.
    Store,
    /// The other side has so many batches in hand.
    Peer {
        batches: usize,
    },
    /// Its turn in its sink group.
    Turn,
    /// The next try.
    BackOff {
        left: Duration,
    },
    /// What it is connected to, and why that is not there.
    Connection {
        why: String,
    },
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Events => f.write_str("events"),
            Self::Room(channels) => {
                f.write_str("room in channel")?;
                channels.iter().try_for_each(|name| write!(f, " {name}"))
            }
            Self::InFlight => f.write_str("its batches in flight"),
            Self::Interceptors => f.write_str("its interceptors"),
            Self::Store => f.write_str("the store"),
            Self::Peer { batches: 1 } => f.write_str("the other side (1 batch)"),
            Self::Peer { batches } => write!(f, "the other side ({batches} batches)"),
            Self::Turn => f.write_str("its turn in the group"),
            Self::BackOff { left } => write!(f, "the next try in {} ms", left.as_millis()),
            Self::Connection { why } => write!(f, "its connection ({why})"),
        }
    }
}

impl Serialize for WaitsFor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The last thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LastError {
    /// The error and its causes, in one line.
    pub text: String,
    /// Wall time, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Status {
    /// Of no part yet.
    pub(crate) fn new(inspect: Arc<dyn Inspect>) -> Self {
        Self {
            cells: Arc::default(),
            inspect,
        }
    }

    /// From now on, of these parts.
    pub(crate) fn show(&self, cells: impl Iterator<Item = Arc<Cell>>) {
        *self.lock() = cells.collect();
    }

    fn cells(&self) -> Vec<Arc<Cell>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Cell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every part: sources, then sinks, in the order of the configuration.
    #[must_use]
    pub fn parts(&self) -> Vec<PartStatus> {
        let full: Vec<_> = self
            .inspect
            .channels()
            .into_iter()
            .filter(|channel| channel.waiting_puts > 0)
            .map(|channel| channel.name)
            .collect();
        self.cells().iter().map(|cell| cell.read(&full)).collect()
    }

    /// Sets the gauges `levada_part_state` and `levada_part_connected` before every reading of
    /// `registry`.
    pub(crate) fn show_in(&self, registry: &Registry) {
        let (status, weak) = (self.clone(), registry.downgrade());
        let shown: Mutex<HashMap<PartId, Gauges>> = Mutex::default();
        registry.before_reading(move || {
            let Some(registry) = weak.upgrade() else {
                return;
            };
            let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            shown.values().for_each(|gauges| gauges.set(None));
            for cell in status.cells() {
                let part = &cell.part;
                let gauges = shown.entry(part.clone());
                let gauges = gauges.or_insert_with(|| Gauges::new(part, &registry));
                gauges.set(Some(cell.state_shown()));
                let connected = match cell.peer.contact() {
                    Contact::Unsaid => continue,
                    Contact::Connected => 1,
                    Contact::Waiting { .. } => 0,
                };
                let help = "1 while a part has what it is connected to, 0 while it waits for it";
                let labels = [("part", &*part.to_string())];
                registry
                    .gauge("levada_part_connected", help, &labels)
                    .set(connected);
            }
        });
    }
}

/// The gauges of one part, one per state.
struct Gauges([(State, Gauge); State::ALL.len()]);

impl Gauges {
    fn new(part: &PartId, registry: &Registry) -> Self {
        let part = part.to_string();
        Self(State::ALL.map(|state| {
            let labels = [("part", part.as_str()), ("state", state.as_str())];
            let help = "1 for the state a part is in, 0 for the others";
            (state, registry.gauge("levada_part_state", help, &labels))
        }))
    }

    /// `None` is for a part that is gone.
    fn set(&self, now: Option<State>) {
        for (state, gauge) in &self.0 {
            gauge.set(i64::from(Some(*state) == now));
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.cells().iter().map(|cell| cell.part.to_string()))
            .finish()
    }
}

/// What one part reports about itself.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) part: PartId,
    /// Where the part says whether it has its other side.
    pub(crate) peer: Peer,
    /// The channels it puts into or takes from.
    channels: Mutex<Vec<ChannelName>>,
    clock: Arc<dyn Clock>,
    now: Mutex<Now>,
    /// Puts of a source, by the stage they are in.
    stages: [AtomicU32; 3],
}

#[derive(Debug)]
struct Now {
    state: State,
    since_ms: u64,
    doing: Doing,
    last_error: Option<LastError>,
    restarts: u64,
}

/// What a part is doing, as far as it is one thing at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Nothing,
    /// A source looks at its peer, a sink at its channel.
    Waiting,
    Delivering(usize),
    Settling,
    StandBy,
    BackOff(Instant),
}

/// Where a put is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    InFlight,
    Interceptors,
    Store,
}

impl Cell {
    pub(crate) fn new(
        part: PartId,
        channels: Vec<ChannelName>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let now = Now {
            state: State::Open,
            since_ms: clock.wall_ms(),
            doing: Doing::Nothing,
            last_error: None,
            restarts: 0,
        };
        Arc::new(Self {
            part,
            peer: Peer::default(),
            channels: Mutex::new(channels),
            clock,
            now: Mutex::new(now),
            stages: Default::default(),
        })
    }

    /// The part is in another state; [`State::Failed`] stays until [`Cell::success`].
    pub(crate) fn enter(&self, state: State, doing: Doing) {
        let mut now = self.lock();
        now.doing = doing;
        let sticky = now.state == State::Failed
            && matches!(state, State::Running | State::Retrying | State::Reopening);
        if !sticky && now.state != state {
            now.state = state;
            now.since_ms = self.clock.wall_ms();
        }
    }

    /// The part does something else; its state stays.
    pub(crate) fn doing(&self, doing: Doing) {
        self.lock().doing = doing;
    }

    /// Something worked; whether that ends a time in which it did not.
    pub(crate) fn success(&self) -> bool {
        let mut now = self.lock();
        let mended = matches!(now.state, State::Failed | State::Retrying);
        if mended {
            now.state = State::Running;
            now.since_ms = self.clock.wall_ms();
        }
        mended
    }

    /// Something went wrong; whether the part was in order until now.
    pub(crate) fn error(&self, text: &str) -> bool {
        let mut now = self.lock();
        now.last_error = Some(LastError {
            text: text.to_owned(),
            at_ms: self.clock.wall_ms(),
        });
        matches!(now.state, State::Open | State::Running)
    }

    /// The part puts into other channels now.
    pub(crate) fn rewire(&self, channels: Vec<ChannelName>) {
        *self.channels.lock().unwrap_or_else(PoisonError::into_inner) = channels;
    }

    pub(crate) fn restarted(&self) {
        self.lock().restarts += 1;
    }

    pub(crate) fn state(&self) -> State {
        self.lock().state
    }

    /// Counts a put in a stage until the guard is dropped.
    pub(crate) fn stage(&self, stage: Stage) -> InStage<'_> {
        let count = &self.stages[stage as usize];
        count.fetch_add(1, Ordering::Relaxed);
        InStage(count)
    }

    fn read(&self, full: &[ChannelName]) -> PartStatus {
        let contact = self.peer.contact();
        let now = self.lock();
        let mut read = PartStatus {
            part: self.part.clone(),
            state: now.state,
            since_ms: now.since_ms,
            waits_for: self.waits_for(now.doing, full),
            last_error: now.last_error.clone(),
            restarts: now.restarts,
        };
        if let (State::Running, Contact::Waiting { why, since }) = (now.state, contact) {
            let waited = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            let at_ms = self.clock.wall_ms().saturating_sub(waited);
            read.state = State::Retrying;
            read.since_ms = at_ms;
            let text = why.clone();
            read.waits_for = WaitsFor::Connection { why };
            read.last_error = Some(LastError { text, at_ms });
        }
        read
    }

    /// The state with what the part says about its other side.
    fn state_shown(&self) -> State {
        match (self.state(), self.peer.contact()) {
            (State::Running, Contact::Waiting { .. }) => State::Retrying,
            (state, _) => state,
        }
    }

    fn waits_for(&self, doing: Doing, full: &[ChannelName]) -> WaitsFor {
        let puts = |stage: Stage| self.stages[stage as usize].load(Ordering::Relaxed);
        match doing {
            Doing::Nothing => WaitsFor::Nothing,
            Doing::BackOff(until) => WaitsFor::BackOff {
                left: until.saturating_duration_since(Instant::now()),
            },
            Doing::Delivering(batches) => WaitsFor::Peer { batches },
            Doing::Settling => WaitsFor::Store,
            Doing::StandBy => WaitsFor::Turn,
            Doing::Waiting if puts(Stage::Store) > 0 => {
                let channels = self.channels.lock();
                let channels = channels.unwrap_or_else(PoisonError::into_inner);
                let ours = full.iter().filter(|name| channels.contains(name));
                let room: Vec<_> = ours.cloned().collect();
                if room.is_empty() {
                    WaitsFor::Store
                } else {
                    WaitsFor::Room(room)
                }
            }
            Doing::Waiting if puts(Stage::Interceptors) > 0 => WaitsFor::Interceptors,
            Doing::Waiting if puts(Stage::InFlight) > 0 => WaitsFor::InFlight,
            Doing::Waiting => WaitsFor::Events,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A put in a stage.
#[derive(Debug)]
pub(crate) struct InStage<'a>(&'a AtomicU32);

impl Drop for InStage<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
