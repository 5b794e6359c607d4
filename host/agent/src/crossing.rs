//! Problems that no part can see alone: two parts on one port, a channel that is too small for what
//! its source may bring, an agent that sends to itself.

use std::net::SocketAddr;

use levada_config::{
    AgentSettings, ChannelConfig, ChannelType, Door, GroupConfig, GroupPolicy, Profile, SinkConfig,
    SourceConfig,
};
use levada_core::{
    ByteSize, Problem, Problems, Sink, Source, Table, Value,
    settings::{Span, ValueKind},
};

use crate::{blueprint::Checked, handler_part};

type Sources = [Checked<SourceConfig, Box<dyn Source>>];
type Sinks = [Checked<SinkConfig, Box<dyn Sink>>];

/// Adds every such problem.
pub(crate) fn check(
    settings: Option<&AgentSettings>,
    sources: &Sources,
    sinks: &Sinks,
    (channels, groups): (&[ChannelConfig], &[GroupConfig]),
    problems: &mut Problems,
) {
    same_port(settings, sources, problems);
    to_itself(sources, sinks, problems);
    for channel in channels {
        one_lane_for_many(channel, sinks, groups, problems);
    }
    for source in sources {
        small_channels(source, channels, problems);
        volatile_channels(source, channels, problems);
    }
    open_admin(settings, problems);
    let sources = sources.iter().map(|source| &source.config.table);
    let sinks = sinks.iter().map(|sink| &sink.config.table);
    if settings.is_some_and(|settings| settings.profile == Some(Profile::Production)) {
        sources
            .chain(sinks)
            .for_each(|table| not_in_production(table, problems));
    }
}

/// Where a part is told to believe any server, if it is.
pub(crate) fn believes_anybody(table: &Table) -> Option<&Value> {
    let (_, tls) = table.get("tls")?;
    let (_, value) = tls.table()?.get("insecure-skip-verify")?;
    matches!(value.kind, ValueKind::Bool(true)).then_some(value)
}

fn not_in_production(table: &Table, problems: &mut Problems) {
    if let Some(value) = believes_anybody(table) {
        let key = format!("{}.insecure-skip-verify", table.path_of("tls"));
        let problem = value.problem(&key, "not with profile = \"production\"");
        problems.push(problem.help("name the authority of the server with `ca`"));
    }
}

/// Where a source listens, if it does.
pub(crate) fn listens(source: &Checked<SourceConfig, Box<dyn Source>>) -> Option<SocketAddr> {
    source.text(&source.config.table, "listen")?.parse().ok()
}

fn place(table: &Table, key: &str) -> Span {
    table.get(key).map_or(table.span, |(_, value)| value.span)
}

fn same_port(settings: Option<&AgentSettings>, sources: &Sources, problems: &mut Problems) {
    let mut taken: Vec<(SocketAddr, String, Option<Span>)> = Vec::new();
    if let Some(Door::At(at)) = settings.map(|settings| settings.admin) {
        taken.push((at, "agent.admin".into(), None));
    }
    for source in sources {
        let table = &source.config.table;
        let Some(at) = listens(source).filter(|at| at.port() != 0) else {
            continue;
        };
        let clash = |(other, ..): &&(SocketAddr, String, Option<Span>)| {
            let same_host =
                other.ip() == at.ip() || other.ip().is_unspecified() || at.ip().is_unspecified();
            other.port() == at.port() && same_host
        };
        let span = place(table, "listen");
        if let Some((other, key, first)) = taken.iter().find(clash) {
            let message = format!("`{key}` listens on {other} already");
            let problem =
                Problem::error(Some(span), table.path_of("listen"), message).found(at.to_string());
            problems.push(match first {
                Some(first) => problem.related(*first, "taken here"),
                None => problem,
            });
        }
        taken.push((at, table.path_of("listen"), Some(span)));
    }
}

fn to_itself(sources: &Sources, sinks: &Sinks, problems: &mut Problems) {
    let ours: Vec<_> = sources
        .iter()
        .filter(|source| source.config.common.r#type == "avro")
        .filter_map(|source| Some((listens(source)?, &source.config.part)))
        .collect();
    for sink in sinks
        .iter()
        .filter(|sink| sink.config.common.r#type == "avro")
    {
        let table = &sink.config.table;
        let Some(to) = sink
            .text(table, "to")
            .and_then(|to| to.parse::<SocketAddr>().ok())
        else {
            continue;
        };
        let hits = |at: SocketAddr| {
            let same = at.ip() == to.ip() || (at.ip().is_unspecified() && to.ip().is_loopback());
            at.port() == to.port() && same
        };
        if let Some((_, part)) = ours.iter().find(|(at, _)| hits(*at)) {
            let message = format!("the agent sends to its own source `{part}`");
            let problem = Problem::error(Some(place(table, "to")), table.path_of("to"), message);
            problems.push(problem.help("every event would go round for ever"));
        }
    }
}

/// A put is atomic: a batch that is larger than a channel never gets in.
fn small_channels(
    source: &Checked<SourceConfig, Box<dyn Source>>,
    channels: &[ChannelConfig],
    problems: &mut Problems,
) {
    let table = &source.config.table;
    let largest = ["max-frame", "max-body", "max-event"]
        .into_iter()
        .find_map(|key| {
            let size = ByteSize::parse(source.text(table, key)?)?;
            Some((key, size))
        });
    let batch = table
        .get("batch")
        .and_then(|(_, value)| value.table()?.get("bytes")?.1.text())
        .and_then(ByteSize::parse)
        .map(|size| ("batch.bytes", size));
    for (key, largest) in largest.into_iter().chain(batch) {
        for name in source.config.selector.channels() {
            let channel = channels.iter().find(|channel| channel.name == *name);
            let Some(capacity) = channel.and_then(|channel| channel.params.capacity) else {
                continue;
            };
            if capacity < largest {
                let message = format!(
                    "channel `{name}` holds {capacity}, less than one batch of this source may have"
                );
                let help = format!("raise channels.{name}.capacity, or lower `{key}`");
                problems.push(
                    Problem::error(Some(place(table, key)), table.path_of(key), message)
                        .found(largest.to_string())
                        .allowed(format!("up to {capacity}"))
                        .help(help),
                );
            }
        }
    }
}

/// What was acknowledged to a peer should not be lost with the process (delivery contract, D5.2),
/// nor where a source has come to.
fn volatile_channels(
    source: &Checked<SourceConfig, Box<dyn Source>>,
    channels: &[ChannelConfig],
    problems: &mut Problems,
) {
    let is_polled = match source.config.common.r#type.as_str() {
        "avro" | "http" | "mqtt" => false,
        handler_part::TYPE => true,
        _ => return,
    };
    for name in source.config.selector.channels() {
        let channel = channels.iter().find(|channel| channel.name == *name);
        if channel.is_some_and(|channel| channel.params.r#type == ChannelType::Memory) {
            let table = &source.config.table;
            let message = match is_polled {
                false => format!(
                    "what this source acknowledges is lost from memory channel `{name}` when the \
                     agent is killed"
                ),
                true => format!(
                    "because of memory channel `{name}` the cursor of this source is in memory, \
                     too: every start polls from the beginning"
                ),
            };
            let span = table
                .get("channels")
                .map_or(table.span, |(_, value)| value.span);
            let problem = Problem::warning(Some(span), table.path_of("channels"), message);
            problems.push(problem.help("use a durable channel, unless that is what you want"));
        }
    }
}

/// Sinks that take from one lane side by side keep no order, and a Levada behind one of them cannot
/// tell what was sent again (delivery contract, D4.5).
fn one_lane_for_many(
    channel: &ChannelConfig,
    sinks: &Sinks,
    groups: &[GroupConfig],
    problems: &mut Problems,
) {
    if channel
        .params
        .lanes
        .as_ref()
        .is_some_and(|lanes| lanes.count.0 > 1)
    {
        return;
    }
    let takes =
        |sink: &&Checked<SinkConfig, Box<dyn Sink>>| sink.config.common.channel == channel.name.0;
    let takers: Vec<_> = sinks.iter().filter(takes).collect();
    let take_turns = |group: &GroupConfig| {
        let is_member = |sink: &&Checked<SinkConfig, _>| group.members.contains(&sink.config.part);
        group.policy == GroupPolicy::Failover && takers.iter().all(is_member)
    };
    let hop = takers
        .iter()
        .find(|sink| sink.config.common.r#type == "avro");
    let (Some(hop), false) = (hop, takers.len() < 2 || groups.iter().any(take_turns)) else {
        return;
    };
    let table = &hop.config.table;
    let message = format!(
        "several sinks take from the one lane of channel `{}`: order is given up, and another \
         Levada stores again what was sent again",
        channel.name
    );
    let problem = Problem::warning(
        Some(place(table, "channel")),
        table.path_of("channel"),
        message,
    );
    problems.push(problem.help(format!(
        "give channels.{} `lanes = {{ count = {}, key = \"...\" }}`, or put the sinks into a \
         failover group",
        channel.name,
        takers.len()
    )));
}

fn open_admin(settings: Option<&AgentSettings>, problems: &mut Problems) {
    if let Some(Door::At(at)) = settings.map(|settings| settings.admin)
        && !at.ip().to_canonical().is_loopback()
    {
        let message = format!("health and metrics are open to the network on {at}");
        problems.push(Problem::warning(None, "agent.admin", message));
    }
}
