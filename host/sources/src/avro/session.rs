//! What a hop adds to a connection: where the lane stands, and which events are repeats.

use bytes::Bytes;
use levada_core::{Ingest, MarkWrite, Origins, Positions, batch::Checked, marks::Expect};
use levada_rpc::{
    MessageError, Meta,
    hop::{self, Mark, Open, Sent, Standing},
};
use levada_telemetry::Counter;
use tracing::{debug, info};

use super::{
    lanes::{self, Lanes},
    turns::{Turn, Turns},
};

/// Most calls of one session that may wait for their answers.
pub(super) const WINDOW: u32 = 32;

/// What all sessions of a source share.
#[derive(Debug)]
pub(super) struct Hops {
    part: String,
    turns: Turns,
    lanes: Lanes,
    trust_plaintext: bool,
    metrics: Metrics,
}

/// What a source counts of its hops.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    pub(super) sessions: Counter,
    pub(super) baselines: Counter,
    pub(super) repeats: Counter,
}

/// Who a peer without a name is, where plaintext is trusted.
const NOBODY: &str = "plaintext";

impl Hops {
    pub(super) fn new(
        part: String,
        out: &dyn Ingest,
        trust_plaintext: bool,
        metrics: Metrics,
    ) -> Self {
        Self {
            part,
            turns: Turns::default(),
            lanes: Lanes::new(&out.marks()),
            trust_plaintext,
            metrics,
        }
    }

    /// Begins a session, after the one that had the lane before; `None` if a newer one took the
    /// lane meanwhile. `peer` is the name that the other side has proved.
    pub(super) async fn begin(
        &self,
        open: &Open,
        peer: Option<&str>,
        out: &dyn Ingest,
    ) -> Option<(Session, Standing)> {
        self.metrics.sessions.add(1);
        let before = open.oldest.saturating_sub(1);
        let trusted = peer.is_some() || self.trust_plaintext;
        let (part, incarnation) = (&self.part, open.incarnation);
        let (channel, lane) = (&open.channel, open.lane);
        if !(trusted && open.marks) {
            debug!(source = %part, %incarnation, channel, lane, trusted, "hop without marks");
            return Some((Session::new(None, open, before, None), Standing::Off));
        }
        let peer = peer.map_or(NOBODY.to_owned(), |name| format!("={name}"));
        let key = lanes::key(&peer, open);
        let turn = self.turns.take(&key).await?;
        let stored = out.mark(&key);
        let mark = stored.as_deref().and_then(lanes::decode);
        let mark = mark.map(|(mark, _)| mark);
        let at = mark.map(|mark| mark.position);
        if at.is_none_or(|at| at < before) {
            self.metrics.baselines.add(1);
            let mark = at.unwrap_or_default();
            info!(source = %part, %incarnation, channel, lane, mark, from = open.oldest,
                "a lane begins without what was before");
        }
        let forget = match stored {
            None => self
                .lanes
                .enter(|| out.marks(), |key| self.turns.is_taken(key)),
            Some(_) => Vec::new(),
        };
        let kept = Kept {
            key,
            turn,
            forget,
            day: self.lanes.today(),
        };
        // A mark below the oldest position stands for nothing that can still come.
        let position = at.unwrap_or_default().max(before);
        let session = Session::new(Some(kept), open, position, stored);
        Some((session, mark.map_or(Standing::New, Standing::At)))
    }

    pub(super) fn repeated(&self, events: usize) {
        self.metrics.repeats.add(events as u64);
    }
}

/// One lane of one peer, from its opening to the end of the connection.
#[derive(Debug)]
pub(super) struct Session {
    /// `None` if its mark lives no longer than the session.
    kept: Option<Kept>,
    /// The peer has the lane alone: what it sends rises.
    ordered: bool,
    /// Up to where events are committed.
    committed: Point,
    /// Up to where they will be, when everything on its way is.
    tail: Point,
}

#[derive(Debug)]
struct Kept {
    key: String,
    turn: Turn,
    /// Marks of other lanes that go when this one gets its first.
    forget: Vec<MarkWrite>,
    day: u32,
}

/// A place in the lane, and the mark that the store has then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Point {
    position: u64,
    stored: Option<Bytes>,
}

/// What is to be done with a call.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Positions are missing before it: the peer goes back.
    Ahead,
    /// All of it was received before, or is on its way into the channels.
    Repeat,
    /// These events are new.
    New(Box<Load>, Point),
}

/// Events on their way into the channels, with the mark that goes with them.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) checked: Checked,
    pub(super) marking: Option<Marking>,
}

/// The mark of a lane, as a put writes it.
#[derive(Debug)]
pub(super) struct Marking {
    key: String,
    /// What the store has before.
    stored: Option<Bytes>,
    /// The position of each event of the batch.
    positions: Positions,
    end: Mark,
    day: u32,
    forget: Vec<MarkWrite>,
}

impl Session {
    fn new(kept: Option<Kept>, open: &Open, position: u64, stored: Option<Bytes>) -> Self {
        let committed = Point { position, stored };
        Self {
            kept,
            ordered: open.marks,
            tail: committed.clone(),
            committed,
        }
    }

    /// How many calls may be on their way into the channels. Without a mark nothing holds back a
    /// call whose predecessor failed, so there is one.
    pub(super) fn at_once(&self) -> usize {
        if self.kept.is_some() {
            WINDOW as usize
        } else {
            1
        }
    }

    /// Waits until a newer session wants the lane. Safe to cancel.
    pub(super) async fn over(&self) {
        match &self.kept {
            Some(kept) => kept.turn.over().await,
            None => std::future::pending().await,
        }
    }

    /// What the peer is told with every answer.
    pub(super) fn reply(&self) -> Meta {
        let mut meta = Meta::new();
        meta.set(hop::KEY, hop::encode_reply(self.committed.position));
        meta
    }

    /// Judges a call before any code sees its events; repeats are counted and cut off.
    ///
    /// # Errors
    /// [`MessageError`]: the peer broke the protocol.
    pub(super) fn judge(
        &mut self,
        meta: &Meta,
        checked: Checked,
        hops: &Hops,
    ) -> Result<Verdict, MessageError> {
        let value = meta.get(hop::KEY).cloned().unwrap_or_default();
        let events = checked.batch.len() + checked.faults.len();
        let sent = Sent::decode(&value, events)?;
        let before = if self.ordered { self.tail.position } else { 0 };
        if self.ordered && sent.prev > before {
            return Ok(Verdict::Ahead);
        }
        let repeats = sent.positions.covered(before);
        hops.repeated(repeats);
        let Some(position) = sent.positions.last().filter(|_| repeats < events) else {
            return Ok(Verdict::Repeat);
        };
        let chain = sent.chain;
        let (checked, positions) = cut(checked, sent, repeats);
        let end = Mark {
            position,
            chain: Some(chain),
        };
        let marking = self.kept.as_mut().map(|kept| Marking {
            key: kept.key.clone(),
            stored: self.tail.stored.clone(),
            positions,
            end,
            day: kept.day,
            forget: std::mem::take(&mut kept.forget),
        });
        self.tail = Point {
            position,
            stored: marking.as_ref().map(Marking::value),
        };
        let load = Load { checked, marking };
        Ok(Verdict::New(Box::new(load), self.tail.clone()))
    }

    /// Takes note of a commit.
    pub(super) fn committed(&mut self, point: Point) {
        self.committed = point;
    }

    /// Nothing is on its way any more: what failed is to come again.
    pub(super) fn settle(&mut self) {
        self.tail = self.committed.clone();
    }
}

impl Marking {
    fn value(&self) -> Bytes {
        lanes::encode(self.end, self.day)
    }

    /// Where a batch of these events may be cut near the middle of a range: the children of one
    /// event stay together. `None` if they are all of one.
    pub(super) fn border(&self, range: &std::ops::Range<usize>) -> Option<usize> {
        let each: Vec<u64> = self.positions.slice(range.clone()).iter().collect();
        let is_border = |n: &usize| each[*n - 1] != each[*n];
        let middle = each.len() / 2;
        let near = (1..=middle).rev().find(is_border);
        let near = near.or_else(|| (middle + 1..each.len()).find(is_border));
        near.map(|n| range.start + n)
    }

    /// The marks that go with the events up to `to`, all events of the batch being up to `all`.
    pub(super) fn writes(&mut self, to: usize, all: usize) -> Vec<MarkWrite> {
        let mark = match to.checked_sub(1).filter(|_| to < all) {
            None => self.end,
            // The peer did not say what the chain is here.
            Some(last) => Mark {
                position: self.positions.iter().nth(last).unwrap_or(self.end.position),
                chain: None,
            },
        };
        let value = lanes::encode(mark, self.day);
        let write = MarkWrite {
            key: self.key.clone(),
            value: Some(value.clone()),
            expect: Expect::Exactly(self.stored.clone()),
        };
        let mut writes = self.forget.clone();
        writes.push(write);
        writes
    }

    /// Goes on after a part was committed.
    pub(super) fn committed(&mut self, writes: &[MarkWrite]) {
        self.stored = writes.last().and_then(|write| write.value.clone());
        self.forget.clear();
    }
}

/// Cuts repeats off the front, and gives each event its id; with the positions of what is left and
/// is no fault.
fn cut(checked: Checked, sent: Sent, repeats: usize) -> (Checked, Positions) {
    let Checked {
        batch, faults, end, ..
    } = checked;
    let events = batch.len() + faults.len();
    if faults.is_empty() {
        let batch = batch.with_origins(sent.origins).slice(repeats..events);
        let positions = sent.positions.slice(repeats..events);
        let checked = Checked { batch, faults, end };
        return (checked, positions);
    }
    let is_fault = |n: &usize| faults.binary_search_by_key(n, |fault| fault.index).is_ok();
    let ids: Vec<_> = sent.origins.iter().collect();
    let kept = || (repeats..events).filter(|n| !is_fault(n));
    let origins = Origins::from_ids(kept().filter_map(|n| ids.get(n).copied()));
    let each: Vec<_> = sent.positions.iter().collect();
    let positions = Positions::from_each(kept().map(|n| each[n]));
    let before = batch.len() - kept().count();
    let batch = batch.slice(before..batch.len()).with_origins(origins);
    let faults = faults
        .into_iter()
        .filter(|fault| fault.index >= repeats)
        .collect();
    (Checked { batch, faults, end }, positions)
}
