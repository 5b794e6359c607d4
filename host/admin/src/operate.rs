//! What operators may have done, behind the socket.

use async_trait::async_trait;
use serde_json::Value;
use url::form_urlencoded;

use crate::lines::Lines;

/// Does what operators ask. The agent implements it; here is only the way in.
#[async_trait]
pub trait Operate: Send + Sync {
    /// Carries out an order. `by` says who gave it, for the log.
    async fn carry_out(&self, order: Order, by: &str) -> Done;

    /// Opens a tap of a handler: a line of JSON for each event that it was called with, and for
    /// each number of events that were not shown. Changes nothing. `by` says who looks, for the log.
    ///
    /// # Errors
    /// What is wrong with the order, in words for people.
    async fn tap(&self, tap: TapOrder, by: &str) -> Result<Box<dyn Lines>, String>;
}

/// What somebody wants to see of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapOrder {
    /// Its name in the configuration.
    pub handler: String,
    /// A condition on the events as they came; all if not set.
    pub filter: Option<String>,
}

impl TapOrder {
    /// Reads what stands between `/handlers/` and `/tap`, and `filter=CONDITION` of a query.
    pub(crate) fn parse(handler: &str, query: &str) -> Option<Self> {
        let mut tap = Self {
            handler: handler.to_owned(),
            filter: None,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "filter" => tap.filter = Some(value.into_owned()),
                _ => return None,
            }
        }
        Some(tap)
    }

    /// The path and query that ask for it.
    #[must_use]
    pub fn path(&self) -> String {
        let path = format!("/handlers/{}/tap", self.handler);
        let Some(filter) = &self.filter else {
            return path;
        };
        let mut query = form_urlencoded::Serializer::new(String::new());
        format!("{path}?{}", query.append_pair("filter", filter).finish())
    }
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Put a dead letter back.
    Replay { letter: u64 },
    /// Read the configuration again and become what it says.
    Reload(Reload),
}

/// How to read the configuration again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reload {
    /// Only say what would change.
    pub dry_run: bool,
    /// Channels that may go although they hold events: their sinks empty them first.
    pub drain: Vec<String>,
    /// Channels that may go with the events they hold.
    pub discard: Vec<String>,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    Well(Value),
    /// Nothing has changed: the order, or what it names, is wrong.
    Refused(Value),
    /// Nothing has changed: it could not be done now.
    Failed(Value),
}

impl Reload {
    /// Reads `dry-run`, `drain=CHANNEL` and `discard=CHANNEL` of a query.
    pub(crate) fn parse(query: &str) -> Option<Self> {
        let mut reload = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("dry-run", "") => reload.dry_run = true,
                ("drain", channel) => reload.drain.push(channel.to_owned()),
                ("discard", channel) => reload.discard.push(channel.to_owned()),
                _ => return None,
            }
        }
        Some(reload)
    }

    /// The path and query that ask for it.
    #[must_use]
    pub fn path(&self) -> String {
        let mut path = "/reload?".to_owned();
        if self.dry_run {
            path += "dry-run&";
        }
        for (key, channels) in [("drain", &self.drain), ("discard", &self.discard)] {
            channels
                .iter()
                .for_each(|channel| path += &format!("{key}={channel}&"));
        }
        path.pop();
        path
    }
}
