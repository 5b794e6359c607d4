//! One connection of an avro source: calls in, puts, answers out.

use std::{sync::Arc, time::Duration};

use fail::fail_point;
use levada_core::{
    Batch, Chance, Fault, Ingest, Put, PutError, Stop,
    batch::{Checked, FaultKind},
};
use levada_net::{Accepted, Backoff, Throttle};
use levada_rpc::{
    Meta, Server, ServerError, ServerParams,
    hop::{self, Open, Welcome},
};
use levada_telemetry::Gauge;
use tokio::time::{self, Instant};
use tracing::{debug, warn};

use super::{
    Metrics,
    calls::Calls,
    session::{Hops, Load, WINDOW},
};

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

/// What a source agrees to with another Levada.
#[derive(Debug, Clone, Copy)]
pub(super) struct Agreements {
    /// To marks of peers that proved no name.
    pub(super) trust_plaintext: bool,
    pub(super) zstd: bool,
}

/// What the connections of a source share.
pub(super) struct Shared {
    pub(super) place: Place,
    server: ServerParams,
    put_timeout: Duration,
    chance: Chance,
    pub(super) metrics: Metrics,
    complaints: Throttle,
    pub(super) hops: Hops,
    takes_zstd: bool,
}

/// Serves a connection until its peer or the stop signal ends it. A call in hand is finished.
pub(super) async fn serve(accepted: Accepted, shared: Arc<Shared>) {
    let Accepted {
        stream,
        peer,
        identity,
        admission: _admission,
    } = accepted;
    let _counted = Counted::new(&shared.metrics.open);
    let mut server = Server::new(stream, shared.server);
    let Err(error) = shared.serve(&mut server, identity.name()).await else {
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
        agreements: Agreements,
    ) -> Self {
        let hops = Hops::new(
            place.part.clone(),
            &*place.out,
            agreements.trust_plaintext,
            metrics.hops.clone(),
        );
        let complaints = Throttle::new(COMPLAIN_EVERY);
        Self {
            place,
            server,
            put_timeout,
            chance,
            metrics,
            complaints,
            hops,
            takes_zstd: agreements.zstd,
        }
    }

    async fn serve(&self, server: &mut Server, peer: Option<&str>) -> Result<(), ServerError> {
        let stop = &self.place.stop;
        let opening = tokio::select! {
            biased;
            () = stop.draining() => return Ok(()),
            opening = server.opening(hop::KEY) => opening?,
        };
        let Some(opening) = opening else {
            return Calls::new(self, None).serve(server).await;
        };
        let open = match Open::decode(&opening.value) {
            Ok(open) => open,
            Err(error) => {
                let error = ServerError::Message(error);
                server.refuse(opening, &error.report()).await?;
                return Err(error);
            }
        };
        let begun = tokio::select! {
            biased;
            () = stop.draining() => return Ok(()),
            begun = self.hops.begin(&open, peer, &*self.place.out) => begun,
        };
        let Some((session, standing)) = begun else {
            return Ok(());
        };
        let welcome = Welcome {
            standing,
            window: WINDOW,
            max_frame: self.server.max_frame as u64,
            zstd: open.zstd && self.takes_zstd,
        };
        let mut meta = Meta::new();
        meta.set(hop::KEY, welcome.encode());
        server.welcome(opening, &meta).await?;
        if welcome.zstd {
            server.begin_zstd()?;
        }
        Calls::new(self, Some(session)).serve(server).await
    }

    /// Stores the events of a call.
    pub(super) async fn take(&self, load: Load) -> Result<(), PutError> {
        let stored = self.store(load).await;
        match &stored {
            Ok(()) => {
                fail_point!("source-after-commit-before-ack");
            }
            Err(error) => debug!(source = %self.place.part, %error, "call answered FAILED"),
        }
        stored
    }

    /// Puts a batch. What no channel could ever hold is put in parts; an event that is too large
    /// alone becomes a dead letter, because its peer would send it for ever.
    ///
    /// If a later part fails the earlier ones are stored: a hop knows it by its mark, to another
    /// peer they come again with the whole batch.
    async fn store(&self, load: Load) -> Result<(), PutError> {
        let deadline = Instant::now() + self.put_timeout;
        let Load {
            checked,
            mut marking,
        } = load;
        let Checked {
            batch, mut faults, ..
        } = checked;
        let all = batch.len();
        let mut parts: Vec<_> = std::iter::once(0..all).collect();
        while let Some(part) = parts.pop() {
            if part.is_empty() && faults.is_empty() {
                continue;
            }
            let marks = marking
                .as_mut()
                .map(|marking| marking.writes(part.end, all));
            let put = Put {
                batch: batch.slice(part.clone()),
                faults: faults.clone(),
                marks: marks.unwrap_or_default(),
                deadline: Some(deadline),
            };
            let marks = put.marks.clone();
            match self.put(put, deadline).await {
                Ok(()) => {
                    faults.clear();
                    marking
                        .iter_mut()
                        .for_each(|marking| marking.committed(&marks));
                }
                Err(PutError::TooLarge { .. }) if !part.is_empty() => {
                    let border = match &marking {
                        Some(marking) => marking.border(&part),
                        None => (part.len() > 1).then_some(part.start + part.len() / 2),
                    };
                    match border {
                        Some(middle) => {
                            parts.push(middle..part.end);
                            parts.push(part.start..middle);
                        }
                        None => {
                            faults.extend(oversize(&batch.slice(part.clone()), part.start));
                            parts.push(part.end..part.end);
                        }
                    }
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
struct Counted<'a>(&'a Gauge);

impl<'a> Counted<'a> {
    fn new(open: &'a Gauge) -> Self {
        open.add(1);
        Self(open)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}
