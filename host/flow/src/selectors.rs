//! The channel selectors, with Flume's meaning.

use std::collections::{BTreeMap, HashMap};

use levada_core::{ChannelName, EventRef, Route, Selector};

/// Every event goes to every channel.
#[derive(Debug, Clone)]
pub struct Replicating {
    route: Route,
}

impl Replicating {
    /// Copies to all of `channels`; those that are also `optional` never hold up a put.
    #[must_use]
    pub fn new(channels: &[ChannelName], optional: &[ChannelName]) -> Self {
        let required = channels
            .iter()
            .filter(|name| !optional.contains(name))
            .cloned();
        Self {
            route: route(required, optional),
        }
    }
}

impl Selector for Replicating {
    fn route(&self, _event: EventRef<'_>) -> &Route {
        &self.route
    }

    fn fixed(&self) -> Option<&Route> {
        Some(&self.route)
    }
}

/// The value of one header decides, by exact match.
///
/// An event without the header, with a blank value, or with a value that has no mapping goes to the
/// default channels; without a default it goes nowhere required. Optional channels that are
/// required as well count as required.
#[derive(Debug, Clone)]
pub struct Multiplexing {
    header: String,
    routes: HashMap<String, Route>,
    default: Route,
}

/// What a [`Multiplexing`] selector is made from.
#[derive(Debug, Clone, Default)]
pub struct MultiplexingRoutes {
    /// The header to look at.
    pub header: String,
    /// Value to required channels.
    pub mapping: BTreeMap<String, Vec<ChannelName>>,
    /// Value to optional channels.
    pub optional: BTreeMap<String, Vec<ChannelName>>,
    /// Required channels of every other event.
    pub default: Vec<ChannelName>,
}

impl Multiplexing {
    /// Works out the route of every value.
    #[must_use]
    pub fn new(routes: MultiplexingRoutes) -> Self {
        let MultiplexingRoutes {
            header,
            mapping,
            optional,
            default,
        } = routes;
        let values = mapping.keys().chain(optional.keys());
        let of_value = |value: &String| {
            let required = mapping.get(value).unwrap_or(&default);
            let optional = optional.get(value).map_or(&[][..], Vec::as_slice);
            (value.clone(), route(required.iter().cloned(), optional))
        };
        let routes = values.map(of_value).collect();
        Self {
            header,
            routes,
            default: route(default.iter().cloned(), &[]),
        }
    }
}

impl Selector for Multiplexing {
    fn route(&self, event: EventRef<'_>) -> &Route {
        let value = event.header(&self.header).filter(|value| !is_blank(value));
        value
            .and_then(|value| self.routes.get(value))
            .unwrap_or(&self.default)
    }
}

/// Whether Java's `trim` would leave nothing.
fn is_blank(value: &str) -> bool {
    value.bytes().all(|byte| byte <= b' ')
}

/// A route without repetitions, in which nothing is both required and optional.
fn route(required: impl Iterator<Item = ChannelName>, optional: &[ChannelName]) -> Route {
    let mut must: Vec<ChannelName> = Vec::new();
    for name in required {
        if !must.contains(&name) {
            must.push(name);
        }
    }
    let mut may: Vec<ChannelName> = Vec::new();
    for name in optional {
        if !must.contains(name) && !may.contains(name) {
            may.push(name.clone());
        }
    }
    Route {
        required: must.into(),
        optional: may.into(),
    }
}

#[cfg(test)]
mod tests;
