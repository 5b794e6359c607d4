//! The tables `[groups.*]`.

use std::{collections::BTreeMap, time::Duration};

use levada_core::{
    Name, PartId, PartKind, Problem, Problems, Table, choice, params,
    settings::{Key, Span, ValueKind, parse_params},
};

use crate::part::SinkConfig;

params! {
    /// A sink group: sinks of one channel that take turns.
    pub struct GroupParams {
        /// The sinks, at least two, all on one channel.
        pub sinks: Vec<Name>,
        /// Who has the turn: the best that works, or all of them.
        pub policy: GroupPolicy = "failover",
        /// With failover: a number for each sink, higher first. Left out, the order of `sinks`.
        pub priorities: Option<BTreeMap<String, i64>>,
        /// The longest rest of a sink that failed, after 2 s at first, doubled each time. Left out:
        /// 30 s with failover; else only the sink's own back-off.
        pub max_penalty: Option<Duration>,
    }
}

choice! {
    /// Who has the turn in a sink group.
    pub enum GroupPolicy {
        /// The sink with the highest priority that has not failed.
        Failover = "failover",
        /// One after the other.
        RoundRobin = "round-robin",
        /// Any.
        Random = "random",
    }
}

/// A sink group, checked.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    pub part: PartId,
    pub policy: GroupPolicy,
    /// The sinks, in the order of the file.
    pub members: Vec<PartId>,
    /// With failover: one number for each member.
    pub priorities: Vec<i64>,
    /// The longest rest of a member that failed; `None` leaves it to the sink's back-off.
    pub max_penalty: Option<Duration>,
    /// Where its table stands.
    pub span: Span,
}

/// What is known when a group is read.
pub(crate) struct Known<'a> {
    /// Every sink that is in order.
    pub(crate) sinks: &'a [SinkConfig],
    /// The name of every sink, also of one with mistakes.
    pub(crate) names: Vec<Name>,
    /// The groups before this one.
    pub(crate) groups: &'a [GroupConfig],
}

/// Flume's `processor.maxpenalty`.
const MAX_PENALTY: Duration = Duration::from_secs(30);

/// Reads one group.
pub(crate) fn read(
    name: &Name,
    table: &Table,
    known: &Known<'_>,
    problems: &mut Problems,
) -> Option<GroupConfig> {
    let params = parse_params::<GroupParams>(table, &[], problems)?;
    known.members(table, problems);
    let priorities = priorities(table, &params, problems);
    let max_penalty = match params.policy {
        GroupPolicy::Failover => Some(params.max_penalty.unwrap_or(MAX_PENALTY)),
        GroupPolicy::RoundRobin | GroupPolicy::Random => params.max_penalty,
    };
    let member = |name: &Name| PartId::new(PartKind::Sinks, name.clone());
    Some(GroupConfig {
        part: PartId::new(PartKind::Groups, name.clone()),
        policy: params.policy,
        members: params.sinks.iter().map(member).collect(),
        priorities,
        max_penalty,
        span: table.span,
    })
}

impl Known<'_> {
    fn members(&self, table: &Table, problems: &mut Problems) {
        let path = table.path_of("sinks");
        let Some((key, value)) = table.get("sinks") else {
            return;
        };
        let ValueKind::Array(values) = &value.kind else {
            return;
        };
        if values.len() < 2 {
            let message = "a group needs at least two sinks";
            let problem = Problem::error(Some(value.span), path.as_str(), message);
            problems.push(problem.help("a sink on its own needs no group"));
        }
        let texts = values
            .iter()
            .filter_map(|value| Some((value.text()?, value.span)));
        let mut seen: Vec<(&str, Span)> = Vec::new();
        for (text, span) in texts {
            if let Some((_, first)) = seen.iter().find(|(other, _)| *other == text) {
                let message = format!("sink `{text}` is named twice");
                let problem = Problem::error(Some(span), path.as_str(), message);
                problems.push(problem.related(*first, "first named here"));
                continue;
            }
            seen.push((text, span));
            self.member(text, span, &path, problems);
        }
        self.one_channel(&seen, key, &path, problems);
    }

    fn member(&self, text: &str, span: Span, path: &str, problems: &mut Problems) {
        if !self.names.iter().any(|name| name.as_str() == text) {
            let known: Vec<_> = self.names.iter().map(Name::as_str).collect();
            let message = format!("there is no sink `{text}`");
            let problem = Problem::error(Some(span), path, message);
            problems.push(
                problem
                    .allowed(known.join(", "))
                    .nearest(text, known.iter().copied()),
            );
            return;
        }
        let is_member = |group: &&GroupConfig| {
            group
                .members
                .iter()
                .any(|member| member.name.as_str() == text)
        };
        if let Some(other) = self.groups.iter().find(is_member) {
            let message = format!("sink `{text}` is in `{}` already", other.part);
            let problem = Problem::error(Some(span), path, message);
            problems.push(problem.related(other.span, "that group"));
        }
    }

    /// The channel of every sink must be that of the first.
    fn one_channel(&self, seen: &[(&str, Span)], key: &Key, path: &str, problems: &mut Problems) {
        let channel = |text: &str| {
            let mut sinks = self.sinks.iter();
            let sink = sinks.find(|sink| sink.part.name.as_str() == text)?;
            Some(&sink.common.channel)
        };
        let Some((first, wanted)) = seen
            .first()
            .and_then(|(text, _)| Some((*text, channel(text)?)))
        else {
            return;
        };
        let other = |(text, span): &(&str, Span)| {
            let channel = channel(text).filter(|channel| *channel != wanted)?;
            Some((text.to_string(), *span, channel))
        };
        if let Some((text, span, channel)) = seen.iter().find_map(other) {
            let message = "the sinks of a group take from one channel";
            problems.push(
                Problem::error(Some(key.span), path, message)
                    .found(format!(
                        "`{first}` takes from `{wanted}`, `{text}` from `{channel}`"
                    ))
                    .related(span, "this one"),
            );
        }
    }
}

/// One number for each member, in their order.
fn priorities(table: &Table, params: &GroupParams, problems: &mut Problems) -> Vec<i64> {
    let path = table.path_of("priorities");
    let place = table.get("priorities").map(|(key, _)| key.span);
    let Some(given) = &params.priorities else {
        let count = i64::try_from(params.sinks.len()).unwrap_or(i64::MAX);
        return (0..count).map(|n| count - n).collect();
    };
    if params.policy != GroupPolicy::Failover {
        let message = format!("`{}` knows no priorities", params.policy.as_str());
        let problem = Problem::error(place, path.as_str(), message);
        problems.push(problem.help("remove them, or write policy = \"failover\""));
        return Vec::new();
    }
    let names: Vec<_> = params.sinks.iter().map(Name::as_str).collect();
    for name in given.keys().filter(|name| !names.contains(&name.as_str())) {
        let message = format!("`{name}` is no sink of this group");
        let problem = Problem::error(place, path.as_str(), message);
        problems.push(
            problem
                .allowed(names.join(", "))
                .nearest(name, names.iter().copied()),
        );
    }
    let mut priorities: Vec<i64> = Vec::new();
    for name in names {
        let Some(priority) = given.get(name) else {
            let message = format!("sink `{name}` has no priority");
            let problem = Problem::error(place, path.as_str(), message);
            problems.push(problem.help("give each sink of the group its own, or leave them out"));
            continue;
        };
        if priorities.contains(priority) {
            let message = format!("priority {priority} is given twice");
            let problem = Problem::error(place, path.as_str(), message);
            problems.push(problem.help("give each sink of the group its own"));
        }
        priorities.push(*priority);
    }
    priorities
}
