//! Messages on their way to become a batch.

use std::collections::VecDeque;

use bytes::Bytes;
use levada_core::{BatchBuilder, Fault, Limits, Put, batch::FaultKind};
use tokio::time::Instant;

use super::link::{AckToken, Message};

/// User properties with such names are never taken: they are the agent's own.
const RESERVED: &str = "levada.";

/// Events, faults and acknowledgements of one batch.
pub(crate) struct Gather {
    limits: Limits,
    builder: BatchBuilder,
    faults: Vec<Fault>,
    fault_bytes: usize,
    tokens: VecDeque<AckToken>,
    since: Option<Instant>,
}

impl Gather {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            builder: BatchBuilder::default(),
            faults: Vec::new(),
            fault_bytes: 0,
            tokens: VecDeque::new(),
            since: None,
        }
    }

    /// Takes a message; whether it is beyond `max-event`.
    pub(crate) fn push(&mut self, message: &Message) -> bool {
        self.since.get_or_insert_with(Instant::now);
        let fault = self.fault_of(message);
        let oversize = matches!(fault, Some(FaultKind::EventSize { .. }));
        match fault {
            None => encode(message, &mut self.builder),
            Some(kind) => self.refuse(message, kind),
        }
        self.tokens.extend(message.token);
        oversize
    }

    /// What is gathered, as one put; nothing is left.
    pub(crate) fn finish(&mut self) -> (Put, VecDeque<AckToken>) {
        self.since = None;
        self.fault_bytes = 0;
        let faults = std::mem::take(&mut self.faults);
        let put = Put {
            batch: self.builder.finish(),
            faults,
            ..Put::default()
        };
        (put, std::mem::take(&mut self.tokens))
    }

    pub(crate) fn len(&self) -> usize {
        self.builder.len() + self.faults.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.builder.bytes() + self.fault_bytes
    }

    pub(crate) fn unacknowledged(&self) -> usize {
        self.tokens.len()
    }

    /// When the first message came.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since
    }

    fn refuse(&mut self, message: &Message, kind: FaultKind) {
        let event = match std::str::from_utf8(&message.topic) {
            Ok(_) => {
                let mut single = BatchBuilder::default();
                encode(message, &mut single);
                single.finish().event_bytes(0).unwrap_or_default()
            }
            Err(_) => Bytes::copy_from_slice(&message.payload),
        };
        self.fault_bytes += event.len();
        self.faults.push(Fault {
            index: self.len(),
            event,
            kind,
        });
    }

    /// The limit that a message breaks.
    fn fault_of(&self, message: &Message) -> Option<FaultKind> {
        let limits = &self.limits;
        if let Some(bytes) = message.cut_from {
            return Some(FaultKind::EventSize {
                bytes,
                allowed: limits.event,
            });
        }
        if std::str::from_utf8(&message.topic).is_err() {
            return Some(FaultKind::NotText);
        }
        let mut size = message.topic.len() + message.payload.len();
        for (name, value) in taken(message) {
            size += name.len() + value.len();
            if name.is_empty() || name.len() > limits.name {
                return Some(FaultKind::Name {
                    bytes: name.len(),
                    allowed: limits.name,
                });
            }
            if value.len() > limits.value {
                return Some(FaultKind::Value {
                    bytes: value.len(),
                    allowed: limits.value,
                });
            }
        }
        if taken(message).count() + 3 > limits.headers {
            return Some(FaultKind::Headers {
                allowed: limits.headers,
            });
        }
        // What the encoding adds: lengths of at most five bytes each, and our own headers.
        let overhead = 64 + 10 * taken(message).count();
        let bytes = size + overhead;
        let allowed = limits.event;
        if bytes <= allowed {
            return None;
        }
        let mut exact = BatchBuilder::default();
        encode(message, &mut exact);
        let bytes = exact.bytes();
        (bytes > allowed).then_some(FaultKind::EventSize { bytes, allowed })
    }
}

/// The headers that a sender gave.
fn taken(message: &Message) -> impl Iterator<Item = (&str, &str)> {
    let own = message
        .properties
        .iter()
        .filter(|(name, _)| !name.starts_with(RESERVED));
    let kind = message
        .content_type
        .as_deref()
        .map(|kind| ("content-type", kind));
    own.map(|(name, value)| (name.as_str(), value.as_str()))
        .chain(kind)
}

fn encode(message: &Message, builder: &mut BatchBuilder) {
    let topic = String::from_utf8_lossy(&message.topic);
    let retain = if message.retain { "true" } else { "false" };
    let qos = if message.token.is_some() { "1" } else { "0" };
    let ours = [("topic", &*topic), ("qos", qos), ("retain", retain)];
    builder.push(taken(message).chain(ours), &message.payload);
}
