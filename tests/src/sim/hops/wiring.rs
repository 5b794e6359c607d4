//! What each agent is made of: its sources and sinks, most of them the product's.

use std::{sync::Arc, time::Duration};

use levada_core::{
    Chance, ChannelName, PartId, Problems, Sink, Source, Table, Value, Want,
    factory::Build,
    settings::{Key, Span},
};
use levada_flow::{
    GroupPlan, Plan as FlowPlan, Policy, Replicating, Retry, SinkPlan, SourcePlan, Succession,
};
use levada_net::Transport;
use levada_telemetry::Registry;

use super::{
    Kind, Plant,
    agent::{Around, PORT, Role},
    net::Host,
    parts::{Collector, Feed},
    stream::address,
};

/// Makes the parts of one agent.
pub(super) struct Wiring<'a> {
    pub(super) around: &'a Around,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) registry: &'a Registry,
    pub(super) chance: &'a Chance,
}

impl Wiring<'_> {
    /// What an agent of this role is made of.
    pub(super) fn plan(&self, host: Host, role: &Role) -> FlowPlan {
        match role {
            Role::Edge { to } => {
                let mut plan = FlowPlan {
                    sources: vec![self.feed(host)],
                    sinks: to.iter().map(|to| self.avro_sink(*to)).collect(),
                    ..FlowPlan::default()
                };
                if to.len() > 1 {
                    plan.groups.push(GroupPlan {
                        part: part("groups.up"),
                        members: plan.sinks.iter().map(|sink| sink.part.clone()).collect(),
                        policy: Policy::Failover {
                            priorities: (0..to.len()).map(|n| -(n as i64)).collect(),
                        },
                        longest_rest: Some(Duration::from_secs(10)),
                    });
                }
                plan
            }
            Role::Relay { to } => FlowPlan {
                sources: vec![self.avro_source()],
                sinks: vec![self.avro_sink(*to)],
                ..FlowPlan::default()
            },
            Role::Last => FlowPlan {
                sources: vec![self.avro_source()],
                sinks: vec![self.collector()],
                ..FlowPlan::default()
            },
        }
    }

    fn avro_sink(&self, to: Host) -> SinkPlan {
        let deps = levada_sinks::Deps {
            transport: Arc::clone(&self.transport),
            registry: self.registry.clone(),
            clock: Arc::clone(&self.around.clock) as _,
            chance: self.chance.clone(),
            agent: "simulated".into(),
        };
        let kinds = levada_sinks::kinds(&deps);
        let kind = kinds.iter().find(|kind| kind.name == "avro");
        let part = part(&format!("sinks.to-{to}"));
        let window = i64::try_from(self.around.tuning.window).unwrap_or(1);
        let settings = [
            ("to", address(to, PORT).to_string().as_str().into()),
            ("window", Value::from(window)),
        ];
        let build = built(&settings, |table, problems| {
            kind.expect("is there").check(&part, table, &[], problems)
        });
        self.sink(part, build)
    }

    fn collector(&self) -> SinkPlan {
        let (book, chance) = (self.around.book.clone(), self.chance.clone());
        let build: Build<Box<dyn Sink>> = Arc::new(move || {
            Box::new(Collector {
                book: book.clone(),
                chance: chance.clone(),
            })
        });
        self.sink(part("sinks.collector"), build)
    }

    fn sink(&self, part: PartId, build: Build<Box<dyn Sink>>) -> SinkPlan {
        SinkPlan {
            part,
            build,
            channel: channel(),
            want: Want {
                events: self.around.tuning.batch,
                ..Want::default()
            },
            retry: Retry::default(),
            made_of: String::new(),
        }
    }

    fn avro_source(&self) -> SourcePlan {
        let deps = levada_sources::Deps {
            transport: Arc::clone(&self.transport),
            registry: self.registry.clone(),
            clock: Arc::clone(&self.around.clock) as _,
            chance: self.chance.clone(),
            agent: "simulated".into(),
        };
        let kinds = levada_sources::kinds(&deps);
        let kind = kinds.iter().find(|kind| kind.name == "avro");
        let part = part("sources.in");
        let compression = match self.around.plan.plant {
            // What is planted on the wire must be read there.
            Plant::NoPrev => "none",
            Plant::Nothing | Plant::EarlyAck | Plant::AnyMark | Plant::NoGuard => {
                self.around.tuning.compression
            }
        };
        let settings = [
            ("listen", format!("127.0.0.1:{PORT}").as_str().into()),
            ("put-timeout", self.around.tuning.put_timeout.into()),
            ("compression", compression.into()),
            (
                "trust-plaintext",
                (self.around.kind != Kind::Plaintext).into(),
            ),
        ];
        let build = built(&settings, |table, problems| {
            kind.expect("is there").check(&part, table, &[], problems)
        });
        source(part, build)
    }

    fn feed(&self, edge: Host) -> SourcePlan {
        let (book, chance) = (self.around.book.clone(), self.chance.clone());
        let build: Build<Box<dyn Source>> = Arc::new(move || {
            Box::new(Feed {
                book: book.clone(),
                edge,
                chance: chance.clone(),
                pause: Duration::from_millis(200),
                events: 12,
            })
        });
        source(part("sources.feed"), build)
    }
}

fn source(part: PartId, build: Build<Box<dyn Source>>) -> SourcePlan {
    SourcePlan {
        part,
        build,
        interceptors: Vec::new(),
        selector: Arc::new(Replicating::new(&[channel()], &[])),
        channels: vec![channel()],
        put_timeout: None,
        made_of: String::new(),
        behind: String::new(),
        succession: Succession::Overlap,
    }
}

fn built<T>(
    settings: &[(&str, Value)],
    check: impl FnOnce(&Table, &mut Problems) -> Option<Build<T>>,
) -> Build<T> {
    let entry = |(name, value): &(&str, Value)| {
        let key = Key {
            name: (*name).into(),
            span: Span::default(),
        };
        (key, value.clone())
    };
    let table = Table {
        path: "simulated".into(),
        span: Span::default(),
        entries: settings.iter().map(entry).collect(),
    };
    let mut problems = Problems::new();
    let built = check(&table, &mut problems);
    built.unwrap_or_else(|| unreachable!("{:?}", problems.into_sorted()))
}

fn part(text: &str) -> PartId {
    PartId::parse(text).expect("is a part")
}

pub(super) fn channel() -> ChannelName {
    ChannelName::new("main").expect("is a name")
}
