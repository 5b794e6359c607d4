//! Several calls at once over one connection, for a peer that takes and answers them in order.

use levada_core::Batch;

use crate::{
    ClientError, Meta, Method, Reply,
    client::{next, read, write_call},
    message::Reader,
    wire::{Inbound, Outbound},
};

/// The side that sends calls.
#[derive(Debug)]
pub struct Calls {
    outbound: Outbound,
    serial: i32,
}

/// The side that receives the replies, in the order of the calls.
#[derive(Debug)]
pub struct Replies {
    inbound: Inbound,
    serial: i32,
}

impl Calls {
    pub(crate) fn new(outbound: Outbound, serial: i32) -> Self {
        Self { outbound, serial }
    }

    /// Sends events. A call that failed or was cancelled leaves the connection of no use.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub async fn send(&mut self, batch: &Batch, meta: &Meta) -> Result<(), ClientError> {
        self.serial = next(self.serial);
        let call = (Method::AppendBatch, batch, meta);
        write_call(self.outbound.message(), self.serial, None, call);
        self.outbound.flush().await.map_err(ClientError::Io)
    }
}

impl Replies {
    pub(crate) fn new(inbound: Inbound, serial: i32) -> Self {
        Self { inbound, serial }
    }

    /// Whether the peer has ended the connection, or said something, although no call waits for a
    /// reply. Waits for nothing; of use only then.
    pub async fn is_disturbed(&mut self) -> bool {
        self.inbound.is_disturbed().await
    }

    /// Waits for the reply to the oldest call that has none. A wait that failed or was cancelled
    /// leaves the connection of no use.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn receive(&mut self) -> Result<Reply, ClientError> {
        self.serial = next(self.serial);
        let frame = read(&mut self.inbound).await?;
        if frame.serial != self.serial {
            return Err(ClientError::Serial {
                found: frame.serial,
                expected: self.serial,
            });
        }
        Reply::read(&mut Reader::new(&frame.message, 0)).map_err(ClientError::Message)
    }
}
