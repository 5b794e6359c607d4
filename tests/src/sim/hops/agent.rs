//! One agent: a store on a simulated disk, and while it lives a flow around it.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use levada_core::{Chance, Clock, Stopper, Store, TaskSet, Want, inspect::Inspect};
use levada_flow::{Flow, Surroundings};
use levada_store::{
    Backend, ChannelKind, ChannelSpec, OnFull, StoreParams, Stores,
    testing::{self, Ahead, Pace, Step, Stepper},
};
use levada_telemetry::Registry;
use tokio::{
    sync::mpsc,
    task::yield_now,
    time::{self, Instant},
};

use super::{
    Finding, Kind, Plan, Plant,
    book::{self, Book},
    net::{Host, Reachable, SimNet},
    planted::Planted,
    stream::Socket,
    wiring::{Wiring, channel},
};
use crate::sim::{
    cuts::describe,
    disk::{End, Honesty, SimDisk},
};

/// Where every tier listens.
pub(super) const PORT: u16 = 4141;

/// What an agent does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// Makes events and sends them on; to the first of these that it can, if there are several.
    Edge {
        to: Vec<Host>,
    },
    Relay {
        to: Host,
    },
    Last,
}

/// What all agents of a seed share.
#[derive(Debug)]
pub(super) struct Around {
    pub(super) plan: Plan,
    pub(super) kind: Kind,
    pub(super) net: SimNet,
    pub(super) book: Book,
    pub(super) clock: Arc<SimClock>,
    pub(super) tuning: Tuning,
    /// Where the writers say that their disk has ended.
    pub(super) ended: mpsc::UnboundedSender<Host>,
}

/// What a seed draws for all its agents.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tuning {
    /// Events of a lease, and batches on their way.
    pub(super) batch: usize,
    pub(super) window: u64,
    /// Events that a relay has room for.
    pub(super) room: u64,
    pub(super) put_timeout: &'static str,
    /// How two Levadas compress.
    pub(super) compression: &'static str,
    /// How long a commit takes at most.
    pub(super) commit: Duration,
}

impl Tuning {
    pub(super) fn draw(chance: &Chance) -> Self {
        Self {
            batch: [1, 5, 20, 60][index(chance, 4)],
            window: [1, 3, 8, 8][index(chance, 4)],
            room: [64, 64, 200, 1_000_000][index(chance, 4)],
            put_timeout: ["300ms", "2s", "10s"][index(chance, 3)],
            compression: ["zstd", "none"][index(chance, 2)],
            commit: Duration::from_millis([1, 10, 100][index(chance, 3)]),
        }
    }
}

/// Wall time that jumps.
#[derive(Debug, Default)]
pub(super) struct SimClock {
    offset_ms: AtomicI64,
}

impl SimClock {
    pub(super) fn set(&self, offset_ms: i64) {
        self.offset_ms.store(offset_ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn wall_ms(&self) -> u64 {
        // 2030, give or take.
        let now = 1_900_000_000_000 + self.offset_ms.load(Ordering::Relaxed);
        u64::try_from(now).unwrap_or_default()
    }
}

/// An agent and its disk, which outlives it.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) host: Host,
    pub(super) role: Role,
    pub(super) disk: SimDisk,
    /// An older copy of the store.
    pub(super) copy: Option<Vec<u8>>,
    dir: PathBuf,
    /// Events that its channel has room for.
    room: u64,
    ids: Chance,
    life: Option<Life>,
}

#[derive(Debug)]
struct Life {
    store: Arc<Stores>,
    registry: Registry,
    tasks: TaskSet,
    _stopper: Stopper,
}

/// Why an agent does not run.
#[derive(Debug)]
pub(super) enum NoStart {
    /// The disk ended again, or gave an error that was planned.
    Ended,
    Found(Finding),
}

impl Agent {
    pub(super) fn new(host: Host, role: Role, room: u64, dir: PathBuf, chance: &Chance) -> Self {
        let disk = SimDisk::new(Chance::seeded(chance.bits()), Honesty::Honest);
        Self {
            host,
            role,
            disk,
            copy: None,
            dir,
            room,
            ids: Chance::seeded(chance.bits()),
            life: None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.life.is_some()
    }

    fn open(&self) -> Result<(Arc<Stores>, Stepper), NoStart> {
        let params = StoreParams {
            cache_bytes: 1 << 20,
            chance: Chance::seeded(self.ids.bits()),
            backend: Backend::Disk(Arc::new(self.disk.clone()), self.ahead()),
            ..StoreParams::new(&self.dir, vec![self.spec()])
        };
        let opened = testing::open_stepped(params);
        match opened {
            _ if self.disk.has_ended() => Err(NoStart::Ended),
            Ok(opened) => Ok(opened),
            Err(_) if self.disk.take_failed() => Err(NoStart::Ended),
            Err(error) => Err(NoStart::Found(Finding::Unopenable(format!(
                "host {}: {}",
                self.host,
                describe(&error)
            )))),
        }
    }

    fn spec(&self) -> ChannelSpec {
        ChannelSpec {
            name: channel(),
            kind: ChannelKind::Durable,
            capacity_bytes: 64 << 20,
            capacity_events: Some(self.room),
            on_full: OnFull::Block,
            lanes: None,
        }
    }

    fn ahead(&self) -> Ahead {
        Ahead {
            chunk: 16 << 10,
            least: 32 << 10,
            most: 1 << 20,
            cap: u64::MAX,
            pace: Pace::Chance(Chance::seeded(self.ids.bits())),
        }
    }

    /// Opens the store, checks its books, and runs the flow.
    pub(super) async fn start(&mut self, around: &Around) -> Result<(), NoStart> {
        let (store, stepper) = self.open()?;
        check_books(&store, self.host).map_err(NoStart::Found)?;
        let registry = Registry::new();
        let chance = Chance::seeded(self.ids.bits());
        let seen_through: Arc<dyn Store> = match self.plant(around.plan.plant) {
            Plant::Nothing => Arc::clone(&store) as _,
            plant => Arc::new(Planted::new(Arc::clone(&store), plant)),
        };
        let surroundings = Surroundings {
            store: seen_through,
            inspect: Arc::clone(&store) as _,
            registry: registry.clone(),
            clock: Arc::clone(&around.clock) as _,
            chance: chance.clone(),
        };
        let wiring = Wiring {
            around,
            transport: Arc::new(Socket {
                net: around.net.clone(),
                host: self.host,
            }),
            registry: &registry,
            chance: &chance,
        };
        let flow = match Flow::open(wiring.plan(self.host, &self.role), surroundings).await {
            Ok(flow) => flow,
            Err(errors) => {
                let text = format!("host {}: {errors}", self.host);
                return Err(NoStart::Found(Finding::Stuck(text)));
            }
        };
        let (stopper, stop) = Stopper::new();
        let mut tasks = TaskSet::new();
        tasks.spawn("flow", async move {
            flow.run(&stop, Duration::from_secs(20)).await;
        });
        let writer = Writer {
            host: self.host,
            stepper,
            disk: self.disk.clone(),
            chance,
            most: around.tuning.commit,
            net: around.net.clone(),
            ended: around.ended.clone(),
        };
        tasks.spawn("writer", writer.run());
        self.life = Some(Life {
            store,
            registry,
            tasks,
            _stopper: stopper,
        });
        around.net.boot(self.host);
        Ok(())
    }

    /// The planted bug, if it is one of this agent's.
    fn plant(&self, plant: Plant) -> Plant {
        match (plant, &self.role) {
            (Plant::EarlyAck | Plant::AnyMark, Role::Edge { .. }) => Plant::Nothing,
            (plant, _) => plant,
        }
    }

    /// Ends the agent from one moment to the next; what the disk has then is what is left.
    pub(super) async fn crash(&mut self, net: &SimNet, left: Reachable, end: End) {
        net.crash(self.host, left);
        self.disk.end_now();
        if let Some(mut life) = self.life.take() {
            let store = Arc::downgrade(&life.store);
            life.tasks.abort().await;
            drop(life);
            // The tasks below the flow end one after the other.
            for _ in 0..100_000 {
                if store.strong_count() == 0 {
                    break;
                }
                yield_now().await;
            }
            assert_eq!(store.strong_count(), 0, "somebody keeps the store");
        }
        self.disk.restart(end);
        self.disk.repair();
    }

    /// The numbers of what an agent that does not run has queued.
    pub(super) fn queued_offline(&self) -> Result<BTreeSet<u64>, Finding> {
        let unopened = |why: NoStart| match why {
            NoStart::Ended => Finding::Unopenable("the disk ended by itself".into()),
            NoStart::Found(finding) => finding,
        };
        let (store, stepper) = self.open().map_err(unopened)?;
        let events: u64 = store.channels().iter().map(|info| info.events).sum();
        let mut numbers = BTreeSet::new();
        if events > 0 {
            let want = Want {
                events: 1 << 20,
                bytes: 1 << 40,
                wait: Duration::ZERO,
                ..Want::default()
            };
            let name = channel();
            let mut lease = pin!(store.lease(&name, want));
            let polled = lease.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Ok(lease)) = polled else {
                return Err(Finding::Lost(format!(
                    "{events} are queued and none is given"
                )));
            };
            numbers.extend(lease.batch.iter().filter_map(book::number));
        }
        drop(store);
        match stepper.close().unclean {
            None => Ok(numbers),
            Some(reason) => Err(Finding::Unopenable(reason)),
        }
    }

    /// Events that are queued or leased; `None` if the agent does not run.
    pub(super) fn queued(&self) -> Option<u64> {
        let life = self.life.as_ref()?;
        Some(life.store.channels().iter().map(|info| info.events).sum())
    }

    /// Fails unless every accounting identity holds now.
    pub(super) fn check_books(&self) -> Result<(), Finding> {
        match &self.life {
            Some(life) => check_books(&life.store, self.host),
            None => Ok(()),
        }
    }

    /// The sum of a counter over all parts, in this life.
    pub(super) fn metric(&self, name: &str) -> u64 {
        let Some(life) = &self.life else { return 0 };
        let text = life.registry.render();
        let lines = text.lines().filter(|line| line.starts_with(name));
        let value = |line: &str| line.rsplit(' ').next()?.parse::<u64>().ok();
        lines.filter_map(value).sum()
    }
}

fn check_books(store: &Stores, host: Host) -> Result<(), Finding> {
    let identities = store.audit();
    let broken: Vec<_> = identities.iter().filter(|row| !row.holds()).collect();
    if broken.is_empty() {
        return Ok(());
    }
    Err(Finding::Unbalanced(format!("host {host}: {broken:?}")))
}

/// Steps a store's writer in the time of the runtime.
struct Writer {
    host: Host,
    stepper: Stepper,
    disk: SimDisk,
    chance: Chance,
    /// How long a commit takes at most.
    most: Duration,
    net: SimNet,
    ended: mpsc::UnboundedSender<Host>,
}

impl Writer {
    async fn run(mut self) {
        loop {
            let step = self.stepper.advance(Instant::now().into_std());
            if self.disk.has_ended() {
                // Before anybody hears of an error: a machine without power says nothing.
                self.net.crash(self.host, Reachable::Off);
                let _heard = self.ended.send(self.host).is_ok();
                return std::future::pending().await;
            }
            match step {
                Step::Worked => {}
                Step::Sleep(None) => self.stepper.rung().await,
                Step::Sleep(Some(until)) => {
                    let rung = self.stepper.rung();
                    // Whichever it was.
                    let _rung = time::timeout_at(Instant::from_std(until), rung)
                        .await
                        .is_ok();
                }
                Step::Ended => return,
            }
            time::sleep(self.chance.jitter(self.most)).await;
        }
    }
}

pub(super) fn index(chance: &Chance, below: u64) -> usize {
    usize::try_from(chance.below(below)).unwrap_or(0)
}
