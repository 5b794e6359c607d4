//! Where the animals live: a sandbox as an agent has it, and the neighbour.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use levada_core::{
    Batch, BatchBuilder, ByteSize, Chance, Effects, InterceptError, Interceptor, Name, PartId,
    Secret, States, SystemClock, TakeError, TaskSet,
    interceptor::Call,
    state::{SavedState, StateValue},
};
use levada_telemetry::Registry;
use levada_wasm::{
    CompileBounds, Compiler, HandlerSpec, Handlers, HandlersConfig, LoadError, Loaded,
    MemoryReservation, zoo,
};

use super::Profile;

/// What the neighbour must finish while an animal is there.
const CALLS: u64 = 200;
const EVENTS: u64 = 100;

/// After so long it is taken for dead.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long compiling may take where the long form is not asked for.
const SHORT_COMPILE: Duration = Duration::from_secs(2);

/// The sandbox and the neighbour in it.
pub(super) struct Keeper {
    handlers: Handlers,
    /// The same, but for the patience with its compiler.
    hasty: Handlers,
    pub(super) registry: Registry,
    profile: Profile,
    folder: Folder,
    neighbour: Arc<dyn Interceptor>,
}

/// What was seen of the neighbour and of this process while an animal was there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside {
    pub(super) finished: u64,
    pub(super) of: u64,
    /// Bytes; `None` where the system does not tell.
    pub(super) growth: Option<u64>,
}

impl Keeper {
    /// Opens the sandbox and loads the neighbour. Does file I/O.
    pub(super) async fn open(profile: Profile, long: bool) -> Result<Self> {
        let registry = Registry::new();
        let bounds = CompileBounds::default();
        let handlers = sandbox(&registry, bounds)?;
        let hasty = CompileBounds {
            time: if long { bounds.time } else { SHORT_COMPILE },
            ..bounds
        };
        let hasty = sandbox(&registry, hasty)?;
        let folder = Folder::make().context("cannot make a folder for the components")?;
        let spec = HandlerSpec::new(folder.write("neighbour", zoo::HARMLESS)?);
        let neighbour = handlers.load(&part("neighbour"), &spec).await;
        let neighbour = neighbour.and_then(Loaded::into_interceptor);
        let neighbour = neighbour.context("cannot load the harmless neighbour")?;
        Ok(Self {
            handlers,
            hasty,
            registry,
            profile,
            folder,
            neighbour,
        })
    }

    /// A handler with the limits that are asked for and no grant.
    pub(super) fn spec(&self, name: &str, component: &[u8]) -> Result<HandlerSpec> {
        let mut spec = HandlerSpec::new(self.folder.write(name, component)?);
        spec.limits.deadline = Duration::from_secs(60);
        if self.profile == Profile::Edge {
            spec.limits.memory = 16 << 20;
            spec.limits.lifted = 4 << 20;
        }
        Ok(spec)
    }

    /// Loads a handler as an agent does.
    pub(super) async fn load(
        &self,
        name: &str,
        row: &str,
        spec: &HandlerSpec,
    ) -> Result<Arc<dyn Interceptor>, LoadError> {
        let handlers = if row == "F76" {
            &self.hasty
        } else {
            &self.handlers
        };
        handlers.load(&part(name), spec).await?.into_interceptor()
    }

    /// Does something while the neighbour handles its events.
    pub(super) async fn beside<T>(&self, work: impl Future<Output = T>) -> (T, Beside) {
        let before = start_peak();
        let finished = Arc::new(AtomicU64::new(0));
        let mut task = TaskSet::new();
        task.spawn(
            "neighbour",
            live(Arc::clone(&self.neighbour), Arc::clone(&finished)),
        );
        let done = work.await;
        task.join(PATIENCE).await;
        let growth = before.and_then(|before| Some(status("VmHWM:")?.saturating_sub(before)));
        let beside = Beside {
            finished: finished.load(Ordering::SeqCst),
            of: CALLS * EVENTS,
            growth,
        };
        (done, beside)
    }

    /// The sum of a handler's numbers in metrics, by all of these words.
    pub(super) fn metric(&self, handler: &str, words: &str) -> f64 {
        let part = format!("part=\"handlers.{handler}\"");
        let text = self.registry.render();
        let is = |line: &&str| line.contains(&part) && words.split(' ').all(|it| line.contains(it));
        let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        text.lines().filter(is).filter_map(value).sum()
    }
}

/// Grants what an animal needs to get as far as it wants to.
pub(super) fn grant(spec: &mut HandlerSpec, granted: &str) {
    match granted {
        "state" => spec.grants.state = Some(ByteSize::mib(1)),
        "secrets" => {
            let own = ("own".to_owned(), Secret::new("a secret of its own"));
            spec.grants.secrets = [own].into();
        }
        _ => {}
    }
}

/// Calls a handler once.
pub(super) async fn call(
    handler: &dyn Interceptor,
    batch: &Batch,
) -> Result<(Batch, Effects), InterceptError> {
    let source = part_of("sources.zoo");
    let call = Call {
        part: &source,
        attempt: 1,
        received_ms: 0,
        states: &OfTheNeighbour,
    };
    let mut effects = Effects::default();
    let out = handler
        .intercept(batch.clone(), &call, &mut effects)
        .await?;
    Ok((out, effects))
}

/// Events with these bodies.
pub(super) fn events<'a>(bodies: impl IntoIterator<Item = &'a str>) -> Batch {
    let mut builder = BatchBuilder::default();
    for body in bodies {
        builder.push([("origin", "zoo")], body.as_bytes());
    }
    builder.finish()
}

async fn live(neighbour: Arc<dyn Interceptor>, finished: Arc<AtomicU64>) {
    let batch = events((0..EVENTS).map(|_| "good"));
    for _ in 0..CALLS {
        if let Ok((out, effects)) = call(&*neighbour, &batch).await
            && effects.dead_letters.is_empty()
        {
            finished.fetch_add(out.len() as u64, Ordering::SeqCst);
        }
        tokio::task::yield_now().await;
    }
}

fn sandbox(registry: &Registry, bounds: CompileBounds) -> Result<Handlers> {
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    Ok(Handlers::open(HandlersConfig {
        cache_dir: None,
        compiler: Compiler::Child {
            program,
            args: ["handler", "compile-child"].map(Into::into).to_vec(),
            bounds,
        },
        memory_reservation: MemoryReservation::Full,
        recordings: None,
        registry: registry.clone(),
        clock: Arc::new(SystemClock),
        chance: Chance::system(),
    })?)
}

fn part(name: &str) -> PartId {
    part_of(&format!("handlers.{name}"))
}

fn part_of(text: &str) -> PartId {
    PartId::parse(text).expect("names in the zoo are names of parts")
}

/// The neighbour has state; nobody else has any.
#[derive(Debug)]
struct OfTheNeighbour;

impl States for OfTheNeighbour {
    fn state(&self, handler: &Name) -> Result<SavedState, TakeError> {
        let mut saved = SavedState::default();
        if handler.as_str() == "neighbour" {
            let value = StateValue {
                bytes: b"canary".as_slice().into(),
                expires_ms: None,
            };
            saved.values.insert("canary".into(), value);
        }
        Ok(saved)
    }
}

/// Has the system forget the peak of resident memory; gives what is resident now.
fn start_peak() -> Option<u64> {
    fs::write("/proc/self/clear_refs", "5").ok()?;
    status("VmRSS:")
}

/// What is resident now, in bytes.
pub(super) fn resident() -> Option<u64> {
    status("VmRSS:")
}

fn status(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// A folder of this process; gone with it.
struct Folder(PathBuf);

impl Folder {
    fn make() -> io::Result<Self> {
        let number = Chance::system().bits();
        let path = std::env::temp_dir().join(format!("levada-zoo-{number:016x}"));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, component: &[u8]) -> Result<PathBuf> {
        let path: &Path = &self.0.join(format!("{name}.wasm"));
        fs::write(path, component)
            .with_context(|| format!("cannot write the component `{}`", path.display()))?;
        Ok(path.to_owned())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in a folder for temporary files does no harm.
        let _gone = fs::remove_dir_all(&self.0).is_ok();
    }
}
