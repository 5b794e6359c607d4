//! What the source needs of an MQTT client, and the one it uses.
//!
//! The client is the maintained fork of rumqttc, one crate for each version of the protocol. Its
//! types stay in this module. Every connection has a client and an event loop of its own: nothing
//! that was queued for one connection can be sent on the next.

mod fork;
mod v3;
mod v5;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use levada_core::Secret;
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;
use url::{Host, Url};

pub(crate) use fork::ForkLink;

/// A client of a broker, with at most one connection.
#[async_trait]
pub(crate) trait MqttLink: Send {
    /// Connects and subscribes. A connection that was there is given up.
    async fn connect(&mut self) -> Result<Connected, LinkError>;

    /// The next message, in the order the broker sent them. Safe to cancel.
    async fn next(&mut self) -> Result<Message, LinkError>;

    /// Acknowledges a message; must be called in the order of their coming. Does not wait.
    fn acknowledge(&mut self, token: AckToken) -> Result<Acked, LinkError>;

    /// Sends what is waiting and disconnects.
    async fn close(&mut self);
}

/// A connection that the broker took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connected {
    /// Whether the broker still had the session.
    pub session_present: bool,
}

/// What became of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acked {
    Sent,
    /// Its connection is gone; the broker sends the message again.
    Stale,
}

/// One message of one connection that waits for its acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AckToken {
    pub connection: u64,
    pub packet: u16,
}

/// One message.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub topic: Bytes,
    pub payload: Bytes,
    pub retain: bool,
    /// Whether the broker sent it before.
    pub dup: bool,
    /// MQTT 5 user properties.
    pub properties: Vec<(String, String)>,
    /// MQTT 5 content type.
    pub content_type: Option<String>,
    /// The size it had, if the payload was cut.
    pub cut_from: Option<usize>,
    /// `None` for quality of service 0.
    pub token: Option<AckToken>,
    /// Its room in memory, given back when it is dropped.
    pub room: Option<OwnedSemaphorePermit>,
}

/// Why there is no connection. Always worth another try: a broker can be mended.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct LinkError(pub String);

levada_core::choice! {
    /// A version of the protocol.
    pub(crate) enum Version {
        /// MQTT 5.
        V5 = "5",
        /// MQTT 3.1.1.
        V311 = "3.1.1",
    }
}

/// What a client is made with.
#[derive(Debug, Clone)]
pub(crate) struct LinkSettings {
    pub broker: Broker,
    pub version: Version,
    pub topics: Vec<String>,
    pub client_id: String,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub at_least_once: bool,
    pub window: u16,
    pub keep_alive: Duration,
    pub connect_timeout: Duration,
    pub session_expiry: Duration,
    pub max_event: usize,
}

/// Where the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broker {
    /// A name, or an address without brackets.
    pub host: String,
    /// What to connect to: `host:port`.
    pub address: String,
    pub port: u16,
    pub tls: bool,
}

/// Reads `mqtt://host:port`.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn broker(text: &str) -> Result<Broker, String> {
    let url = Url::parse(text).map_err(|error| format!("no URL: {error}"))?;
    let (tls, usual) = match url.scheme() {
        "mqtt" => (false, 1883),
        "mqtts" => (true, 8883),
        other => return Err(format!("`{other}` is neither `mqtt` nor `mqtts`")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("user and password have keys of their own, `user` and `password`".into());
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err("nothing may follow the port".into());
    }
    let port = url.port().unwrap_or(usual);
    if port == 0 {
        return Err("port 0".into());
    }
    // The parser leaves hosts of schemes that it does not know as they are.
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or("no host")?;
    let plain = match url.host() {
        Some(Host::Ipv6(address)) => address.to_string(),
        _ => host.to_owned(),
    };
    Ok(Broker {
        address: format!("{host}:{port}"),
        host: plain,
        port,
        tls,
    })
}

/// Whether a text can be subscribed to.
pub(crate) fn is_filter(text: &str) -> bool {
    text.len() <= usize::from(u16::MAX)
        && !text.contains('\0')
        && rumqttc_v5::valid_filter(text)
        && text
            .strip_prefix("$share/")
            .is_none_or(|rest| rest.contains('/'))
}
