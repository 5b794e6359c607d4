//! An agent that takes events over HTTP and gives them to a handler as its sink.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::{agent::Agent, http::Connection, place, wait};

/// One agent: HTTP in, a durable channel, a handler as its sink.
#[derive(Debug)]
pub struct Collector {
    pub agent: Agent,
    http: SocketAddr,
    _folder: TempDir,
}

/// How long a channel may take to run empty.
const EMPTY: Duration = Duration::from_secs(60);

impl Collector {
    /// Writes its configuration: `handler` are the lines of the handler, `sink` more lines of the
    /// sink.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn lay(handler: &str, sink: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let http = place::free_address()?;
        let parts = format!(
            r#"[sources.web]
type = "http"
listen = "{http}"
channels = ["main"]

[channels.main]
type = "durable"
capacity = "64MiB"

[handlers.out]
{handler}

[sinks.out]
type = "handler"
handler = "out"
channel = "main"
{sink}
"#
        );
        Ok(Self {
            agent: Agent::new(folder.path(), "collector", &parts)?,
            http,
            _folder: folder,
        })
    }

    /// Starts the agent, and waits until it is ready.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(mut self) -> Result<Self> {
        self.agent.start()?;
        self.agent.ready().await?;
        Ok(self)
    }

    /// Kills the agent, starts it again and waits until it is ready.
    ///
    /// # Errors
    /// It did not run, or does not start.
    pub async fn kill(&mut self) -> Result<()> {
        self.agent.kill().await?;
        self.agent.start()?;
        self.agent.ready().await.map(|_| ())
    }

    /// Posts a list of events; they are on disk then.
    ///
    /// # Errors
    /// They were not taken.
    pub async fn post(&self, events: &Value) -> Result<()> {
        let json = [("content-type", "application/json")];
        let mut connection = Connection::open(self.http).await?;
        let body = events.to_string().into();
        let answer = connection.send("POST", "/", &json, body).await?;
        anyhow::ensure!(
            answer.status == 200,
            "{}\n{}",
            answer.text(),
            self.agent.tail()
        );
        Ok(())
    }

    /// Waits until nothing is queued, stops the agent, and gives the dead letters. The books
    /// balance: all that was accepted is delivered or a dead letter.
    ///
    /// # Errors
    /// They do not, or something is queued for too long.
    pub async fn finish(mut self, accepted: u64) -> Result<Vec<Value>> {
        wait::until("everything has left the channel", EMPTY, || async {
            let audit = self.agent.audit().await?;
            let count = |counter| audit.count("channels.main", counter).unwrap_or(0);
            let left = count("delivered") + count("dead-lettered");
            Ok((left >= accepted).then_some(()))
        })
        .await
        .with_context(|| self.agent.tail())?;
        let status = self.agent.stop().await?;
        anyhow::ensure!(status.success(), "{status}\n{}", self.agent.tail());
        let letters = self.letters().await?;
        let audit = self.agent.audit().await?;
        anyhow::ensure!(audit.holds, "{audit:?}");
        let count = |counter| audit.count("channels.main", counter);
        let dead = letters.len() as u64;
        let counted = [count("put"), count("dead-lettered"), count("delivered")];
        let expected = [accepted, dead, accepted - dead].map(Some);
        anyhow::ensure!(counted == expected, "{counted:?}, not {expected:?}");
        Ok(letters)
    }

    /// The dead letters.
    ///
    /// # Errors
    /// The agent does not give them.
    pub async fn letters(&self) -> Result<Vec<Value>> {
        self.agent.letters().await
    }
}

/// The line that names a guest's component.
///
/// # Errors
/// It is not built.
pub fn component(guest: &str) -> Result<String> {
    let path = place::guest(guest)?.display().to_string();
    Ok(format!("component = {path:?}"))
}
