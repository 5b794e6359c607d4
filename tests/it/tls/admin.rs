//! Health and metrics over TLS.

use levada_net::{ClientTls, Outbound};
use tokio::io::AsyncReadExt;

use super::*;

/// What the agent answers to `GET <path>`, or why there is no connection.
async fn ask(settings: &ClientTls, at: SocketAddr, path: &str) -> Result<String> {
    let outbound = Outbound::open(Some(settings), Arc::new(SystemClock)).await?;
    let mut stream = outbound.connect(&Tcp, &at.to_string(), WITHIN).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_for_those_with_a_certificate() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pki = Pki::new(folder.path(), "pki").await?;
    pki.issue("gateway").await?;
    pki.issue("prometheus").await?;
    let parts = format!(
        "admin-{}\n\n[sources.web]\ntype = \"http\"\nlisten = \"{}\"\nchannels = [\"main\"]\n\n\
         [channels.main]\ntype = \"durable\"\n\n[sinks.out]\ntype = \"null\"\nchannel = \"main\"\n",
        pki.tls("gateway"),
        place::free_address()?
    );
    let mut agent = Agent::new(folder.path(), "gateway", &parts)?;
    agent.start()?;
    agent.answers().await?;
    let nameless = ClientTls {
        ca: Some(pki.path("ca.pem").into()),
        ..ClientTls::default()
    };
    let named = ClientTls {
        cert: Some(pki.path("prometheus.pem").into()),
        key: Some(pki.path("prometheus.key").into()),
        ..nameless.clone()
    };
    let health = ask(&named, agent.admin, "/healthz").await?;
    ensure!(health.starts_with("HTTP/1.1 200"), "{health}");
    let metrics = ask(&named, agent.admin, "/metrics").await?;
    ensure!(metrics.contains("levada_channel_events"), "{metrics}");
    // Nobody else, and never in the clear.
    let plain = http::get(agent.admin, "/healthz").await;
    ensure!(plain.is_err(), "answered in the clear");
    logged(
        &agent,
        "the peer speaks plaintext, and this listener wants TLS",
    )
    .await?;
    let refused = ask(&nameless, agent.admin, "/healthz").await;
    let why = refused.err().context("no certificate, and answered")?;
    ensure!(
        format!("{why:#}").contains("wants a certificate"),
        "{why:#}"
    );
    agent.stop().await?;
    Ok(())
}
