//! MQTT 3.1.1.

use rumqttc_v4::{
    AckMode, AsyncClient, Broker, ConnectionError, Event as Polled, EventLoop, ManualAck,
    MqttOptions, NetworkOptions, Packet, PubAck, Publish, QoS, SubscribeFilterInput,
    SubscribeReasonCode,
};

use super::{
    LinkError, LinkSettings, Message,
    fork::{Dialer, Inbox, REQUESTS, Requests, Started, seconds},
};

/// The largest packet there is (MQTT 3.1.1, 2.2.3); the stream lets nothing through that is too
/// large.
const MAX_PACKET: usize = 268_435_455 + 5;

struct Client(AsyncClient);

impl Requests for Client {
    fn acknowledge(&self, packet: u16) -> Result<(), LinkError> {
        let ack = ManualAck::PubAck(PubAck::new(packet));
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
    let options = options(settings, dialer, &inbox).map_err(|error| failed(&error))?;
    let builder = AsyncClient::builder(options).capacity(REQUESTS);
    let (client, mut events) = builder.try_build().map_err(|error| failed(&error))?;
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(u64::from(seconds(settings.connect_timeout).max(1)));
    events.set_network_options(network);
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

fn options(
    settings: &LinkSettings,
    dialer: Dialer,
    inbox: &Inbox,
) -> Result<MqttOptions, rumqttc_v4::ConfigError> {
    let broker = Broker::tcp(settings.broker.host.clone(), settings.broker.port);
    let mut options = MqttOptions::new(settings.client_id.clone(), broker);
    options.try_set_clean_session(false)?;
    options
        .set_max_packet_size(MAX_PACKET, MAX_PACKET)
        .set_keep_alive(u16::try_from(seconds(settings.keep_alive)).unwrap_or(u16::MAX))
        .set_ack_mode(AckMode::Manual);
    match (&settings.user, &settings.password) {
        (Some(user), Some(password)) => {
            options.set_credentials(user.clone(), password.reveal().to_owned());
        }
        (Some(user), None) => {
            options.set_username(user.clone());
        }
        (None, _) => {}
    }
    let cuts = inbox.cuts.clone();
    options.set_socket_connector(move |_, _| dialer.clone().dial(cuts.clone()));
    Ok(options)
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
                    SubscribeReasonCode::Failure => Some(format!("the broker refuses `{topic}`")),
                };
                if let Some(why) = topics.iter().zip(&answer.return_codes).find_map(refused) {
                    return inbox.ended(LinkError(why)).await;
                }
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
    Message {
        topic: publish.topic,
        payload: publish.payload,
        retain: publish.retain,
        dup: publish.dup,
        ..Message::default()
    }
}
