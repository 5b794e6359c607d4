//! Opening a store: the folder, the lock, the file, and what is in it.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, RwLock, atomic::AtomicU64},
    time::Duration,
};

use levada_core::{Chance, Incarnation, ledger::channel_part};
use redb::{Builder, Database, StorageBackend};
use tokio::sync::Notify;
use tracing::info;

use crate::{
    file::{Ahead, FileBackend},
    lock::Lock,
    meter::{Meter, Metered},
    metrics::{self, Metrics},
    params::{
        Backend, ChannelKind, ChannelSpec, DeadLetterSpec, OnDeadLettersFull, OnFull, OpenError,
        StoreParams,
    },
    queue::Queue,
    room::{Need, Room, Rooms},
    scan::{self, FORMAT, Found, Meta},
    shared::{Base, Channel, Inbox, Shared, State, Status},
    writer::{Head, Resume, Writer},
};

/// The store's file in its folder.
pub(crate) const FILE: &str = "store.redb";

/// The first bytes of a redb file (redb, `docs/design.md`).
const MAGIC: &[u8; 9] = b"redb\x1A\x0A\xA9\x0D\x0A";

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
    make_dir(&dir)?;
    let lock = Lock::take(&dir)?;
    let path = dir.join(FILE);
    let unreadable = |reason: String| OpenError::Unreadable {
        path: path.clone(),
        reason,
    };
    let meter = Meter::new(&registry);
    // A quarter of the memory is for rows that were just written, the rest for pages.
    let row_cache = cache_bytes / 4;
    let pages = Pages {
        cache: cache_bytes - row_cache,
        delay: params.sync_delay,
    };
    let db = match params.backend {
        Backend::Custom(backend) => pages.open(backend, &meter).map_err(unreadable)?,
        Backend::Disk(disk, ahead) => {
            let backend = FileBackend::new(disk, ahead).map_err(|source| OpenError::Io {
                attempt: "open",
                path: path.clone(),
                source,
            })?;
            pages.open(Box::new(backend), &meter).map_err(unreadable)?
        }
        Backend::Default => open_file(&path, &pages, &meter, &chance)?,
    };
    let meta = settle_meta(&db, &path, &channels, &chance)?;
    let found = guarded(|| scan::scan(&db)).map_err(unreadable)?;
    check_orphans(&meta, &found, &channels)?;
    let base = Arc::new(Base { db, _lock: lock });
    let (state, resume) = state_of(&meta, found, &channels, dead_letters);
    let queued: u64 = state.queues.iter().map(Queue::events).sum();
    let shared = Arc::new(Shared {
        metrics: Metrics::new(&registry, &channels),
        by_name: channels
            .iter()
            .enumerate()
            .map(|(at, spec)| (spec.name.clone(), at))
            .collect(),
        channels: channels
            .into_iter()
            .map(|spec| channel_of(&meta, spec))
            .collect(),
        state: Mutex::new(state),
        wake: Condvar::new(),
        base: RwLock::new(Some(Arc::clone(&base))),
        meter,
        clock,
        incarnation: meta.incarnation,
        origin: draw(&chance, &path)?,
        next_origin: AtomicU64::new(0),
        nonces: Chance::seeded(chance.bits()),
        dead_letters,
        row_cache,
        path,
    });
    metrics::show_gauges(&registry, &shared);
    info!(path = %shared.path.display(), queued, "store opened");
    Ok((Arc::clone(&shared), Writer::new(shared, base, resume)))
}

/// How redb is set up.
struct Pages {
    cache: usize,
    delay: Duration,
}

impl Pages {
    fn open(&self, inner: Box<dyn StorageBackend>, meter: &Arc<Meter>) -> Result<Database, String> {
        let backend = Metered::new(inner, Arc::clone(meter), self.delay);
        open_pages(backend, self.cache)
    }
}

/// Opens or makes a redb database; a panic over a damaged file becomes text.
pub(crate) fn open_pages(backend: impl StorageBackend, cache: usize) -> Result<Database, String> {
    guarded(|| {
        Builder::new()
            .set_cache_size(cache)
            .create_with_backend(backend)
    })
}

fn guarded<T, E: std::fmt::Display>(work: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("the storage engine panicked over it".into()),
    }
}

/// The file is made under another name and moved to its own when the first commit is in it: a
/// store of that name is always whole, and what is not is never taken for an empty one.
fn open_file(
    path: &Path,
    pages: &Pages,
    meter: &Arc<Meter>,
    chance: &Chance,
) -> Result<Database, OpenError> {
    let io_error = |attempt| {
        let path = path.to_owned();
        move |source| OpenError::Io {
            attempt,
            path,
            source,
        }
    };
    let unreadable = |reason| OpenError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    if !path.try_exists().map_err(io_error("look for"))? {
        let new = path.with_extension("redb.new");
        let file = open_rw(&new, true).map_err(io_error("create"))?;
        let backend = FileBackend::new(Arc::new(file), Ahead::default());
        let backend = backend.map_err(io_error("create"))?;
        let db = pages.open(Box::new(backend), meter).map_err(unreadable)?;
        let meta = Meta {
            format: FORMAT,
            incarnation: draw(chance, path)?,
            channels: BTreeMap::new(),
        };
        guarded(|| scan::write_meta(&db, &meta)).map_err(unreadable)?;
        guarded(|| db.close()).map_err(unreadable)?;
        let moved = File::open(&new).and_then(|file| file.sync_all());
        moved
            .and_then(|()| fs::rename(&new, path))
            .map_err(io_error("create"))?;
        sync_dir(path.parent().unwrap_or(path)).map_err(io_error("create"))?;
    }
    let file = open_rw(path, false).map_err(io_error("open"))?;
    if !looks_like_redb(&file).map_err(io_error("read"))? {
        return Err(unreadable("it is no redb file".into()));
    }
    let backend = FileBackend::new(Arc::new(file), Ahead::default()).map_err(io_error("open"))?;
    pages.open(Box::new(backend), meter).map_err(unreadable)
}

/// Whether the file begins as redb's do and has the two pages that even an empty one has. Checked
/// before anything is cut off its end.
fn looks_like_redb(file: &File) -> io::Result<bool> {
    let mut magic = [0; MAGIC.len()];
    let long_enough = file.metadata()?.len() >= 2 * 4096;
    if long_enough {
        file.read_exact_at(&mut magic, 0)?;
    }
    Ok(long_enough && magic == *MAGIC)
}

fn open_rw(path: &Path, make: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    if make {
        options.create(true).truncate(true);
    }
    options.open(path)
}

fn make_dir(dir: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io {
        attempt: "create the folder",
        path: dir.to_owned(),
        source,
    };
    if dir.is_dir() {
        return Ok(());
    }
    let missing: Vec<PathBuf> = dir
        .ancestors()
        .take_while(|dir| !dir.exists())
        .map(Path::to_owned)
        .collect();
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(dir)
        .map_err(failed)?;
    // A folder is there after a power cut only when its parent was synced.
    for made in missing {
        let parent = made
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        sync_dir(parent.unwrap_or(Path::new("."))).map_err(failed)?;
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
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

/// Reads the meta table, checks the format, and gives new channels their numbers.
fn settle_meta(
    db: &Database,
    path: &Path,
    channels: &[ChannelSpec],
    chance: &Chance,
) -> Result<Meta, OpenError> {
    let unreadable = |reason| OpenError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let found = guarded(|| scan::read_meta(db)).map_err(unreadable)?;
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
        guarded(|| scan::write_meta(db, &meta)).map_err(unreadable)?;
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
        let events = found.queues.get(number).map_or(0, Queue::events);
        if !known && events > 0 {
            return Err(OpenError::Orphaned {
                channel: name.clone(),
                events,
            });
        }
    }
    Ok(())
}

fn channel_of(meta: &Meta, spec: ChannelSpec) -> Channel {
    let id = meta.channels.get(spec.name.as_str()).copied().unwrap_or(0);
    Channel {
        part: channel_part(&spec.name),
        spec,
        id,
        events: Notify::new(),
    }
}

/// What is kept in memory, and where the writer goes on.
fn state_of(
    meta: &Meta,
    mut found: Found,
    channels: &[ChannelSpec],
    dead: DeadLetterSpec,
) -> (State, Resume) {
    let mut queues = Vec::new();
    let mut heads: HashMap<usize, Head> = HashMap::new();
    for (at, spec) in channels.iter().enumerate() {
        let number = meta.channels.get(spec.name.as_str());
        let number = number.filter(|_| spec.kind == ChannelKind::Durable);
        let queue = number
            .and_then(|number| found.queues.remove(number))
            .unwrap_or_default();
        if let Some(head) = number.and_then(|number| found.heads.remove(number)) {
            heads.insert(at, beyond(head, &queue));
        } else if let Some(last) = queue.next_position() {
            heads.insert(
                at,
                Head {
                    next: last,
                    ..Head::default()
                },
            );
        }
        queues.push(queue);
    }
    let mut rooms: Vec<Room> = channels.iter().map(room_of).collect();
    rooms.push(dead_room(dead));
    let mut rooms = Rooms::new(rooms);
    for (room, queue) in queues.iter().enumerate() {
        rooms.add(&[Need {
            room,
            bytes: queue.bytes(),
            events: queue.events(),
        }]);
    }
    let letters = Need {
        room: channels.len(),
        bytes: found.letter_bytes,
        events: found.letters,
    };
    rooms.add(&[letters]);
    let state = State {
        rooms,
        inbox: Inbox::default(),
        ledger: found.ledger,
        marks: found.marks,
        next: (0..queues.len())
            .map(|at| heads.get(&at).map_or(1, |head| head.next))
            .collect(),
        queues,
        status: Status::Open,
    };
    (
        state,
        Resume {
            heads,
            ..found.resume
        },
    )
}

/// A head that is damaged must not give a position twice.
fn beyond(mut head: Head, queue: &Queue) -> Head {
    head.next = head.next.max(queue.next_position().unwrap_or(1));
    head
}

fn room_of(spec: &ChannelSpec) -> Room {
    Room {
        capacity_bytes: spec.capacity_bytes,
        capacity_events: spec.capacity_events.unwrap_or(u64::MAX),
        on_full: spec.on_full,
        elastic: false,
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
        bytes: 0,
        events: 0,
    }
}
