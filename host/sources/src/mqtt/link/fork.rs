//! What both versions of the client have in common.

use std::{future::Future, io, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use levada_core::TaskSet;
use levada_net::{Outbound, Transport};
use tokio::{
    sync::{Semaphore, mpsc},
    time,
};

use super::{
    AckToken, Acked, Connected, LinkError, LinkSettings, Message, MqttLink, Version, v3, v5,
};
use crate::mqtt::shrink::{Cuts, KEPT, Shrink};

/// Bytes of messages that wait to be taken, in KiB: what a source may have in flight.
const BACKLOG_KIB: u32 = 2 << 10;

/// How long to wait for what is queued to be sent when a connection is given up.
const FAREWELL: Duration = Duration::from_secs(1);

/// Acknowledgements that may wait to be sent: one for each packet id there is.
pub(super) const REQUESTS: usize = u16::MAX as usize;

/// The link over the fork of rumqttc.
pub(crate) struct ForkLink {
    settings: LinkSettings,
    dialer: Dialer,
    connection: Option<Connection>,
    /// Connections so far.
    count: u64,
}

/// One connection: a task that polls the client's event loop, and the way to both.
struct Connection {
    number: u64,
    events: mpsc::Receiver<Event>,
    room: Arc<Semaphore>,
    requests: Box<dyn Requests>,
    tasks: TaskSet,
}

/// What the polling task reports.
pub(super) enum Event {
    Connected { session_present: bool },
    Message(Message),
    Ended(LinkError),
}

/// What can be asked of a client without waiting.
pub(super) trait Requests: Send {
    fn acknowledge(&self, packet: u16) -> Result<(), LinkError>;
    /// Disconnects after everything that was asked before.
    fn disconnect(&self);
}

/// A client that was started: its requests, and its event loop as a future to be polled.
pub(super) type Started = (Box<dyn Requests>, Pin<Box<dyn Future<Output = ()> + Send>>);

impl ForkLink {
    pub(crate) fn new(
        settings: LinkSettings,
        transport: Arc<dyn Transport>,
        outbound: Outbound,
    ) -> Self {
        let dialer = Dialer {
            transport,
            outbound,
            address: settings.broker.address.clone(),
            within: settings.connect_timeout,
            most: settings.max_event.saturating_add(KEPT),
        };
        Self {
            settings,
            dialer,
            connection: None,
            count: 0,
        }
    }
}

#[async_trait]
impl MqttLink for ForkLink {
    async fn connect(&mut self) -> Result<Connected, LinkError> {
        self.close().await;
        self.count += 1;
        let (tx, events) = mpsc::channel(usize::from(self.settings.window) + 1);
        let room = Arc::new(Semaphore::new(BACKLOG_KIB as usize));
        let inbox = Inbox {
            tx,
            room: Arc::clone(&room),
            cuts: Cuts::default(),
            messages: 0,
            connection: self.count,
        };
        let (requests, polling) = match self.settings.version {
            Version::V5 => v5::start(&self.settings, self.dialer.clone(), inbox)?,
            Version::V311 => v3::start(&self.settings, self.dialer.clone(), inbox)?,
        };
        let mut tasks = TaskSet::new();
        tasks.spawn("mqtt client", polling);
        let number = self.count;
        let connection = Connection {
            number,
            events,
            room,
            requests,
            tasks,
        };
        let connection = self.connection.insert(connection);
        match time::timeout(self.settings.connect_timeout, connection.events.recv()).await {
            Ok(Some(Event::Connected { session_present })) => Ok(Connected { session_present }),
            Ok(Some(Event::Ended(error))) => Err(error),
            Ok(Some(Event::Message(_))) => Err(LinkError("a message before the answer".into())),
            Ok(None) => Err(LinkError("the client ended".into())),
            Err(_) => Err(LinkError("no answer in time".into())),
        }
    }

    async fn next(&mut self) -> Result<Message, LinkError> {
        let Some(connection) = &mut self.connection else {
            return Err(LinkError("not connected".into()));
        };
        match connection.events.recv().await {
            Some(Event::Message(message)) => Ok(message),
            Some(Event::Ended(error)) => Err(error),
            Some(Event::Connected { .. }) => Err(LinkError("connected twice".into())),
            None => Err(LinkError("the client ended".into())),
        }
    }

    fn acknowledge(&mut self, token: AckToken) -> Result<Acked, LinkError> {
        match &self.connection {
            Some(connection) if connection.number == token.connection => connection
                .requests
                .acknowledge(token.packet)
                .map(|()| Acked::Sent),
            _ => Ok(Acked::Stale),
        }
    }

    async fn close(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            // From here on the polling task throws messages away, so that it gets to what it sends.
            connection.events.close();
            connection.room.close();
            while connection.events.try_recv().is_ok() {}
            connection.requests.disconnect();
            if !connection.tasks.join(FAREWELL).await {
                connection.tasks.abort().await;
            }
        }
    }
}

/// Where the polling task puts what the broker sent.
pub(super) struct Inbox {
    tx: mpsc::Sender<Event>,
    room: Arc<Semaphore>,
    pub cuts: Cuts,
    messages: u64,
    connection: u64,
}

impl Inbox {
    pub(super) async fn connected(&self, session_present: bool) {
        self.send(Event::Connected { session_present }).await;
    }

    pub(super) async fn ended(&self, error: LinkError) {
        self.send(Event::Ended(error)).await;
    }

    /// Hands on a message with its packet id, 0 for quality of service 0. Waits while too much is
    /// waiting already: then nothing more is read from the broker.
    pub(super) async fn message(&mut self, mut message: Message, packet: u16) {
        message.cut_from = self.cuts.take(self.messages);
        self.messages += 1;
        if packet > 0 {
            message.token = Some(AckToken {
                connection: self.connection,
                packet,
            });
        }
        let kib = (message.topic.len() + message.payload.len())
            .div_ceil(1024)
            .max(1);
        let kib = u32::try_from(kib).unwrap_or(u32::MAX).min(BACKLOG_KIB);
        // Closed when the connection is given up: the message is thrown away below.
        message.room = Arc::clone(&self.room).acquire_many_owned(kib).await.ok();
        self.send(Event::Message(message)).await;
    }

    async fn send(&self, event: Event) {
        // An error means that nobody listens any more.
        let _heard = self.tx.send(event).await.is_ok();
    }
}

/// Makes the streams of a client.
#[derive(Clone)]
pub(super) struct Dialer {
    transport: Arc<dyn Transport>,
    outbound: Outbound,
    address: String,
    within: Duration,
    most: usize,
}

impl Dialer {
    pub(super) async fn dial(self, cuts: Cuts) -> io::Result<Shrink> {
        let connecting = self
            .outbound
            .connect(&*self.transport, &self.address, self.within);
        let stream = connecting.await?;
        Ok(Shrink::new(stream, self.most, cuts))
    }
}

/// Whole seconds, as MQTT counts them.
pub(super) fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
