//! From a checked configuration to the plan of a flow.

use std::{collections::BTreeMap, sync::Arc};

use levada_config::{
    BackOffParams, BatchParams, ChannelConfig, GroupConfig, GroupPolicy, SelectorConfig,
    SinkConfig, SourceCommon, SourceConfig,
};
use levada_core::{ChannelName, PartId, Selector, Sink, Source, Table, Want};
use levada_flow::{
    GroupPlan, Link, Multiplexing, MultiplexingRoutes, Plan, Policy, Replicating, Retry, SinkPlan,
    SourcePlan, Succession,
};

use crate::{
    blueprint::{Blueprint, Checked, CheckedInterceptor, shared_only},
    crossing, handler_part, handler_source,
};

/// Handlers by name, ready to be called.
pub(crate) type Loaded = BTreeMap<PartId, LoadedHandler>;

/// A handler in the sandbox.
#[derive(Clone)]
pub(crate) struct LoadedHandler {
    /// Its settings and the digest of its component: the same text is the same handler.
    pub(crate) made_of: String,
    pub(crate) roles: levada_wasm::Loaded,
}

/// The plan of an agent's flow.
pub(crate) fn plan(blueprint: Blueprint, loaded: &Loaded) -> Plan {
    let Blueprint {
        sources,
        sinks,
        groups,
        interceptors,
        channels,
        ..
    } = blueprint;
    let chains = Chains {
        interceptors,
        loaded,
    };
    let sources = sources.into_iter().map(|source| chains.source(source));
    Plan {
        sources: sources.collect(),
        sinks: sinks
            .into_iter()
            .map(|one| sink(one, &channels, loaded))
            .collect(),
        groups: groups.into_iter().map(group).collect(),
        in_flight_bytes: None,
    }
}

/// What can stand between a source and its channels.
struct Chains<'a> {
    interceptors: BTreeMap<PartId, CheckedInterceptor>,
    loaded: &'a Loaded,
}

impl Chains<'_> {
    fn source(&self, source: Checked<SourceConfig, Box<dyn Source>>) -> SourcePlan {
        let succession = match crossing::listens(&source) {
            Some(_) => Succession::Overlap,
            None => Succession::Exclusive,
        };
        let Checked {
            config,
            mut build,
            fields,
        } = source;
        let mut made_of = String::new();
        let handler = handler_part::handler_of(&config.table);
        if let Some(handler) = handler.and_then(|part| self.loaded.get(&part)) {
            made_of.clone_from(&handler.made_of);
            if let Some(of_handler) = handler.roles.source.clone() {
                let max_wait = handler_source::max_wait(&config.table);
                build = Arc::new(move || of_handler.source(max_wait));
            }
        }
        // The checker has found every name of the chain.
        let chain: Vec<_> = config
            .chain
            .iter()
            .filter_map(|part| self.link(part))
            .collect();
        let common = shared_only(SourceCommon::KEYS, &fields);
        let is_common = |key: &str| key != "type" && common.contains(&key);
        let mut behind = only(&config.table, is_common);
        chain
            .iter()
            .for_each(|(_, made_of)| behind.push_str(made_of));
        let channels = config.selector.channels().into_iter().cloned();
        SourcePlan {
            channels: channels.collect(),
            interceptors: chain.into_iter().map(|(link, _)| link).collect(),
            part: config.part,
            build,
            selector: selector(config.selector),
            put_timeout: config.common.put_timeout,
            made_of: only(&config.table, |key| !is_common(key)) + &made_of,
            behind,
            succession,
        }
    }

    /// A link of a chain, and what it is made of.
    fn link(&self, part: &PartId) -> Option<(Link, String)> {
        let native = self.interceptors.get(part);
        let native = native.map(|native| ((native.build)(), native.table.to_json()));
        let handler = || {
            let handler = self.loaded.get(part)?;
            let interceptor = handler.roles.interceptor.clone()?;
            Some((interceptor, handler.made_of.clone()))
        };
        let (interceptor, made_of) = native.or_else(handler)?;
        let part = part.clone();
        Some((Link { part, interceptor }, made_of))
    }
}

fn sink(
    sink: Checked<SinkConfig, Box<dyn Sink>>,
    channels: &[ChannelConfig],
    loaded: &Loaded,
) -> SinkPlan {
    let common = sink.config.common;
    let channel = channels.iter().find(|other| other.name.0 == common.channel);
    let lanes = channel.and_then(|channel| channel.params.lanes.as_ref());
    // A sink opens its channel's lanes as it opens itself.
    let mut made_of = format!("{} {lanes:?}", sink.config.table.to_json());
    let mut build = sink.build;
    let handler = handler_part::handler_of(&sink.config.table);
    if let Some(handler) = handler.and_then(|part| loaded.get(&part)) {
        made_of.push_str(&handler.made_of);
        if let Some(of_handler) = handler.roles.sink.clone() {
            build = Arc::new(move || of_handler.sink());
        }
    }
    SinkPlan {
        part: sink.config.part,
        build,
        channel: ChannelName(common.channel),
        want: want(&common.batch.unwrap_or_default()),
        retry: retry(&common.back_off.unwrap_or_default(), common.max_attempts),
        made_of,
    }
}

/// Some keys of a table as text; the order in the file does not matter.
pub(crate) fn only(table: &Table, wanted: impl Fn(&str) -> bool) -> String {
    let mut part = table.clone();
    part.entries.retain(|(key, _)| wanted(&key.name));
    part.entries.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    part.to_json()
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
        ..Want::default()
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
