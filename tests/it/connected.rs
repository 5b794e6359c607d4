//! A part without its other side says so: in `status`, in the health, in the metrics.

use std::time::Duration;

use anyhow::Result;
use levada_tests::{agent::Agent, broker::Broker, http, path, place, wait};
use serde_json::Value;

fn parts(broker: std::net::SocketAddr) -> String {
    format!(
        r#"[sources.plant]
type = "mqtt"
url = "mqtt://{broker}"
topics = ["plant/#"]
channels = ["main"]

[channels.main]
type = "durable"
capacity = "16MiB"

[sinks.out]
type = "null"
channel = "main"
"#
    )
}

async fn health(agent: &Agent) -> Result<Value> {
    let answer = http::get(agent.admin, "/healthz").await?;
    Ok(serde_json::from_str(&answer.text())?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_a_broker_is_not_well() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let nobody = place::free_address()?;
    let mut agent = Agent::new(folder.path(), "edge", &parts(nobody))?;
    agent.start()?;
    agent.ready().await?;
    let within = Duration::from_secs(30);
    agent
        .metric_until("levada_part_connected", "sources.plant", within, |c| {
            c == 0.0
        })
        .await?;
    let said = wait::until("the health says why", within, || async {
        let said = health(&agent).await?;
        Ok((said["status"] == "degraded").then_some(said))
    })
    .await?;
    let reason = said["reasons"][0].as_str().unwrap_or_default();
    let start = format!("sources.plant is retrying: no broker at `mqtt://{nobody}`");
    assert!(reason.starts_with(&start), "{said}");
    let shown = String::from_utf8(agent.levada(&["status"]).await?.stdout)?;
    assert!(shown.contains("its connection (no broker"), "{shown}");
    assert!(!shown.contains("sources.plant  running"), "{shown}");
    assert!(agent.stop().await?.success());
    let audit = agent.audit().await?;
    assert!(audit.holds, "{audit:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_a_broker_is_connected() -> Result<()> {
    let broker = Broker::start().await?;
    let folder = tempfile::tempdir()?;
    let mut agent = Agent::new(folder.path(), "edge", &parts(broker.v5))?;
    agent.start()?;
    agent.ready().await?;
    path::subscribed(&agent).await?;
    let connected = agent
        .metric("levada_part_connected", "sources.plant")
        .await?;
    assert_eq!(
        (connected, health(&agent).await?["status"].as_str()),
        (1.0, Some("ok"))
    );
    Ok(())
}
