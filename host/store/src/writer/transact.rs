//! One transaction, from the first table to the commit.

use std::collections::BTreeSet;

use fail::fail_point;
use levada_core::{Counter, Name, PartId, PartKind};
use redb::{Database, Table, WriteTransaction};

use super::{
    Done, Work, Writer,
    head::{Border, GROUP, GROUPS, write_borders},
};
use crate::{
    codec::{Reader, put_bytes, seal, unseal},
    keys::{self, BORDERS, DEAD, QUARANTINE, ROWS, SMALL},
    lanes::LaneAt,
    queue::{After, Entry},
    room::{self, Need},
    shared::{Aside, StagedPut},
    state,
};

type Rows<'a> = Table<'a, [u8; 16], &'static [u8]>;
type Small<'a> = Table<'a, &'static [u8], &'static [u8]>;

/// What the index knows of a row, so that an open reads no rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) count: u32,
    pub(crate) bytes: u32,
    pub(crate) positions: u32,
    pub(crate) received_ms: u64,
    /// The chain after the row's last event.
    pub(crate) chain: u64,
}

impl IndexEntry {
    fn encode(self, key: &[u8]) -> Vec<u8> {
        let mut value = Vec::with_capacity(32);
        for number in [self.count, self.bytes, self.positions] {
            value.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.received_ms, self.chain] {
            value.extend_from_slice(&number.to_le_bytes());
        }
        seal(key, value)
    }

    /// Reads an entry; `None` if it is damaged.
    pub(crate) fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let mut reader = Reader(unseal(key, value)?);
        Some(Self {
            count: reader.u32()?,
            bytes: reader.u32()?,
            positions: reader.u32()?,
            received_ms: reader.u64()?,
            chain: reader.u64()?,
        })
    }
}

/// An empty commit that saves the allocator's state.
pub(super) fn quick_repair(db: &Database) -> Result<(), redb::Error> {
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    txn.commit()?;
    Ok(())
}

impl Writer {
    /// Writes everything and commits; nothing in memory but the writer's own numbers changes, and
    /// `work` keeps what it would take to do it again, puts excepted.
    pub(super) fn transact(&mut self, db: &Database, work: &mut Work) -> Result<(), redb::Error> {
        let txn = db.begin_write()?;
        {
            let mut rows = txn.open_table(ROWS)?;
            let mut small = txn.open_table(SMALL)?;
            let mut lanes = BTreeSet::new();
            for staged in &mut work.inbox.commits {
                for put in &mut staged.puts {
                    lanes.insert(put.lane);
                    let received_ms = staged.received_ms;
                    self.put(&mut rows, &mut small, put, received_ms, &mut work.done)?;
                }
            }
            for (&row, after) in &work.inbox.touched {
                if matches!(after, After::Gone { .. }) {
                    lanes.insert(row.0);
                }
                self.touch(&mut rows, &mut small, row, after)?;
            }
            for lane in lanes {
                self.write_head(&txn, &mut small, lane)?;
            }
            write_marks(&mut small, work)?;
            let states = work.inbox.commits.iter().flat_map(|staged| &staged.states);
            state::write(&txn, states)?;
            self.letters(&txn, work)?;
            self.set_aside(&txn, &work.inbox.aside)?;
            write_counters(&mut small, work)?;
            write_number(&mut small, self.commits + 1)?;
        }
        fail_point!("store-before-commit");
        txn.commit()?;
        fail_point!("store-after-commit");
        Ok(())
    }

    fn put(
        &mut self,
        rows: &mut Rows<'_>,
        small: &mut Small<'_>,
        put: &mut StagedPut,
        received_ms: u64,
        done: &mut Done,
    ) -> Result<(), redb::Error> {
        let lane = self.shared.lane_id(put.lane);
        let head = self.heads.entry(put.lane).or_default();
        for mut row in put.rows.drain(..) {
            let (first, key) = (head.next, keys::row(lane, head.next));
            head.chain = row.place(&key, first, head.chain, put.nonce);
            head.next += u64::from(row.positions);
            row.write_to(rows.insert_reserve(key, row.len())?.as_mut());
            let count = u32::try_from(row.batch.len()).expect("a batch is below 4 GiB");
            let (bytes, positions, chain) = (row.bytes, row.positions, head.chain);
            let index = IndexEntry {
                count,
                bytes,
                positions,
                received_ms,
                chain,
            };
            let key = keys::of_row(keys::INDEX, lane, first);
            small.insert(&key[..], &index.encode(&key)[..])?;
            let mut entry = Entry::new(first, received_ms, count, bytes, row.has_families());
            // Only what lies in one piece: a few events may hold on to a large buffer.
            if done.cache_left >= bytes as usize && row.batch.runs().count() == 1 {
                done.cache_left -= bytes as usize;
                entry.hold(row.batch);
            }
            done.entries.push((put.lane, entry));
        }
        Ok(())
    }

    /// Deletes a row, or writes which of its events are gone.
    fn touch(
        &mut self,
        rows: &mut Rows<'_>,
        small: &mut Small<'_>,
        (at, first): (LaneAt, u64),
        after: &After,
    ) -> Result<(), redb::Error> {
        let lane = self.shared.lane_id(at);
        let settled = keys::of_row(keys::SETTLED, lane, first);
        match after {
            After::Some { bytes, gone } => {
                let value = [&bytes.to_le_bytes()[..], &gone.to_bytes()].concat();
                small.insert(&settled[..], &seal(&settled, value)[..])?;
            }
            After::Gone { partly } => {
                rows.remove(keys::row(lane, first))?;
                let key = keys::of_row(keys::INDEX, lane, first);
                let index = small.remove(&key[..])?;
                let index = index.and_then(|index| IndexEntry::decode(&key, index.value()));
                if *partly {
                    small.remove(&settled[..])?;
                }
                if let Some(index) = index {
                    let position = first + u64::from(index.positions) - 1;
                    let border = Border {
                        position,
                        chain: index.chain,
                    };
                    self.heads.entry(at).or_default().borders.push(border);
                }
            }
        }
        Ok(())
    }

    /// Writes where a lane goes on, and its borders; full groups go out of the way.
    fn write_head(
        &mut self,
        txn: &WriteTransaction,
        small: &mut Small<'_>,
        at: LaneAt,
    ) -> Result<(), redb::Error> {
        let lane = self.shared.lane_id(at);
        let head = self.heads.entry(at).or_default();
        while head.borders.len() >= GROUP {
            let key = keys::old_borders(lane, head.groups % GROUPS);
            let group: Vec<Border> = head.borders.drain(..GROUP).collect();
            txn.open_table(BORDERS)?
                .insert(key, &write_borders(&key, &group)[..])?;
            head.groups = head.groups.wrapping_add(1);
        }
        let key = keys::of_lane(keys::HEAD, lane);
        small.insert(&key[..], &head.encode(&key)[..])?;
        let key = keys::of_lane(keys::BORDER, lane);
        small.insert(&key[..], &write_borders(&key, &head.borders)[..])?;
        Ok(())
    }

    /// Writes dead letters and takes away those that are replayed; drops the oldest if that is the
    /// rule and there are too many.
    fn letters(&mut self, txn: &WriteTransaction, work: &mut Work) -> Result<(), redb::Error> {
        let inbox = &work.inbox;
        let staged = inbox.commits.iter().flat_map(|staged| &staged.letters);
        let mut letters = inbox.letters.iter().chain(staged).peekable();
        let replayed = inbox.commits.iter().flat_map(|staged| &staged.replayed);
        let mut replayed = replayed.copied().peekable();
        if letters.peek().is_none() && replayed.peek().is_none() {
            return Ok(());
        }
        let mut table = txn.open_table(DEAD)?;
        for letter in letters {
            let id = self.next_letter;
            table.insert(id, &seal(&id.to_be_bytes(), letter.clone())[..])?;
            self.next_letter += 1;
        }
        let mut gone = Need {
            room: room::DEAD,
            bytes: 0,
            events: 0,
        };
        let mut count = |letter: &[u8]| {
            gone.bytes += (letter.len() as u64).saturating_sub(4);
            gone.events += 1;
            gone.bytes
        };
        let mut freed = 0;
        for id in replayed {
            // It may have been the oldest, and made room for another.
            if let Some(letter) = table.remove(id)? {
                freed = count(letter.value());
            }
        }
        let mut dropped = 0;
        while freed < work.letters_over {
            let Some((_, letter)) = table.pop_first()? else {
                break;
            };
            freed = count(letter.value());
            dropped += 1;
        }
        if dropped > 0 {
            let part = PartId::new(
                PartKind::Agent,
                Name::new("dead-letters").expect("is a name"),
            );
            let key = (part, Counter::Dropped, "full".to_owned());
            let before = self.shared.lock().ledger.get(&key).copied().unwrap_or(0);
            work.counters.insert(key.clone(), before + dropped);
            work.done.dropped = Some((key, dropped));
        }
        work.done.letters_gone = (gone.events > 0).then_some(gone);
        Ok(())
    }

    /// Keeps damaged bytes for people to look at.
    fn set_aside(&mut self, txn: &WriteTransaction, damaged: &[Aside]) -> Result<(), redb::Error> {
        let kept = usize::try_from(self.aside_room)
            .unwrap_or(usize::MAX)
            .min(damaged.len());
        if kept == 0 {
            return Ok(());
        }
        let mut table = txn.open_table(QUARANTINE)?;
        for aside in damaged.iter().take(kept) {
            let id = self.next_aside;
            let mut value = Vec::with_capacity(aside.bytes.len() + 64);
            put_bytes(
                &mut value,
                self.shared.channels[aside.lane.channel]
                    .name
                    .as_str()
                    .as_bytes(),
            );
            value.extend_from_slice(&aside.first.to_le_bytes());
            value.extend_from_slice(&aside.events.to_le_bytes());
            put_bytes(&mut value, &aside.bytes);
            table.insert(id, &seal(&id.to_be_bytes(), value)[..])?;
            self.next_aside += 1;
            self.aside_room -= 1;
        }
        Ok(())
    }
}

fn write_marks(small: &mut Small<'_>, work: &Work) -> Result<(), redb::Error> {
    for ((part, name), mark) in &work.marks {
        let key = keys::mark(part, name);
        match &mark.value {
            Some(value) => drop(small.insert(&key[..], &seal(&key, value.to_vec())[..])?),
            None => drop(small.remove(&key[..])?),
        }
    }
    Ok(())
}

fn write_counters(small: &mut Small<'_>, work: &Work) -> Result<(), redb::Error> {
    for ((part, counter, reason), value) in &work.counters {
        let key = keys::counter(part, *counter, reason);
        small.insert(&key[..], &seal(&key, value.to_le_bytes().to_vec())[..])?;
    }
    Ok(())
}

/// Says which transaction this is: after a failed commit it tells whether it is on disk.
fn write_number(small: &mut Small<'_>, number: u64) -> Result<(), redb::Error> {
    let key = [keys::COMMITS];
    let value = seal(&key, number.to_le_bytes().to_vec());
    small.insert(&key[..], &value[..])?;
    Ok(())
}
