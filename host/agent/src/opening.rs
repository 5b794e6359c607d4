//! From a blueprint to an open agent: store, handlers, flow, doors. Starts nothing.

use std::{collections::BTreeMap, fs::DirBuilder, os::unix::fs::DirBuilderExt, sync::Arc};

use anyhow::{Context, Result};
use levada_admin::{Doors, Facts, Listening, View};
use levada_config::{
    AgentSettings, BackOffParams, BatchParams, ChannelConfig, ChannelType, DeadLettersFull, Door,
    GroupConfig, GroupPolicy, MemoryReservation, OnFull, SelectorConfig,
};
use levada_core::{Interceptor, PartId, Selector, Stop, Want, tasks::blocking};
use levada_flow::{
    Flow, GroupPlan, Link, Multiplexing, MultiplexingRoutes, Plan, Policy, Replicating, Retry,
    SinkPlan, SourcePlan, Surroundings,
};
use levada_store::{ChannelKind, ChannelSpec, DeadLetterSpec, StoreParams, Stores};
use levada_wasm::{CompileBounds, Compiler, Handlers, HandlersConfig};
use tracing::info;

use crate::{
    around::Around,
    blueprint::{Blueprint, CheckedHandler},
    crossing, figures,
};

/// Everything of an agent, open and not started.
pub(crate) struct Opened {
    pub(crate) store: Arc<Stores>,
    pub(crate) flow: Flow,
    pub(crate) doors: Doors,
    pub(crate) facts: Facts,
    /// The sandbox: its thread keeps the guests' time.
    pub(crate) handlers: Option<Handlers>,
}

/// Handlers by name, ready to be called.
pub(crate) type Loaded = BTreeMap<PartId, Arc<dyn Interceptor>>;

/// The sandbox, and the handlers in it.
#[derive(Default)]
pub(crate) struct Sandbox {
    handlers: Option<Handlers>,
    loaded: Loaded,
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
    Ok(Sandbox { handlers, loaded })
}

/// Opens the store, every part and both doors.
pub(crate) async fn open(
    blueprint: Blueprint,
    sandbox: Sandbox,
    around: &Around,
) -> Result<Opened> {
    let Sandbox { handlers, loaded } = sandbox;
    let data = blueprint.settings.data.clone();
    let params = store_params(&blueprint, around)?;
    let store = blocking(move || levada_store::open(params)).await?;
    let admin = match blueprint.settings.admin {
        Door::At(at) => Some(at),
        Door::Off => None,
    };
    let doors = Doors::open(admin, &data, &*around.transport).await?;
    let facts = facts(&blueprint, &doors, around);
    let surroundings = Surroundings {
        store: Arc::clone(&store) as _,
        inspect: Arc::clone(&store) as _,
        registry: around.registry.clone(),
        clock: Arc::clone(&around.clock),
        chance: around.chance.clone(),
    };
    let flow = Flow::open(plan(blueprint, &loaded), surroundings).await?;
    Ok(Opened {
        store,
        flow,
        doors,
        facts,
        handlers,
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
    for CheckedHandler { part, spec, .. } in wanted {
        let handler = handlers
            .load(part, spec)
            .await
            .with_context(|| format!("cannot load `{part}`"))?;
        info!(%part, component = %spec.component.display(), "handler loaded");
        loaded.insert(part.clone(), handler);
    }
    Ok(loaded)
}

fn store_params(blueprint: &Blueprint, around: &Around) -> Result<StoreParams> {
    let settings = &blueprint.settings;
    let share = figures::durable_share(&settings.data, &blueprint.channels)?;
    let channels = blueprint
        .channels
        .iter()
        .map(|channel| spec(channel, share));
    let letters = settings.dead_letters.clone().unwrap_or_default();
    let mut params = StoreParams::new(&settings.data, channels.collect());
    params.dead_letters = DeadLetterSpec {
        capacity_bytes: letters.capacity.0,
        on_full: match letters.on_full {
            DeadLettersFull::Block => levada_store::OnDeadLettersFull::Block,
            DeadLettersFull::DropOldest => levada_store::OnDeadLettersFull::DropOldest,
        },
    };
    params.cache_bytes = settings.cache.as_usize();
    params.clock = Arc::clone(&around.clock);
    params.chance = around.chance.clone();
    params.registry = around.registry.clone();
    Ok(params)
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
    }
}

fn plan(blueprint: Blueprint, loaded: &Loaded) -> Plan {
    let interceptors = blueprint.interceptors;
    let link = |part: &PartId| {
        let native = interceptors.get(part).map(|build| build());
        let interceptor = native.or_else(|| loaded.get(part).cloned())?;
        Some(Link {
            part: part.clone(),
            interceptor,
        })
    };
    let sources = blueprint.sources.into_iter().map(|source| {
        let channels = source.config.selector.channels().into_iter().cloned();
        SourcePlan {
            channels: channels.collect(),
            // The checker has found every name of the chain.
            interceptors: source.config.chain.iter().filter_map(link).collect(),
            part: source.config.part,
            build: source.build,
            selector: selector(source.config.selector),
            put_timeout: source.config.common.put_timeout,
        }
    });
    let sinks = blueprint.sinks.into_iter().map(|sink| {
        let common = sink.config.common;
        SinkPlan {
            part: sink.config.part,
            build: sink.build,
            channel: levada_core::ChannelName(common.channel),
            want: want(&common.batch.unwrap_or_default()),
            retry: retry(&common.back_off.unwrap_or_default(), common.max_attempts),
        }
    });
    Plan {
        sources: sources.collect(),
        sinks: sinks.collect(),
        groups: blueprint.groups.into_iter().map(group).collect(),
        in_flight_bytes: None,
    }
}

fn selector(config: SelectorConfig) -> Arc<dyn Selector> {
    match config {
        SelectorConfig::Replicating { required, optional } => {
            let all: Vec<_> = required
                .into_iter()
                .chain(optional.iter().cloned())
                .collect();
            Arc::new(Replicating::new(&all, &optional))
        }
        SelectorConfig::Multiplexing {
            header,
            mapping,
            default,
            optional,
        } => Arc::new(Multiplexing::new(MultiplexingRoutes {
            header,
            mapping,
            optional,
            default,
        })),
    }
}

fn group(config: GroupConfig) -> GroupPlan {
    GroupPlan {
        part: config.part,
        members: config.members,
        policy: match config.policy {
            GroupPolicy::Failover => Policy::Failover {
                priorities: config.priorities,
            },
            GroupPolicy::RoundRobin => Policy::RoundRobin,
            GroupPolicy::Random => Policy::Random,
        },
        longest_rest: config.max_penalty,
    }
}

fn want(batch: &BatchParams) -> Want {
    Want {
        events: batch.events.0,
        bytes: batch.bytes.as_usize(),
        wait: batch.wait,
    }
}

fn retry(back_off: &BackOffParams, max_attempts: Option<u32>) -> Retry {
    Retry {
        least: back_off.first,
        unreachable: back_off.unreachable,
        refusing: back_off.refused,
        max_attempts,
    }
}

fn facts(blueprint: &Blueprint, doors: &Doors, around: &Around) -> Facts {
    let mut listening: Vec<_> = blueprint
        .sources
        .iter()
        .filter_map(|source| {
            Some(Listening {
                part: source.config.part.to_string(),
                at: crossing::listens(source)?,
            })
        })
        .collect();
    let mut risks: Vec<_> = listening
        .iter()
        .filter(|listening| !listening.at.ip().to_canonical().is_loopback())
        .map(|listening| format!("{} listens on {} without TLS", listening.part, listening.at))
        .collect();
    if let Some(at) = doors.tcp_addr() {
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

/// What the doors show of an open agent.
pub(crate) fn view(opened: &Opened, around: &Around, stop: Stop) -> View {
    View {
        facts: Arc::new(opened.facts.clone()),
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
