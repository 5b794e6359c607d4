//! Opening a store: the folder, the lock, the file, and what is in it.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Mutex, OnceLock, RwLock, atomic::AtomicU64},
    time::Duration,
};

use levada_core::{Chance, Incarnation, ledger::channel_part, state::SavedState};
use levada_telemetry::Registry;
use redb::Database;
use tracing::info;

use crate::{
    bell::Bell,
    channels::{Channel, Channels},
    disk::Disk,
    file::Thrift,
    folder::{self, FILE},
    lanes::{Lane, LaneAt, Lanes},
    lock::Lock,
    meter::Meter,
    metrics::{self, Metrics},
    pages::{Check, Home, Pages},
    params::{
        Backend, ChannelKind, ChannelSpec, DeadLetterSpec, OnCorruption, OnDeadLettersFull, OnFull,
        OpenError, StoreParams,
    },
    queue::Queue,
    rescue::Rescued,
    room::{DEAD, Need, Room, Rooms},
    scan::{self, FORMAT, Found, Meta},
    shared::{Base, Inbox, Shared, State, Status},
    trouble::{Trouble, guarded},
    writer::{Head, Resume, Writer},
};

/// Opens everything but starts no thread.
pub(crate) fn open(params: StoreParams) -> Result<(Arc<Shared>, Writer), OpenError> {
    let StoreParams {
        dir,
        channels,
        dead_letters,
        cache_bytes,
        clock,
        chance,
        registry,
        ..
    } = params;
    no_name_twice(&channels)?;
    folder::make(&dir)?;
    let lock = Lock::take(&dir)?;
    let path = dir.join(FILE);
    let meter = Meter::new(&registry);
    // A quarter of the memory is for rows that were just written, the rest for pages.
    let row_cache = cache_bytes / 4;
    let setup = Setup {
        path: &path,
        channels: &channels,
        chance: &chance,
        meter: &meter,
        cache: cache_bytes - row_cache,
        delay: params.sync_delay,
        on_corruption: params.on_corruption,
    };
    let mut set_aside = Vec::new();
    let (pages, db, meta, found) = match setup.open(&params.backend) {
        Err(OpenError::Damaged { reason, .. }) if setup.may_set_aside(&params.backend) => {
            let mut rescued = Rescued::read(&path);
            let why = Trouble::damage(reason);
            set_aside.push(rescued.replace(&path, draw(&chance, &path)?, &why)?);
            setup.open(&params.backend)?
        }
        opened => opened?,
    };
    check_orphans(&meta, &found, &channels)?;
    let base = Base {
        db: Some(db),
        lock: Some(lock),
    };
    let (mut state, resume) = state_of(&meta, found, &channels, dead_letters);
    state.set_aside = set_aside;
    let queued: u64 = state.lanes.iter().map(Lanes::events).sum();
    let shared = Arc::new(Shared {
        metrics: Metrics::new(&registry),
        channels: Channels::new(channels.iter().map(|spec| {
            let id = meta.channels.get(spec.name.as_str());
            channel_of(id.copied().unwrap_or(0), spec, &registry)
        })),
        registry: registry.clone(),
        state: Mutex::new(state),
        wake: Bell::default(),
        base: RwLock::new(base),
        meter,
        clock,
        origin: draw(&chance, &path)?,
        next_origin: AtomicU64::new(0),
        nonces: Chance::seeded(chance.bits()),
        dead_letters,
        row_cache,
        spare_bytes: params.spare_bytes,
        path,
        probed: OnceLock::new(),
    });
    metrics::show_gauges(&registry, &shared);
    info!(path = %shared.path.display(), queued, "store opened");
    Ok((Arc::clone(&shared), Writer::new(shared, pages, resume)))
}

/// What every attempt to open a file needs.
struct Setup<'a> {
    path: &'a Path,
    channels: &'a [ChannelSpec],
    chance: &'a Chance,
    meter: &'a Arc<Meter>,
    cache: usize,
    delay: Duration,
    on_corruption: OnCorruption,
}

impl Setup<'_> {
    /// Opens the pages, makes them if there are none, and reads what is in them.
    fn open(&self, backend: &Backend) -> Result<(Pages, Database, Meta, Found), OpenError> {
        let (disk, ahead, home): (Arc<dyn Disk>, _, _) = match backend {
            Backend::Disk(disk, ahead) => (Arc::clone(disk), ahead.clone(), None),
            Backend::Default => {
                if !folder::exists(self.path)? {
                    let incarnation = draw(self.chance, self.path)?;
                    folder::make_file(self.path, |db| folder::empty(db, incarnation))?;
                }
                let (file, ahead, ballast) = folder::open_file(self.path)?;
                let home = Home {
                    ballast,
                    on_corruption: self.on_corruption,
                };
                (Arc::new(file), ahead, Some(home))
            }
        };
        let is_file = home.is_some();
        let mut pages = Pages {
            disk,
            ahead,
            meter: Arc::clone(self.meter),
            cache: self.cache,
            delay: self.delay,
            home,
            thrift: Thrift::Normal,
            control: None,
        };
        let broken = |trouble| OpenError::of(self.path, trouble);
        let db = pages.open(Check::AsNeeded).map_err(broken)?;
        let meta = guarded(|| scan::read_meta(&db)).map_err(broken)?;
        if meta.is_none() && is_file {
            let path = self.path.to_owned();
            return Err(OpenError::Foreign { path });
        }
        let meta = settle_meta(&db, meta, self.path, self.channels, self.chance)?;
        let found = guarded(|| scan::scan(&db)).map_err(broken)?;
        Ok((pages, db, meta, found))
    }

    fn may_set_aside(&self, backend: &Backend) -> bool {
        matches!(backend, Backend::Default) && self.on_corruption == OnCorruption::Quarantine
    }
}

fn draw(chance: &Chance, path: &Path) -> Result<Incarnation, OpenError> {
    let id = chance.id().map_err(|source| OpenError::Io {
        attempt: "draw random numbers for",
        path: path.to_owned(),
        source,
    })?;
    Ok(Incarnation(id))
}

fn no_name_twice(channels: &[ChannelSpec]) -> Result<(), OpenError> {
    let again = |at: &usize| {
        channels[..*at]
            .iter()
            .any(|other| other.name == channels[*at].name)
    };
    match (0..channels.len()).find(again) {
        Some(at) => Err(OpenError::Twice {
            channel: channels[at].name.to_string(),
        }),
        None => Ok(()),
    }
}

/// Checks the format, and gives new channels their numbers.
fn settle_meta(
    db: &Database,
    found: Option<Meta>,
    path: &Path,
    channels: &[ChannelSpec],
    chance: &Chance,
) -> Result<Meta, OpenError> {
    let fresh = found.is_none();
    let mut meta = match found {
        Some(meta) => meta,
        None => Meta {
            format: FORMAT,
            incarnation: draw(chance, path)?,
            channels: BTreeMap::new(),
        },
    };
    check_format(&meta, path)?;
    let known = meta.channels.len();
    for spec in channels
        .iter()
        .filter(|spec| spec.kind == ChannelKind::Durable)
    {
        let next = meta.channels.values().max().map_or(1, |last| last + 1);
        meta.channels.entry(spec.name.to_string()).or_insert(next);
    }
    if fresh || meta.channels.len() > known {
        let written = guarded(|| scan::write_meta(db, &meta));
        written.map_err(|trouble| OpenError::of(path, trouble))?;
    }
    Ok(meta)
}

/// Refuses what a later version wrote and this one cannot read.
pub(crate) fn check_format(meta: &Meta, path: &Path) -> Result<(), OpenError> {
    let format = meta.format;
    if format.min_reader <= FORMAT.major && format.major >= 1 {
        return Ok(());
    }
    Err(OpenError::Format {
        path: path.to_owned(),
        found: format!("{}.{}", format.major, format.minor),
        known: format!("{}.{}", FORMAT.major, FORMAT.minor),
    })
}

/// A channel that holds events does not vanish from the configuration unnoticed.
fn check_orphans(meta: &Meta, found: &Found, channels: &[ChannelSpec]) -> Result<(), OpenError> {
    for (name, number) in &meta.channels {
        let durable = |spec: &ChannelSpec| spec.kind == ChannelKind::Durable;
        let known = channels
            .iter()
            .any(|spec| durable(spec) && spec.name.as_str() == name);
        let events = found.queued(*number);
        if !known && events > 0 {
            return Err(OpenError::Orphaned {
                channel: name.clone(),
                events,
            });
        }
    }
    Ok(())
}

pub(crate) fn channel_of(id: u32, spec: &ChannelSpec, registry: &Registry) -> Channel {
    let part = channel_part(&spec.name);
    let help = "Age of the first event of a batch when it was settled";
    let labels = [("part", &*part.to_string())];
    let lag = registry.histogram("levada_channel_lag_seconds", help, &labels);
    Channel::new(id, spec, lag)
}

/// What is kept in memory, and where the writer goes on.
fn state_of(
    meta: &Meta,
    mut found: Found,
    channels: &[ChannelSpec],
    dead: DeadLetterSpec,
) -> (State, Resume) {
    let mut lanes = Vec::new();
    let mut heads: HashMap<LaneAt, Head> = HashMap::new();
    for (channel, spec) in channels.iter().enumerate() {
        let mut here = Lanes::new(count_of(spec));
        let number = meta.channels.get(spec.name.as_str());
        let number = number.filter(|_| spec.kind == ChannelKind::Durable);
        for (lane, queue, head) in number.map(|n| found.lanes_of(*n)).unwrap_or_default() {
            here.grow(lane + 1);
            here[lane] = Lane::new(queue, head.next);
            heads.insert(LaneAt { channel, lane }, head);
        }
        lanes.push(here);
    }
    let rooms: Vec<Room> = channels.iter().map(room_of).collect();
    let mut rooms = Rooms::new(rooms, dead_room(dead));
    for (room, lanes) in lanes.iter().enumerate() {
        rooms.add(&[Need {
            room,
            bytes: lanes.bytes(),
            events: lanes.events(),
        }]);
    }
    let letters = Need {
        room: DEAD,
        bytes: found.letter_bytes,
        events: found.letters,
    };
    rooms.add(&[letters]);
    let saved = |(name, values)| {
        let version = 0;
        (name, SavedState { version, values })
    };
    let handlers = found.handlers.into_iter().map(saved);
    let state = State {
        rooms,
        inbox: Inbox::default(),
        ledger: found.ledger,
        marks: found.marks,
        handlers: handlers.collect(),
        lanes,
        status: Status::Open,
        incarnation: meta.incarnation,
        set_aside: Vec::new(),
        full: false,
        trouble: None,
    };
    (
        state,
        Resume {
            heads,
            ..found.resume
        },
    )
}

/// How many lanes a channel is to have.
pub(crate) fn count_of(spec: &ChannelSpec) -> u32 {
    spec.lanes.as_ref().map_or(1, |lanes| lanes.count)
}

/// A head that is damaged must not give a position twice.
pub(crate) fn beyond(mut head: Head, queue: &Queue) -> Head {
    head.next = head.next.max(queue.next_position().unwrap_or(1));
    head
}

pub(crate) fn room_of(spec: &ChannelSpec) -> Room {
    Room {
        capacity_bytes: spec.capacity_bytes,
        capacity_events: spec.capacity_events.unwrap_or(u64::MAX),
        on_full: spec.on_full,
        elastic: false,
        on_disk: spec.kind == ChannelKind::Durable,
        bytes: 0,
        events: 0,
    }
}

fn dead_room(dead: DeadLetterSpec) -> Room {
    let capacity_bytes = match dead.on_full {
        OnDeadLettersFull::Block => dead.capacity_bytes,
        // There is always room: the writer drops the oldest.
        OnDeadLettersFull::DropOldest => u64::MAX,
    };
    Room {
        capacity_bytes,
        capacity_events: u64::MAX,
        on_full: OnFull::Block,
        elastic: true,
        on_disk: true,
        bytes: 0,
        events: 0,
    }
}
