//! Flume's own clients: the SDK and the command line.

use std::{fs, net::SocketAddr, path::Path, process::Output, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{ChildStdin, ChildStdout},
    time,
};

use crate::{
    flume::{Flume, Machine, agent::write_log_settings},
    process::Process,
    record::Record,
};

/// How long a call may take: longer than the SDK's own limits, and than Java takes to start.
const ANSWER: Duration = Duration::from_secs(60);

/// How long the command-line client may take.
const RUN: Duration = Duration::from_secs(60);

/// What a call of the SDK came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Ok,
    /// The exceptions, outermost first.
    Failed(String),
}

/// A program that uses Flume's SDK. It is killed when dropped.
#[derive(Debug)]
pub struct SdkClient {
    process: Process,
    calls: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl SdkClient {
    /// Starts the program with these client properties, in a folder of its own.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start(
        flume: &Flume,
        below: &Path,
        name: &str,
        properties: &[(&str, String)],
    ) -> Result<Self> {
        let folder = below.join(name);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create the folder `{}`", folder.display()))?;
        write_log_settings(&folder)?;
        let lines: Vec<_> = properties
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect();
        let file = folder.join("client.properties");
        fs::write(&file, lines.concat())?;
        let mut command = flume.java(&folder, Machine::Small);
        command.arg("Client").arg(file);
        let name = format!("SDK client `{name}` of Flume {}", flume.version);
        let mut process = Process::talk(&name, command, &folder.join("client.log"))?;
        let child = process.child();
        let calls = child.stdin.take().context("no standard input")?;
        let answers = child.stdout.take().context("no standard output")?;
        let answers = BufReader::new(answers).lines();
        let mut client = Self {
            process,
            calls,
            answers,
        };
        match client.line().await?.as_str() {
            "ready" => Ok(client),
            line => bail!("{name} began with `{line}`"),
        }
    }

    /// Calls `appendBatch`.
    ///
    /// # Errors
    /// The program does not answer.
    pub async fn append_batch(&mut self, events: &[Record]) -> Result<Answer> {
        self.call("batch", events).await
    }

    /// Calls `append`.
    ///
    /// # Errors
    /// The program does not answer.
    pub async fn append(&mut self, event: &Record) -> Result<Answer> {
        self.call("append", std::slice::from_ref(event)).await
    }

    async fn call(&mut self, method: &str, events: &[Record]) -> Result<Answer> {
        let mut call = method.to_owned();
        for event in events {
            call.push(' ');
            push_event(&mut call, event);
        }
        call.push('\n');
        self.calls.write_all(call.as_bytes()).await?;
        self.calls.flush().await?;
        let line = self.line().await?;
        match line.split_once(' ') {
            None if line == "ok" => Ok(Answer::Ok),
            Some(("failed", why)) => Ok(Answer::Failed(why.to_owned())),
            _ => bail!("{} answered `{line}`", self.process.name),
        }
    }

    async fn line(&mut self) -> Result<String> {
        let line = time::timeout(ANSWER, self.answers.next_line()).await;
        let line = line.ok().transpose()?.flatten();
        line.with_context(|| {
            format!(
                "{} says nothing:\n{}",
                self.process.name,
                self.process.tail()
            )
        })
    }

    /// Lets the program close its client and end.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn stop(self) -> Result<()> {
        drop(self.calls);
        let status = self.process.wait_end(ANSWER).await?;
        if !status.success() {
            bail!("the SDK client ended with {status}");
        }
        Ok(())
    }
}

/// The body, then every header, in hexadecimal.
fn push_event(call: &mut String, event: &Record) {
    push_hex(call, &event.body);
    for (name, value) in &event.headers {
        call.push(',');
        push_hex(call, name.as_bytes());
        call.push('=');
        push_hex(call, value.as_bytes());
    }
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for half in [byte >> 4, byte & 15] {
            out.push(char::from_digit(half.into(), 16).unwrap_or('0'));
        }
    }
}

/// Runs Flume's command-line client on a file, each line of which is an event. Its exit code says
/// little: it is 0 also when nobody listens.
///
/// # Errors
/// It cannot be started, or does not end in time.
pub async fn avro_client(
    flume: &Flume,
    folder: &Path,
    to: SocketAddr,
    lines: &Path,
    headers: Option<&Path>,
) -> Result<Output> {
    write_log_settings(folder)?;
    let mut command = flume.java(folder, Machine::Small);
    command
        .arg("org.apache.flume.client.avro.AvroCLIClient")
        .args(["-H", &to.ip().to_string(), "-p", &to.port().to_string()])
        .arg("-F")
        .arg(lines)
        .kill_on_drop(true);
    if let Some(headers) = headers {
        command.arg("-R").arg(headers);
    }
    let output = time::timeout(RUN, command.output()).await;
    let output = output.with_context(|| format!("avro-client still runs after {RUN:?}"))?;
    output.context("cannot start avro-client")
}
