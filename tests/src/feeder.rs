//! A producer that speaks Flume's Avro RPC by hand and sends a batch until it is acknowledged.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::{net::TcpStream, time};

use crate::{
    avro::{self, Met},
    record::Record,
};

/// One connection at a time to one address.
#[derive(Debug)]
pub struct Feeder {
    to: SocketAddr,
    connection: Option<TcpStream>,
    serial: u32,
    /// How many calls were not answered with OK, and made again.
    pub repeated: u32,
}

/// How long a batch may take until it is acknowledged: its receiver may be killed meanwhile.
const WITHIN: Duration = Duration::from_secs(90);

/// How long to wait after a call that came to nothing.
const PAUSE: Duration = Duration::from_millis(50);

impl Feeder {
    /// Connects with the first batch.
    #[must_use]
    pub fn to(to: SocketAddr) -> Self {
        Self {
            to,
            connection: None,
            serial: 0,
            repeated: 0,
        }
    }

    /// Sends all events in batches, in order, each until it is acknowledged.
    ///
    /// # Errors
    /// A batch was not acknowledged in time.
    pub async fn feed(&mut self, events: &[Record], batch: usize) -> Result<()> {
        for batch in events.chunks(batch) {
            let start = Instant::now();
            while !self.attempt(batch).await? {
                self.connection = None;
                self.repeated += 1;
                if start.elapsed() > WITHIN {
                    bail!("`{}` does not take a batch within {WITHIN:?}", self.to);
                }
                time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// Sends one batch; whether it was acknowledged.
    async fn attempt(&mut self, batch: &[Record]) -> Result<bool> {
        let events: Vec<_> = batch.iter().map(Record::to_avro).collect();
        self.serial += 1;
        if self.connection.is_none() {
            let Ok(stream) = TcpStream::connect(self.to).await else {
                return Ok(false);
            };
            stream.set_nodelay(true)?;
            self.connection = Some(stream);
            return self
                .exchange(&avro::append_batch(self.serial, &events))
                .await;
        }
        let call = avro::call("appendBatch", &avro::events(&events));
        self.exchange(&avro::frame(self.serial, &call)).await
    }

    async fn exchange(&mut self, call: &[u8]) -> Result<bool> {
        let stream = self.connection.as_mut().context("not connected")?;
        let met = avro::exchange(stream, call).await?;
        Ok(matches!(&met, Met::Answered(_)) && avro::is_ok(&met))
    }
}
