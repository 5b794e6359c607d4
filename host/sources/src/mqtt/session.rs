//! One connection: messages in, batches out, acknowledgements back, all in one order.

use std::{collections::VecDeque, future::Future, pin::Pin, sync::Arc, time::Duration};

use fail::fail_point;
use levada_core::{Batch, Chance, Ingest, Limits, Put, PutError, RunContext, SourceError, Stop};
use levada_net::Backoff;
use tokio::time::{self, Instant};
use tracing::{info, warn};

use super::{
    Metrics,
    gather::Gather,
    link::{AckToken, Acked, LinkError, Message, MqttLink},
};
use crate::batching::BatchParams;

/// How long to wait after a refused put.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What a connection needs of its source.
pub(crate) struct Session {
    pub batch: BatchParams,
    pub limits: Limits,
    pub window: usize,
    pub put_timeout: Duration,
    pub metrics: Metrics,
    /// The broker, for the log.
    pub url: String,
}

/// How a connection ended.
pub(crate) enum End {
    /// As it was asked to.
    Stopped,
    /// The broker is gone, or said no.
    Lost(LinkError),
    /// The source must be opened again.
    Failed(SourceError),
}

/// A batch on its way to the channels, and who waits for it.
struct InHand {
    tokens: VecDeque<AckToken>,
    put: Pin<Box<dyn Future<Output = Result<(), PutEnd>> + Send>>,
}

/// Why a put is not tried again.
enum PutEnd {
    Stopping,
    Failed(SourceError),
}

enum Step {
    Stop,
    Put(Result<(), PutEnd>),
    Message(Result<Message, LinkError>),
    Due,
}

impl Session {
    /// Runs one connection to its end. Whatever the end, a put that has begun is waited for, so that
    /// the next connection's messages come after it.
    pub(crate) async fn run(
        &self,
        link: &mut dyn MqttLink,
        out: &Arc<dyn Ingest>,
        cx: &RunContext,
        back_off: &mut Backoff,
    ) -> End {
        let connected = tokio::select! {
            () = cx.stop.draining() => return End::Stopped,
            connected = link.connect() => connected,
        };
        let connected = match connected {
            Ok(connected) => connected,
            Err(error) => return End::Lost(error),
        };
        back_off.reset();
        cx.peer.connected();
        self.metrics.connected.set(1);
        self.metrics.connections.add(1);
        let (url, resumed) = (&self.url, connected.session_present);
        info!(source = %cx.part, url, resumed, "connected to the broker");
        let mut gather = Gather::new(self.limits);
        let mut hand: Option<InHand> = None;
        loop {
            if hand.is_none() && self.is_due(&gather) {
                hand = Some(self.begin(&mut gather, out, cx));
            }
            let due = if hand.is_none() {
                gather.since().map(|at| at + self.batch.wait)
            } else {
                None
            };
            // A full gathering takes no more: messages wait in the link, then in the broker.
            let step = tokio::select! {
                biased;
                () = cx.stop.draining() => Step::Stop,
                done = in_hand(&mut hand) => Step::Put(done),
                () = until(due) => Step::Due,
                message = link.next(), if !self.is_full(&gather) => Step::Message(message),
            };
            match step {
                Step::Stop => return self.finish(hand, link).await,
                Step::Put(done) => {
                    if let Some(end) = self.end_put(done, hand.take(), link) {
                        return end;
                    }
                }
                Step::Due => hand = Some(self.begin(&mut gather, out, cx)),
                Step::Message(Ok(message)) => self.take(&message, &mut gather),
                Step::Message(Err(error)) => {
                    // What was gathered comes again; what is in hand must not be overtaken by it.
                    return match self.finish(hand, link).await {
                        End::Failed(error) => End::Failed(error),
                        End::Stopped | End::Lost(_) => End::Lost(error),
                    };
                }
            }
        }
    }

    fn take(&self, message: &Message, gather: &mut Gather) {
        if message.dup {
            self.metrics.redelivered.add(1);
        }
        if gather.push(message) {
            self.metrics.oversize.add(1);
        }
    }

    /// Whether nothing more fits into the batch.
    fn is_full(&self, gather: &Gather) -> bool {
        gather.len() >= self.batch.events || gather.bytes() >= self.batch.bytes.as_usize()
    }

    /// Whether a batch need not wait for its time: it is full, or the broker's window is, and then
    /// nothing more will come.
    fn is_due(&self, gather: &Gather) -> bool {
        self.is_full(gather) || gather.unacknowledged() >= self.window
    }

    fn begin(&self, gather: &mut Gather, out: &Arc<dyn Ingest>, cx: &RunContext) -> InHand {
        let (put, tokens) = gather.finish();
        let putting = Putting {
            out: Arc::clone(out),
            stop: cx.stop.clone(),
            chance: cx.chance.clone(),
            part: cx.part.to_string(),
            timeout: self.put_timeout,
        };
        InHand {
            tokens,
            put: Box::pin(putting.put(put)),
        }
    }

    /// Waits for the put in hand, if any, and acknowledges.
    async fn finish(&self, hand: Option<InHand>, link: &mut dyn MqttLink) -> End {
        let Some(mut hand) = hand else {
            return End::Stopped;
        };
        let done = hand.put.as_mut().await;
        self.end_put(done, Some(hand), link).unwrap_or(End::Stopped)
    }

    /// Acknowledges what is committed; the end of the connection if there is one.
    fn end_put(
        &self,
        done: Result<(), PutEnd>,
        hand: Option<InHand>,
        link: &mut dyn MqttLink,
    ) -> Option<End> {
        match done {
            Ok(()) => {}
            Err(PutEnd::Stopping) => return Some(End::Stopped),
            Err(PutEnd::Failed(error)) => return Some(End::Failed(error)),
        }
        fail_point!("source-after-commit-before-ack");
        for token in hand.into_iter().flat_map(|hand| hand.tokens) {
            match link.acknowledge(token) {
                Ok(Acked::Sent) => {}
                Ok(Acked::Stale) => self.metrics.stale_acks.add(1),
                Err(error) => return Some(End::Lost(error)),
            }
        }
        None
    }
}

/// The put in hand; waits for ever without one.
async fn in_hand(hand: &mut Option<InHand>) -> Result<(), PutEnd> {
    match hand {
        Some(hand) => hand.put.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Puts until it works.
struct Putting {
    out: Arc<dyn Ingest>,
    stop: Stop,
    chance: Chance,
    part: String,
    timeout: Duration,
}

impl Putting {
    async fn put(self, put: Put) -> Result<(), PutEnd> {
        let mut waiting = VecDeque::from([put]);
        let mut back_off = Backoff::new(BACK_OFF.0, BACK_OFF.1, self.chance.clone());
        while let Some(next) = waiting.front() {
            let deadline = Some(Instant::now() + self.timeout);
            match self
                .out
                .put(Put {
                    deadline,
                    ..next.clone()
                })
                .await
            {
                Ok(()) => {
                    back_off.reset();
                    waiting.pop_front();
                }
                Err(PutError::Stopping) => return Err(PutEnd::Stopping),
                Err(error @ PutError::TooLarge { .. }) => {
                    let halves = waiting.pop_front().and_then(halved);
                    let Some((first, second)) = halves else {
                        let what = "an event does not fit into the channel";
                        return Err(PutEnd::Failed(SourceError::with(what, error)));
                    };
                    waiting.push_front(second);
                    waiting.push_front(first);
                }
                Err(error) => {
                    let wait = match &error {
                        PutError::Later {
                            after: Some(after), ..
                        } => *after,
                        _ => back_off.next_wait(),
                    };
                    warn!(source = self.part, %error, ?wait, "batch refused, trying again");
                    tokio::select! {
                        () = self.stop.draining() => return Err(PutEnd::Stopping),
                        () = time::sleep(wait) => {}
                    }
                }
            }
        }
        Ok(())
    }
}

/// A put as two, in order; `None` for one event. Faults stay with the first.
fn halved(put: Put) -> Option<(Put, Put)> {
    let events = put.batch.len();
    if events < 2 {
        return None;
    }
    let half = |range| -> Batch { put.batch.slice(range) };
    let second = Put {
        batch: half(events / 2..events),
        ..Put::default()
    };
    let first = half(0..events / 2);
    Some((
        Put {
            batch: first,
            ..put
        },
        second,
    ))
}
