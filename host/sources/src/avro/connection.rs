//! One connection of an avro source: calls in, puts, answers out.

use std::{sync::Arc, time::Duration};

use fail::fail_point;
use levada_core::{
    Batch, Chance, Fault, Ingest, Put, PutError, Stop,
    batch::{Checked, FaultKind},
};
use levada_net::{Accepted, Backoff, Throttle};
use levada_rpc::{Call, Meta, Server, ServerError, ServerParams, Status};
use levada_telemetry::Gauge;
use tokio::time::{self, Instant};
use tracing::{debug, warn};

use crate::avro::Metrics;

/// How long to wait before a put is tried again inside one call.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// At most one line in this time says which peer broke the protocol.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Where a connection belongs.
pub(super) struct Place {
    pub(super) part: String,
    pub(super) out: Arc<dyn Ingest>,
    pub(super) stop: Stop,
}

/// What the connections of a source share.
pub(super) struct Shared {
    place: Place,
    server: ServerParams,
    put_timeout: Duration,
    chance: Chance,
    metrics: Metrics,
    complaints: Throttle,
}

/// Serves a connection until its peer or the stop signal ends it. A call in hand is finished.
pub(super) async fn serve(accepted: Accepted, shared: Arc<Shared>) {
    let Accepted {
        stream,
        peer,
        identity: _,
        admission: _admission,
    } = accepted;
    let _open = Open::new(&shared.metrics.open);
    let mut server = Server::new(stream, shared.server);
    let Err(error) = shared.serve(&mut server).await else {
        return;
    };
    let part = &shared.place.part;
    if !error.is_violation() {
        debug!(source = %part, %peer, error = %error.report(), "connection ended");
        return;
    }
    shared.metrics.violations.add(1);
    if let Some(unsaid) = shared.complaints.pass() {
        let error = error.report();
        warn!(source = %part, %peer, %error, unsaid, "peer broke the protocol or a limit");
    }
}

impl Shared {
    pub(super) fn new(
        place: Place,
        server: ServerParams,
        put_timeout: Duration,
        chance: Chance,
        metrics: Metrics,
    ) -> Self {
        let complaints = Throttle::new(COMPLAIN_EVERY);
        Self {
            place,
            server,
            put_timeout,
            chance,
            metrics,
            complaints,
        }
    }

    async fn serve(&self, server: &mut Server) -> Result<(), ServerError> {
        loop {
            // A call that is not complete yet was not executed: its peer sends it elsewhere.
            let next = tokio::select! {
                biased;
                () = self.place.stop.draining() => return Ok(()),
                next = server.next() => next?,
            };
            let Some(Call {
                checked,
                meta: _,
                token,
            }) = next
            else {
                return Ok(());
            };
            let status = self.take(checked).await;
            server.reply(token, status, &Meta::new()).await?;
        }
    }

    /// Stores the events of a call; the status to answer.
    async fn take(&self, checked: Checked) -> Status {
        match self.store(checked).await {
            Ok(()) => {
                fail_point!("source-after-commit-before-ack");
                self.metrics.ok.add(1);
                Status::Ok
            }
            Err(error) => {
                debug!(source = %self.place.part, %error, "call answered FAILED");
                self.metrics.failed.add(1);
                Status::Failed
            }
        }
    }

    /// Puts a batch. What no channel could ever hold is put in parts; an event that is too large
    /// alone becomes a dead letter, because its peer would send it for ever.
    ///
    /// If a later part fails the earlier ones are stored, and come again with the whole batch.
    async fn store(&self, checked: Checked) -> Result<(), PutError> {
        let deadline = Instant::now() + self.put_timeout;
        let Checked {
            batch, mut faults, ..
        } = checked;
        let mut parts = vec![(0, batch)];
        while let Some((at, batch)) = parts.pop() {
            if batch.is_empty() && faults.is_empty() {
                continue;
            }
            let put = Put {
                batch: batch.clone(),
                faults: faults.clone(),
                deadline: Some(deadline),
                ..Put::default()
            };
            match self.put(put, deadline).await {
                Ok(()) => faults.clear(),
                Err(PutError::TooLarge { .. }) if batch.len() > 1 => {
                    let middle = batch.len() / 2;
                    parts.push((at + middle, batch.slice(middle..batch.len())));
                    parts.push((at, batch.slice(0..middle)));
                }
                Err(PutError::TooLarge { .. }) if batch.len() == 1 => {
                    faults.extend(oversize(&batch, at));
                    parts.push((at, Batch::default()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts once, and again while the reason may pass within the time allowed: an answer that comes
    /// late is better than one that makes the peer drop its connection and return at once.
    async fn put(&self, put: Put, deadline: Instant) -> Result<(), PutError> {
        let mut back_off = Backoff::new(BACK_OFF.0, BACK_OFF.1, self.chance.clone());
        loop {
            let Err(error) = self.place.out.put(put.clone()).await else {
                return Ok(());
            };
            let wait = match &error {
                PutError::Later {
                    after: Some(after), ..
                } => *after,
                PutError::Later { after: None, .. }
                | PutError::Fatal { .. }
                | PutError::Store { .. } => back_off.next_wait(),
                _ => return Err(error),
            };
            tokio::select! {
                () = self.place.stop.draining() => return Err(error),
                () = time::sleep_until(deadline.min(Instant::now() + wait)) => {}
            }
            if Instant::now() >= deadline {
                return Err(error);
            }
        }
    }
}

/// The events of a batch as events that no channel can hold.
fn oversize(batch: &Batch, at: usize) -> impl Iterator<Item = Fault> {
    (0..batch.len()).filter_map(move |n| {
        let event = batch.event_bytes(n)?;
        let kind = FaultKind::Capacity { bytes: event.len() };
        Some(Fault {
            index: at + n,
            event,
            kind,
        })
    })
}

/// A connection in the gauge of open ones, until it is dropped.
struct Open<'a>(&'a Gauge);

impl<'a> Open<'a> {
    fn new(open: &'a Gauge) -> Self {
        open.add(1);
        Self(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}
