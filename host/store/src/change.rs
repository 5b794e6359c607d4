//! Channels that come, change and go while the store is open.

use levada_core::ChannelName;
use redb::Database;
use thiserror::Error;
use tracing::info;

use crate::{
    lanes::{LaneAt, Lanes},
    open::{channel_of, count_of, room_of},
    params::{ChannelKind, ChannelSpec},
    scan,
    shared::Status,
    stores::Stores,
    writer::Head,
};

/// Why the channels of a store were not changed: they are as before.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChannelError {
    #[error("channel `{channel}` holds {events} events")]
    Holds { channel: String, events: u64 },
    #[error("channel `{channel}` was `{was}` before: restart the agent to change its type")]
    Type { channel: String, was: &'static str },
    #[error("there were too many channels since the start: restart the agent")]
    TooMany,
    #[error("there is no channel `{channel}`")]
    None { channel: String },
    #[error("the store is closed")]
    Closed,
    #[error("the store cannot write: {reason}")]
    Store { reason: String },
}

impl Stores {
    /// Adds a channel, or gives one that is there other limits. Blocks on the disk.
    ///
    /// # Errors
    /// [`ChannelError`]
    pub fn set_channel(&self, spec: &ChannelSpec) -> Result<(), ChannelError> {
        let _alone = self.changing();
        let channels = &self.shared.channels;
        let Some(at) = channels.find_gone(&spec.name) else {
            return self.add(spec);
        };
        let was = channels[at].kind;
        if was != spec.kind {
            return Err(ChannelError::Type {
                channel: spec.name.to_string(),
                was: was.as_str(),
            });
        }
        let mut state = self.shared.lock();
        state.rooms.resize(at, &room_of(spec));
        state.lanes[at].grow(count_of(spec));
        drop(state);
        channels[at].divide(spec.lanes.as_ref());
        channels.use_again(spec.name.clone(), at);
        self.shared.ring_all();
        Ok(())
    }

    /// Takes a channel out of use. Nobody may put into it or take from it any more.
    ///
    /// # Errors
    /// [`ChannelError::Holds`] if it is not empty.
    pub fn remove_channel(&self, name: &ChannelName) -> Result<(), ChannelError> {
        let _alone = self.changing();
        let channel = || name.to_string();
        let at = self.shared.channels.find(name);
        let at = at.ok_or_else(|| ChannelError::None { channel: channel() })?;
        let state = self.shared.lock();
        let events = state.lanes[at].events();
        if events > 0 {
            let channel = channel();
            return Err(ChannelError::Holds { channel, events });
        }
        self.shared.channels.retire(name);
        drop(state);
        info!(channel = %name, "channel removed");
        Ok(())
    }

    fn add(&self, spec: &ChannelSpec) -> Result<(), ChannelError> {
        if self.shared.channels.is_full() {
            return Err(ChannelError::TooMany);
        }
        let (mut id, mut heads) = (0, Vec::new());
        if spec.kind == ChannelKind::Durable {
            let named = self.shared.read(|db| name_in_file(db, spec));
            (id, heads) = named.map_err(|trouble| match trouble {
                None => ChannelError::Closed,
                Some(trouble) => ChannelError::Store {
                    reason: trouble.text,
                },
            })?;
        }
        let mut state = self.shared.lock();
        if state.status != Status::Open {
            return Err(ChannelError::Closed);
        }
        let channel = state.lanes.len();
        let mut lanes = Lanes::new(count_of(spec));
        for (lane, head) in heads {
            lanes.grow(lane + 1);
            lanes[lane].next = head.next;
            state.inbox.heads.push((LaneAt { channel, lane }, head));
        }
        state.lanes.push(lanes);
        state.rooms.push(room_of(spec));
        let new = channel_of(id, spec, &self.shared.registry);
        let added = self.shared.channels.push(new);
        debug_assert_eq!(added, Some(channel), "numbers are given in one place");
        drop(state);
        info!(channel = %spec.name, kind = spec.kind.as_str(), "channel added");
        Ok(())
    }
}

/// The number of a durable channel in the file, and where its lanes go on: a name that the file
/// knew before keeps both.
fn name_in_file(db: &Database, spec: &ChannelSpec) -> Result<(u32, Heads), redb::Error> {
    let Some(mut meta) = scan::read_meta(db)? else {
        let what = "the meta table is gone".to_owned();
        return Err(redb::Error::Corrupted(what));
    };
    if let Some(id) = meta.channels.get(spec.name.as_str()) {
        return Ok((*id, read_heads(db, *id)?));
    }
    let id = meta.channels.values().max().map_or(1, |last| last + 1);
    meta.channels.insert(spec.name.to_string(), id);
    scan::write_meta(db, &meta)?;
    Ok((id, Heads::new()))
}

/// Lanes of one channel, each with where it goes on.
type Heads = Vec<(u32, Head)>;

fn read_heads(db: &Database, channel: u32) -> Result<Heads, redb::Error> {
    let mut found = scan::resume(db)?;
    let lanes = found.lanes_of(channel).into_iter();
    Ok(lanes.map(|(lane, _, head)| (lane, head)).collect())
}
