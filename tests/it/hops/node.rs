//! One end of a hop: a store, and a flow around it while it runs.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Result;
use levada_core::{
    Batch, BatchBuilder, Chance, ChannelName, Commit, Effects, Origins, Outcomes, PartId, Problems,
    Settlement, Stopper, Store, SystemClock, Table, TaskSet, Value, Want,
    factory::Build,
    settings::{Key, Span},
    store::{ChannelPut, Need},
};
use levada_flow::{Flow, Plan, Replicating, Retry, SinkPlan, SourcePlan, Succession, Surroundings};
use levada_net::Transport;
use levada_store::{ChannelKind, ChannelSpec, LaneSpec, OnFull, StoreParams, Stores};
use levada_telemetry::Registry;
use tempfile::TempDir;

use super::wire::Wire;

/// A store with one channel.
#[derive(Debug)]
pub(crate) struct Node {
    dir: TempDir,
    /// What it was opened with.
    spec: ChannelSpec,
    store: Arc<Stores>,
    registry: Registry,
}

/// A copy of a store that was closed.
#[derive(Debug)]
pub(crate) struct Backup(TempDir, ChannelSpec);

/// How an end sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender {
    /// Events of a batch.
    batch: usize,
    pub(crate) compression: &'static str,
}

impl Default for Sender {
    fn default() -> Self {
        Self {
            batch: 100,
            compression: "none",
        }
    }
}

impl Sender {
    /// Two events at a time, so that a few make several calls.
    pub(crate) fn small() -> Self {
        Self {
            batch: 2,
            ..Self::default()
        }
    }

    /// As small, and with zstd if the receiver takes it.
    pub(crate) fn packing() -> Self {
        Self {
            compression: "zstd",
            ..Self::small()
        }
    }
}

/// How an end receives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receiver {
    pub(crate) trusts: bool,
    pub(crate) put_timeout: &'static str,
    pub(crate) idle_timeout: &'static str,
    pub(crate) compression: &'static str,
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            trusts: true,
            put_timeout: "10s",
            idle_timeout: "60s",
            compression: "zstd",
        }
    }
}

/// Where the receiver listens.
pub(crate) fn at() -> &'static str {
    "127.0.0.1:4141"
}

pub(crate) fn channel() -> ChannelName {
    ChannelName::new("main").expect("is a name")
}

fn part(text: &str) -> PartId {
    PartId::parse(text).expect("is a part")
}

/// Keys of the events: the rest of a number is its key.
pub(crate) const KEYS: u64 = 7;

/// Events whose bodies are these numbers.
pub(crate) fn numbered(numbers: impl IntoIterator<Item = u64>) -> Batch {
    let mut builder = BatchBuilder::default();
    for number in numbers {
        let device = format!("device-{}", number % KEYS);
        builder.push([("device", device)], number.to_string().as_bytes());
    }
    builder.finish()
}

fn numbers(batch: &Batch) -> impl Iterator<Item = u64> {
    let number = |body: &[u8]| String::from_utf8_lossy(body).parse().unwrap_or(u64::MAX);
    batch.iter().map(move |event| number(event.body()))
}

/// Room for more events than any test has.
const MANY: u64 = 1_000_000;

fn in_memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    dir.expect("a folder can be made")
}

fn spec(events: u64, lanes: Option<LaneSpec>) -> ChannelSpec {
    ChannelSpec {
        name: channel(),
        kind: ChannelKind::Durable,
        capacity_bytes: 64 << 20,
        capacity_events: Some(events),
        on_full: OnFull::Block,
        lanes,
    }
}

impl Node {
    pub(crate) fn in_memory() -> Self {
        Self::with_room_for(MANY)
    }

    /// A channel for so many events, on a disk that is memory where the machine has one.
    pub(crate) fn with_room_for(events: u64) -> Self {
        Self::new(in_memory(), spec(events, None))
    }

    pub(crate) fn on_disk() -> Result<Self> {
        Ok(Self::new(tempfile::tempdir()?, spec(MANY, None)))
    }

    /// With so many lanes.
    pub(crate) fn divided(count: u32) -> Self {
        let key = "device".into();
        Self::new(in_memory(), spec(MANY, Some(LaneSpec { count, key })))
    }

    fn new(dir: TempDir, spec: ChannelSpec) -> Self {
        let params = StoreParams {
            cache_bytes: 1 << 20,
            ..StoreParams::new(dir.path(), vec![spec.clone()])
        };
        Self {
            store: levada_store::open(params).expect("the store opens"),
            registry: Registry::new(),
            spec,
            dir,
        }
    }

    pub(crate) fn stores(&self) -> &Stores {
        &self.store
    }

    pub(crate) fn close(&self) {
        let closed = self.store.close();
        assert_eq!(closed.unclean, None);
    }

    /// Copies a store that was closed.
    pub(crate) fn copy(&self) -> Result<Backup> {
        let copy = tempfile::tempdir()?;
        let file = |dir: &Path| dir.join("store.redb");
        std::fs::copy(file(self.dir.path()), file(copy.path()))?;
        Ok(Backup(copy, self.spec.clone()))
    }

    /// Opens a store again that was closed.
    pub(crate) fn open(self) -> Result<Self> {
        let Self {
            dir, store, spec, ..
        } = self;
        drop(store);
        Ok(Self::new(dir, spec))
    }

    /// Puts events as a source would.
    pub(crate) async fn put(&self, range: std::ops::Range<u64>) -> Result<()> {
        let put = ChannelPut {
            channel: channel(),
            batch: numbered(range),
            need: Need::Required,
        };
        let commit = Commit {
            part: part("sources.test"),
            puts: vec![put],
            marks: Vec::new(),
            effects: Effects::default(),
            deadline: None,
            received_ms: 0,
        };
        Ok(self.store.commit(commit).await?)
    }

    /// Events that are queued or leased.
    pub(crate) fn queued(&self) -> u64 {
        use levada_core::inspect::Inspect;
        self.store.channels().iter().map(|info| info.events).sum()
    }

    /// Every event, lane by lane.
    async fn all(&self, outcomes: Outcomes) -> Batch {
        let want = Want {
            events: 1 << 20,
            bytes: 1 << 30,
            wait: Duration::ZERO,
            ..Want::default()
        };
        let (mut leases, mut left) = (Vec::new(), self.queued());
        while left > 0 {
            let lease = self.store.lease(&channel(), want).await.expect("a lease");
            left -= lease.batch.len() as u64;
            leases.push(lease);
        }
        let batch = Batch::concat(leases.iter().map(|lease| lease.batch.clone()).collect());
        for lease in leases {
            let settlement = Settlement {
                part: part("sinks.test"),
                outcomes: outcomes.clone(),
                marks: Vec::new(),
                effects: Effects::default(),
                durable: true,
            };
            self.store.settle(lease, settlement).await.expect("settled");
        }
        batch
    }

    /// The numbers of all events, which stay.
    pub(crate) async fn numbers(&self) -> Vec<u64> {
        numbers(&self.all(Outcomes::Retry).await).collect()
    }

    /// The ids of all events, which stay.
    pub(crate) async fn ids(&self) -> Origins {
        self.all(Outcomes::Retry).await.origins().clone()
    }

    /// Takes all events away.
    pub(crate) async fn drain(&self) -> Vec<u64> {
        numbers(&self.all(Outcomes::Done).await).collect()
    }

    /// Fails unless every accounting identity holds.
    pub(crate) fn check_books(&self) {
        let identities = self.store.audit();
        let broken: Vec<_> = identities.iter().filter(|row| !row.holds()).collect();
        assert!(broken.is_empty(), "{broken:?}");
    }

    /// The sum of a counter over all parts.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.registry.render();
        let lines = text.lines().filter(|line| line.starts_with(name));
        let value = |line: &str| line.rsplit(' ').next()?.parse::<u64>().ok();
        lines.filter_map(value).sum()
    }

    /// Runs an avro sink that empties the channel.
    pub(crate) async fn send(&self, wire: &Wire, how: Sender) -> Running {
        let deps = levada_sinks::Deps {
            transport: Arc::new(wire.clone()),
            registry: self.registry.clone(),
            clock: Arc::new(SystemClock),
            chance: Chance::system(),
            agent: "sender".into(),
        };
        let kinds = levada_sinks::kinds(&deps);
        let kind = kinds
            .iter()
            .find(|kind| kind.name == "avro")
            .expect("is there");
        let settings = [("to", at().into()), ("compression", how.compression.into())];
        let build = built(&settings, |table, problems| {
            kind.check(&part("sinks.up"), table, &[], problems)
        });
        let sink = SinkPlan {
            part: part("sinks.up"),
            build,
            channel: channel(),
            want: Want {
                events: how.batch,
                wait: Duration::ZERO,
                ..Want::default()
            },
            retry: Retry {
                least: Duration::from_millis(1),
                unreachable: Duration::from_millis(5),
                refusing: Duration::from_millis(5),
                max_attempts: None,
            },
            made_of: String::new(),
        };
        let plan = Plan {
            sinks: vec![sink],
            ..Plan::default()
        };
        self.run(plan).await
    }

    /// Runs an avro source that fills the channel.
    pub(crate) async fn receive(&self, wire: &Wire, how: Receiver) -> Running {
        // One that was killed may hold the address for a moment.
        let address = at().parse().expect("is an address");
        while wire.bind(address).await.is_err() {
            tokio::task::yield_now().await;
        }
        let deps = levada_sources::Deps {
            transport: Arc::new(wire.clone()),
            registry: self.registry.clone(),
            clock: Arc::new(SystemClock),
            chance: Chance::system(),
            agent: "receiver".into(),
        };
        let kinds = levada_sources::kinds(&deps);
        let kind = kinds
            .iter()
            .find(|kind| kind.name == "avro")
            .expect("is there");
        let settings = [
            ("listen", at().into()),
            ("put-timeout", how.put_timeout.into()),
            ("idle-timeout", how.idle_timeout.into()),
            ("trust-plaintext", how.trusts.into()),
            ("compression", how.compression.into()),
        ];
        let build = built(&settings, |table, problems| {
            kind.check(&part("sources.in"), table, &[], problems)
        });
        let source = SourcePlan {
            part: part("sources.in"),
            build,
            interceptors: Vec::new(),
            selector: Arc::new(Replicating::new(&[channel()], &[])),
            channels: vec![channel()],
            put_timeout: None,
            made_of: String::new(),
            behind: String::new(),
            succession: Succession::Overlap,
        };
        let plan = Plan {
            sources: vec![source],
            ..Plan::default()
        };
        self.run(plan).await
    }

    async fn run(&self, plan: Plan) -> Running {
        let around = Surroundings {
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            inspect: Arc::clone(&self.store) as _,
            registry: self.registry.clone(),
            clock: Arc::new(SystemClock),
            chance: Chance::system(),
        };
        let flow = Flow::open(plan, around).await.expect("the flow opens");
        let (stopper, stop) = Stopper::new();
        let mut tasks = TaskSet::new();
        tasks.spawn("flow", async move {
            flow.run(&stop, Duration::from_secs(20)).await;
        });
        Running { stopper, tasks }
    }
}

impl Backup {
    pub(crate) fn open(self) -> Result<Node> {
        Ok(Node::new(self.0, self.1))
    }
}

fn built<T>(
    settings: &[(&str, Value)],
    check: impl FnOnce(&Table, &mut Problems) -> Option<Build<T>>,
) -> Build<T> {
    let key = |name: &str| Key {
        name: name.into(),
        span: Span::default(),
    };
    let table = Table {
        path: "test".into(),
        span: Span::default(),
        entries: settings
            .iter()
            .map(|(name, value)| (key(name), value.clone()))
            .collect(),
    };
    let mut problems = Problems::new();
    let built = check(&table, &mut problems);
    built.unwrap_or_else(|| unreachable!("{:?}", problems.into_sorted()))
}

/// A flow that runs in the background.
pub(crate) struct Running {
    stopper: Stopper,
    tasks: TaskSet,
}

impl Running {
    /// Stops in order.
    pub(crate) async fn stop(mut self) {
        self.stopper.drain();
        while self.tasks.next().await.is_some() {}
    }

    /// Is gone from one moment to the next.
    pub(crate) async fn kill(mut self) {
        self.tasks.abort().await;
    }
}
