//! From a blueprint to an open agent: store, handlers, flow, doors. Starts nothing.

use std::{fs::DirBuilder, net::SocketAddr, os::unix::fs::DirBuilderExt, sync::Arc};

use anyhow::{Context, Result, anyhow, bail};
use levada_admin::{Doors, Facts, Listening, View};
use levada_config::{
    AgentSettings, ChannelConfig, ChannelType, DeadLettersFull, Door, MemoryReservation,
    OnCorruption, OnFull,
};
use levada_core::{Problems, Stop, tasks::blocking};
use levada_flow::{Flow, Surroundings};
use levada_net::Inbound;
use levada_store::{ChannelKind, ChannelSpec, DeadLetterSpec, LaneSpec, StoreParams, Stores};
use levada_wasm::{CompileBounds, Compiler, Handlers, HandlersConfig, Remark};
use tracing::{info, warn};

use crate::{
    around::Around,
    blueprint::{Blueprint, CheckedHandler},
    crossing, figures, handler_part,
    plan::{Loaded, LoadedHandler, plan},
    reload::{Configured, Current, Reloader},
};

/// Everything of an agent, open and not started.
pub(crate) struct Opened {
    pub(crate) store: Arc<Stores>,
    pub(crate) flow: Flow,
    pub(crate) doors: Doors,
    pub(crate) facts: Facts,
    pub(crate) current: Current,
}

/// The sandbox, and the handlers in it.
#[derive(Default)]
pub(crate) struct Sandbox {
    /// Its thread keeps the guests' time.
    pub(crate) handlers: Option<Handlers>,
    pub(crate) loaded: Loaded,
}

/// Compiles or finds every handler. A handler that does not load is a wrong configuration.
pub(crate) async fn load(blueprint: &Blueprint, around: &Around) -> Result<Sandbox> {
    let data = &blueprint.settings.data;
    if !blueprint.handlers.is_empty() {
        // As the store would make it: what is compiled belongs to it.
        let made = DirBuilder::new().recursive(true).mode(0o750).create(data);
        made.with_context(|| format!("cannot make the data folder `{}`", data.display()))?;
    }
    let handlers = open_handlers(blueprint, around).await?;
    let loaded = match &handlers {
        Some(handlers) => load_all(handlers, &blueprint.handlers).await?,
        None => Loaded::new(),
    };
    let mut problems = Problems::default();
    handler_part::check_roles(blueprint, &loaded, &mut problems);
    if let Some(problem) = problems.iter().next() {
        let help = problem.help.as_deref().unwrap_or_default();
        bail!("{}: {}; {help}", problem.key, problem.message);
    }
    Ok(Sandbox { handlers, loaded })
}

/// Opens the store, every part and both doors.
pub(crate) async fn open(
    blueprint: Blueprint,
    sandbox: Sandbox,
    around: &Around,
) -> Result<Opened> {
    let data = blueprint.settings.data.clone();
    let share = figures::durable_share(&data, &blueprint.channels)?;
    let channels = blueprint.channels.iter();
    let channels: Vec<_> = channels.map(|channel| configured(channel, share)).collect();
    let params = store_params(&blueprint.settings, &channels, around);
    let store = blocking(move || levada_store::open(params)).await?;
    let admin = match blueprint.settings.admin {
        Door::At(at) => {
            let clock = Arc::clone(&around.clock);
            let inbound = Inbound::open(blueprint.admin_tls.as_ref(), clock).await;
            Some((
                at,
                inbound.context("cannot use the certificates of `agent.admin-tls`")?,
            ))
        }
        Door::Off => None,
    };
    let doors = Doors::open(admin, &data, &*around.transport).await?;
    let facts = facts(&blueprint, doors.tcp_addr(), around);
    let surroundings = Surroundings {
        store: Arc::clone(&store) as _,
        inspect: Arc::clone(&store) as _,
        registry: around.registry.clone(),
        clock: Arc::clone(&around.clock),
        chance: around.chance.clone(),
    };
    let table = blueprint.table.clone();
    let plan = plan(blueprint, &sandbox.loaded);
    let flow = Flow::open(plan.clone(), surroundings).await?;
    Ok(Opened {
        store,
        flow,
        doors,
        facts,
        current: Current {
            table,
            channels,
            plan,
            sandbox,
            draining: Vec::new(),
        },
    })
}

/// The engine, if anything is to run in it. Compiled code is kept if the data folder is there.
pub(crate) async fn open_handlers(
    blueprint: &Blueprint,
    around: &Around,
) -> Result<Option<Handlers>> {
    if blueprint.handlers.is_empty() {
        return Ok(None);
    }
    let data = &blueprint.settings.data;
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let config = HandlersConfig {
        cache_dir: data.is_dir().then(|| data.join("compiled")),
        recordings: Some(data.join("recordings")),
        compiler: Compiler::Child {
            program,
            args: ["handler", "compile-child"].map(Into::into).to_vec(),
            bounds: CompileBounds::default(),
        },
        memory_reservation: match blueprint.settings.memory_reservation {
            MemoryReservation::Full => levada_wasm::MemoryReservation::Full,
            MemoryReservation::Small => levada_wasm::MemoryReservation::Small,
        },
        registry: around.registry.clone(),
        clock: Arc::clone(&around.clock),
        chance: around.chance.clone(),
    };
    Ok(Some(blocking(move || Handlers::open(config)).await?))
}

async fn load_all(handlers: &Handlers, wanted: &[CheckedHandler]) -> Result<Loaded> {
    let mut loaded = Loaded::new();
    for handler in wanted {
        let part = &handler.part;
        let ready = load_one(handlers, handler, made_of(handler).await).await;
        let ready = ready.with_context(|| format!("cannot load `{part}`"))?;
        loaded.insert(part.clone(), ready);
    }
    Ok(loaded)
}

/// Loads a handler that is [`made_of`] this, whatever was loaded before.
pub(crate) async fn load_one(
    handlers: &Handlers,
    handler: &CheckedHandler,
    made_of: String,
) -> Result<LoadedHandler> {
    let loaded = handlers.load(&handler.part, &handler.spec).await;
    let roles = loaded.map_err(|error| match error.help() {
        Some(help) => anyhow!("{:#}; {help}", anyhow::Error::from(error)),
        None => error.into(),
    })?;
    for Remark { key, what, help } in Handlers::remarks(&handler.spec).await {
        warn!(part = %handler.part, key, what, help, "handler loaded all the same");
    }
    let component = handler.spec.component.display();
    info!(part = %handler.part, %component, "handler loaded");
    Ok(LoadedHandler { made_of, roles })
}

/// A handler's settings, and the digest of its component as the file is now.
pub(crate) async fn made_of(handler: &CheckedHandler) -> String {
    let path = handler.spec.component.clone();
    let digest = blocking(move || {
        let bytes = std::fs::read(path).ok()?;
        Some(levada_wasm::inspect(&bytes).ok()?.digest)
    });
    // What cannot be read is told when it is loaded.
    let digest = digest.await.unwrap_or_default();
    handler.table.to_json() + &digest
}

fn store_params(settings: &AgentSettings, channels: &[Configured], around: &Around) -> StoreParams {
    let letters = settings.dead_letters.clone().unwrap_or_default();
    let specs = channels.iter().map(|channel| channel.spec.clone());
    let mut params = StoreParams::new(&settings.data, specs.collect());
    params.dead_letters = DeadLetterSpec {
        capacity_bytes: letters.capacity.0,
        on_full: match letters.on_full {
            DeadLettersFull::Block => levada_store::OnDeadLettersFull::Block,
            DeadLettersFull::DropOldest => levada_store::OnDeadLettersFull::DropOldest,
        },
    };
    params.on_corruption = match settings.on_corruption {
        OnCorruption::Quarantine => levada_store::OnCorruption::Quarantine,
        OnCorruption::Halt => levada_store::OnCorruption::Halt,
    };
    params.cache_bytes = settings.cache.as_usize();
    params.clock = Arc::clone(&around.clock);
    params.chance = around.chance.clone();
    params.registry = around.registry.clone();
    params
}

/// A channel with what the store is told of it; `durable_share` is what a durable one may have at
/// most if nothing is said.
pub(crate) fn configured(channel: &ChannelConfig, durable_share: u64) -> Configured {
    Configured {
        config: channel.clone(),
        spec: spec(channel, durable_share),
    }
}

fn spec(channel: &ChannelConfig, durable_share: u64) -> ChannelSpec {
    let params = &channel.params;
    let (kind, default) = match params.r#type {
        ChannelType::Durable => (ChannelKind::Durable, durable_share),
        ChannelType::Memory => (ChannelKind::Memory, figures::MEMORY_CHANNEL),
    };
    ChannelSpec {
        name: channel.name.clone(),
        kind,
        capacity_bytes: params.capacity.map_or(default, |size| size.0),
        capacity_events: params.events.map(std::num::NonZeroU64::get),
        on_full: match params.on_full {
            OnFull::Block => levada_store::OnFull::Block,
            OnFull::Reject => levada_store::OnFull::Reject,
        },
        lanes: params.lanes.as_ref().map(|lanes| LaneSpec {
            count: lanes.count.0,
            key: lanes.key.clone(),
        }),
    }
}

/// What operators are told of an agent; `admin` is where its TCP door is.
fn facts(blueprint: &Blueprint, admin: Option<SocketAddr>, around: &Around) -> Facts {
    let (mut listening, mut risks) = (Vec::new(), Vec::new());
    for source in &blueprint.sources {
        let Some(at) = crossing::listens(source) else {
            continue;
        };
        let part = source.config.part.to_string();
        let has_tls = source.config.table.get("tls").is_some();
        if !at.ip().to_canonical().is_loopback() && !has_tls {
            risks.push(format!("{part} listens on {at} without TLS"));
        }
        listening.push(Listening { part, at });
    }
    let sources = blueprint.sources.iter().map(|source| &source.config.table);
    let sinks = blueprint.sinks.iter().map(|sink| &sink.config.table);
    for table in sources
        .chain(sinks)
        .filter(|table| crossing::believes_anybody(table).is_some())
    {
        risks.push(format!(
            "{} believes any server to be the right one",
            table.path
        ));
    }
    if let Some(at) = admin {
        listening.push(Listening {
            part: "admin".into(),
            at,
        });
        if !at.ip().to_canonical().is_loopback() {
            risks.push(format!(
                "health and metrics are open to the network on {at}"
            ));
        }
    }
    Facts {
        agent: around.agent.clone(),
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        started_ms: around.clock.wall_ms(),
        listening,
        risks,
    }
}

/// The facts of an agent that was reloaded: its door and its start stay.
pub(crate) fn facts_after(before: &Facts, blueprint: &Blueprint, around: &Around) -> Facts {
    let admin = before.listening.iter().find(|door| door.part == "admin");
    Facts {
        started_ms: before.started_ms,
        ..facts(blueprint, admin.map(|door| door.at), around)
    }
}

/// What the doors show of an open agent.
pub(crate) fn view(
    opened: &Opened,
    around: &Around,
    (stop, reloader): (Stop, &Arc<Reloader>),
) -> View {
    View {
        facts: Arc::clone(&reloader.facts),
        operate: Arc::clone(reloader) as _,
        status: opened.flow.status(),
        inspect: Arc::clone(&opened.store) as _,
        registry: around.registry.clone(),
        clock: Arc::clone(&around.clock),
        stop,
    }
}

/// One block that says what the agent is and what it listens on.
pub(crate) fn announce(settings: &AgentSettings, facts: &Facts) {
    info!(
        agent = %facts.agent,
        version = facts.version,
        pid = facts.pid,
        data = %settings.data.display(),
        "levada runs"
    );
    for Listening { part, at } in &facts.listening {
        info!(%part, %at, "listens");
    }
    info!(socket = %settings.data.join(levada_admin::SOCKET).display(), "operators' door");
    for risk in &facts.risks {
        tracing::warn!(%risk, "accepted risk");
    }
}
