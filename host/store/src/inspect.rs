//! What operators see of an open store.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use levada_core::{
    Count, DeadLetter,
    inspect::{ChannelInfo, DeadLetterInfo, Inspect, StoreInfo},
};
use redb::{Database, ReadableDatabase};

use crate::{
    audit::{self, Identity},
    codec::unseal,
    keys::DEAD as LETTERS,
    letter, probe,
    room::DEAD,
    shared::{CountKey, Shared, Status},
    stores::Stores,
    trouble::Trouble,
};

impl Shared {
    pub(crate) fn describe_channels(&self) -> Vec<ChannelInfo> {
        let state = self.lock();
        let all = self.channels.iter().zip(&state.lanes).enumerate();
        let mut infos: Vec<_> = all
            .filter(|(at, _)| self.channels.is_in_use(*at))
            .map(|(at, (channel, lanes))| ChannelInfo {
                name: channel.name.clone(),
                kind: channel.kind.as_str(),
                events: lanes.events(),
                bytes: lanes.bytes(),
                leased: lanes.events() - lanes.free(),
                capacity_bytes: state.rooms.get(at).capacity_bytes,
                capacity_events: Some(state.rooms.get(at).capacity_events)
                    .filter(|n| *n < u64::MAX),
                oldest_ms: lanes.oldest_ms(),
                waiting_puts: state.rooms.waiting_for(at) as u64,
            })
            .collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    }

    pub(crate) fn describe_store(&self) -> StoreInfo {
        let (sync_p50_us, sync_p99_us) = self.meter.sync_percentiles();
        let probed = self.probed.get();
        let state = self.lock();
        let letters = state.rooms.get(DEAD);
        StoreInfo {
            path: self.path.display().to_string(),
            incarnation: state.incarnation.to_string(),
            file_bytes: self.meter.length.load(Ordering::Relaxed),
            commits: self.metrics.commits.get(),
            flushes: self.meter.flushes.get(),
            written_bytes: self.meter.written.get(),
            sync_p50_us,
            sync_p99_us,
            probe_sync_us: probed
                .map(|probed| u64::try_from(probed.as_micros()).unwrap_or(u64::MAX)),
            probe_is_implausible: probed.is_some_and(|probed| probe::is_implausible(*probed)),
            quarantined: audit::quarantined(&state.ledger),
            set_aside: state
                .set_aside
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
            dead_letters: letters.events,
            dead_letter_bytes: letters.bytes,
            works: matches!(state.status, Status::Open | Status::Closing),
            state: match &state.status {
                Status::Open if state.full => {
                    "the disk is full: sources wait until there is space".to_owned()
                }
                Status::Open => "ok".to_owned(),
                Status::Closing => "closing".to_owned(),
                Status::Closed(_) => "closed".to_owned(),
                Status::Failed(reason) => reason.clone(),
            },
        }
    }
}

impl Stores {
    /// Checks the accounting identities of every source and durable channel.
    #[must_use]
    pub fn audit(&self) -> Vec<Identity> {
        let state = self.shared.lock();
        let durable = self.shared.channels.iter().zip(&state.lanes);
        let durable = durable.filter(|(channel, _)| channel.is_durable());
        let queued = durable.map(|(channel, lanes)| (channel.part.clone(), lanes.events()));
        audit::identities(&state.ledger, &queued.collect())
    }
}

impl Inspect for Stores {
    fn channels(&self) -> Vec<ChannelInfo> {
        self.shared.describe_channels()
    }

    fn store(&self) -> Option<StoreInfo> {
        Some(self.shared.describe_store())
    }

    fn counts(&self) -> Result<Vec<Count>, String> {
        Ok(counts(&self.shared.lock().ledger))
    }

    fn dead_letters(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeadLetterInfo>, String> {
        let read = self.shared.read(|db| dead_letters(db, after, limit));
        read.map_err(unread)
    }

    fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, String> {
        let read = self.shared.read(|db| dead_letter(db, id));
        read.map_err(unread)
    }
}

/// Why something could not be read, for people.
pub(crate) fn unread(trouble: Option<Trouble>) -> String {
    trouble.map_or_else(|| "the store is closed".into(), |trouble| trouble.text)
}

/// A ledger as the counts that were added up in it.
pub(crate) fn counts(ledger: &BTreeMap<CountKey, u64>) -> Vec<Count> {
    let count = |((part, counter, reason), amount): (&CountKey, &u64)| Count {
        part: part.clone(),
        counter: *counter,
        reason: reason.clone(),
        amount: *amount,
    };
    ledger.iter().map(count).collect()
}

/// One dead letter; `None` if it is not there, or damaged.
pub(crate) fn dead_letter(db: &Database, id: u64) -> Result<Option<DeadLetter>, redb::Error> {
    let table = db.begin_read()?.open_table(LETTERS)?;
    let value = table.get(id)?;
    Ok(value.and_then(|value| letter::decode(unseal(&id.to_be_bytes(), value.value())?)))
}

/// Dead letters after a number; damaged ones are left out.
pub(crate) fn dead_letters(
    db: &Database,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<DeadLetterInfo>, redb::Error> {
    let from = after.map_or(0, |after| after.saturating_add(1));
    let table = db.begin_read()?.open_table(LETTERS)?;
    let mut letters = Vec::new();
    for entry in table.range(from..)? {
        let (id, value) = entry?;
        let id = id.value();
        let letter = unseal(&id.to_be_bytes(), value.value()).and_then(letter::decode);
        letters.extend(letter.map(|letter| letter::describe(id, letter)));
        if letters.len() >= limit {
            break;
        }
    }
    Ok(letters)
}
