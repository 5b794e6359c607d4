//! The plug for channel selectors.

use std::{fmt, sync::Arc};

use crate::{ChannelName, EventRef};

/// Decides per event which channels get a copy.
pub trait Selector: Send + Sync + fmt::Debug {
    /// The route of an event.
    fn route(&self, event: EventRef<'_>) -> &Route;

    /// The one route of every event, if it does not depend on the event.
    fn fixed(&self) -> Option<&Route> {
        None
    }
}

/// The channels of an event. No channel at all is counted as discarded (`no-route`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// The put fails if one of these cannot take the event.
    pub required: Arc<[ChannelName]>,
    /// These get a copy if they have room.
    pub optional: Arc<[ChannelName]>,
}
