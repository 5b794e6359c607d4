//! TLS between real agents, and towards clients that are not ours. Certificates are made by
//! `levada pki`, as a user would.

mod admin;
mod crowd;
mod lists;

use std::{fs, net::SocketAddr, path::Path, process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use levada_core::{Stopper, SystemClock, TaskSet};
use levada_net::{
    Accepted, ConnectionLimits, Connections, Inbound, ListenerTls, Tcp, TlsVersion, Transport,
    accept_until,
};
use levada_tests::{
    agent::Agent,
    broker::Broker,
    http,
    mqtt::{self, Telemetry},
    outputs::Watch,
    path,
    pki::Pki,
    place, wait,
};
use tokio::{io::AsyncWriteExt, net::TcpStream, process::Command};

const WITHIN: Duration = Duration::from_secs(60);

/// An edge that takes events over HTTP, and an aggregator that writes them to files.
struct Pair {
    edge: Agent,
    aggregator: Agent,
    web: SocketAddr,
    watch: Watch,
}

impl Pair {
    /// `edge` and `aggregator` are what the sink and the source say about TLS.
    fn lay(below: &Path, edge: &str, aggregator: &str) -> Result<Self> {
        let rpc = place::free_address()?;
        Self::lay_over(below, (edge, rpc), (aggregator, rpc))
    }

    /// The same with something in between: where the edge sends to, and where the aggregator listens.
    fn lay_over(
        below: &Path,
        (edge, to): (&str, SocketAddr),
        (aggregator, rpc): (&str, SocketAddr),
    ) -> Result<Self> {
        let web = place::free_address()?;
        let output = below.join("output");
        let edge = format!(
            "[sources.web]\ntype = \"http\"\nlisten = \"{web}\"\nchannels = [\"main\"]\n\n\
             [channels.main]\ntype = \"durable\"\ncapacity = \"64MiB\"\n\n\
             [sinks.up]\ntype = \"avro\"\nchannel = \"main\"\nto = \"{to}\"\n{edge}\n"
        );
        let aggregator = format!(
            "[sources.edges]\ntype = \"avro\"\nlisten = \"{rpc}\"\nchannels = [\"main\"]\n\
             {aggregator}\n\n\
             [channels.main]\ntype = \"durable\"\ncapacity = \"64MiB\"\n\n\
             [sinks.files]\ntype = \"file-roll\"\nchannel = \"main\"\nformat = \"json\"\n\
             directory = {:?}\n",
            output.display().to_string()
        );
        Ok(Self {
            edge: Agent::new(below, "edge", &edge)?,
            aggregator: Agent::new(below, "aggregator", &aggregator)?,
            web,
            watch: Watch::new(&output),
        })
    }

    async fn start(&mut self) -> Result<()> {
        self.aggregator.start()?;
        self.aggregator.ready().await?;
        self.edge.start()?;
        self.edge.ready().await.map(|_| ())
    }

    async fn post(&self, body: &'static str) -> Result<()> {
        let mut connection = http::Connection::open(self.web).await?;
        let answer = connection.send("POST", "/", &[], body.into()).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        Ok(())
    }

    async fn arrived(&mut self, count: u64) -> Result<()> {
        let watch = &mut self.watch;
        let what = format!("{count} events are in the file");
        let arrived = wait::until(&what, WITHIN, || {
            let lines = watch.lines();
            async move { Ok((lines? >= count).then_some(())) }
        });
        arrived
            .await
            .with_context(|| format!("{}\n{}", self.edge.tail(), self.aggregator.tail()))
    }

    /// Restarts the edge, so that it connects anew; the aggregator goes on.
    async fn connect_again(&mut self) -> Result<()> {
        self.edge.stop().await?;
        self.edge.start()?;
        self.edge.ready().await.map(|_| ())
    }

    /// Stops both; everything that came in went out once, by their own books.
    async fn balance(&mut self, events: u64) -> Result<()> {
        assert!(self.edge.stop().await?.success(), "{}", self.edge.tail());
        assert!(
            self.aggregator.stop().await?.success(),
            "{}",
            self.aggregator.tail()
        );
        for (agent, source) in [
            (&self.edge, "sources.web"),
            (&self.aggregator, "sources.edges"),
        ] {
            let audit = agent.audit().await?;
            assert!(audit.holds, "{audit:?}");
            assert_eq!(audit.count(source, "accepted"), Some(events));
            assert_eq!(audit.count("channels.main", "delivered"), Some(events));
        }
        assert_eq!(self.watch.lines()?, events, "{:?}", self.watch);
        Ok(())
    }
}

/// Waits until an agent has logged some words.
async fn logged(agent: &Agent, words: &str) -> Result<()> {
    let what = format!("`{}` says: {words}", agent.name);
    let said = wait::until(&what, WITHIN, || async {
        Ok(agent.logged().contains(words).then_some(()))
    });
    said.await.with_context(|| agent.tail())
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_while_agents_run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pki = Pki::new(folder.path(), "pki").await?;
    pki.issue("edge").await?;
    pki.issue("aggregator").await?;
    let mut pair = Pair::lay(folder.path(), &pki.tls("edge"), &pki.tls("aggregator"))?;
    pair.start().await?;
    pair.post("first").await?;
    pair.arrived(1).await?;
    // Renewed: the connection that is there goes on, the next one is made with the new pair.
    pki.issue("aggregator").await?;
    pair.post("on the old connection").await?;
    pair.arrived(2).await?;
    pair.connect_again().await?;
    pair.post("on a new connection").await?;
    pair.arrived(3).await?;
    logged(&pair.aggregator, "certificates renewed").await?;
    // A file that is half written changes nothing but the log.
    let cert = pki.path("aggregator.pem");
    let whole = fs::read(&cert)?;
    fs::write(&cert, &whole[..whole.len() / 2])?;
    pair.connect_again().await?;
    pair.post("with the certificate before").await?;
    pair.arrived(4).await?;
    logged(
        &pair.aggregator,
        "new certificates cannot be used; the old ones stay",
    )
    .await?;
    pair.balance(4).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_authority_is_named_on_both_sides_until_it_is_mended() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pki = Pki::new(folder.path(), "pki").await?;
    let other = Pki::new(folder.path(), "other").await?;
    pki.issue("aggregator").await?;
    pki.issue("edge").await?;
    other.issue("edge").await?;
    // The edge has a certificate of another authority, and knows the right one.
    fs::copy(pki.path("ca.pem"), other.path("ca.pem"))?;
    let mut pair = Pair::lay(folder.path(), &other.tls("edge"), &pki.tls("aggregator"))?;
    pair.start().await?;
    pair.post("kept meanwhile").await?;
    logged(&pair.aggregator, "the peer's certificate is not signed by").await?;
    logged(
        &pair.edge,
        "the server does not trust who signed our certificate",
    )
    .await?;
    assert_eq!(pair.watch.lines()?, 0);
    for end in ["key", "pem"] {
        fs::copy(
            pki.path(&format!("edge.{end}")),
            other.path(&format!("edge.{end}")),
        )?;
    }
    pair.arrived(1).await?;
    pair.balance(1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_and_tls_that_meet_are_named_on_both_sides() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pki = Pki::new(folder.path(), "pki").await?;
    pki.issue("aggregator").await?;
    let plain_edge = folder.path().join("plain-edge");
    let mut pair = Pair::lay(&plain_edge, "", &pki.tls("aggregator"))?;
    pair.start().await?;
    pair.post("kept").await?;
    logged(
        &pair.aggregator,
        "the peer speaks plaintext, and this listener wants TLS",
    )
    .await?;
    drop(pair);
    let plain_aggregator = folder.path().join("plain-aggregator");
    let tls = format!("tls = {{ ca = {:?} }}", pki.path("ca.pem"));
    let mut pair = Pair::lay(&plain_aggregator, &tls, "")?;
    pair.start().await?;
    pair.post("kept").await?;
    logged(
        &pair.aggregator,
        "the peer speaks TLS, and this listener has no `tls`",
    )
    .await?;
    logged(&pair.edge, "does it speak TLS on this port?").await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_orders_of_deflate_and_tls_arrive() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pki = Pki::new(folder.path(), "pki").await?;
    pki.issue("edge").await?;
    pki.issue("aggregator").await?;
    let aggregator = format!("{}\ncompression = \"deflate\"", pki.tls("aggregator"));
    for order in ["true", "false"] {
        let edge = format!(
            "{}\ncompression = \"deflate\"\ndeflate-over-tls = {order}",
            pki.tls("edge")
        );
        let mut pair = Pair::lay(&folder.path().join(order), &edge, &aggregator)?;
        pair.start().await?;
        pair.post("packed").await?;
        pair.arrived(1).await?;
        pair.balance(1).await?;
    }
    Ok(())
}

/// OpenSSL's own client: what it says, and whether it was let in.
async fn openssl(to: SocketAddr, line: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-verify_return_error", "-connect"]);
    command.arg(to.to_string()).args(line);
    let mut client = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = client.stdin.take().context("no input")?;
    let request =
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
    // A client that was refused takes no input any more.
    let _taken = input.write_all(request).await.is_ok();
    let output = client.wait_with_output();
    let output = tokio::time::timeout(WITHIN, output)
        .await
        .context("openssl hangs")??;
    drop(input);
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok((said.contains("HTTP/1.1 200"), said))
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_is_let_in_with_a_certificate_and_a_version_of_today() -> Result<()> {
    if Command::new("openssl")
        .arg("version")
        .output()
        .await
        .is_err()
    {
        println!("not run: there is no openssl");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let pki = Pki::new(folder.path(), "pki").await?;
    pki.issue("gateway").await?;
    pki.issue("client").await?;
    let web = place::free_address()?;
    let parts = format!(
        "[sources.web]\ntype = \"http\"\nlisten = \"{web}\"\nchannels = [\"main\"]\n{}\n\n\
         [channels.main]\ntype = \"durable\"\n\n[sinks.out]\ntype = \"null\"\nchannel = \"main\"\n",
        pki.tls("gateway")
    );
    let mut agent = Agent::new(folder.path(), "gateway", &parts)?;
    agent.start()?;
    agent.ready().await?;
    let ca = pki.path("ca.pem");
    let (cert, key) = (pki.path("client.pem"), pki.path("client.key"));
    let known = [
        "-CAfile",
        &ca,
        "-verify_hostname",
        "gateway",
        "-cert",
        &cert,
        "-key",
        &key,
    ];
    for version in ["-tls1_2", "-tls1_3"] {
        let (is_in, said) = openssl(web, &[&known[..], &[version]].concat()).await?;
        assert!(is_in, "{version}: {said}\n{}", agent.tail());
    }
    let (is_in, said) = openssl(web, &["-CAfile", &ca]).await?;
    assert!(!is_in, "without a certificate: {said}");
    logged(&agent, "the peer shows no certificate").await?;
    let old = [&known[..], &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]].concat();
    let (is_in, said) = openssl(web, &old).await?;
    assert!(!is_in, "TLS 1.1: {said}");
    let audit = agent.audit().await?;
    assert!(audit.holds, "{audit:?}");
    assert_eq!(audit.count("sources.web", "accepted"), Some(2));
    Ok(())
}

/// TLS in front of a broker, which wants a certificate; the address, and the task that serves it.
async fn secure_broker(pki: &Pki, broker: SocketAddr) -> Result<(SocketAddr, TaskSet)> {
    let settings = ListenerTls {
        cert: pki.path("broker.pem").into(),
        key: pki.path("broker.key").into(),
        ca: Some(pki.path("ca.pem").into()),
        crl: None,
        client_auth: None,
        max_version: TlsVersion::V1_3,
    };
    let clock = Arc::new(SystemClock);
    let inbound = Inbound::open(Some(&settings), clock).await?;
    let listener = Tcp.bind(place::free_address()?).await?;
    let at = listener.local_addr()?;
    let mut tasks = TaskSet::new();
    tasks.spawn("secure broker", async move {
        let (_stopper, stop) = Stopper::new();
        let connections = Connections::new(ConnectionLimits::default());
        let relay = move |mut accepted: Accepted| async move {
            assert!(accepted.identity.is_authenticated());
            let mut to = TcpStream::connect(broker)
                .await
                .expect("the broker listens");
            let relayed = tokio::io::copy_bidirectional(&mut accepted.stream, &mut to);
            // Either side may end it.
            let _ended = relayed.await.is_ok();
        };
        accept_until(listener, inbound, &connections, "broker", &stop, relay).await;
    });
    Ok((at, tasks))
}

fn telemetry(broker: Broker) -> Telemetry {
    Telemetry {
        broker: broker.v4,
        source: "plant".into(),
        topic: "plant/1/telemetry".into(),
        events: 200,
        pause: (200, Duration::ZERO),
        stop: Arc::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtts_takes_events_from_a_broker_that_wants_a_certificate() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pki = Pki::new(folder.path(), "pki").await?;
    pki.issue("broker").await?;
    pki.issue("edge").await?;
    let broker = Broker::start().await?;
    for (version, plain) in [("5", broker.v5), ("3.1.1", broker.v4)] {
        let (secure, _keep) = secure_broker(&pki, plain).await?;
        let parts = format!(
            "[sources.plant]\ntype = \"mqtt\"\nurl = \"mqtts://{secure}\"\nversion = \"{version}\"\n\
             topics = [\"plant/+/telemetry\"]\nchannels = [\"main\"]\n{}\n\n\
             [channels.main]\ntype = \"durable\"\n\n\
             [sinks.out]\ntype = \"null\"\nchannel = \"main\"\n",
            pki.tls("edge")
        );
        let mut edge = Agent::new(folder.path(), &format!("edge-{version}"), &parts)?;
        edge.start()?;
        edge.ready().await?;
        path::subscribed(&edge).await.with_context(|| edge.tail())?;
        mqtt::publish(&telemetry(broker), &Arc::default()).await?;
        let what = "every message was accepted";
        wait::until(what, WITHIN, || async {
            let audit = edge.audit().await?;
            Ok((audit.count("channels.main", "delivered") >= Some(200)).then_some(()))
        })
        .await
        .with_context(|| edge.tail())?;
        assert!(edge.stop().await?.success());
        let audit = edge.audit().await?;
        assert!(audit.holds, "{audit:?}");
    }
    Ok(())
}
