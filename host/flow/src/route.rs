//! From events to channels: what goes into which channel, in order.

use std::collections::HashMap;

use levada_core::{
    Batch, ChannelName, Route, Selector,
    store::{ChannelPut, Need},
};

/// A batch divided among channels.
#[derive(Debug, Default)]
pub(crate) struct Split {
    pub(crate) puts: Vec<ChannelPut>,
    /// Events that have a channel.
    pub(crate) routed: usize,
    /// Events that have none.
    pub(crate) unrouted: usize,
}

/// Divides a batch. Where all events take the same way the buffer is shared and no event is looked
/// at more than once; with a fixed route none is looked at.
pub(crate) fn split(selector: &dyn Selector, batch: &Batch) -> Split {
    if batch.is_empty() {
        return Split::default();
    }
    if let Some(route) = selector.fixed() {
        return whole(route, batch);
    }
    let mut targets = Targets::default();
    for (place, event) in batch.iter().enumerate() {
        targets.add(place, selector.route(event));
    }
    targets.finish(batch)
}

fn whole(route: &Route, batch: &Batch) -> Split {
    let puts: Vec<_> = channels(route)
        .map(|(channel, need)| ChannelPut {
            channel: channel.clone(),
            batch: batch.clone(),
            need,
        })
        .collect();
    if puts.is_empty() {
        return Split {
            unrouted: batch.len(),
            ..Split::default()
        };
    }
    Split {
        puts,
        routed: batch.len(),
        unrouted: 0,
    }
}

fn channels(route: &Route) -> impl Iterator<Item = (&ChannelName, Need)> {
    let required = route.required.iter().map(|name| (name, Need::Required));
    required.chain(route.optional.iter().map(|name| (name, Need::Optional)))
}

/// The places of events per channel, while a batch is divided.
#[derive(Default)]
struct Targets<'a> {
    channels: Vec<(&'a ChannelName, Need, Vec<usize>)>,
    /// Which of `channels` a route means; routes are known by their address, as a selector gives
    /// the same one again and again.
    of_route: HashMap<*const Route, Vec<usize>>,
    unrouted: usize,
}

impl<'a> Targets<'a> {
    fn add(&mut self, place: usize, route: &'a Route) {
        let known = &mut self.channels;
        let targets = self
            .of_route
            .entry(std::ptr::from_ref(route))
            .or_insert_with(|| {
                channels(route)
                    .map(|(name, need)| target(known, name, need))
                    .collect()
            });
        self.unrouted += usize::from(targets.is_empty());
        for target in targets {
            self.channels[*target].2.push(place);
        }
    }

    fn finish(self, batch: &Batch) -> Split {
        let put = |(channel, need, places): (&ChannelName, Need, Vec<usize>)| {
            let all = places.len() == batch.len();
            let batch = if all {
                batch.clone()
            } else {
                batch.select(places)
            };
            ChannelPut {
                channel: channel.clone(),
                batch,
                need,
            }
        };
        Split {
            routed: batch.len() - self.unrouted,
            unrouted: self.unrouted,
            puts: self.channels.into_iter().map(put).collect(),
        }
    }
}

/// The place of a channel among those known; made at the first call.
fn target<'a>(
    known: &mut Vec<(&'a ChannelName, Need, Vec<usize>)>,
    name: &'a ChannelName,
    need: Need,
) -> usize {
    let same = |(other, others_need, _): &(&ChannelName, Need, Vec<usize>)| {
        *other == name && *others_need == need
    };
    known.iter().position(same).unwrap_or_else(|| {
        known.push((name, need, Vec::new()));
        known.len() - 1
    })
}
