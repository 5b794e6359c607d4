//! Every type of part in this binary, and those that are known but not in it.

use std::sync::Arc;

use levada_core::{InterceptorKind, Problem, Problems, SinkKind, SourceKind, Table};

use crate::{around::Around, handler_sink, handler_source};

/// Types that the documents speak of and this version does not have.
const SOURCES_LATER: &[&str] = &[
    "exec",
    "jms",
    "kafka",
    "kubernetes",
    "multiport_syslogtcp",
    "netcat",
    "netcatudp",
    "opcua",
    "otlp",
    "pollabledir",
    "scribe",
    "spooldir",
    "stdin",
    "stress",
    "syslog",
    "syslogtcp",
    "syslogudp",
    "taildir",
    "thrift",
];
const SINKS_LATER: &[&str] = &[
    "elasticsearch",
    "hbase2",
    "hdfs",
    "hive",
    "http",
    "influxdb",
    "irc",
    "kafka",
    "loki",
    "mqtt",
    "opensearch",
    "otlp",
    "s3",
    "thrift",
];
const INTERCEPTORS_LATER: &[&str] = &[
    "morphline",
    "regex_extractor",
    "regex_filter",
    "remove_header",
    "search_replace",
    "uuid",
];

/// Sources that were left out of this build by its features.
const SOURCES_LEFT_OUT: &[&str] = &[
    #[cfg(not(feature = "http"))]
    "http",
    #[cfg(not(feature = "mqtt"))]
    "mqtt",
];

/// Every type of part in this binary.
#[derive(Debug)]
pub(crate) struct Kinds {
    pub(crate) sources: Vec<SourceKind>,
    pub(crate) sinks: Vec<SinkKind>,
    pub(crate) interceptors: Vec<InterceptorKind>,
}

impl Kinds {
    /// Builds the lists; does no I/O.
    pub(crate) fn new(around: &Around) -> Self {
        let sources = levada_sources::Deps {
            transport: Arc::clone(&around.transport),
            registry: around.registry.clone(),
            clock: Arc::clone(&around.clock),
            chance: around.chance.clone(),
            agent: around.agent.clone(),
        };
        let sinks = levada_sinks::Deps {
            transport: Arc::clone(&around.transport),
            registry: around.registry.clone(),
            clock: Arc::clone(&around.clock),
            chance: around.chance.clone(),
            agent: around.agent.clone(),
        };
        let interceptors = levada_interceptors::Deps {
            clock: Arc::clone(&around.clock),
        };
        let mut sources = levada_sources::kinds(&sources);
        sources.push(SourceKind::of(handler_source::Factory));
        let mut sinks = levada_sinks::kinds(&sinks);
        sinks.push(SinkKind::of(handler_sink::Factory));
        Self {
            sources,
            sinks,
            interceptors: levada_interceptors::kinds(&interceptors),
        }
    }

    /// The type a source's table asks for.
    pub(crate) fn source(&self, table: &Table, problems: &mut Problems) -> Option<&SourceKind> {
        let known = self.sources.iter().map(|kind| (kind.name, kind));
        if let Some((_, value)) = table.get("type")
            && let Some(word) = value.text().filter(|word| SOURCES_LEFT_OUT.contains(word))
        {
            let message = format!("the type `{word}` was left out of this build");
            problems.push(Problem::error(
                Some(value.span),
                table.path_of("type"),
                message,
            ));
            return None;
        }
        find(known, SOURCES_LATER, table, problems)
    }

    /// The type a sink's table asks for.
    pub(crate) fn sink(&self, table: &Table, problems: &mut Problems) -> Option<&SinkKind> {
        let known = self.sinks.iter().map(|kind| (kind.name, kind));
        find(known, SINKS_LATER, table, problems)
    }

    /// The type an interceptor's table asks for.
    pub(crate) fn interceptor(
        &self,
        table: &Table,
        problems: &mut Problems,
    ) -> Option<&InterceptorKind> {
        let known = self.interceptors.iter().map(|kind| (kind.name, kind));
        find(known, INTERCEPTORS_LATER, table, problems)
    }
}

/// The kind named under `type`. A missing `type` is somebody else's problem.
fn find<'a, K>(
    known: impl Iterator<Item = (&'static str, &'a K)>,
    later: &[&str],
    table: &Table,
    problems: &mut Problems,
) -> Option<&'a K> {
    let (_, value) = table.get("type")?;
    let word = value.text()?;
    let known: Vec<_> = known.collect();
    if let Some((_, kind)) = known.iter().find(|(name, _)| *name == word) {
        return Some(kind);
    }
    let mut names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    let path = table.path_of("type");
    let allowed = names.join(", ");
    problems.push(if later.contains(&word) {
        let message = format!("the type `{word}` is not in this version");
        Problem::error(Some(value.span), path, message).allowed(allowed)
    } else {
        let message = format!("unknown type `{word}`");
        Problem::error(Some(value.span), path, message)
            .allowed(allowed)
            .nearest(word, names.iter().chain(later).copied())
    });
    None
}
