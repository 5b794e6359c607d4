//! Messages beyond a limit (F42, F50): to the dead letters, acknowledged, and no reconnect loop.

use std::time::Duration;

use anyhow::{Context, Result};
use levada_core::TaskSet;
use levada_tests::{broker::Broker, path};
use rumqttc_v4::{AsyncClient, MqttOptions, PublishOptions, QoS};

use crate::gateway::Gateway;

fn source(broker: &Broker, version: &str) -> String {
    let (address, version) = match version {
        "5" => (broker.v5, "5"),
        _ => (broker.v4, "3.1.1"),
    };
    format!(
        r#"[sources.plant]
type = "mqtt"
version = "{version}"
url = "mqtt://{address}"
topics = ["plant/#"]
channels = ["main"]
"#
    )
}

async fn too_large_between_good_ones(version: &str) -> Result<()> {
    let broker = Broker::start().await?;
    let mut gateway = Gateway::start(&source(&broker, version)).await?;
    path::subscribed(&gateway.agent).await?;
    publish(
        &broker,
        &["first".into(), vec![b'x'; 2 << 20], "second".into()],
    )
    .await?;
    let within = Duration::from_secs(20);
    gateway
        .agent
        .metric_until("levada_dead_letters", "", within, |letters| letters == 1.0)
        .await?;
    let events = gateway.events(2).await?;
    let bodies: Vec<_> = events.iter().map(|event| event.body.as_str()).collect();
    assert_eq!(bodies, ["first", "second"]);
    assert!(
        events
            .iter()
            .all(|event| event.headers.contains_key("topic")),
        "{events:?}"
    );
    let audit = gateway.agent.audit().await?;
    assert!(audit.holds, "{audit:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_does_not_harm_others_over_mqtt_5() -> Result<()> {
    too_large_between_good_ones("5").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_does_not_harm_others_over_mqtt_3() -> Result<()> {
    too_large_between_good_ones("3.1.1").await
}

async fn publish(broker: &Broker, messages: &[Vec<u8>]) -> Result<()> {
    let mut options = MqttOptions::new("device", (broker.v4.ip().to_string(), broker.v4.port()));
    options.set_max_packet_size(16 << 20, 16 << 20);
    let (client, mut events) = AsyncClient::builder(options).capacity(10).build();
    let mut tasks = TaskSet::new();
    tasks.spawn(
        "device",
        async move { while events.poll().await.is_ok() {} },
    );
    for message in messages {
        let once = PublishOptions::new(QoS::AtLeastOnce);
        let notice = client
            .publish_tracked("plant/7", message.clone(), once)
            .await?;
        notice
            .wait_completion_async()
            .await
            .context("the broker did not take a message")?;
    }
    client.disconnect().await?;
    tasks.join(Duration::from_secs(5)).await;
    Ok(())
}
