//! Channels that come, change and go while the store is open.

use levada_core::ChannelName;
use redb::{Database, ReadableDatabase};
use thiserror::Error;
use tracing::info;

use crate::{
    keys::{self, LaneId, SMALL},
    open::{channel_of, room_of},
    params::{ChannelKind, ChannelSpec},
    queue::Queue,
    scan,
    shared::Status,
    stores::Stores,
    writer::{Head, read_borders},
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
        self.shared.lock().rooms.resize(at, &room_of(spec));
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
        let events = state.queues[at].events();
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
        let (mut id, mut head) = (0, Head::default());
        if spec.kind == ChannelKind::Durable {
            let named = self.shared.read(|db| name_in_file(db, spec));
            (id, head) = named.map_err(|trouble| match trouble {
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
        let at = state.queues.len();
        state.queues.push(Queue::default());
        state.next.push(head.next);
        state.rooms.push(room_of(spec));
        state.inbox.heads.push((at, head));
        let channel = channel_of(id, spec, &self.shared.registry);
        let added = self.shared.channels.push(channel);
        debug_assert_eq!(added, Some(at), "numbers are given in one place");
        drop(state);
        info!(channel = %spec.name, kind = spec.kind.as_str(), "channel added");
        Ok(())
    }
}

/// The number of a durable channel in the file, and where its lane goes on: a name that the file
/// knew before keeps both.
fn name_in_file(db: &Database, spec: &ChannelSpec) -> Result<(u32, Head), redb::Error> {
    let Some(mut meta) = scan::read_meta(db)? else {
        let what = "the meta table is gone".to_owned();
        return Err(redb::Error::Corrupted(what));
    };
    if let Some(id) = meta.channels.get(spec.name.as_str()) {
        return Ok((*id, read_head(db, *id)?));
    }
    let id = meta.channels.values().max().map_or(1, |last| last + 1);
    meta.channels.insert(spec.name.to_string(), id);
    scan::write_meta(db, &meta)?;
    Ok((id, Head::default()))
}

fn read_head(db: &Database, channel: u32) -> Result<Head, redb::Error> {
    let lane = LaneId {
        channel,
        lane: crate::LANE,
    };
    let small = db.begin_read()?.open_table(SMALL)?;
    let key = keys::of_lane(keys::HEAD, lane);
    let value = small.get(&key[..])?;
    let head = value.and_then(|value| Head::decode(&key, value.value()));
    let mut head = head.unwrap_or_default();
    let key = keys::of_lane(keys::BORDER, lane);
    if let Some(value) = small.get(&key[..])? {
        head.borders = read_borders(&key, value.value());
    }
    Ok(head)
}
