//! Writes answers in packed form: a head, and operations that cover the events.

/// What begins every answer: the version of the form, and three bytes that are kept free.
pub(crate) const HEAD: [u8; 4] = [1, 0, 0, 0];

/// The most events that one operation covers.
const MAX_RUN: u32 = (1 << 24) - 1;

/// An answer's buffer that grew beyond this is given back after the call.
const KEPT_BYTES: usize = 256 * 1024;

/// The operation without a payload: pass, or done.
const PLAIN: u32 = 0;

/// The operations about a batch, in the order of its events.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    bytes: Vec<u8>,
    /// Events of the plain operation that are not written yet.
    plain: u32,
    /// Where the last operation begins, if the next one may join it.
    last: Option<usize>,
}

impl Answer {
    /// Makes ready for a batch, keeping the buffer.
    pub(crate) fn begin(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(&HEAD);
        self.plain = 0;
        self.last = None;
    }

    /// The answer, complete.
    pub(crate) fn finish(&mut self) -> &[u8] {
        self.end_run();
        &self.bytes
    }

    /// The next event passes, or is done.
    pub(crate) fn plain(&mut self) {
        self.plain += 1;
        if self.plain == MAX_RUN {
            self.end_run();
        }
    }

    /// Writes an operation for the next event. Those that follow each other with the same payload,
    /// which begins with `head` and ends with `text`, become one.
    pub(crate) fn joined(&mut self, op: u32, head: &[u8], text: &str) {
        self.end_run();
        if let Some(at) = self.last
            && let Some((word, payload)) = self.bytes.get_mut(at..).and_then(split_operation)
            && payload.strip_prefix(head) == Some(text.as_bytes())
        {
            let first = u32::from_le_bytes(*word);
            if first & 0xff == op && first >> 8 < MAX_RUN {
                *word = (first + 0x100).to_le_bytes();
                return;
            }
        }
        let at = self.bytes.len();
        self.operation(op, |out| {
            out.extend_from_slice(head);
            out.extend_from_slice(text.as_bytes());
        });
        self.last = Some(at);
    }

    /// Writes an operation for the next event alone.
    pub(crate) fn operation(&mut self, op: u32, payload: impl FnOnce(&mut Vec<u8>)) {
        self.end_run();
        self.last = None;
        self.bytes.extend_from_slice(&(1 << 8 | op).to_le_bytes());
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        payload(&mut self.bytes);
        let len = u32::try_from(self.bytes.len() - at - 4).expect("memory here ends at 4 GiB");
        if let Some(field) = self.bytes.get_mut(at..at + 4) {
            field.copy_from_slice(&len.to_le_bytes());
        }
    }

    fn end_run(&mut self) {
        if self.plain > 0 {
            self.bytes
                .extend_from_slice(&(self.plain << 8 | PLAIN).to_le_bytes());
            self.bytes.extend_from_slice(&[0; 4]);
            self.plain = 0;
            self.last = None;
        }
    }
}

/// The first word and the payload of the operation that ends the answer.
fn split_operation(bytes: &mut [u8]) -> Option<(&mut [u8; 4], &[u8])> {
    let (head, rest) = bytes.split_first_chunk_mut::<4>()?;
    Some((head, rest.get(4..)?))
}
