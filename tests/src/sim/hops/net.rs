//! A network that lies: what lies between the hosts of one process.
//!
//! A direction of a connection keeps the order of its bytes, as TCP does. Everything else is up to
//! the seed and to who steers it: how long bytes take, so that connections overtake each other;
//! which links carry nothing, in one direction or both; after which byte a connection is reset, or
//! hangs for ever; whether the peers of a host that dies hear of it.

mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use bytes::Bytes;
use levada_core::Chance;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use super::{Plant, forger::Forger, stream::Arrival};

/// The last number of a host's address.
pub(super) type Host = u8;

/// The network. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct SimNet {
    state: Arc<Mutex<Net>>,
    /// Rings when somebody who could not connect may now.
    pub(super) changed: Arc<Notify>,
}

/// Whether a host can be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reachable {
    Up,
    /// The process is gone, the system answers for it.
    Down,
    /// Nobody answers.
    Off,
}

/// How often something happens to a connection by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    /// To every fourth.
    Rough,
    /// To none.
    Fair,
}

#[derive(Debug)]
pub(super) struct Net {
    pub(super) chance: Chance,
    weather: Weather,
    hosts: BTreeMap<Host, Reachable>,
    /// Links that carry nothing, by direction.
    closed: BTreeSet<(Host, Host)>,
    /// How long bytes take at most, where that is not the usual.
    slow: BTreeMap<(Host, Host), Duration>,
    pub(super) listening: BTreeMap<(Host, u16), mpsc::Sender<Arrival>>,
    connections: BTreeMap<u64, Connection>,
    made: u64,
    /// Bytes that one direction holds.
    capacity: usize,
    plant: Plant,
    pub(super) counts: Counts,
    trace: u64,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) connections: u64,
    pub(super) resets: u64,
    pub(super) hangs: u64,
}

/// Two ends, 0 the connecting one, and what is between them.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) hosts: [Host; 2],
    /// By the end that writes.
    pub(super) ways: [Way; 2],
    ends: [End; 2],
    fate: Option<Fate>,
    /// Nothing passes any more, and nobody is told.
    hung: bool,
    /// What the connecting end has written.
    said: Vec<u8>,
    forger: Option<Forger>,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// When it arrives, and what; nothing at all is the end.
    pub(super) segments: VecDeque<(Instant, Bytes)>,
    pub(super) bytes: usize,
    passed: u64,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

/// What one end knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Reset,
    /// Closed by itself, or its host is gone.
    Gone,
}

#[derive(Debug, Clone, Copy)]
struct Fate {
    /// The end whose bytes are counted.
    way: usize,
    after: u64,
    hangs: bool,
}

/// What an end may do now.
#[derive(Debug)]
pub(super) enum May {
    /// Take so many bytes, or write so many.
    Pass(usize),
    Wait(Option<Instant>),
    End,
}

/// What is recorded of a connection.
const RECORDED: usize = 256 << 10;

/// How long bytes take at most, on a link that is not slow.
const USUAL: Duration = Duration::from_millis(8);

impl SimNet {
    /// Nobody is there yet, and every link carries.
    pub(super) fn new(chance: Chance, plant: Plant) -> Self {
        let capacity = [2 << 10, 16 << 10, 64 << 10][below(&chance, 3)];
        let net = Net {
            chance,
            weather: Weather::Rough,
            hosts: BTreeMap::new(),
            closed: BTreeSet::new(),
            slow: BTreeMap::new(),
            listening: BTreeMap::new(),
            connections: BTreeMap::new(),
            made: 0,
            capacity,
            plant,
            counts: Counts::default(),
            trace: 0,
        };
        Self {
            state: Arc::new(Mutex::new(net)),
            changed: Arc::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Net> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens or closes one direction of a link.
    pub(super) fn set_link(&self, from: Host, to: Host, carries: bool) {
        let mut net = self.lock();
        if carries {
            net.closed.remove(&(from, to));
        } else {
            net.closed.insert((from, to));
        }
        net.wake(|hosts| hosts.contains(&from) && hosts.contains(&to));
        drop(net);
        self.changed.notify_waiters();
    }

    /// Has bytes take up to so long in both directions; `None` for the usual.
    pub(super) fn set_slow(&self, a: Host, b: Host, most: Option<Duration>) {
        let mut net = self.lock();
        for link in [(a, b), (b, a)] {
            match most {
                Some(most) => drop(net.slow.insert(link, most)),
                None => drop(net.slow.remove(&link)),
            }
        }
    }

    /// Everything carries again, as usual.
    pub(super) fn heal(&self) {
        let mut net = self.lock();
        net.closed.clear();
        net.slow.clear();
        net.weather = Weather::Fair;
        for connection in net.connections.values_mut() {
            connection.fate = None;
        }
        net.wake(|_| true);
        drop(net);
        self.changed.notify_waiters();
    }

    /// A host begins to answer.
    pub(super) fn boot(&self, host: Host) {
        let mut net = self.lock();
        net.hosts.insert(host, Reachable::Up);
        net.wake(|hosts| hosts.contains(&host));
        drop(net);
        self.changed.notify_waiters();
    }

    /// A host is gone from one moment to the next. Where its system lives on, its peers are told, if
    /// a link carries it to them.
    pub(super) fn crash(&self, host: Host, left: Reachable) {
        let mut net = self.lock();
        net.hosts.insert(host, left);
        net.listening.retain(|(at, _), _| *at != host);
        let closed = std::mem::take(&mut net.closed);
        for connection in net.connections.values_mut() {
            for end in 0..2 {
                if connection.hosts[end] != host || connection.ends[end] != End::Open {
                    continue;
                }
                connection.ends[end] = End::Gone;
                let link = (host, connection.hosts[1 - end]);
                let told = left == Reachable::Down && !closed.contains(&link) && !connection.hung;
                if told && connection.ends[1 - end] == End::Open {
                    connection.ends[1 - end] = End::Reset;
                }
            }
        }
        net.closed = closed;
        net.wake(|hosts| hosts.contains(&host));
        drop(net);
        self.changed.notify_waiters();
    }

    /// Resets, or hangs, every connection of a link.
    pub(super) fn strike(&self, a: Host, b: Host, hangs: bool) {
        let mut net = self.lock();
        let mut struck = 0;
        for connection in net.connections.values_mut() {
            let on_it = connection.hosts.contains(&a) && connection.hosts.contains(&b);
            if !on_it || connection.hung || connection.ends != [End::Open; 2] {
                continue;
            }
            struck += 1;
            if hangs {
                connection.hung = true;
            } else {
                connection.ends = [End::Reset; 2];
            }
        }
        if hangs {
            net.counts.hangs += struck;
        } else {
            net.counts.resets += struck;
        }
        net.wake(|hosts| hosts.contains(&a) && hosts.contains(&b));
    }

    /// What one of the connections towards a host said, drawn among all there were.
    pub(super) fn recording(&self, to: Host) -> Option<Bytes> {
        let net = self.lock();
        let of_it = |connection: &&Connection| {
            connection.hosts[1] == to && !connection.said.is_empty() && connection.hosts[0] != GHOST
        };
        let all: Vec<_> = net.connections.values().filter(of_it).collect();
        let drawn = all.get(below(&net.chance, all.len()))?;
        Some(Bytes::copy_from_slice(&drawn.said))
    }

    /// A hash of every delivery so far: two runs that did the same have the same.
    pub(super) fn trace(&self) -> u64 {
        self.lock().trace
    }
}

/// Where replays come from.
pub(super) const GHOST: Host = 250;

impl Net {
    /// Whether a connection from here to there can be made now; `None` if nobody answers.
    pub(super) fn answers(&self, from: Host, to: Host) -> Option<Reachable> {
        if self.closed.contains(&(from, to)) || self.closed.contains(&(to, from)) {
            return None;
        }
        let state = self.hosts.get(&to).copied().unwrap_or(Reachable::Off);
        (state != Reachable::Off).then_some(state)
    }

    /// How long the next bytes take.
    pub(super) fn delay(&self, from: Host, to: Host) -> Duration {
        let most = self.slow.get(&(from, to)).copied().unwrap_or(USUAL);
        self.chance.jitter(most)
    }

    /// Adds a connection; its number.
    pub(super) fn connect(&mut self, from: Host, to: Host) -> u64 {
        self.made += 1;
        self.counts.connections += u64::from(from != GHOST);
        let rough = self.weather == Weather::Rough && self.chance.below(4) == 0;
        let fate = rough.then(|| Fate {
            way: below(&self.chance, 2),
            after: self.chance.below(1 << (4 + self.chance.below(13))),
            hangs: self.chance.below(3) == 0,
        });
        let connection = Connection {
            hosts: [from, to],
            ways: [Way::default(), Way::default()],
            ends: [End::Open; 2],
            fate,
            hung: false,
            said: Vec::new(),
            forger: (self.plant == Plant::NoPrev).then(Forger::new),
        };
        self.connections.insert(self.made, connection);
        self.note([1, self.made, u64::from(from), u64::from(to)]);
        self.made
    }

    pub(super) fn connection(&mut self, id: u64) -> &mut Connection {
        self.connections
            .get_mut(&id)
            .expect("no connection is forgotten")
    }

    /// Takes note of something for the trace.
    pub(super) fn note(&mut self, words: impl IntoIterator<Item = u64>) {
        for word in words {
            self.trace = (self.trace ^ word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29);
        }
    }

    fn wake(&mut self, of: impl Fn(&[Host; 2]) -> bool) {
        let ids = self
            .connections
            .iter()
            .filter(|(_, connection)| of(&connection.hosts));
        let ids: Vec<u64> = ids.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.wake_one(id));
    }

    fn wake_one(&mut self, id: u64) {
        for way in &mut self.connection(id).ways {
            let waiting = [way.reader.take(), way.writer.take()];
            waiting.into_iter().flatten().for_each(Waker::wake);
        }
    }
}

impl Connection {
    fn is_open(&self, end: usize) -> io::Result<()> {
        match self.ends[end] {
            End::Open => Ok(()),
            End::Reset => Err(io::ErrorKind::ConnectionReset.into()),
            End::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

fn below(chance: &Chance, below: usize) -> usize {
    usize::try_from(chance.below(below as u64)).unwrap_or(0)
}

/// Enough to tell two runs apart.
fn crc(bytes: &[u8]) -> u64 {
    bytes.iter().fold(bytes.len() as u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
