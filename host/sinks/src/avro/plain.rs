//! Towards a Flume: one call in flight per connection.

use std::iter;

use fail::fail_point;
use levada_core::{Batch, Delivery, Outcome, Outcomes, SinkError};
use levada_rpc::{Answer, Client, ClientError, Meta, Method, Reply, Status, codec};
use tokio::time::{self, Instant};
use tracing::warn;

use super::{AvroSink, Receiver};

impl AvroSink {
    /// Delivers events in calls that fit a frame. `client` is a connection that was just made.
    pub(super) async fn deliver_plain(
        &self,
        batch: &Batch,
        mut client: Option<Box<Client>>,
    ) -> Result<Delivery, SinkError> {
        let max_frame = self.params.max_frame.as_usize();
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut rejects = Vec::new();
        while outcomes.len() < batch.len() {
            let from = outcomes.len();
            let count = codec::fitting(batch.lengths().skip(from), max_frame);
            if count == 0 {
                let bytes = batch.event_bytes(from).map_or(0, |event| event.len());
                rejects.push(self.too_large(bytes).into());
                outcomes.push(Outcome::Dead);
                continue;
            }
            match self
                .send(&batch.slice(from..from + count), client.take())
                .await
            {
                Ok(()) if count == batch.len() => return Ok(Delivery::done()),
                Ok(()) => outcomes.extend(iter::repeat_n(Outcome::Done, count)),
                Err(error) if from == 0 => return Err(error),
                Err(error) => {
                    // What the other side has must be settled, or it would be sent twice.
                    warn!(sink = %self.part, %error, sent = from, "batch delivered in part");
                    outcomes.resize(batch.len(), Outcome::Retry);
                }
            }
        }
        Ok(Delivery {
            outcomes: Outcomes::Each(outcomes),
            rejects,
            ..Delivery::default()
        })
    }

    /// Sends events that fit one call, and waits until the other side has them.
    async fn send(&self, batch: &Batch, fresh: Option<Box<Client>>) -> Result<(), SinkError> {
        let mut client = match fresh {
            Some(client) => *client,
            None => self.client().await?,
        };
        let began = Instant::now();
        let exchange = exchange(&mut client, batch);
        let answer = time::timeout(self.params.request_timeout, exchange).await;
        let result = self.judge(answer.ok());
        if let Err(SinkError::Unreachable { .. }) = &result {
            self.meet(Receiver::Unknown);
        }
        self.metrics.count(&result, began.elapsed());
        // A peer that answered is worth its connection, whatever it said; one that did not is not
        // usable and ends here.
        if client.is_usable().await {
            self.idle().push(client);
        }
        result
    }

    /// A connection without a call, or a new one.
    async fn client(&self) -> Result<Client, SinkError> {
        loop {
            let Some(mut client) = self.idle().pop() else {
                break;
            };
            if client.is_usable().await {
                return Ok(client);
            }
        }
        let connected = self.connect().await;
        if connected.is_err() {
            // Whoever answers next may be somebody else.
            self.meet(Receiver::Unknown);
        }
        connected
    }

    /// Whose fault an answer is; `None` stands for no answer in time.
    fn judge(&self, answer: Option<Result<Reply, ClientError>>) -> Result<(), SinkError> {
        let Some(answer) = answer else {
            return Err(self.silent());
        };
        match answer.map_err(|error| self.lost(error))?.result {
            Ok(Status::Ok) => Ok(()),
            Ok(Status::Failed | Status::Unknown) => Err(self.failed()),
            Err(text) => Err(self.complained(&text)),
        }
    }
}

async fn exchange(client: &mut Client, batch: &Batch) -> Result<Reply, ClientError> {
    loop {
        client
            .send(Method::AppendBatch, batch, &Meta::new())
            .await?;
        fail_point!("sink-after-send-before-ack");
        if let Answer::Reply(reply) = client.receive().await? {
            return Ok(reply);
        }
    }
}
