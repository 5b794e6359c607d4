//! What a handler says about an event.

use std::borrow::Cow;

use crate::{Event, Failure, batch};

/// The longest name of a header, in bytes.
const MAX_NAME: usize = 1024;

/// The longest value of a header, in bytes.
const MAX_VALUE: usize = 64 * 1024;

/// The most headers that one patch sets and removes.
const MAX_CHANGES: u16 = 256;

/// What becomes of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on unchanged. Nothing is copied.
    Pass,
    /// It goes on with other headers or another body.
    Patch(Patch),
    /// These go on in its place, in this order. None at all is rejected: what is to be dropped is
    /// discarded with a reason.
    Replace(Vec<NewEvent>),
    /// It is gone on purpose, and counted under this reason: a word or two that do not vary with
    /// the event.
    Discard(Cow<'static, str>),
    /// It cannot be handled, and is kept with this reason where a human can find it.
    Reject(Cow<'static, str>),
}

impl Verdict {
    /// It goes on unchanged.
    #[must_use]
    pub fn pass() -> Self {
        Self::Pass
    }

    /// It is gone on purpose, and counted under this reason.
    pub fn discard(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Discard(reason.into())
    }

    /// It cannot be handled, and is kept with this reason.
    pub fn reject(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Reject(reason.into())
    }

    /// These go on in its place.
    pub fn replace(events: impl IntoIterator<Item = NewEvent>) -> Self {
        Self::Replace(events.into_iter().collect())
    }
}

impl From<Patch> for Verdict {
    /// A patch that changes nothing passes the event.
    fn from(patch: Patch) -> Self {
        if patch == Patch::default() {
            Self::Pass
        } else {
            Self::Patch(patch)
        }
    }
}

impl From<NewEvent> for Verdict {
    fn from(event: NewEvent) -> Self {
        Self::Replace(vec![event])
    }
}

/// What a function for one event may return.
pub trait IntoVerdict {
    /// The verdict, or why the whole batch failed.
    ///
    /// # Errors
    /// [`Failure`] if the function said so.
    fn into_verdict(self) -> Result<Verdict, Failure>;
}

impl<T: Into<Verdict>> IntoVerdict for T {
    fn into_verdict(self) -> Result<Verdict, Failure> {
        Ok(self.into())
    }
}

impl<T: Into<Verdict>> IntoVerdict for Result<T, Failure> {
    fn into_verdict(self) -> Result<Verdict, Failure> {
        self.map(Into::into)
    }
}

/// Changes to one event. What is not named stays as it was.
///
/// The last word about a header counts: a name that is set twice has the later value. A name
/// without bytes or longer than 1 KiB, a value longer than 64 KiB, and more than 256 changes cannot
/// be sent: the event is rejected then. Names that start with `levada.` belong to the host, which
/// skips them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch {
    /// Pairs of Avro strings.
    set: Vec<u8>,
    /// Avro strings.
    remove: Vec<u8>,
    sets: u16,
    removes: u16,
    body: Option<Vec<u8>>,
    fault: Option<&'static str>,
}

impl Patch {
    /// Changes nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a header; an old value under the same name is gone.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.forget(name);
        if value.len() > MAX_VALUE {
            self.fault = Some("header value longer than 64 KiB");
        } else if self.admits(name) {
            if self.set.capacity() == 0 {
                self.set.reserve(name.len() + value.len() + 10);
            }
            push_string(&mut self.set, name.as_bytes());
            push_string(&mut self.set, value.as_bytes());
            self.sets += 1;
        }
        self
    }

    /// Removes a header; one that the event does not have is no error.
    #[must_use]
    pub fn remove(mut self, name: &str) -> Self {
        self.forget(name);
        if self.admits(name) {
            push_string(&mut self.remove, name.as_bytes());
            self.removes += 1;
        }
        self
    }

    /// Gives the event a new body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Why this patch cannot be sent.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        self.fault
    }

    /// The new body.
    pub(crate) fn new_body(&self) -> Option<&[u8]> {
        self.body.as_deref()
    }

    /// Writes the changes of headers as the packed form has them.
    pub(crate) fn write_headers(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sets.to_le_bytes());
        out.extend_from_slice(&self.removes.to_le_bytes());
        out.extend_from_slice(&self.set);
        out.extend_from_slice(&self.remove);
    }

    /// Whether one more change of this name fits; notes the fault if not.
    fn admits(&mut self, name: &str) -> bool {
        let fault = if name.is_empty() {
            "header without a name"
        } else if name.len() > MAX_NAME {
            "header name longer than 1 KiB"
        } else if self.sets + self.removes == MAX_CHANGES {
            "more than 256 changes of headers"
        } else {
            return true;
        };
        self.fault = Some(fault);
        false
    }

    /// Takes back what was said about a header: a name may stand in a patch only once.
    fn forget(&mut self, name: &str) {
        if self.sets > 0 && cut(&mut self.set, name.as_bytes(), Strings::Pairs) {
            self.sets -= 1;
        }
        if self.removes > 0 && cut(&mut self.remove, name.as_bytes(), Strings::Names) {
            self.removes -= 1;
        }
    }
}

/// What a run of Avro strings consists of.
#[derive(Clone, Copy)]
enum Strings {
    Pairs,
    Names,
}

/// Cuts an entry out of a run of strings; whether it was there.
fn cut(strings: &mut Vec<u8>, name: &[u8], kind: Strings) -> bool {
    let mut at = 0;
    while let Some((found, mut rest)) = batch::string(strings.get(at..).unwrap_or_default()) {
        let same = found == name;
        if let Strings::Pairs = kind {
            rest = batch::string(rest).map_or(&[][..], |(_, rest)| rest);
        }
        let end = strings.len() - rest.len();
        if same {
            strings.drain(at..end);
            return true;
        }
        at = end;
    }
    false
}

/// An event that a handler made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewEvent {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl NewEvent {
    /// An event without headers.
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self {
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// The same headers as another event, and a body of its own.
    pub fn like(event: &Event<'_>, body: impl Into<Vec<u8>>) -> Self {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            headers: event.headers().map(own).collect(),
            body: body.into(),
        }
    }

    /// Sets a header; an old value under the same name is gone.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.headers.retain(|(old, _)| *old != name);
        self.headers.push((name, value.into()));
        self
    }

    /// Removes a header, if it is there.
    #[must_use]
    pub fn remove(mut self, name: &str) -> Self {
        self.headers.retain(|(old, _)| old != name);
        self
    }

    /// The headers, in the order they were set.
    pub(crate) fn header_pairs(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The body.
    pub(crate) fn body_bytes(&self) -> &[u8] {
        &self.body
    }

    /// Writes the event as Avro.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        if !self.headers.is_empty() {
            push_length(out, self.headers.len());
            for (name, value) in &self.headers {
                push_string(out, name.as_bytes());
                push_string(out, value.as_bytes());
            }
        }
        out.push(0);
        push_string(out, &self.body);
    }

    /// Why this event cannot be sent.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        self.headers.iter().find_map(|(name, value)| {
            if name.is_empty() {
                Some("header without a name")
            } else if name.len() > MAX_NAME {
                Some("header name longer than 1 KiB")
            } else if value.len() > MAX_VALUE {
                Some("header value longer than 64 KiB")
            } else {
                None
            }
        })
    }
}

/// Writes a length as a zigzag varint.
fn push_length(out: &mut Vec<u8>, len: usize) {
    let mut zigzag = (len as u64) << 1;
    while zigzag >= 0x80 {
        // Seven bits and the mark that more follow.
        out.push((zigzag & 0x7f) as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push((zigzag & 0x7f) as u8);
}

/// Writes an Avro string, or Avro bytes, which look the same.
fn push_string(out: &mut Vec<u8>, bytes: &[u8]) {
    push_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
