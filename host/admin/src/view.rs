//! What the doors show, gathered when somebody asks.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use levada_core::{
    Clock, Stop,
    context::is_unsynced,
    inspect::{ChannelInfo, DeadLetterInfo, Inspect, StoreInfo},
    tasks::blocking,
};
use levada_flow::{PartStatus, Status};
use levada_telemetry::Registry;
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    audit::{Audit, audit},
    health::Health,
    operate::Operate,
};

/// A running agent, as operators may see it. Cheap to clone.
#[derive(Clone)]
pub struct View {
    pub facts: Arc<Mutex<Facts>>,
    /// Does what operators ask.
    pub operate: Arc<dyn Operate>,
    pub status: Status,
    pub inspect: Arc<dyn Inspect>,
    pub registry: Registry,
    pub clock: Arc<dyn Clock>,
    /// Tells whether the agent is stopping.
    pub stop: Stop,
}

/// What changes at most when an agent is reloaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Facts {
    pub agent: String,
    pub version: &'static str,
    pub pid: u32,
    /// Wall time of the start, in milliseconds since 1970.
    pub started_ms: u64,
    pub listening: Vec<Listening>,
    /// What the operator has allowed and should not forget, one line each.
    pub risks: Vec<String>,
}

/// Something that listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Listening {
    /// The part, or `admin`.
    pub part: String,
    pub at: SocketAddr,
}

/// The JSON of `/status`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct StatusPage {
    #[serde(flatten)]
    facts: Facts,
    now_ms: u64,
    health: Health,
    parts: Vec<PartStatus>,
    channels: Vec<ChannelInfo>,
    store: Option<StoreInfo>,
}

impl View {
    pub(crate) fn health(&self) -> Health {
        let (parts, channels) = (self.status.parts(), self.inspect.channels());
        self.judge(&parts, &channels, self.inspect.store().as_ref())
    }

    fn judge(
        &self,
        parts: &[PartStatus],
        channels: &[ChannelInfo],
        store: Option<&StoreInfo>,
    ) -> Health {
        let health = Health::of(parts, channels, store, self.stop.is_draining());
        if is_unsynced(&*self.clock) {
            return health.unsynced();
        }
        health
    }

    fn facts(&self) -> Facts {
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        facts.clone()
    }

    pub(crate) fn status_page(&self) -> StatusPage {
        let (parts, channels) = (self.status.parts(), self.inspect.channels());
        let store = self.inspect.store();
        let health = self.judge(&parts, &channels, store.as_ref());
        StatusPage {
            facts: self.facts(),
            now_ms: self.clock.wall_ms(),
            health,
            parts,
            channels,
            store,
        }
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("facts", &self.facts())
            .finish_non_exhaustive()
    }
}

/// How often an audit of a running agent is tried before what it says is believed. Counters and
/// queues are read one after the other: between them, events move.
const AUDIT_TRIES: u32 = 40;
const AUDIT_PAUSE: Duration = Duration::from_millis(25);

/// The audit of a store that may be at work. Takes up to a second when it does not come out even.
///
/// # Errors
/// The text of what the store could not read.
pub async fn settled_audit(inspect: &Arc<dyn Inspect>) -> Result<Audit, String> {
    let mut tries = 1;
    loop {
        let reader = Arc::clone(inspect);
        let found = blocking(move || {
            let before = reader.counts()?;
            let channels = reader.channels();
            let even = before == reader.counts()?;
            Ok::<_, String>((audit(&before, &channels), even))
        });
        let (audit, even) = found.await?;
        if (audit.holds && even) || tries == AUDIT_TRIES {
            return Ok(audit);
        }
        tries += 1;
        sleep(AUDIT_PAUSE).await;
    }
}

/// Dead letters are read a few at a time: each may be as large as the largest event.
const LETTERS_AT_ONCE: usize = 16;
/// A body in a list is an excerpt, in characters.
const EXCERPT: usize = 200;

/// Dead letters after `after`, without their bytes and with only the start of their bodies.
///
/// # Errors
/// The text of what the store could not read.
pub fn letters(
    inspect: &dyn Inspect,
    mut after: Option<u64>,
    limit: usize,
) -> Result<Vec<DeadLetterInfo>, String> {
    let mut found = Vec::new();
    while found.len() < limit {
        let want = LETTERS_AT_ONCE.min(limit - found.len());
        let page = inspect.dead_letters(after, want)?;
        let is_last = page.len() < want;
        for mut letter in page {
            after = Some(letter.id);
            letter.event_hex = String::new();
            letter.body = letter.body.chars().take(EXCERPT).collect();
            found.push(letter);
        }
        if is_last {
            break;
        }
    }
    Ok(found)
}

/// One dead letter with everything, if it is there.
///
/// # Errors
/// The text of what the store could not read.
pub fn letter(inspect: &dyn Inspect, id: u64) -> Result<Option<DeadLetterInfo>, String> {
    let page = inspect.dead_letters(id.checked_sub(1), 1)?;
    Ok(page.into_iter().find(|letter| letter.id == id))
}
