//! From a configuration to checked parts: what is needed to open an agent, and every problem.
//!
//! Nothing here does I/O.

use std::collections::BTreeMap;

use levada_config::{
    AgentConfig, AgentSettings, ChannelConfig, GroupConfig, HandlerConfig, InterceptorCommon,
    SinkCommon, SinkConfig, SourceCommon, SourceConfig,
};
use levada_core::{
    Interceptor, PartId, PartKind, Problems, Sink, Source, Table,
    factory::Build,
    settings::{Field, Span},
};
use levada_net::ListenerTls;
use levada_wasm::HandlerSpec;
use std::sync::Arc;

use crate::{crossing, handler_part, kinds::Kinds, state_order};

/// An agent whose every part is checked, and not open.
pub(crate) struct Blueprint {
    pub(crate) settings: AgentSettings,
    /// The table `[agent]`, as it was written.
    pub(crate) table: Table,
    pub(crate) admin_tls: Option<ListenerTls>,
    pub(crate) channels: Vec<ChannelConfig>,
    pub(crate) sources: Vec<Checked<SourceConfig, Box<dyn Source>>>,
    pub(crate) sinks: Vec<Checked<SinkConfig, Box<dyn Sink>>>,
    pub(crate) groups: Vec<GroupConfig>,
    pub(crate) interceptors: BTreeMap<PartId, CheckedInterceptor>,
    pub(crate) handlers: Vec<CheckedHandler>,
}

/// A part that can be built.
pub(crate) struct Checked<C, T> {
    pub(crate) config: C,
    pub(crate) build: Build<T>,
    pub(crate) fields: Vec<Field>,
}

/// A native interceptor that can be built.
pub(crate) struct CheckedInterceptor {
    pub(crate) build: Build<Arc<dyn Interceptor>>,
    pub(crate) table: Table,
}

/// A handler that can be loaded.
#[derive(Debug)]
pub(crate) struct CheckedHandler {
    pub(crate) part: PartId,
    pub(crate) spec: HandlerSpec,
    pub(crate) table: Table,
    /// Where its component is named.
    pub(crate) place: Span,
}

/// Checks every part. `None` if `problems` has errors, then or before.
pub(crate) fn blueprint(
    agent: AgentConfig,
    kinds: &Kinds,
    problems: &mut Problems,
) -> Option<Blueprint> {
    let AgentConfig {
        settings,
        table,
        sources,
        interceptors,
        handlers,
        channels,
        sinks,
        groups,
        refused,
    } = agent;
    for table in &refused {
        check_refused(table, kinds, problems);
    }
    let interceptors = interceptors.into_iter().filter_map(|config| {
        let kind = kinds.interceptor(&config.table, problems)?;
        let build = kind.check(
            &config.part,
            &config.table,
            InterceptorCommon::KEYS,
            problems,
        )?;
        let table = config.table;
        Some((config.part, CheckedInterceptor { build, table }))
    });
    let interceptors = interceptors.collect();
    handler_part::check_names(&sources, &sinks, &handlers, problems);
    let handlers = handlers.into_iter();
    let handlers = handlers.filter_map(|config| handler(config, problems));
    let handlers: Vec<_> = handlers.collect();
    let sources = sources.into_iter().filter_map(|config| {
        let kind = kinds.source(&config.table, problems)?;
        let build = kind.check(
            &config.part,
            &config.table,
            &rest(SourceCommon::KEYS, kind.fields),
            problems,
        )?;
        let fields = (kind.fields)();
        Some(Checked {
            config,
            build,
            fields,
        })
    });
    let sources: Vec<_> = sources.collect();
    let sinks = sinks.into_iter().filter_map(|config| {
        let kind = kinds.sink(&config.table, problems)?;
        let build = kind.check(
            &config.part,
            &config.table,
            &rest(SinkCommon::KEYS, kind.fields),
            problems,
        )?;
        let fields = (kind.fields)();
        Some(Checked {
            config,
            build,
            fields,
        })
    });
    let sinks: Vec<_> = sinks.collect();
    state_order::check(&sources, &handlers, problems);
    let admin_tls = admin_tls(settings.as_ref(), problems);
    let joined = (&channels[..], &groups[..]);
    crossing::check(settings.as_ref(), &sources, &sinks, joined, problems);
    if problems.has_errors() {
        return None;
    }
    Some(Blueprint {
        settings: settings?,
        table,
        admin_tls,
        channels,
        sources,
        sinks,
        groups,
        interceptors,
        handlers,
    })
}

fn handler(config: HandlerConfig, problems: &mut Problems) -> Option<CheckedHandler> {
    let spec = levada_wasm::check(&config.part, &config.table, problems)?;
    let component = config.table.get("component");
    Some(CheckedHandler {
        part: config.part,
        spec,
        place: component.map_or(config.table.span, |(_, value)| value.span),
        table: config.table,
    })
}

fn admin_tls(settings: Option<&AgentSettings>, problems: &mut Problems) -> Option<ListenerTls> {
    ListenerTls::read(settings?.admin_tls.as_ref()?, problems)
}

/// The common keys that a component does not read as well, each once.
fn rest(common: &[&'static str], own: fn() -> Vec<Field>) -> Vec<&'static str> {
    shared_only(common, &own())
}

/// The same, where the component's keys are known already.
pub(crate) fn shared_only(common: &[&'static str], own: &[Field]) -> Vec<&'static str> {
    let is_own = |key: &&str| own.iter().any(|field| field.key == **key);
    common.iter().copied().filter(|key| !is_own(key)).collect()
}

/// A part with a wrong common key: what else is wrong with it is worth saying at once.
fn check_refused(table: &Table, kinds: &Kinds, problems: &mut Problems) {
    let Some(part) = PartId::parse(&table.path) else {
        return;
    };
    match part.kind {
        PartKind::Sources => {
            if let Some(kind) = kinds.source(table, problems) {
                let _refused = kind.check(
                    &part,
                    table,
                    &rest(SourceCommon::KEYS, kind.fields),
                    problems,
                );
            }
        }
        PartKind::Sinks => {
            if let Some(kind) = kinds.sink(table, problems) {
                // A sink with `channels` was told so already.
                let mut keys = rest(SinkCommon::KEYS, kind.fields);
                keys.push("channels");
                let _refused = kind.check(&part, table, &keys, problems);
            }
        }
        PartKind::Agent
        | PartKind::Interceptors
        | PartKind::Handlers
        | PartKind::Channels
        | PartKind::Groups => {}
    }
}

impl Blueprint {
    /// Where the table of each source and sink stands.
    pub(crate) fn places(&self) -> BTreeMap<PartId, Span> {
        let sources = self.sources.iter().map(|source| &source.config);
        let sources = sources.map(|config| (config.part.clone(), config.table.span));
        let sinks = self.sinks.iter().map(|sink| &sink.config);
        let sinks = sinks.map(|config| (config.part.clone(), config.table.span));
        sources.chain(sinks).collect()
    }
}

impl<C, T> Checked<C, T> {
    /// What a key of the part's own is, as it would be written: from its table, or its default.
    pub(crate) fn text<'a>(&'a self, table: &'a Table, key: &str) -> Option<&'a str> {
        if let Some((_, value)) = table.get(key) {
            return value.text();
        }
        let field = self.fields.iter().find(|field| field.key == key)?;
        Some(field.default.as_deref()?.trim_matches('"'))
    }
}
