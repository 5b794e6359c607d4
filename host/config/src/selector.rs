//! How a source chooses channels.

use std::collections::BTreeMap;

use levada_core::{
    ChannelName, Name, Problem, Problems, Table, choice, params, settings::parse_params,
};

/// How a source chooses channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectorConfig {
    /// Every event goes into every channel.
    Replicating {
        required: Vec<ChannelName>,
        /// These get a copy if they have room.
        optional: Vec<ChannelName>,
    },
    /// The value of a header decides.
    Multiplexing {
        header: String,
        mapping: BTreeMap<String, Vec<ChannelName>>,
        /// For events without the header and values without a mapping; empty: they are discarded,
        /// counted as `no-route`.
        default: Vec<ChannelName>,
        /// Channels by value that get a copy if they have room.
        optional: BTreeMap<String, Vec<ChannelName>>,
    },
}

choice! {
    enum SelectorType {
        Replicating = "replicating",
        Multiplexing = "multiplexing",
    }
}

params! {
    struct ReplicatingParams {
        /// Channels that get a copy if they have room.
        optional: Option<Vec<Name>>,
    }
}

params! {
    struct MultiplexingParams {
        /// The header whose value decides.
        header: String,
        /// Channels by value.
        mapping: BTreeMap<String, Vec<Name>>,
        /// Channels for everything else.
        default: Option<Vec<Name>>,
        /// Channels by value that get a copy if they have room.
        optional: Option<BTreeMap<String, Vec<Name>>>,
    }
}

impl SelectorConfig {
    /// Reads the table `selector` of a source, or the default: replicating into `channels`.
    pub(crate) fn read(
        selector: Option<&Table>,
        channels: &[Name],
        problems: &mut Problems,
    ) -> Option<Self> {
        let Some(table) = selector else {
            return Some(Self::Replicating {
                required: names(channels.to_vec()),
                optional: Vec::new(),
            });
        };
        let word = table.path_of("type");
        let Some((_, value)) = table.get("type") else {
            let problem = Problem::error(Some(table.span), word, "the key `type` is missing");
            problems.push(problem.allowed("\"replicating\", \"multiplexing\""));
            return None;
        };
        match levada_core::settings::Setting::read(value, &word, problems)? {
            SelectorType::Replicating => {
                let params = parse_params::<ReplicatingParams>(table, &["type"], problems)?;
                let optional = names(params.optional.unwrap_or_default());
                let mut required = names(channels.to_vec());
                required.retain(|channel| !optional.contains(channel));
                Some(Self::Replicating { required, optional })
            }
            SelectorType::Multiplexing => {
                let params = parse_params::<MultiplexingParams>(table, &["type"], problems)?;
                let by_value = |map: BTreeMap<String, Vec<Name>>| {
                    map.into_iter().map(|(k, v)| (k, names(v))).collect()
                };
                Some(Self::Multiplexing {
                    header: params.header,
                    mapping: by_value(params.mapping),
                    default: names(params.default.unwrap_or_default()),
                    optional: by_value(params.optional.unwrap_or_default()),
                })
            }
        }
    }

    /// Every channel that an event can be routed to, each once.
    #[must_use]
    pub fn channels(&self) -> Vec<&ChannelName> {
        let mut all: Vec<_> = match self {
            Self::Replicating { required, optional } => required.iter().chain(optional).collect(),
            Self::Multiplexing {
                mapping,
                default,
                optional,
                ..
            } => {
                let mapped = mapping.values().chain(optional.values()).flatten();
                mapped.chain(default).collect()
            }
        };
        all.sort();
        all.dedup();
        all
    }
}

fn names(names: Vec<Name>) -> Vec<ChannelName> {
    names.into_iter().map(ChannelName).collect()
}
