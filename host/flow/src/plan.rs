//! What is connected to what: the checked configuration, as the flow needs it.

use std::{fmt, sync::Arc, time::Duration};

use levada_core::{ChannelName, Interceptor, PartId, Selector, Sink, Source, Want, factory::Build};

/// The parts of an agent and how they are joined.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub sources: Vec<SourcePlan>,
    pub sinks: Vec<SinkPlan>,
    /// Sinks that take turns at one channel.
    pub groups: Vec<GroupPlan>,
    /// Bytes on their way into the channels, all sources together; each source gets an equal share.
    /// `None` allows 2 MiB a core: more buys no throughput and costs latency.
    pub in_flight_bytes: Option<usize>,
}

impl Plan {
    /// Whether no other sink empties the channel while this one does: it is the only one there, or
    /// all of them take turns by failover.
    pub(crate) fn is_alone(&self, sink: &SinkPlan) -> bool {
        let mut beside = self.sinks.iter();
        let turns = |group: &&GroupPlan| {
            matches!(group.policy, Policy::Failover { .. }) && group.members.contains(&sink.part)
        };
        let group = self.groups.iter().find(turns);
        beside.all(|other| {
            let takes_turns = |group: &GroupPlan| group.members.contains(&other.part);
            other.part == sink.part
                || other.channel != sink.channel
                || group.is_some_and(takes_turns)
        })
    }
}

/// One source and what stands behind it.
#[derive(Clone)]
pub struct SourcePlan {
    pub part: PartId,
    pub build: Build<Box<dyn Source>>,
    /// In the order in which they see a batch.
    pub interceptors: Vec<Link>,
    pub selector: Arc<dyn Selector>,
    /// Every channel the selector may name.
    pub channels: Vec<ChannelName>,
    /// The longest time a put may wait for room, also where the source gives a later deadline or
    /// none. `None` leaves it to the source.
    pub put_timeout: Option<Duration>,
    /// What the source itself is made from, in any words: where they stay the same, a change of the
    /// configuration leaves the source as it is.
    pub made_of: String,
    /// The same for what stands behind it: where only this differs, the source runs on and its next
    /// put takes the new way.
    pub behind: String,
    pub succession: Succession,
}

/// How a new source of the same name takes over from the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Succession {
    /// The new one opens while the old one runs: what only one can hold, such as an address, is
    /// handed over.
    Overlap,
    /// The old one ends first, and the new one starts from its marks: only one at a time may be who
    /// it is, as with a client id or a set of files.
    Exclusive,
}

/// One interceptor of a chain.
#[derive(Debug, Clone)]
pub struct Link {
    /// Its name in the configuration: `interceptors.host`, `handlers.redact`.
    pub part: PartId,
    pub interceptor: Arc<dyn Interceptor>,
}

/// One sink and the channel it empties.
#[derive(Clone)]
pub struct SinkPlan {
    pub part: PartId,
    pub build: Build<Box<dyn Sink>>,
    pub channel: ChannelName,
    pub want: Want,
    pub retry: Retry,
    /// As [`SourcePlan::made_of`]. A sink always takes over when the old one has ended.
    pub made_of: String,
}

/// Sinks of one channel that take turns. A sink belongs to at most one group.
#[derive(Debug, Clone)]
pub struct GroupPlan {
    pub part: PartId,
    /// The sinks, in the order of the configuration.
    pub members: Vec<PartId>,
    pub policy: Policy,
    /// The longest time that a member rests after failures: 2 s after the first, doubled at each
    /// further one. `None` leaves it to the sink's own back-off.
    pub longest_rest: Option<Duration>,
}

/// Whose turn it is in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// The member with the highest priority that has not failed, alone: one number per member.
    Failover { priorities: Vec<i64> },
    /// One after the other, with every batch.
    RoundRobin,
    /// Any, with every batch.
    Random,
}

/// How a sink's failures are retried; waits are drawn from 0 up to a ceiling that doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The first ceiling.
    pub least: Duration,
    /// The last ceiling while the other side cannot be reached.
    pub unreachable: Duration,
    /// The last ceiling while the other side is there and refuses.
    pub refusing: Duration,
    /// How often the sink may ask to retry one event before it goes to the dead letters. Failures
    /// of a whole batch, such as an outage, do not count.
    pub max_attempts: Option<u32>,
}

impl Default for Retry {
    /// 100 ms up to 2 s (not reachable) or 60 s (refusing), for as long as it takes.
    fn default() -> Self {
        Self {
            least: Duration::from_millis(100),
            unreachable: Duration::from_secs(2),
            refusing: Duration::from_secs(60),
            max_attempts: None,
        }
    }
}

impl fmt::Debug for SourcePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourcePlan")
            .field("part", &self.part)
            .field("interceptors", &self.interceptors)
            .field("selector", &self.selector)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SinkPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkPlan")
            .field("part", &self.part)
            .field("channel", &self.channel)
            .field("want", &self.want)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}
