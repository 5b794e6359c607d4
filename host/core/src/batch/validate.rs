//! Checking bytes from sockets, guests and files, bounded in every dimension.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::{
    Batch, Origins,
    avro::{self, AvroError},
    batch::{FOREIGN, MAX_BYTES, Span, offset},
};

/// What one event may be. An event beyond it is a [`Fault`]: it parses, but is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one event in Avro binary.
    pub event: usize,
    /// Header pairs of one event.
    pub headers: usize,
    /// Bytes of a header's name; an empty name is a fault, too.
    pub name: usize,
    /// Bytes of a header's value.
    pub value: usize,
}

impl Default for Limits {
    /// 1 MiB an event, 256 headers, 1 KiB a name, 64 KiB a value (security model 4.3, packed form).
    fn default() -> Self {
        Self {
            event: 1 << 20,
            headers: 256,
            name: 1 << 10,
            value: 1 << 16,
        }
    }
}

/// Bytes that are no run of events: nothing of them is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    #[error("not an Avro value of the expected kind")]
    Avro(#[source] AvroError),
    #[error("a block that says it has {bytes} bytes but has not, at byte {at}")]
    BlockSize { at: usize, bytes: i64 },
    #[error("more than {allowed} events")]
    TooManyEvents { allowed: usize },
    #[error("more than {MAX_BYTES} bytes")]
    TooLarge,
}

impl From<AvroError> for Malformed {
    fn from(error: AvroError) -> Self {
        Self::Avro(error)
    }
}

/// An event that parses but breaks a limit; it goes to the dead letters (delivery contract D2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its place among the events that were read, counted from 0.
    pub index: usize,
    /// Its Avro binary, or the raw input where it was never encoded.
    pub event: Bytes,
    pub kind: FaultKind,
}

/// Which limit an event broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FaultKind {
    #[error("an event of {bytes} bytes, more than the {allowed} of `max-event`")]
    EventSize { bytes: usize, allowed: usize },
    #[error("more than {allowed} headers")]
    Headers { allowed: usize },
    #[error("a header name of {bytes} bytes, allowed are 1 to {allowed}")]
    Name { bytes: usize, allowed: usize },
    #[error("a header value of {bytes} bytes, more than the {allowed} allowed")]
    Value { bytes: usize, allowed: usize },
    #[error("a header that is not UTF-8")]
    NotText,
    #[error("an event of {bytes} bytes, more than a channel holds when empty")]
    Capacity { bytes: usize },
}

/// What checking found: the events to keep, and those beyond a limit.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    pub batch: Batch,
    pub faults: Vec<Fault>,
    /// One past the last byte that was read.
    pub end: usize,
}

impl Batch {
    /// Checks an Avro `array<AvroFlumeEvent>` that begins at `at` and keeps its bytes as they are.
    ///
    /// Several blocks, negative counts with byte sizes and repeated header names are legal Avro and
    /// are kept. Memory grows with the bytes that are there, never with a length that is claimed.
    ///
    /// # Errors
    /// [`Malformed`] if the bytes are no such array, or hold more than `max_events` events.
    pub fn from_array(
        data: Bytes,
        at: usize,
        max_events: usize,
        limits: &Limits,
    ) -> Result<Checked, Malformed> {
        let mut scan = Scan::new(&data, at, max_events, limits)?;
        loop {
            let block_at = scan.at;
            let count = avro::read_long(scan.bytes, &mut scan.at)?;
            if count == 0 {
                break;
            }
            let claimed = if count < 0 {
                Some(avro::read_long(scan.bytes, &mut scan.at)?)
            } else {
                None
            };
            let from = scan.at;
            scan.events(count.unsigned_abs())?;
            let is = i64::try_from(scan.at - from).unwrap_or(i64::MAX);
            if let Some(bytes) = claimed.filter(|bytes| *bytes != is) {
                return Err(Malformed::BlockSize {
                    at: block_at,
                    bytes,
                });
            }
        }
        Ok(scan.finish().of(data))
    }

    /// Checks `count` events that follow each other from `at` on, without a block header.
    ///
    /// # Errors
    /// [`Malformed`] as for [`from_array`](Self::from_array).
    pub fn from_events(
        data: Bytes,
        at: usize,
        count: u64,
        limits: &Limits,
    ) -> Result<Checked, Malformed> {
        let mut scan = Scan::new(&data, at, usize::MAX, limits)?;
        scan.events(count)?;
        Ok(scan.finish().of(data))
    }

    /// Checks events that fill `data` from end to end, such as a guest gives.
    ///
    /// # Errors
    /// [`Malformed`] as for [`from_array`](Self::from_array).
    pub fn from_all_events(data: Bytes, limits: &Limits) -> Result<Checked, Malformed> {
        let mut scan = Scan::new(&data, 0, usize::MAX, limits)?;
        while scan.at < data.len() {
            scan.events(1)?;
        }
        Ok(scan.finish().of(data))
    }

    /// Whether every event is known to be in canonical form (see [`EventRef::is_canonical`]).
    ///
    /// [`EventRef::is_canonical`]: crate::EventRef::is_canonical
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        self.spans
            .iter()
            .all(|span| span.body > 0 && span.headers != FOREIGN)
    }

    /// The same events, each in canonical form: one block, minimal varints, unique names (the last
    /// one wins). Returned as it is if it already was.
    #[must_use]
    pub fn into_canonical(self) -> Self {
        if self.is_canonical() {
            return self;
        }
        let mut builder = crate::BatchBuilder::with_capacity(self.bytes());
        for event in self.iter() {
            builder.push(event.headers(), event.body());
        }
        Self {
            origins: self.origins,
            ..builder.finish()
        }
    }
}

/// One pass over foreign bytes.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    limits: &'a Limits,
    max_events: usize,
    spans: Vec<Span>,
    faults: Vec<(usize, Span, FaultKind)>,
}

impl<'a> Scan<'a> {
    fn new(
        bytes: &'a [u8],
        at: usize,
        max_events: usize,
        limits: &'a Limits,
    ) -> Result<Self, Malformed> {
        if bytes.len() > MAX_BYTES {
            return Err(Malformed::TooLarge);
        }
        Ok(Self {
            bytes,
            at,
            limits,
            max_events,
            spans: Vec::new(),
            faults: Vec::new(),
        })
    }

    fn events(&mut self, count: u64) -> Result<(), Malformed> {
        let seen = self.spans.len() + self.faults.len();
        if count > (self.max_events - seen) as u64 {
            return Err(Malformed::TooManyEvents {
                allowed: self.max_events,
            });
        }
        // An event takes at least two bytes, so a claimed count never reserves more than is there.
        let possible = (self.bytes.len() - self.at) / 2;
        self.spans
            .reserve(possible.min(usize::try_from(count).unwrap_or(usize::MAX)));
        for _ in 0..count {
            let (span, fault) = self.event()?;
            match fault {
                None => self.spans.push(span),
                Some(kind) => {
                    let index = self.spans.len() + self.faults.len();
                    self.faults.push((index, span, kind));
                }
            }
        }
        Ok(())
    }

    fn event(&mut self) -> Result<(Span, Option<FaultKind>), Malformed> {
        let start = self.at;
        let mut map = MapScan::new(self.limits);
        map.read(self.bytes, &mut self.at)?;
        let mut canonical = map.canonical;
        let body = read_size(self.bytes, &mut self.at, &mut canonical)?;
        let body_at = self.at;
        self.at += body;
        let bytes = self.at - start;
        let fault = map.fault.or_else(|| {
            let allowed = self.limits.event;
            (bytes > allowed).then_some(FaultKind::EventSize { bytes, allowed })
        });
        let headers = if canonical { map.count } else { FOREIGN };
        let span = Span {
            start: offset(start),
            body: offset(body_at),
            end: offset(self.at),
            headers,
        };
        Ok((span, fault))
    }

    fn finish(self) -> Found {
        Found {
            spans: self.spans,
            faults: self.faults,
            end: self.at,
        }
    }
}

/// What a pass found, without the bytes it was found in.
struct Found {
    spans: Vec<Span>,
    faults: Vec<(usize, Span, FaultKind)>,
    end: usize,
}

impl Found {
    fn of(self, data: Bytes) -> Checked {
        let event = |span: Span| data.slice(span.start as usize..span.end as usize);
        let fault = |(index, span, kind)| Fault {
            index,
            event: event(span),
            kind,
        };
        let faults = self.faults.into_iter().map(fault).collect();
        let batch = Batch {
            data,
            spans: Arc::new(self.spans),
            origins: Origins::default(),
        };
        Checked {
            batch,
            faults,
            end: self.end,
        }
    }
}

/// How many names are remembered to find a repeated one by comparing each with each.
const FEW: usize = 16;

/// One header map.
struct MapScan<'a> {
    limits: &'a Limits,
    count: u32,
    canonical: bool,
    fault: Option<FaultKind>,
    names: [(u32, u32); FEW],
}

impl<'a> MapScan<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            count: 0,
            canonical: true,
            fault: None,
            names: [(0, 0); FEW],
        }
    }

    fn read(&mut self, bytes: &[u8], at: &mut usize) -> Result<(), Malformed> {
        let mut blocks = 0;
        loop {
            let block_at = *at;
            let count = avro::read_long(bytes, at)?;
            self.canonical &= *at - block_at == long_size(count);
            if count == 0 {
                break;
            }
            blocks += 1;
            self.canonical &= count > 0 && blocks == 1;
            let claimed = if count < 0 {
                Some(avro::read_long(bytes, at)?)
            } else {
                None
            };
            let from = *at;
            for _ in 0..count.unsigned_abs() {
                self.pair(bytes, at)?;
            }
            let is = i64::try_from(*at - from).unwrap_or(i64::MAX);
            if let Some(bytes) = claimed.filter(|bytes| *bytes != is) {
                return Err(Malformed::BlockSize {
                    at: block_at,
                    bytes,
                });
            }
        }
        // Beyond a few names each would have to be compared with each: call such a map foreign,
        // which costs a re-encoding where somebody needs the canonical form, and nothing else.
        self.canonical &= self.count as usize <= FEW;
        Ok(())
    }

    #[inline]
    fn pair(&mut self, bytes: &[u8], at: &mut usize) -> Result<(), Malformed> {
        let name_length = read_size(bytes, at, &mut self.canonical)?;
        let name = &bytes[*at..*at + name_length];
        let name_at = offset(*at);
        *at += name_length;
        let value_length = read_size(bytes, at, &mut self.canonical)?;
        let value = &bytes[*at..*at + value_length];
        *at += value_length;
        let n = self.count as usize;
        self.count += 1;
        if name.is_empty() || name.len() > self.limits.name {
            let allowed = self.limits.name;
            self.fault(FaultKind::Name {
                bytes: name.len(),
                allowed,
            });
        } else if value.len() > self.limits.value {
            let allowed = self.limits.value;
            self.fault(FaultKind::Value {
                bytes: value.len(),
                allowed,
            });
        } else if n >= self.limits.headers {
            self.fault(FaultKind::Headers {
                allowed: self.limits.headers,
            });
        } else if !is_text(name) || !is_text(value) {
            self.fault(FaultKind::NotText);
        }
        if n < FEW {
            let same = |&(from, to): &(u32, u32)| &bytes[from as usize..to as usize] == name;
            self.canonical &= !self.names[..n].iter().any(same);
            self.names[n] = (name_at, name_at + offset(name_length));
        }
        Ok(())
    }

    fn fault(&mut self, kind: FaultKind) {
        self.fault.get_or_insert(kind);
    }
}

/// Reads a length and notes whether it was written in its shortest form.
#[inline]
fn read_size(bytes: &[u8], at: &mut usize, canonical: &mut bool) -> Result<usize, Malformed> {
    let from = *at;
    let length = avro::read_length(bytes, at, usize::MAX)?;
    *canonical &= *at - from == 1 || *at - from == avro::length_size(length);
    Ok(length)
}

/// The bytes of the shortest varint of a block count.
fn long_size(count: i64) -> usize {
    let magnitude = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX >> 1);
    avro::length_size(magnitude)
}

#[inline]
fn is_text(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}
