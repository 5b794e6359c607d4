//! An MQTT broker inside this process that keeps sessions while their client is away.

use std::{collections::HashMap, net::SocketAddr, thread, time::Duration};

use anyhow::{Context, Result};
use rumqttd::{Config, ConnectionSettings, RouterConfig, ServerSettings};

use crate::{place, wait};

/// A running broker. It has no way to be stopped and ends with the process.
#[derive(Debug, Clone, Copy)]
pub struct Broker {
    /// Where MQTT 3.1.1 is spoken.
    pub v4: SocketAddr,
    /// Where MQTT 5 is spoken.
    pub v5: SocketAddr,
}

impl Broker {
    /// Starts a broker on free ports and waits until it listens.
    ///
    /// # Errors
    /// It does not listen within ten seconds.
    pub async fn start() -> Result<Self> {
        let started = Self {
            v4: place::free_address()?,
            v5: place::free_address()?,
        };
        let mut broker = rumqttd::Broker::new(config(started));
        thread::Builder::new()
            .name("broker".to_owned())
            .spawn(move || broker.start().ok())
            .context("cannot start the broker's thread")?;
        for address in [started.v4, started.v5] {
            wait::until(
                "the broker listens",
                Duration::from_secs(10),
                || async move { Ok(tokio::net::TcpStream::connect(address).await.ok()) },
            )
            .await?;
        }
        Ok(started)
    }
}

fn config(broker: Broker) -> Config {
    let server = |name: &str, listen: SocketAddr| {
        let settings = ServerSettings {
            name: name.to_owned(),
            listen,
            tls: None,
            next_connection_delay_ms: 1,
            connections: ConnectionSettings {
                connection_timeout_ms: 10_000,
                max_payload_size: 16 << 20,
                max_inflight_count: 100,
                auth: None,
                external_auth: None,
                dynamic_filters: true,
            },
        };
        Some(HashMap::from([(name.to_owned(), settings)]))
    };
    Config {
        router: RouterConfig {
            max_connections: 1000,
            max_outgoing_packet_count: 200,
            // The broker drops its oldest segment when it has more: far above what a test makes.
            max_segment_size: 64 << 20,
            max_segment_count: 64,
            ..RouterConfig::default()
        },
        v4: server("v4", broker.v4),
        v5: server("v5", broker.v5),
        ..Config::default()
    }
}
