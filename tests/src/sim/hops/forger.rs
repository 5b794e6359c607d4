//! What a receiver that does not look at `prev` would do, planted on the wire: every call says that
//! nothing was sent before it.

use bytes::Bytes;
use levada_core::avro;
use levada_rpc::{
    Meta,
    call::CallHead,
    frame::{Decoder, write_buffer, write_head},
    hop::{self, Sent},
    message::Reader,
};

/// Rewrites what one connection says.
#[derive(Debug)]
pub(super) struct Forger {
    decoder: Decoder,
    /// The first message is the opening.
    opened: bool,
}

impl Forger {
    pub(super) fn new() -> Self {
        Self {
            decoder: Decoder::new(16 << 20),
            opened: false,
        }
    }

    /// Takes bytes, and gives those messages that are complete by now.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Bytes {
        let (mut input, mut out) = (bytes, Vec::new());
        while let Ok(Some(frame)) = self.decoder.decode(&mut input) {
            let forged = if self.opened {
                forge(&frame.message)
            } else {
                None
            };
            self.opened = true;
            write_head(&mut out, frame.serial, 1);
            let message = forged.unwrap_or(frame.message);
            write_buffer(&mut out, |out| out.extend_from_slice(&message));
        }
        out.into()
    }
}

/// The same call with another `prev`.
fn forge(message: &Bytes) -> Option<Bytes> {
    let mut reader = Reader::new(message, 0);
    let head = CallHead::read(&mut reader).ok()?;
    let method = head.method.ok()?;
    let mut at = head.params_at;
    let events = usize::try_from(avro::read_long(message, &mut at).ok()?).ok()?;
    let sent = Sent::decode(head.meta.get(hop::KEY)?, events).ok()?;
    let sent = Sent { prev: 0, ..sent };
    let mut meta = Meta::new();
    meta.set(hop::KEY, sent.encode());
    let mut out = Vec::new();
    CallHead::write(&mut out, &meta, method);
    out.extend_from_slice(&message[head.params_at..]);
    Some(out.into())
}
