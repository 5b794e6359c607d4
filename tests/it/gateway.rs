//! One agent with every source and a file at the end, for tests of what peers may send.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use levada_tests::{
    agent::Agent,
    avro,
    outputs::{self, Line, Watch},
    place, wait,
};
use tempfile::TempDir;

pub(crate) struct Gateway {
    pub(crate) agent: Agent,
    pub(crate) http: SocketAddr,
    pub(crate) avro: SocketAddr,
    pub(crate) output: PathBuf,
    _folder: TempDir,
}

impl Gateway {
    /// A running agent. `more` is appended to its configuration.
    pub(crate) async fn start(more: &str) -> Result<Self> {
        let mut gateway = Self::lay(more)?;
        gateway.agent.start()?;
        gateway.agent.ready().await?;
        Ok(gateway)
    }

    /// As [`start`](Self::start), but tried again as long as the agent ends and says `excuse`.
    pub(crate) async fn start_until(more: &str, excuse: &str) -> Result<Self> {
        let mut gateway = Self::lay(more)?;
        loop {
            gateway.agent.start()?;
            match gateway.agent.ready().await {
                Ok(_) => return Ok(gateway),
                Err(error) if error.to_string().contains(excuse) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn lay(more: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let output = folder.path().join("output");
        let (http, avro) = (place::free_address()?, place::free_address()?);
        let parts = format!(
            r#"[sources.web]
type = "http"
listen = "{http}"
channels = ["main"]

[sources.rpc]
type = "avro"
listen = "{avro}"
channels = ["main"]

[channels.main]
type = "durable"
capacity = "64MiB"

[sinks.files]
type = "file-roll"
channel = "main"
directory = {:?}
format = "json"

{more}"#,
            output.display().to_string()
        );
        Ok(Self {
            agent: Agent::new(folder.path(), "gateway", &parts)?,
            http,
            avro,
            output,
            _folder: folder,
        })
    }

    /// Whether a good event still finds its way in, over both doors.
    pub(crate) async fn goes_on(&mut self) -> Result<()> {
        assert_eq!(self.agent.ended()?, None, "{}", self.agent.tail());
        let good = avro::event(&[], b"good");
        let met = avro::send(self.avro, &avro::append_batch(7, &[good])).await?;
        assert!(avro::is_ok(&met), "{met:?}\n{}", self.agent.tail());
        let mut connection = levada_tests::http::Connection::open(self.http).await?;
        let answer = connection.send("POST", "/", &[], "good".into()).await?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Ok(())
    }

    /// The most memory the process ever had, in bytes.
    pub(crate) fn peak_memory(&self) -> Result<u64> {
        let id = self.agent.id().context("the agent does not run")?;
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line
            .and_then(|line| line.split_whitespace().nth(1))
            .context("no VmHWM")?;
        Ok(kib.parse::<u64>()? << 10)
    }

    /// Waits for so many events in the file, then stops the agent and gives them.
    pub(crate) async fn events(&mut self, count: u64) -> Result<Vec<Line>> {
        let mut watch = Watch::new(&self.output);
        wait::until(
            "the events are in the file",
            Duration::from_secs(20),
            || {
                let lines = watch.lines();
                async move { Ok((lines? >= count).then_some(())) }
            },
        )
        .await?;
        let status = self.agent.stop().await?;
        assert!(status.success(), "{status}\n{}", self.agent.tail());
        let mut events = Vec::new();
        for file in outputs::files(&self.output)? {
            for line in fs::read_to_string(file)?.lines() {
                events.push(serde_json::from_str(line).with_context(|| line.to_owned())?);
            }
        }
        Ok(events)
    }
}
