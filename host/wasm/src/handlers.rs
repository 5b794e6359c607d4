//! Loading handlers: from a file to something that can be called.

use std::{
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Instant,
};

use levada_core::{Chance, Clock, Interceptor, PartId, tasks};
use levada_telemetry::Registry;
use thiserror::Error;
use wasmtime::{
    Engine,
    component::{Component, ComponentExportIndex, Linker},
};

use crate::{
    CompileError, Compiler, Grants, HandlerSpec, Import, InspectError, Inspection,
    MemoryReservation, Role,
    broken::Broken,
    engine,
    guest::{Guest, LogBucket, Settings, Shared},
    handler::Handler,
    http::{self, HttpClient, MachineNames},
    imports, inspect,
    inspect::{LARGEST_COMPONENT, is_ours},
    instance::{Mould, Side},
    lookup::{self, Tables},
    meters::{GuestNumbers, Meters},
    pool::Pool,
    precompiled::Cache,
    record::Shelf,
    sink::SinkHandler,
    source::SourceHandler,
    tap::{Tap, TapParams, Taps, TooManyTaps},
    ticker::Ticker,
    wasi,
};

/// What handlers need of their surroundings.
#[derive(Debug, Clone)]
pub struct HandlersConfig {
    /// Where machine code is kept; `None` keeps none.
    pub cache_dir: Option<PathBuf>,
    pub compiler: Compiler,
    pub memory_reservation: MemoryReservation,
    /// Where handlers that are to record failures keep them; `None` keeps none.
    pub recordings: Option<PathBuf>,
    pub registry: Registry,
    pub clock: Arc<dyn Clock>,
    pub chance: Chance,
}

/// The sandbox of one agent.
pub struct Handlers {
    engine: Engine,
    ticker: Arc<Ticker>,
    cache: Option<Cache>,
    config: HandlersConfig,
}

/// A handler in each role that its component has: at least one.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub interceptor: Option<Arc<dyn Interceptor>>,
    pub sink: Option<SinkHandler>,
    pub source: Option<SourceHandler>,
    taps: Arc<Taps>,
}

impl Loaded {
    /// Looks on while the handler works, in whatever role.
    ///
    /// # Errors
    /// [`TooManyTaps`]
    pub fn tap(&self, params: TapParams) -> Result<Tap, TooManyTaps> {
        self.taps.open(params)
    }

    /// The handler as an interceptor.
    ///
    /// # Errors
    /// [`LoadError::NoRole`] if it has no such role.
    pub fn into_interceptor(self) -> Result<Arc<dyn Interceptor>, LoadError> {
        let found = "no interceptor".to_owned();
        self.interceptor.ok_or(LoadError::NoRole { found })
    }
}

/// Why there is no sandbox.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("cannot set up the WebAssembly engine: {0}")]
    Engine(String),
    #[error(
        "no address space for guests' memory with `memory-reservation = \"{reservation}\"`: \
         {error}; set it to \"small\", or raise the limit on address space"
    )]
    AddressSpace {
        reservation: &'static str,
        error: String,
    },
    #[error("cannot start the thread that keeps guests' time")]
    Ticker(#[source] io::Error),
    #[error("cannot use the code cache `{path}`")]
    Cache { path: PathBuf, source: io::Error },
}

/// Why a handler cannot be loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    #[error("cannot read the component `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("`{path}` cannot be a handler")]
    Inspect { path: PathBuf, source: InspectError },
    #[error("{}", imports_text(.0))]
    Imports(Vec<(String, String)>),
    #[error(
        "the component exports no role of `levada:handler` 0.1 that this version has \
         (`packed-interceptor`, `interceptor`, `packed-sink`, `sink` or `source`); it exports {found}"
    )]
    NoRole { found: String },
    #[error("requests over HTTP cannot be set up: {reason}")]
    Http { reason: String },
    #[error("`{key}` is not for {role}s in this version: remove it")]
    NotForRole {
        role: &'static str,
        key: &'static str,
    },
    #[error("the component cannot be compiled")]
    Compile(#[source] CompileError),
    #[error("the component does not fit its interfaces: {0}")]
    Link(String),
    #[error("the table `{table}` of `grants.lookup`, `{path}`, {reason}")]
    Lookup {
        table: String,
        path: PathBuf,
        reason: String,
    },
    #[error("the component cannot be started: {reason}")]
    Start { reason: String },
}

impl LoadError {
    /// What to do next, where the words of the error do not say it.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Inspect { source, .. } => Some(source.help()),
            _ => None,
        }
    }
}

fn imports_text(refused: &[(String, String)]) -> String {
    let each: Vec<_> = refused
        .iter()
        .map(|(name, why)| format!("`{name}`: {why}"))
        .collect();
    format!(
        "the component imports what it cannot have: {}",
        each.join("; ")
    )
}

impl Handlers {
    /// Sets up the engine and the code cache. Does file I/O.
    ///
    /// # Errors
    /// [`OpenError`], with the remedy where there is one.
    pub fn open(config: HandlersConfig) -> Result<Self, OpenError> {
        let engine = engine::open(config.memory_reservation)?;
        let ticker = Ticker::start(engine.clone()).map_err(OpenError::Ticker)?;
        let cache = config.cache_dir.as_deref().map(Cache::open).transpose()?;
        Ok(Self {
            engine,
            ticker: Arc::new(ticker),
            cache,
            config,
        })
    }

    /// Reads, checks, compiles or takes from the cache, links and starts a handler. A component is
    /// compiled once for every version of the engine; that takes up to 60 s. Safe to cancel.
    ///
    /// # Errors
    /// [`LoadError`]
    pub async fn load(&self, part: &PartId, spec: &HandlerSpec) -> Result<Loaded, LoadError> {
        let (seen, bytes) = look(spec).await?;
        let roles = admit(&seen, &spec.grants)?;
        let component = self.component(&seen.digest, bytes).await?;
        let mut loaded = Loaded {
            interceptor: None,
            sink: None,
            source: None,
            taps: Arc::default(),
        };
        for role in roles {
            fits(role, spec)?;
            let taps = Arc::clone(&loaded.taps);
            let shared = self.shared(part, spec, role, (&seen.digest, taps))?;
            let mould = self.mould(spec, role, &seen, (&component, shared))?;
            let handler = start(part, spec, mould).await?;
            match role {
                Role::PackedInterceptor | Role::Interceptor => {
                    loaded.interceptor = Some(Arc::new(handler));
                }
                Role::PackedSink | Role::Sink => {
                    loaded.sink = Some(SinkHandler::new(handler, spec.in_flight));
                }
                Role::Source => loaded.source = Some(SourceHandler::new(handler)),
            }
        }
        Ok(loaded)
    }

    /// Machine code from the cache, or from the compiler.
    pub(crate) async fn component(
        &self,
        digest: &str,
        bytes: Vec<u8>,
    ) -> Result<Component, LoadError> {
        if let Some(cache) = &self.cache
            && let Some(code) = tasks::in_place(|| cache.get(digest, &self.engine))
            && let Ok(component) = code.load(&self.engine)
        {
            return Ok(component);
        }
        let reservation = self.config.memory_reservation;
        let compiled = self
            .config
            .compiler
            .compile(&self.engine, reservation, bytes)
            .await;
        let code = compiled.map_err(LoadError::Compile)?;
        if let Some(cache) = &self.cache
            && let Err(error) = tasks::in_place(|| cache.put(digest, &self.engine, &code))
        {
            tracing::warn!(%error, digest, "cannot keep compiled code");
        }
        code.load(&self.engine).map_err(link_error)
    }

    /// Links a component for one role.
    pub(crate) fn mould(
        &self,
        spec: &HandlerSpec,
        role: Role,
        seen: &Inspection,
        (component, shared): (&Component, Shared),
    ) -> Result<Mould, LoadError> {
        let side = side_of(role, seen);
        tasks::in_place(|| {
            let mut linker = Linker::<Guest>::new(&self.engine);
            imports::link(&mut linker).map_err(link_error)?;
            wasi::link(&mut linker, &self.engine, component, side).map_err(link_error)?;
            if side == Side::Async {
                http::link(&mut linker).map_err(link_error)?;
            }
            Ok(Mould {
                pre: linker.instantiate_pre(component).map_err(link_error)?,
                export: export_of(component, role)?,
                timer: timer_of(component),
                role,
                side,
                shared: Arc::new(shared),
                on_reject: spec.on_reject,
                ticker: Arc::clone(&self.ticker),
            })
        })
    }

    pub(crate) fn shared(
        &self,
        part: &PartId,
        spec: &HandlerSpec,
        role: Role,
        (digest, taps): (&str, Arc<Taps>),
    ) -> Result<Shared, LoadError> {
        let name = part.name.as_str();
        let mut limits = spec.limits.clone();
        if !role.is_interceptor() {
            limits.deadline = limits.delivery_deadline;
        }
        let tables = Tables::open(&spec.grants.lookup);
        let tables = tables.map_err(|(table, error)| LoadError::Lookup {
            path: spec.grants.lookup[&table].file.clone(),
            reason: lookup::reason(&error),
            table,
        })?;
        let shelf = |folder: &PathBuf| Shelf::new(folder, part, spec.record_failures);
        let recordings = self.config.recordings.as_ref();
        Ok(Shared {
            name: name.to_owned(),
            digest: digest.to_owned(),
            component: spec.component.clone(),
            masks: Arc::new(spec.masks()),
            shelf: recordings.filter(|_| spec.record_failures > 0).map(shelf),
            taps,
            limits,
            settings: settings_of(&spec.config.0),
            meters: Meters::new(&self.config.registry, name, digest),
            numbers: GuestNumbers::new(&self.config.registry, name),
            clock: Arc::clone(&self.config.clock),
            chance: self.config.chance.clone(),
            log: Mutex::new(LogBucket::new()),
            grants: spec.grants.clone(),
            tables,
            http: HttpClient::open(part, spec, &self.config.clock, Arc::new(MachineNames))?,
            since: Instant::now(),
        })
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Starts a handler: shows now that it does, and with the types that are expected.
async fn start(part: &PartId, spec: &HandlerSpec, mould: Mould) -> Result<Handler, LoadError> {
    let instances = match mould.role.is_sink() {
        true => spec.instances.max(spec.in_flight),
        false => spec.instances,
    };
    let pool = Pool::new(mould, spec.reuse, instances);
    let first = pool.mould().where_it_lives(pool.fresh(None)).await;
    let first = first.and_then(|live| {
        pool.mould().check(&live)?;
        Ok(live)
    });
    let first = first.map_err(|broken: Box<Broken>| LoadError::Start {
        reason: broken.reason,
    })?;
    pool.give(first);
    Ok(Handler::new(part.clone(), pool, spec))
}

/// Reads a component and what it says of itself.
pub(crate) async fn look(spec: &HandlerSpec) -> Result<(Inspection, Vec<u8>), LoadError> {
    let path = spec.component.clone();
    let bytes = tasks::blocking(move || read(&path)).await?;
    let seen = inspect(&bytes).map_err(|source| LoadError::Inspect {
        path: spec.component.clone(),
        source,
    })?;
    Ok((seen, bytes))
}

/// Reads a file that is not larger than a component may be, by one byte.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let failed = |source| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(LARGEST_COMPONENT as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

/// What a handler is set to and a sink or a source cannot do.
fn fits(role: Role, spec: &HandlerSpec) -> Result<(), LoadError> {
    if role.is_interceptor() {
        return Ok(());
    }
    let role = if role.is_sink() { "sink" } else { "source" };
    let unfit = [
        ("grants.state", spec.grants.state.is_some()),
        ("when", spec.when.is_some()),
        ("every", spec.every.is_some()),
    ];
    match unfit.into_iter().find(|(_, is_set)| *is_set) {
        Some((key, _)) => Err(LoadError::NotForRole { role, key }),
        None => Ok(()),
    }
}

/// Sinks and sources wait for others, and so does what sends requests.
fn side_of(role: Role, seen: &Inspection) -> Side {
    let waits = |import: &Import| is_ours(&import.name, "http-client");
    match !role.is_interceptor() || seen.imports.iter().any(waits) {
        true => Side::Async,
        false => Side::Sync,
    }
}

/// Decides from its names whether a component may be loaded, and in which roles: of each the
/// preferred form.
pub(crate) fn admit(seen: &Inspection, grants: &Grants) -> Result<Vec<Role>, LoadError> {
    let own = |(name, why): (&str, &str)| (name.to_owned(), why.to_owned());
    let mut refused: Vec<_> = seen.refused().map(own).collect();
    refused.extend(grants.missing(seen));
    if !refused.is_empty() {
        return Err(LoadError::Imports(refused));
    }
    let mut roles = seen.roles.clone();
    roles.dedup_by_key(|role| role.function());
    if roles.is_empty() {
        return Err(LoadError::NoRole {
            found: match &seen.exports[..] {
                [] => "no interface".into(),
                exports => exports.join(", "),
            },
        });
    }
    Ok(roles)
}

/// The timer of a component that has one.
fn timer_of(component: &Component) -> Option<ComponentExportIndex> {
    let engine = component.engine();
    let ty = component.component_type();
    let mut names = ty.exports(engine).map(|(name, _)| name);
    let name = names.find(|name| is_ours(name, "timer"))?;
    let interface = component.get_export_index(None, name)?;
    component.get_export_index(Some(&interface), "tick")
}

fn export_of(component: &Component, role: Role) -> Result<ComponentExportIndex, LoadError> {
    let engine = component.engine();
    let ty = component.component_type();
    let mut names = ty.exports(engine).map(|(name, _)| name);
    let name = names.find(|name| is_ours(name, role.interface()));
    let interface = name.and_then(|name| component.get_export_index(None, name));
    interface
        .and_then(|interface| component.get_export_index(Some(&interface), role.function()))
        .ok_or_else(|| {
            let (interface, function) = (role.interface(), role.function());
            LoadError::Link(format!("`{interface}` has no `{function}`"))
        })
}

fn link_error(error: impl fmt::Display) -> LoadError {
    LoadError::Link(format!("{error:#}"))
}

/// Settings by key. Text that is no JSON object cannot come from a checked configuration; then
/// there are none.
fn settings_of(json: &str) -> Settings {
    let values = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json);
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    Settings {
        all: json.to_owned(),
        values: values
            .map(|values| {
                values
                    .into_iter()
                    .map(|(key, value)| (key, text(value)))
                    .collect()
            })
            .unwrap_or_default(),
    }
}
