//! What is different between two plans.

use std::collections::BTreeMap;

use levada_core::PartId;
use serde::Serialize;

use crate::plan::{GroupPlan, Plan, SinkPlan, Succession};

/// The parts that a change of the plan touches, sources before sinks, each by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Difference(pub Vec<Changed>);

/// One part that is touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    pub part: PartId,
    pub change: Change,
}

/// What happens to a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is new.
    Added,
    /// It ends.
    Removed,
    /// It ends, and another of its name takes over.
    Replaced,
    /// It runs on; its next batch goes another way.
    Rewired,
}

impl Change {
    /// The word in JSON and in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Replaced => "replaced",
            Self::Rewired => "rewired",
        }
    }
}

impl Difference {
    /// What makes `new` of `old`.
    #[must_use]
    pub fn between(old: &Plan, new: &Plan) -> Self {
        let sources = |plan: &Plan| -> BTreeMap<_, _> {
            let each = plan.sources.iter();
            each.map(|s| (s.part.clone(), (s.made_of.clone(), s.behind.clone())))
                .collect()
        };
        let sinks = |plan: &Plan| -> BTreeMap<_, _> {
            let each = plan.sinks.iter();
            each.map(|s| (s.part.clone(), (made_of(plan, s), String::new())))
                .collect()
        };
        let mut changed = of_kind(&sources(old), &sources(new));
        changed.extend(of_kind(&sinks(old), &sinks(new)));
        Self(changed)
    }

    /// Whether nothing is touched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The parts to which this happens.
    pub(crate) fn parts(&self, change: Change) -> impl Iterator<Item = &PartId> {
        let same = move |changed: &&Changed| changed.change == change;
        self.0.iter().filter(same).map(|changed| &changed.part)
    }
}

/// What a sink is made of, with what it shares: sinks of one group are replaced together.
fn made_of(plan: &Plan, sink: &SinkPlan) -> String {
    let mut made_of = format!("{} {}", plan.is_alone(sink), sink.made_of);
    let of_it = |group: &&GroupPlan| group.members.contains(&sink.part);
    if let Some(group) = plan.groups.iter().find(of_it) {
        made_of += &format!("{} {:?} {:?}", group.part, group.policy, group.longest_rest);
        let members = plan.sinks.iter();
        let members = members.filter(|other| group.members.contains(&other.part));
        members.for_each(|other| made_of += &other.made_of);
    }
    made_of
}

type Made = BTreeMap<PartId, (String, String)>;

fn of_kind(old: &Made, new: &Made) -> Vec<Changed> {
    let mut changed = Vec::new();
    let mut add = |part: &PartId, change| {
        let part = part.clone();
        changed.push(Changed { part, change });
    };
    for part in old.keys().filter(|part| !new.contains_key(*part)) {
        add(part, Change::Removed);
    }
    for (part, (made_of, behind)) in new {
        match old.get(part) {
            None => add(part, Change::Added),
            Some((before, _)) if before != made_of => add(part, Change::Replaced),
            Some((_, before)) if before != behind => add(part, Change::Rewired),
            Some(_) => {}
        }
    }
    changed
}

/// Whether the new part of this name opens only when the old one has ended.
pub(crate) fn is_exclusive(plan: &Plan, part: &PartId) -> bool {
    let source = plan.sources.iter().find(|source| source.part == *part);
    source.is_none_or(|source| source.succession == Succession::Exclusive)
}
