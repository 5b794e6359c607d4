//! Publishes numbered events over MQTT 3.1.1 at QoS 1 and counts what the broker acknowledged.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use levada_core::TaskSet;
use rumqttc_v4::{AsyncClient, EventLoop, MqttOptions, PublishNotice, PublishOptions, QoS};
use tokio::time;

use crate::event;

/// What to publish.
#[derive(Debug, Clone)]
pub struct Telemetry {
    pub broker: SocketAddr,
    /// The name that the events carry.
    pub source: String,
    pub topic: String,
    pub events: u64,
    /// After how many events to pause, and how long.
    pub pause: (u64, Duration),
    /// Set to end before all events are published; what was published is still confirmed.
    pub stop: Arc<AtomicBool>,
}

/// How many messages may wait for the broker at once.
const WINDOW: usize = 80;

/// Publishes all events in order; `acknowledged` rises with every PUBACK.
///
/// # Errors
/// The broker went away: it lives in this process and should not.
pub async fn publish(telemetry: &Telemetry, acknowledged: &Arc<AtomicU64>) -> Result<()> {
    let id = format!("devices-of-{}", telemetry.source);
    let address = (telemetry.broker.ip().to_string(), telemetry.broker.port());
    let mut options = MqttOptions::new(id, address);
    options.set_keep_alive(30);
    options.set_max_packet_size(16 << 20, 16 << 20);
    options.set_max_request_batch(WINDOW);
    let (client, mut events) = AsyncClient::builder(options).capacity(WINDOW).build();
    events.network_options.set_tcp_nodelay(true);
    let mut tasks = TaskSet::new();
    tasks.spawn("mqtt publisher", poll(events));
    let mut waiting = VecDeque::new();
    for n in 0..telemetry.events {
        if telemetry.stop.load(Ordering::Relaxed) {
            break;
        }
        if waiting.len() == WINDOW {
            confirm(waiting.pop_front(), acknowledged).await?;
        }
        let body = event::body(&telemetry.source, n);
        let once = PublishOptions::new(QoS::AtLeastOnce);
        let notice = client
            .publish_tracked(telemetry.topic.as_str(), body, once)
            .await;
        waiting.push_back(notice.context("cannot queue a message for the broker")?);
        if (n + 1).is_multiple_of(telemetry.pause.0) {
            time::sleep(telemetry.pause.1).await;
        }
    }
    for notice in waiting {
        confirm(Some(notice), acknowledged).await?;
    }
    client
        .disconnect()
        .await
        .context("cannot leave the broker")?;
    tasks.join(Duration::from_secs(5)).await;
    Ok(())
}

async fn confirm(notice: Option<PublishNotice>, acknowledged: &Arc<AtomicU64>) -> Result<()> {
    if let Some(notice) = notice {
        notice
            .wait_completion_async()
            .await
            .context("the broker did not take a message")?;
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Drives the connection until it ends; whoever waits for a PUBACK gets the error.
async fn poll(mut events: EventLoop) {
    while events.poll().await.is_ok() {}
}
