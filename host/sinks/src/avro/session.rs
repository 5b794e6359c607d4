//! A session with another Levada: several calls on their way, in order (delivery contract D4.5).

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fail::fail_point;
use levada_core::{Hop, Lease, Positions, TakeError};
use levada_rpc::{
    Calls, ClientError, Meta, Replies, Reply, Status, codec,
    hop::{self, Sent},
    message::META_BYTES,
};
use thiserror::Error;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify},
    time,
};

/// The side that sends. Whoever has it sends alone, so that calls go out in the order of the lane.
#[derive(Debug)]
pub(super) struct Session {
    calls: Calls,
    shared: Arc<Shared>,
    terms: Terms,
}

/// What was agreed when it was opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) lane: u32,
    /// The sink has the lane alone: what it sends rises, and a mark covers what lies below it.
    pub(super) ordered: bool,
    /// Whether the receiver keeps a mark.
    pub(super) marks: bool,
    pub(super) window: usize,
    pub(super) max_frame: usize,
}

/// What the calls of a session share.
#[derive(Debug)]
struct Shared {
    replies: AsyncMutex<Replies>,
    progress: Mutex<Progress>,
    /// Rings when a call was answered, or never will be.
    answered: Notify,
}

#[derive(Debug)]
struct Progress {
    /// Up to where the receiver has everything.
    mark: u64,
    /// The last position that was sent.
    sent: u64,
    in_flight: usize,
    /// A call failed: once all are answered, sending goes on behind the mark.
    goes_back: bool,
    /// A position that leaves the lane another way. Nothing behind it is sent before it has: the
    /// mark would cover it.
    waits_for: Option<u64>,
    /// An answer is missing, so that no other can be told apart.
    broken: bool,
}

/// Why a lease was not sent, or not answered well.
#[derive(Debug, Error)]
pub(super) enum SessionError {
    #[error("the call failed")]
    Call(#[source] ClientError),
    #[error("there was no answer in time")]
    Silent,
    #[error("the answer is FAILED")]
    Failed,
    #[error("the answer is an error: {0}")]
    Error(String),
    #[error("what was sent before is not settled yet")]
    Early,
    #[error("the events are not the next ones of this session")]
    OutOfOrder,
    #[error("cannot read the chain")]
    Chain(#[source] TakeError),
    #[error("the answer does not say up to where events were received")]
    NoMark,
}

/// A lease on its way.
#[derive(Debug)]
pub(super) struct Flight {
    shared: Arc<Shared>,
    pub(super) ordered: bool,
    /// Events at the front that the receiver had already.
    pub(super) known: usize,
    /// Where the parts that were sent end, in events, and their last positions.
    parts: Vec<(usize, u64)>,
    /// Events that fit no message of the receiver.
    pub(super) too_large: Option<Range<usize>>,
}

/// How a flight ended.
#[derive(Debug)]
pub(super) struct Landed {
    /// Events from the front that the receiver has.
    pub(super) done: usize,
    pub(super) error: Option<SessionError>,
}

impl Session {
    /// Goes on behind `mark`.
    pub(super) fn new((calls, replies): (Calls, Replies), terms: Terms, mark: u64) -> Self {
        let progress = Progress {
            mark,
            sent: mark,
            in_flight: 0,
            goes_back: false,
            waits_for: None,
            broken: false,
        };
        let shared = Arc::new(Shared {
            replies: AsyncMutex::new(replies),
            progress: Mutex::new(progress),
            answered: Notify::new(),
        });
        Self {
            calls,
            shared,
            terms,
        }
    }

    /// Whether something can be sent; finds out that the receiver has ended the connection
    /// meanwhile, before a batch is given to it.
    pub(super) async fn is_usable(&mut self) -> bool {
        let (broken, idle) = {
            let progress = self.shared.progress();
            (progress.broken, progress.in_flight == 0)
        };
        if broken || !idle {
            return !broken;
        }
        !self.shared.replies.lock().await.is_disturbed().await
    }

    pub(super) fn window(&self) -> usize {
        self.terms.window
    }

    /// Sends what the receiver does not have of a lease, in as many calls as it takes.
    ///
    /// Failed or cancelled, the session is to be dropped, unless the error is
    /// [`SessionError::Early`].
    pub(super) async fn send(
        &mut self,
        lease: &Lease,
        hop: &dyn Hop,
        within: Duration,
    ) -> Result<Flight, SessionError> {
        self.shared.room(self.terms.window).await?;
        let mut at = if self.terms.ordered {
            self.begin(&lease.positions, hop)?
        } else {
            0
        };
        let mut flight = Flight {
            shared: Arc::clone(&self.shared),
            ordered: self.terms.ordered,
            known: at,
            parts: Vec::new(),
            too_large: None,
        };
        while at < lease.batch.len() {
            let Some((to, meta)) = self.part(lease, at, hop)? else {
                let family = family_end(&lease.positions, at);
                if self.terms.ordered {
                    self.shared.progress().waits_for = lease.positions.slice(at..family).last();
                }
                flight.too_large = Some(at..family);
                break;
            };
            let last = lease.positions.slice(at..to).last().unwrap_or_default();
            // Counted first: cancelled in the middle, the call counts as one without an answer.
            flight.parts.push((to, last));
            {
                let mut progress = self.shared.progress();
                progress.in_flight += 1;
                progress.sent = last;
            }
            let batch = lease.batch.slice(at..to);
            let sending = self.calls.send(&batch, &meta);
            match time::timeout(within, sending).await {
                Ok(sent) => sent.map_err(SessionError::Call)?,
                Err(_) => return Err(SessionError::Silent),
            }
            at = to;
        }
        fail_point!("sink-after-send-before-ack");
        Ok(flight)
    }

    /// How many events of a lease the receiver has, if the rest is what is to be sent next.
    fn begin(&self, positions: &Positions, hop: &dyn Hop) -> Result<usize, SessionError> {
        let mut progress = self.shared.progress();
        if let Some(gone) = progress.waits_for {
            let lane = hop.lane(self.terms.lane).map_err(SessionError::Chain)?;
            if lane.oldest <= gone {
                return Err(SessionError::Early);
            }
            progress.waits_for = None;
        }
        if progress.goes_back {
            if progress.in_flight > 0 {
                return Err(SessionError::Early);
            }
            progress.goes_back = false;
            progress.sent = progress.mark;
        }
        let known = positions.covered(progress.mark);
        let next = positions.iter().nth(known);
        let Some(next) = next else {
            return Ok(known);
        };
        if next <= progress.sent {
            return Err(SessionError::OutOfOrder);
        }
        // What lies between must have left the lane: held and not sent, it would be lost when the
        // mark goes beyond it. Such are leases whose session could not be opened.
        let mut after = progress.sent + 1;
        for run in positions.slice(known..positions.len()).runs() {
            let gap = after..run.first;
            let held = !gap.is_empty()
                && hop
                    .holds(self.terms.lane, gap)
                    .map_err(SessionError::Chain)?;
            if held {
                return Err(SessionError::Early);
            }
            after = run.first + u64::from(run.count);
        }
        Ok(known)
    }

    /// The end of the longest part from `at` on that fits a message, with its metadata; `None` if
    /// not even the events of one position fit.
    fn part(
        &self,
        lease: &Lease,
        at: usize,
        hop: &dyn Hop,
    ) -> Result<Option<(usize, Meta)>, SessionError> {
        let lengths = lease.batch.lengths().skip(at);
        let mut most = codec::fitting(lengths, self.terms.max_frame);
        loop {
            let Some(to) = border(&lease.positions, at, at + most) else {
                return Ok(None);
            };
            let value = self.note(lease, at..to, hop)?;
            let bytes: usize = lease.batch.slice(at..to).bytes();
            let fits = value.len() + BESIDE <= META_BYTES
                && bytes + value.len() + BESIDE <= self.terms.max_frame;
            if fits {
                let mut meta = Meta::new();
                meta.set(hop::KEY, value);
                return Ok(Some((to, meta)));
            }
            most = (to - at) / 2;
        }
    }

    fn note(
        &self,
        lease: &Lease,
        range: Range<usize>,
        hop: &dyn Hop,
    ) -> Result<Bytes, SessionError> {
        let positions = lease.positions.slice(range.clone());
        let first = positions.first().unwrap_or_default();
        let last = positions.last().unwrap_or_default();
        let chain = match self.terms.marks {
            true => hop.chain_at(self.terms.lane, last),
            false => Ok(None),
        };
        let prev = if self.terms.ordered {
            self.shared.progress().sent
        } else {
            first.saturating_sub(1)
        };
        let sent = Sent {
            prev,
            positions,
            chain: chain.map_err(SessionError::Chain)?.unwrap_or_default(),
            origins: lease.batch.slice(range).origins().clone(),
        };
        Ok(sent.encode())
    }
}

/// Most bytes of a call beside its events and the value of its metadata.
const BESIDE: usize = 64;

/// The last border of a position in `at..=to` behind `at`, if there is one.
fn border(positions: &Positions, at: usize, to: usize) -> Option<usize> {
    let (mut found, mut before) = (None, None);
    let inside = positions.slice(at..to + 1);
    for (n, position) in inside.iter().enumerate() {
        if n > 0 && before != Some(position) {
            found = Some(at + n);
        }
        before = Some(position);
    }
    // Nothing follows: the end is a border.
    if inside.len() == to - at && to > at {
        return Some(to);
    }
    found
}

/// Where the events end that share the position of the one at `at`.
fn family_end(positions: &Positions, at: usize) -> usize {
    let rest = positions.slice(at..positions.len());
    let first = rest.first().unwrap_or_default();
    at + rest.covered(first)
}

impl Flight {
    /// Waits for the answers.
    pub(super) async fn land(&self, within: Duration) -> Landed {
        let mut done = self.known;
        let mut unanswered = Unanswered {
            shared: &self.shared,
            calls: self.parts.len(),
        };
        let mut error = None;
        // Held until all are there: the next reply is that of the oldest call.
        let mut replies = self.shared.replies.lock().await;
        for (to, last) in &self.parts {
            if self.shared.progress().broken {
                error.get_or_insert(SessionError::Call(ClientError::Broken));
                break;
            }
            let answer = match time::timeout(within, replies.receive()).await {
                Ok(answer) => answer.map_err(SessionError::Call),
                Err(_) => Err(SessionError::Silent),
            };
            let Ok(reply) = answer else {
                error.get_or_insert(answer.err().unwrap_or(SessionError::Silent));
                break;
            };
            unanswered.calls -= 1;
            match self.note(reply, *last) {
                Ok(()) if error.is_none() => done = *to,
                Ok(()) => {}
                Err(failed) => drop(error.get_or_insert(failed)),
            }
        }
        drop((unanswered, replies));
        if error.is_some() && self.too_large.is_some() {
            // It does not leave this time.
            self.shared.progress().waits_for = None;
        }
        Landed { done, error }
    }

    /// Takes note of a reply; whether it says that the receiver has everything up to `last`.
    fn note(&self, reply: Reply, last: u64) -> Result<(), SessionError> {
        let mut progress = self.shared.progress();
        progress.in_flight -= 1;
        self.shared.answered.notify_waiters();
        let told = reply.meta.get(hop::KEY).map(hop::decode_reply);
        let result = match reply.result {
            Ok(Status::Ok) => Ok(()),
            Ok(Status::Failed | Status::Unknown) => Err(SessionError::Failed),
            Err(text) => {
                progress.broken = true;
                return Err(SessionError::Error(text));
            }
        };
        if !self.ordered {
            return result;
        }
        match told {
            Some(Ok(mark)) => progress.mark = progress.mark.max(mark),
            _ => {
                progress.broken = true;
                return Err(SessionError::NoMark);
            }
        }
        if result.is_ok() && progress.mark < last {
            progress.broken = true;
            return Err(SessionError::NoMark);
        }
        progress.goes_back |= result.is_err();
        result
    }
}

/// Calls whose answers nobody waits for any more, once it is dropped.
struct Unanswered<'a> {
    shared: &'a Shared,
    calls: usize,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.calls > 0 {
            self.shared.progress().broken = true;
            self.shared.answered.notify_waiters();
        }
    }
}

impl Shared {
    /// Waits until the lane has room for another batch. One that takes several calls has them all on
    /// their way at once, also beyond the window.
    async fn room(&self, window: usize) -> Result<(), SessionError> {
        loop {
            let answered = self.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            {
                let progress = self.progress();
                if progress.broken {
                    return Err(SessionError::Call(ClientError::Broken));
                }
                if progress.in_flight < window {
                    return Ok(());
                }
            }
            answered.await;
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
