//! Flume's agent as a process with its own folder.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    flume::{
        Certificates, Flume, FlumeFlow, FlumeSink, Machine, properties::AGENT,
        properties::properties,
    },
    http, place,
    process::Process,
    wait,
};

/// One agent, running or not. It is killed when dropped.
#[derive(Debug)]
pub struct FlumeAgent {
    pub name: String,
    /// Its configuration, log, channels and files are here.
    pub folder: PathBuf,
    pub machine: Machine,
    flume: Flume,
    flows: Vec<FlumeFlow>,
    monitoring: SocketAddr,
    process: Option<Process>,
}

/// How long a Java program may take until it answers, on a machine that does much else.
const START: Duration = Duration::from_secs(60);

/// How long an agent may take to stop: each tier waits for the one below it.
const STOP: Duration = Duration::from_secs(40);

impl FlumeAgent {
    /// Writes the agent's configuration into a folder of its own.
    ///
    /// # Errors
    /// The folder cannot be written, or no port is free.
    pub fn new(flume: &Flume, below: &Path, name: &str, flows: &[FlumeFlow]) -> Result<Self> {
        let folder = below.join(name);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create the folder `{}`", folder.display()))?;
        for flow in flows {
            if let FlumeSink::Files(folder) = &flow.sink {
                fs::create_dir_all(folder)?;
            }
        }
        let text = properties(flows, &Certificates::of(below));
        fs::write(folder.join("flume.properties"), text)?;
        write_log_settings(&folder)?;
        Ok(Self {
            name: name.to_owned(),
            folder,
            machine: Machine::Small,
            flume: flume.clone(),
            flows: flows.to_vec(),
            monitoring: place::free_address()?,
            process: None,
        })
    }

    /// Starts the process; does not wait until it is ready.
    ///
    /// # Errors
    /// Java cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let mut command = self.flume.java(&self.folder, self.machine);
        command.arg("-Dflume.monitoring.type=http").arg(format!(
            "-Dflume.monitoring.port={}",
            self.monitoring.port()
        ));
        command.args(["org.apache.flume.node.Application", "-n", AGENT, "-f"]);
        command.arg(self.folder.join("flume.properties"));
        command.arg("--no-reload-conf");
        let name = format!("Flume {} `{}`", self.flume.version, self.name);
        self.process = Some(Process::start(&name, command, &self.log())?);
        Ok(())
    }

    /// Where its log goes, all starts after each other.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("flume.log")
    }

    /// Everything it logged so far.
    #[must_use]
    pub fn logged(&self) -> String {
        let bytes = fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until every part says that it has started.
    ///
    /// # Errors
    /// It ended, or has not started in time; the end of its log is part of the message.
    pub async fn ready(&mut self) -> Result<()> {
        let monitoring = self.monitoring;
        let flows = self.flows.clone();
        let process = self.process()?;
        let what = format!("{} has started", process.name);
        let started = wait::until(&what, START, || {
            let alive = process.check();
            let flows = &flows;
            async move {
                alive?;
                let counters = counters(monitoring).await.ok();
                Ok(counters.filter(|counters| all_started(counters, flows)))
            }
        })
        .await;
        let tail = || self.process.as_ref().map(Process::tail).unwrap_or_default();
        started.with_context(tail).map(|_| ())
    }

    /// A counter of a part, such as `SINK.main` and `EventDrainSuccessCount`.
    ///
    /// # Errors
    /// It does not answer, or has no such counter.
    pub async fn count(&self, part: &str, counter: &str) -> Result<u64> {
        let counters = counters(self.monitoring).await?;
        let text = counters[part][counter].as_str();
        let text = text.with_context(|| format!("`{part}` has no counter `{counter}`"))?;
        Ok(text.parse()?)
    }

    /// The process's id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().and_then(Process::id)
    }

    /// Kills the process with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.take()?.kill().await
    }

    /// Asks the process to stop in order and waits until it did.
    ///
    /// # Errors
    /// It does not run, or does not end in time.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        let process = self.take()?;
        process.signal(Signal::TERM)?;
        process.wait_end(STOP).await
    }

    fn take(&mut self) -> Result<Process> {
        let name = &self.name;
        let process = self.process.take();
        process.with_context(|| format!("Flume `{name}` does not run"))
    }

    fn process(&mut self) -> Result<&mut Process> {
        let Some(process) = &mut self.process else {
            bail!("Flume `{}` does not run", self.name)
        };
        Ok(process)
    }
}

async fn counters(monitoring: SocketAddr) -> Result<Value> {
    let answer = http::get(monitoring, "/metrics").await?;
    Ok(serde_json::from_str(&answer.text())?)
}

/// Whether every source, channel and sink has a time at which it started.
fn all_started(counters: &Value, flows: &[FlumeFlow]) -> bool {
    let started = |part: String| {
        let time = counters[part.as_str()]["StartTime"].as_str();
        time.is_some_and(|time| time != "0")
    };
    flows.iter().all(|flow| {
        let parts = ["SOURCE", "CHANNEL", "SINK"];
        parts
            .iter()
            .all(|kind| started(format!("{kind}.{}", flow.name)))
    })
}

/// How both versions log: to standard output, what matters.
pub(super) fn write_log_settings(folder: &Path) -> Result<()> {
    // 1.11 has Log4j 2, 1.9 has Log4j 1.
    let second = "<Configuration status=\"WARN\"><Appenders><Console name=\"out\" \
                  target=\"SYSTEM_ERR\"><PatternLayout pattern=\"%d{ISO8601} %-5p %c{1} %m%n%ex\"/>\
                  </Console></Appenders><Loggers><Root level=\"INFO\"><AppenderRef ref=\"out\"/>\
                  </Root></Loggers></Configuration>\n";
    let first = "log4j.rootLogger = INFO, out\n\
                 log4j.appender.out = org.apache.log4j.ConsoleAppender\n\
                 log4j.appender.out.target = System.err\n\
                 log4j.appender.out.layout = org.apache.log4j.PatternLayout\n\
                 log4j.appender.out.layout.ConversionPattern = %d{ISO8601} %-5p %c{1} %m%n\n";
    fs::write(folder.join("log4j2.xml"), second)?;
    fs::write(folder.join("log4j.properties"), first)?;
    Ok(())
}
