//! A loaded handler as a source.
//!
//! It is polled with the cursor that it gave last, and what it gives is committed together with the
//! next cursor. So a killed agent goes on where its last commit was: from a server that gives the
//! same events for the same cursor, every event comes once.

use std::{convert::Infallible, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use fail::fail_point;
use levada_core::{
    Contact, Ingest, InterceptError, MarkWrite, OpenError, Put, PutError, RunContext, Source,
    SourceError, marks::Expect,
};
use levada_net::Backoff;
use tokio::time;
use tracing::{info, warn};

use crate::{handler::Handler, instance::Facts, poll::Polled, state::Lent};

/// The mark of the cursor.
const CURSOR: &str = "cursor";

/// The least wait after a poll that has no more, whatever the guest says.
pub(crate) const LEAST_WAIT: Duration = Duration::from_millis(100);

/// How long to wait after a poll or a put that failed.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// A handler that can give events. Clones share instances, limits and breaker.
#[derive(Debug, Clone)]
pub struct SourceHandler(Arc<Handler>);

impl SourceHandler {
    /// The least wait between two polls where the first had no more.
    pub const LEAST_WAIT: Duration = LEAST_WAIT;

    pub(crate) fn new(handler: Handler) -> Self {
        Self(Arc::new(handler))
    }

    /// A source of this handler that waits `max_wait` at most from a poll to the next.
    #[must_use]
    pub fn source(&self, max_wait: Duration) -> Box<dyn Source> {
        Box::new(HandlerSource {
            handler: Arc::clone(&self.0),
            max_wait: max_wait.max(LEAST_WAIT),
        })
    }
}

#[derive(Debug)]
struct HandlerSource {
    handler: Arc<Handler>,
    max_wait: Duration,
}

#[async_trait]
impl Source for HandlerSource {
    /// Loading has shown that the handler starts; what it asks for, it finds out.
    async fn open(&mut self) -> Result<(), OpenError> {
        Ok(())
    }

    /// Ends at once when asked to, also in the middle of a poll or a put: cursor and events are
    /// committed together or not at all, so whoever comes next polls from the right place.
    async fn run(&mut self, out: Arc<dyn Ingest>, cx: &RunContext) -> Result<(), SourceError> {
        let mut polling = Polling {
            source: self,
            out: &*out,
            cx,
            cursor: out.mark(CURSOR),
            attempt: 1,
            back_off: Backoff::new(BACK_OFF.0, BACK_OFF.1, cx.chance.clone()),
        };
        tokio::select! {
            biased;
            () = cx.stop.draining() => Ok(()),
            ended = polling.run() => match ended {
                Err(End::Stopping) => Ok(()),
                Err(End::Failed(error)) => Err(error),
                Ok(never) => match never {},
            },
        }
    }
}

/// Why polling ends.
enum End {
    Stopping,
    Failed(SourceError),
}

/// A source while it runs.
struct Polling<'a> {
    source: &'a HandlerSource,
    out: &'a dyn Ingest,
    cx: &'a RunContext,
    /// The committed one.
    cursor: Option<Bytes>,
    /// How often there was a poll from it, this one included.
    attempt: u32,
    back_off: Backoff,
}

impl Polling<'_> {
    async fn run(&mut self) -> Result<Infallible, End> {
        let handler = &self.source.handler;
        if let Some(left) = handler.breaker.open_for() {
            time::sleep(left).await;
        }
        loop {
            let wait = match self.poll().await {
                Ok(polled) => self.put(polled).await?,
                Err(error) => self.failed(&error)?,
            };
            time::sleep(wait).await;
        }
    }

    async fn poll(&self) -> Result<Polled, InterceptError> {
        let handler = &self.source.handler;
        let state = Lent::new(None);
        let facts = Facts {
            part: &self.cx.part,
            attempt: self.attempt,
            received_ms: self.cx.clock.wall_ms(),
            state: &state,
        };
        handler.poll(self.cursor.as_ref(), facts).await
    }

    /// How long to wait until the next poll: not at all if there is more. That must show: a poll
    /// without events has no more, whatever it says.
    fn wait_after(&self, polled: &Polled) -> Duration {
        if polled.more && !polled.batch.is_empty() {
            return Duration::ZERO;
        }
        let wanted = Duration::from_millis(polled.wait_ms.into());
        wanted.clamp(LEAST_WAIT, self.source.max_wait)
    }

    /// Commits events and cursor, however long that takes, and says how long to wait then. A poll
    /// that gave nothing costs no commit, and still shows that all is well.
    async fn put(&mut self, polled: Polled) -> Result<Duration, End> {
        fail_point!("source-after-poll-before-put");
        let wait = self.wait_after(&polled);
        let cursor = Some(polled.cursor);
        let moved = (cursor != self.cursor).then(|| MarkWrite {
            key: CURSOR.into(),
            value: cursor.clone(),
            expect: Expect::Exactly(self.cursor.clone()),
        });
        let put = Put {
            batch: polled.batch,
            marks: moved.into_iter().collect(),
            ..Put::default()
        };
        self.back_off.reset();
        loop {
            let error = match self.out.put(put.clone()).await {
                Ok(()) => {
                    fail_point!("source-after-commit-before-ack");
                    self.cursor = cursor;
                    self.went_well();
                    return Ok(wait);
                }
                Err(error) => error,
            };
            let asked = match error {
                PutError::Stopping => return Err(End::Stopping),
                // A put that was given up, by a run before this one, was committed after all.
                PutError::Conflict { .. } => {
                    self.cursor = self.out.mark(CURSOR);
                    info!(source = %self.cx.part, "the cursor has moved, polling again from there");
                    return Ok(LEAST_WAIT);
                }
                PutError::TooLarge { .. } => return Err(too_large(&error)),
                PutError::Later { after, .. } => after,
                // The ingest tells the status.
                _ => None,
            };
            time::sleep(self.back_off.next_wait().max(asked.unwrap_or_default())).await;
        }
    }

    fn went_well(&mut self) {
        self.attempt = 1;
        self.back_off.reset();
        if matches!(self.cx.peer.contact(), Contact::Waiting { .. }) {
            self.cx.peer.connected();
            info!(source = %self.cx.part, "polls go through again");
        }
    }

    /// How long to wait after a poll that failed; or the end, if only a human can mend it.
    fn failed(&mut self, error: &InterceptError) -> Result<Duration, End> {
        let handler = &self.source.handler;
        handler.shared().meters.poll_failures.add(1);
        self.attempt = self.attempt.saturating_add(1);
        let name = &handler.part.name;
        let (why, asked) = match error {
            InterceptError::Later { reason, after } => (reason.clone(), *after),
            InterceptError::Broken { reason, after } => {
                let why = format!("handler `{name}` fails: {reason}");
                if handler.breaker.open_for().is_some() {
                    return Err(End::Failed(SourceError::fatal(why)));
                }
                (why, *after)
            }
            other => {
                let what = format!("handler `{name}` has stopped the source: {other}");
                return Err(End::Failed(SourceError::fatal(what)));
            }
        };
        let first = !matches!(self.cx.peer.contact(), Contact::Waiting { .. });
        let wait = self.back_off.next_wait().max(asked.unwrap_or_default());
        if first {
            warn!(source = %self.cx.part, error = %why, ?wait, "poll failed, trying again");
        }
        self.cx.peer.waiting(why);
        Ok(wait)
    }
}

fn too_large(error: &PutError) -> End {
    let help = "give the channel more `capacity`, or have the handler give less in one poll";
    End::Failed(SourceError::fatal(format!("{error}; {help}")))
}
