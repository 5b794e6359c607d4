//! MQTT 5.

use std::{future::Future, pin::Pin};

use rumqttc_v5::{
    AckMode, AsyncClient, Broker, ConnectionError, Event as Polled, EventLoop,
    IncomingPacketSizeLimit, ManualAck, MqttOptions, Packet, PersistedAckMode, PersistedSession,
    PubAck, Publish, QoS, SessionStore, SessionStoreError, SessionStoreKey, SubscribeFilterInput,
    SubscribeReasonCode,
};

use super::{
    LinkError, LinkSettings, Message,
    fork::{Dialer, Inbox, REQUESTS, Requests, Started, seconds},
};

struct Client(AsyncClient);

impl Requests for Client {
    fn acknowledge(&self, packet: u16) -> Result<(), LinkError> {
        let ack = ManualAck::PubAck(PubAck::new(packet, None));
        self.0
            .try_manual_ack(ack)
            .map_err(|error| LinkError(error.to_string()))
    }

    fn disconnect(&self) {
        // An error means that the event loop has ended already.
        let _asked = self.0.try_disconnect().is_ok();
    }
}

/// Starts a client for one connection.
pub(super) fn start(
    settings: &LinkSettings,
    dialer: Dialer,
    inbox: Inbox,
) -> Result<Started, LinkError> {
    let failed = |error: &dyn std::fmt::Display| LinkError(error.to_string());
    let options = options(settings, dialer, &inbox);
    let builder = AsyncClient::builder(options).capacity(REQUESTS);
    let (client, events) = builder.try_build().map_err(|error| failed(&error))?;
    let qos = if settings.at_least_once {
        QoS::AtLeastOnce
    } else {
        QoS::AtMostOnce
    };
    let topics = settings
        .topics
        .iter()
        .map(|topic| SubscribeFilterInput::new(topic, qos));
    client
        .try_subscribe_many(topics)
        .map_err(|error| failed(&error))?;
    let polling = poll(events, inbox, settings.topics.clone());
    Ok((Box::new(Client(client)), Box::pin(polling)))
}

/// Packets that this client may have under way at once: a subscription now and then.
const OUTGOING: u16 = 16;

fn options(settings: &LinkSettings, dialer: Dialer, inbox: &Inbox) -> MqttOptions {
    let mut options = session(settings);
    let cuts = inbox.cuts.clone();
    options.set_socket_connector(move |_, _| dialer.clone().dial(cuts.clone()));
    options
}

/// Everything but how to get to the broker.
fn session(settings: &LinkSettings) -> MqttOptions {
    let broker = Broker::tcp(settings.broker.host.clone(), settings.broker.port);
    let mut options = MqttOptions::new(settings.client_id.clone(), broker);
    options
        .set_clean_start(false)
        .set_session_expiry_interval(Some(seconds(settings.session_expiry)))
        .set_session_store(NothingSent)
        .set_receive_maximum(Some(settings.window))
        // The stream lets nothing through that is too large; telling the broker instead would make
        // it throw such messages away without a word.
        .set_incoming_packet_size_limit(IncomingPacketSizeLimit::Unlimited)
        .set_keep_alive(u16::try_from(seconds(settings.keep_alive)).unwrap_or(u16::MAX))
        .set_connect_timeout(settings.connect_timeout)
        .set_ack_mode(AckMode::Manual)
        // Nothing is published here; with room for all 65,535 packets the client walks over it at
        // every acknowledgement, which takes a millisecond.
        .set_outgoing_inflight_upper_limit(OUTGOING);
    match (&settings.user, &settings.password) {
        (Some(user), Some(password)) => {
            options.set_credentials(user.clone(), password.reveal().to_owned());
        }
        (Some(user), None) => {
            options.set_username(user.clone());
        }
        (None, _) => {}
    }
    options
}

/// Polls one connection to its end; it never makes a second one.
async fn poll(mut events: EventLoop, mut inbox: Inbox, topics: Vec<String>) {
    loop {
        match events.poll().await {
            Ok(Polled::Incoming(Packet::ConnAck(answer))) => {
                inbox.connected(answer.session_present).await;
            }
            Ok(Polled::Incoming(Packet::Publish(publish))) => {
                let packet = if publish.qos == QoS::AtMostOnce {
                    0
                } else {
                    publish.pkid
                };
                inbox.message(message(publish), packet).await;
            }
            Ok(Polled::Incoming(Packet::SubAck(answer))) => {
                let refused = |(topic, code): (&String, &SubscribeReasonCode)| match code {
                    SubscribeReasonCode::Success(_) => None,
                    code => Some(format!("the broker refuses `{topic}`: {code:?}")),
                };
                if let Some(why) = topics.iter().zip(&answer.return_codes).find_map(refused) {
                    return inbox.ended(LinkError(why)).await;
                }
            }
            Ok(Polled::Incoming(Packet::Disconnect(goodbye))) => {
                let why = format!("the broker disconnects: {:?}", goodbye.reason_code);
                return inbox.ended(LinkError(why)).await;
            }
            Ok(_) => {}
            Err(error) => return inbox.ended(ended(&error)).await,
        }
    }
}

fn ended(error: &ConnectionError) -> LinkError {
    LinkError(match error {
        ConnectionError::ConnectionRefused(code) => format!("the broker refuses us: {code:?}"),
        error => error.to_string(),
    })
}

fn message(publish: Publish) -> Message {
    let properties = publish.properties.unwrap_or_default();
    Message {
        topic: publish.topic,
        payload: publish.payload,
        retain: publish.retain,
        dup: publish.dup,
        properties: properties.user_properties,
        content_type: properties.content_type,
        ..Message::default()
    }
}

/// What a client of ours remembers of its session: that it never sends anything.
///
/// A client that remembers nothing takes a session that the broker still has only on condition that
/// it does not subscribe again, and then topics that were added to the settings would be missing.
#[derive(Debug)]
struct NothingSent;

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, SessionStoreError>> + Send + 'a>>;

impl SessionStore for NothingSent {
    fn load<'a>(&'a self, key: &'a SessionStoreKey) -> Answer<'a, Option<PersistedSession>> {
        let session = PersistedSession {
            format_version: 1,
            client_id: key.client_id().to_owned(),
            clean_start: false,
            session_expiry_interval: None,
            outgoing_inflight_upper_limit: Some(OUTGOING),
            ack_mode: PersistedAckMode::Manual,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        };
        Box::pin(async { Ok(Some(session)) })
    }

    fn save<'a>(&'a self, _: &'a SessionStoreKey, _: &'a PersistedSession) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn clear<'a>(&'a self, _: &'a SessionStoreKey) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests;
