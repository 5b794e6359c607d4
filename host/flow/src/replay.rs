//! Dead letters on their way back.

use std::time::Duration;

use levada_core::{
    Batch, ChannelName, Commit, DeadLetter, Effects, Limits, Origins, PartId, PartKind, PutError,
    origin::OriginRun,
    store::{ChannelPut, Need},
    tasks::blocking,
};
use thiserror::Error;
use tokio::time::Instant;
use tracing::info;

use crate::control::Control;

/// How long a replayed event may wait for room.
const WITHIN: Duration = Duration::from_secs(5);

/// Why a dead letter was not replayed. It is still there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError {
    #[error("there is no dead letter {id}")]
    NoLetter { id: u64 },
    #[error("the bytes of dead letter {id} are no event: it cannot be replayed")]
    NotAnEvent { id: u64 },
    #[error("`{flow}`, on which the event was rejected, is not configured any more")]
    NoFlow { flow: PartId },
    #[error("`{part}`, which rejected the event, is not on `{flow}` any more")]
    NotOnIt { part: PartId, flow: PartId },
    #[error("the store cannot read dead letter {id}: {reason}")]
    Unreadable { id: u64, reason: String },
    #[error("the event was not taken")]
    Refused(#[source] PutError),
}

impl Control {
    /// Puts a dead letter back at the part that rejected it, and takes it from the dead letters in
    /// the same transaction: at the source or interceptor with all that comes after it, or in the
    /// channel of a sink. What is rejected again is a new dead letter.
    ///
    /// # Errors
    /// [`ReplayError`]: nothing has changed.
    pub async fn replay(&self, id: u64) -> Result<(), ReplayError> {
        // Two replays of one letter would make two events of it.
        let _one_at_a_time = self.replaying.lock().await;
        let inspect = self.around.inspect.clone();
        let letter = blocking(move || inspect.dead_letter(id)).await;
        let letter = letter.map_err(|reason| ReplayError::Unreadable { id, reason })?;
        let letter = letter.ok_or(ReplayError::NoLetter { id })?;
        let event = event_of(&letter).ok_or(ReplayError::NotAnEvent { id })?;
        let DeadLetter { part, flow, .. } = letter;
        match flow.kind {
            PartKind::Channels => self.to_channel(&flow, event, id).await?,
            _ => {
                let ingest = self.ingest(&flow);
                let ingest = ingest.ok_or_else(|| ReplayError::NoFlow { flow: flow.clone() })?;
                ingest.replay(event, &part, id, WITHIN).await?;
            }
        }
        info!(id, %part, %flow, "dead letter replayed");
        Ok(())
    }

    async fn to_channel(&self, flow: &PartId, batch: Batch, id: u64) -> Result<(), ReplayError> {
        let channel = ChannelName(flow.name.clone());
        let channels = self.around.inspect.channels();
        if channels.iter().all(|info| info.name != channel) {
            return Err(ReplayError::NoFlow { flow: flow.clone() });
        }
        let need = Need::Required;
        let commit = Commit {
            part: flow.clone(),
            puts: vec![ChannelPut {
                channel,
                batch,
                need,
            }],
            marks: Vec::new(),
            effects: Effects {
                replayed: vec![id],
                ..Effects::default()
            },
            deadline: Some(Instant::now() + WITHIN),
            received_ms: self.around.clock.wall_ms(),
        };
        let committed = self.around.store.commit(commit).await;
        committed.map_err(ReplayError::Refused)
    }
}

/// The event of a letter with its origin id; `None` if its bytes are no event.
fn event_of(letter: &DeadLetter) -> Option<Batch> {
    let bytes = letter.event.clone();
    let length = bytes.len();
    let read = Batch::from_events(bytes, 0, 1, &UNLIMITED).ok()?;
    if read.end != length || read.batch.len() != 1 {
        return None;
    }
    let origins = letter.origin.map(|first| {
        let (count, children) = (1, false);
        Origins::from_runs([OriginRun {
            first,
            count,
            children,
        }])
    });
    Some(match origins {
        Some(origins) => read.batch.with_origins(origins),
        None => read.batch,
    })
}

/// Whoever asks for a replay has seen the event.
const UNLIMITED: Limits = Limits {
    event: usize::MAX,
    headers: usize::MAX,
    name: usize::MAX,
    value: usize::MAX,
};
