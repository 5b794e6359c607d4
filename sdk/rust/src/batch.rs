//! Views of the batch where the host put it: nothing is copied or decoded ahead.

use std::{fmt, str};

use crate::Failure;

/// The version of the packed form that is read here.
const VERSION: u8 = 1;

/// Bytes before the first record of the index.
const INDEX_HEAD: usize = 8;

/// Bytes of a record that are known here, without and with the id; longer records are stepped over.
const RECORD: usize = 16;
const RECORD_WITH_ID: usize = 48;

/// The flag of an index whose records have ids.
const WITH_IDS: u8 = 1;

/// A batch of events.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    records: &'a [u8],
    stride: usize,
    count: usize,
    with_ids: bool,
    events: &'a [u8],
}

/// One event: headers and a body. Copying it copies no data.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// From the first header name on.
    pairs: &'a [u8],
    headers: u32,
    body: &'a [u8],
    id: Option<Id>,
}

/// Who an event is: given once, where it was first stored, and the same for every attempt and for
/// ever. Shown as `<32 hex digits>-<sequence>.<child>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// One life of the store that gave it.
    pub incarnation: [u8; 16],
    pub sequence: u64,
    /// Counts the events that one was split into; 0 is the event itself.
    pub child: u32,
}

/// The events of a batch, in order.
#[derive(Debug, Clone)]
pub struct Events<'a> {
    batch: Batch<'a>,
    next: usize,
}

/// The headers of an event as pairs of name and value, in no particular order.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Batch<'a> {
    /// Looks at a batch in packed form.
    ///
    /// # Errors
    /// [`Failure::Fatal`] if the form is not the one that is known here, which a host never gives.
    pub(crate) fn parse(index: &'a [u8], events: &'a [u8]) -> Result<Self, Failure> {
        let head = index.first_chunk::<INDEX_HEAD>();
        let Some(&[version, flags, s0, s1, c0, c1, c2, c3]) = head else {
            return Err(Failure::fatal("the batch's index is cut short"));
        };
        let stride = usize::from(u16::from_le_bytes([s0, s1]));
        let count = u32::from_le_bytes([c0, c1, c2, c3]) as usize;
        let records = index.get(INDEX_HEAD..).unwrap_or_default();
        if version != VERSION || stride < RECORD {
            return Err(Failure::fatal(format!(
                "the batch is packed in form {version} with records of {stride} bytes; this \
                 handler reads form {VERSION}"
            )));
        }
        if count.checked_mul(stride) != Some(records.len()) {
            return Err(Failure::fatal("the batch's index is cut short"));
        }
        Ok(Self {
            records,
            stride,
            count,
            with_ids: flags & WITH_IDS != 0 && stride >= RECORD_WITH_ID,
            events,
        })
    }

    /// The number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The `n`-th event, counted from 0.
    #[must_use]
    pub fn get(&self, n: usize) -> Option<Event<'a>> {
        if n >= self.count {
            return None;
        }
        let record = self
            .records
            .get(n * self.stride..)?
            .first_chunk::<RECORD>()?;
        let word = |at: usize| {
            u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
        };
        let body = word(8) as usize;
        let size = word(12) as usize;
        // The host guarantees that offsets lie inside; if they do not, the event reads as empty.
        Some(Event {
            pairs: self.events.get(word(0) as usize..).unwrap_or_default(),
            headers: word(4),
            body: self
                .events
                .get(body..)
                .and_then(|rest| rest.get(..size))
                .unwrap_or_default(),
            id: if self.with_ids { self.id(n) } else { None },
        })
    }

    /// The id in the `n`-th record.
    fn id(&self, n: usize) -> Option<Id> {
        let record = self
            .records
            .get(n * self.stride..)?
            .first_chunk::<RECORD_WITH_ID>()?;
        let (_, id) = record.split_last_chunk::<32>()?;
        let (incarnation, rest) = id.split_first_chunk::<16>()?;
        Some(Id {
            incarnation: *incarnation,
            sequence: u64::from_le_bytes(*rest.get(4..)?.first_chunk()?),
            child: u32::from_le_bytes(*rest.last_chunk()?),
        })
    }

    /// Every event, in order.
    #[must_use]
    pub fn iter(&self) -> Events<'a> {
        Events {
            batch: *self,
            next: 0,
        }
    }
}

impl<'a> IntoIterator for &Batch<'a> {
    type Item = Event<'a>;
    type IntoIter = Events<'a>;

    fn into_iter(self) -> Events<'a> {
        self.iter()
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        let event = self.batch.get(self.next)?;
        self.next += 1;
        Some(event)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.batch.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Events<'_> {}

impl<'a> Event<'a> {
    /// The value of a header, or nothing if the event has no such header. Costs a walk over the
    /// headers before it.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.pairs;
        for _ in 0..self.headers {
            let (found, after) = string(rest)?;
            let (value, after) = string(after)?;
            if found == name.as_bytes() {
                return Some(text(value));
            }
            rest = after;
        }
        None
    }

    /// Every header.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        Headers {
            rest: self.pairs,
            left: self.headers,
        }
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Who the event is; nothing for an interceptor, and where events have no ids, in a memory
    /// channel.
    #[must_use]
    pub fn id(&self) -> Option<Id> {
        self.id
    }

    /// The body as text, or nothing if it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&'a str> {
        str::from_utf8(self.body).ok()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = self.incarnation.iter();
        digits.try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{}.{}", self.sequence, self.child)
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        self.left = self.left.checked_sub(1)?;
        let (name, after) = string(self.rest)?;
        let (value, after) = string(after)?;
        self.rest = after;
        Some((text(name), text(value)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize))
    }
}

/// Splits an Avro string off: its bytes, and what follows.
pub(crate) fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = match bytes.split_first()? {
        // One byte: lengths below 64, which is nearly every name and most values.
        (first, rest) if first & 0x81 == 0 => (usize::from(first >> 1), rest),
        _ => length(bytes)?,
    };
    rest.split_at_checked(len)
}

/// A zigzag varint that is a length, and what follows.
pub(crate) fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut zigzag = 0u64;
    for (n, byte) in bytes.iter().take(5).enumerate() {
        zigzag |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            let even = zigzag & 1 == 0;
            let len = usize::try_from(zigzag >> 1).ok()?;
            return even.then(|| (len, bytes.get(n + 1..).unwrap_or_default()));
        }
    }
    None
}

/// The host guarantees UTF-8 in headers; what is not reads as empty.
fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests;
