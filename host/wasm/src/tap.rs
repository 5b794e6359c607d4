//! Looking on while a handler works: events before and after it, with what it said of each.
//!
//! A tap never holds up the flow: it has room for so many sights, and what comes while there is
//! none is counted and not shown. While nobody looks a tap costs one load of a number a call.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use levada_core::{Batch, EventRef, PartId};
use serde::Serialize;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{
    When,
    event::EventText,
    rescue::{End, Guilty, Piece, Unfinished},
    verdicts::{Outcome, Said},
};

/// What a tap is to show.
#[derive(Debug, Clone)]
pub struct TapParams {
    /// Only events that were so before the handler.
    pub when: Option<When>,
    /// Sights that wait to be taken.
    pub room: usize,
    /// Bytes that are shown of a body; of a header a quarter of that.
    pub excerpt: usize,
    /// Events that are shown of those that came out of one.
    pub after: usize,
}

impl Default for TapParams {
    /// Bounded for a terminal: a full tap holds a few megabytes at most.
    fn default() -> Self {
        Self {
            when: None,
            room: 256,
            excerpt: 2048,
            after: 3,
        }
    }
}

/// Something that a tap shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Sight {
    Event(Box<EventSight>),
    Batch(BatchSight),
}

/// One event and what the handler said of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct EventSight {
    /// The source or sink the handler ran on.
    pub on: String,
    /// The verdict's word, as in the metrics; `failed` if the handler fails on the event.
    pub verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The limit it hit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
    /// The event as it came.
    pub before: EventText,
    /// What goes on instead; nothing where it goes on as it was, or not at all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<EventText>,
    /// Events that came out and are not shown.
    #[serde(skip_serializing_if = "is_none")]
    pub more: usize,
    /// Whether anything of what is shown was cut.
    #[serde(skip_serializing_if = "is_whole")]
    pub cut: bool,
}

/// Events that the handler did not handle: they come again, or wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BatchSight {
    pub on: String,
    pub events: usize,
    /// Why.
    pub unhandled: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_none(number: &usize) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_whole(cut: &bool) -> bool {
    !*cut
}

/// Why a handler cannot be tapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MOST_TAPS} taps of this handler are open already: close one of them")]
pub struct TooManyTaps;

/// Taps of one handler at once.
const MOST_TAPS: usize = 4;

/// The open taps of one handler.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    /// How many there are, as far as that was noticed.
    open: AtomicUsize,
    outlets: Mutex<Vec<Outlet>>,
}

#[derive(Debug)]
struct Outlet {
    params: TapParams,
    sights: mpsc::Sender<Sight>,
    missed: Arc<AtomicU64>,
}

/// An open tap; closed when it is dropped.
#[derive(Debug)]
pub struct Tap {
    sights: mpsc::Receiver<Sight>,
    missed: Arc<AtomicU64>,
}

impl Tap {
    /// Waits for the next sight; `None` if the handler is gone. Safe to cancel.
    pub async fn next(&mut self) -> Option<Sight> {
        self.sights.recv().await
    }

    /// The next sight, if there is one now.
    pub fn try_next(&mut self) -> Option<Sight> {
        self.sights.try_recv().ok()
    }

    /// How many sights there was no room for since this was asked last.
    pub fn missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }
}

impl Taps {
    fn lock(&self) -> MutexGuard<'_, Vec<Outlet>> {
        self.outlets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self, params: TapParams) -> Result<Tap, TooManyTaps> {
        let mut outlets = self.lock();
        outlets.retain(|outlet| !outlet.sights.is_closed());
        if outlets.len() >= MOST_TAPS {
            return Err(TooManyTaps);
        }
        let (sender, sights) = mpsc::channel(params.room.max(1));
        let missed = Arc::<AtomicU64>::default();
        outlets.push(Outlet {
            params,
            sights: sender,
            missed: Arc::clone(&missed),
        });
        self.open.store(outlets.len(), Ordering::Relaxed);
        Ok(Tap { sights, missed })
    }

    /// Shows a call and what followed from it to whoever looks.
    pub(crate) fn show(
        &self,
        on: &PartId,
        batch: &Batch,
        range: &Range<usize>,
        handled: &Result<Vec<Piece>, Unfinished>,
    ) {
        if self.open.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut outlets = self.lock();
        outlets.retain(|outlet| !outlet.sights.is_closed());
        self.open.store(outlets.len(), Ordering::Relaxed);
        for outlet in &*outlets {
            match handled {
                Ok(pieces) => outlet.pieces(on, batch, pieces),
                Err(unfinished) => {
                    outlet.pieces(on, batch, &unfinished.pieces);
                    let done = unfinished.pieces.last().map(|piece| piece.range.end);
                    outlet.put(|| {
                        Sight::Batch(BatchSight {
                            on: on.to_string(),
                            events: range.end - done.unwrap_or(range.start),
                            unhandled: unfinished.error.to_string(),
                        })
                    });
                }
            }
        }
    }
}

impl Outlet {
    /// Shows something if there is room for it, else counts it.
    fn put(&self, sight: impl FnOnce() -> Sight) {
        match self.sights.try_reserve() {
            Ok(room) => room.send(sight()),
            Err(TrySendError::Full(())) => {
                self.missed.fetch_add(1, Ordering::Relaxed);
            }
            // Whoever looked is gone.
            Err(TrySendError::Closed(())) => {}
        }
    }

    fn pieces(&self, on: &PartId, batch: &Batch, pieces: &[Piece]) {
        for Piece { range, end } in pieces {
            match end {
                End::Handled(outcome) => self.handled(on, batch, range, outcome),
                End::Guilty(guilty) | End::Known(guilty) => self.guilty(on, batch, range, guilty),
            }
        }
    }

    fn is_wanted(&self, event: EventRef<'_>) -> bool {
        self.params
            .when
            .as_ref()
            .is_none_or(|when| when.holds(event))
    }

    fn handled(&self, on: &PartId, batch: &Batch, range: &Range<usize>, outcome: &Outcome) {
        let mut out = 0;
        let events = batch.iter().enumerate().skip(range.start);
        for (place, ((at, event), said)) in events.zip(&outcome.said).enumerate() {
            // A sink lets nothing out.
            let outs = outcome.outs.get(place).map_or(0, |outs| *outs as usize);
            let own = out..out + outs;
            out = own.end;
            if !self.is_wanted(event) {
                continue;
            }
            self.put(|| {
                let mut sight = self.sight(on, batch, at);
                sight.verdict = said.as_str();
                sight.reason = outcome.why(place).map(ToOwned::to_owned);
                if *said != Said::Pass && *said != Said::Reject {
                    self.after(&mut sight, &outcome.batch, own);
                }
                Sight::Event(Box::new(sight))
            });
        }
    }

    fn after(&self, sight: &mut EventSight, out: &Batch, own: Range<usize>) {
        sight.more = own.len().saturating_sub(self.params.after);
        for place in own.take(self.params.after) {
            if let Some(event) = out.get(place) {
                let shown = self.excerpt(EventText::of(event, None), &mut sight.cut);
                sight.after.push(shown);
            }
        }
    }

    fn guilty(&self, on: &PartId, batch: &Batch, range: &Range<usize>, guilty: &Guilty) {
        if batch
            .get(range.start)
            .is_none_or(|event| !self.is_wanted(event))
        {
            return;
        }
        let broken = &guilty.broken;
        self.put(|| {
            let mut sight = self.sight(on, batch, range.start);
            sight.verdict = "failed";
            sight.reason = Some(broken.reason.clone());
            sight.limit = broken.limit.map(|limit| limit.as_str());
            sight.backtrace = broken.backtrace.clone();
            Sight::Event(Box::new(sight))
        });
    }

    fn sight(&self, on: &PartId, batch: &Batch, at: usize) -> EventSight {
        let mut sight = EventSight {
            on: on.to_string(),
            ..EventSight::default()
        };
        if let Some(event) = batch.get(at) {
            let before = EventText::of(event, batch.origins().get(at));
            sight.before = self.excerpt(before, &mut sight.cut);
        }
        sight
    }

    /// The event as far as it is shown.
    fn excerpt(&self, mut event: EventText, cut: &mut bool) -> EventText {
        const MOST_HEADERS: usize = 64;
        let most = self.params.excerpt;
        let mut shorten = |text: &mut String, most: usize| {
            if text.len() > most {
                text.truncate(text.floor_char_boundary(most));
                *cut = true;
            }
        };
        if let Some(body) = &mut event.body {
            shorten(body, most);
        }
        if let Some(body) = &mut event.body64 {
            // Whole groups of four characters, so that it can be read.
            shorten(body, (most / 3).saturating_mul(4));
        }
        for (name, value) in &mut event.headers {
            shorten(name, most / 4);
            shorten(value, most / 4);
        }
        if event.headers.len() > MOST_HEADERS {
            event.headers.truncate(MOST_HEADERS);
            *cut = true;
        }
        event
    }
}
