//! Real agents: the `levada` binary as a process with its own folder.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::{
    process::{Child, Command},
    time,
};

use crate::{http, island::Island, place, wait};

/// One agent, running or not. It is killed when dropped.
#[derive(Debug)]
pub struct Agent {
    pub name: String,
    /// Its configuration, logs and data are here.
    pub folder: PathBuf,
    pub admin: SocketAddr,
    /// Its configuration.
    pub config: PathBuf,
    /// The network namespace it runs in, if not this machine's.
    island: Option<String>,
    child: Option<Child>,
    /// How often it was killed.
    pub kills: u32,
    /// The longest it took to be ready again after a kill.
    pub slowest_restart: Duration,
}

/// What `levada audit --json` prints.
#[derive(Debug, Clone, Deserialize)]
pub struct Audit {
    pub holds: bool,
    pub rows: Vec<AuditRow>,
}

/// One source or channel.
#[derive(Debug, Clone, Deserialize)]
pub struct AuditRow {
    pub part: String,
    pub counters: BTreeMap<String, u64>,
    pub queued: Option<u64>,
    pub holds: bool,
}

impl Audit {
    /// A counter of a part; `None` if the part is unknown.
    #[must_use]
    pub fn count(&self, part: &str, counter: &str) -> Option<u64> {
        let row = self.rows.iter().find(|row| row.part == part)?;
        Some(row.counters.get(counter).copied().unwrap_or(0))
    }
}

/// How long an agent may take until it is healthy.
const START: Duration = Duration::from_secs(30);

impl Agent {
    /// Writes the agent's configuration into a folder of its own. `parts` is everything below the
    /// table `[agent]`.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn new(below: &Path, name: &str, parts: &str) -> Result<Self> {
        let folder = below.join(name);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create the folder `{}`", folder.display()))?;
        let admin = place::free_address()?;
        let config = folder.join(format!("{name}.toml"));
        let agent = Self {
            name: name.to_owned(),
            folder,
            admin,
            config,
            island: None,
            child: None,
            kills: 0,
            slowest_restart: Duration::ZERO,
        };
        agent.configure(parts)?;
        Ok(agent)
    }

    /// Writes another configuration; a running agent does not read it by itself.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn configure(&self, parts: &str) -> Result<()> {
        let (name, admin) = (&self.name, self.admin);
        let data = self.data().display().to_string();
        let text =
            format!("[agent]\nname = \"{name}\"\ndata = {data:?}\nadmin = \"{admin}\"\n\n{parts}");
        let path = self.config.display();
        fs::write(&self.config, text).with_context(|| format!("cannot write `{path}`"))
    }

    /// The agent runs on that host. Its admin address is that host's own.
    #[must_use]
    pub fn on(mut self, island: &Island) -> Self {
        self.island = Some(island.name().to_owned());
        self
    }

    /// The process's id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// The folder of its store.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where its standard error goes, all starts after each other.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    /// Everything it logged so far.
    #[must_use]
    pub fn logged(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Starts the process; does not wait until it is ready.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub fn start(&mut self) -> Result<()> {
        self.start_with(&[])
    }

    /// Starts the process with additional environment variables.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub fn start_with(&mut self, variables: &[(&str, &str)]) -> Result<()> {
        let child = self
            .program()?
            .args(["run", "--conf"])
            .arg(&self.config)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(self.open_log()?)
            .stderr(self.open_log()?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start agent `{}`", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    fn program(&self) -> Result<Command> {
        let levada = place::levada()?;
        let Some(island) = &self.island else {
            return Ok(Command::new(levada));
        };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", island]).arg(levada);
        Ok(command)
    }

    fn open_log(&self) -> Result<File> {
        let path = self.log();
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot open `{}`", path.display()))
    }

    /// Waits until the agent says that it is healthy; gives how long that took.
    ///
    /// # Errors
    /// It ended, or it was not healthy in time; the end of its log is part of the message.
    pub async fn ready(&mut self) -> Result<Duration> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                bail!(
                    "agent `{}` ended ({status}) instead of starting:\n{}",
                    self.name,
                    self.tail()
                );
            }
            if http::get(self.admin, "/healthz")
                .await
                .is_ok_and(|answer| answer.status == 200)
            {
                let took = start.elapsed();
                if self.kills > 0 {
                    self.slowest_restart = self.slowest_restart.max(took);
                }
                return Ok(took);
            }
            if start.elapsed() > START {
                bail!(
                    "agent `{}` is not healthy after {START:?}:\n{}",
                    self.name,
                    self.tail()
                );
            }
            time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the agent answers on its socket, wherever it runs.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn answers(&self) -> Result<()> {
        wait::until("an answer on admin.sock", START, || async {
            let status = self.levada(&["status"]).await?;
            Ok(status.status.success().then_some(()))
        })
        .await
        .with_context(|| self.tail())
    }

    /// How it ended, if it ended.
    ///
    /// # Errors
    /// The process cannot be asked.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            bail!("agent `{}` was not started", self.name)
        };
        Ok(child.try_wait()?)
    }

    /// Waits until the process ended by itself.
    ///
    /// # Errors
    /// It still runs after that time.
    pub async fn wait_end(&mut self, within: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        let Some(child) = &mut self.child else {
            bail!("agent `{name}` was not started")
        };
        let status = time::timeout(within, child.wait())
            .await
            .with_context(|| format!("agent `{name}` still runs after {within:?}"))??;
        self.child = None;
        Ok(status)
    }

    /// Kills the process with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.kills += 1;
        self.wait_end(Duration::from_secs(10)).await.map(|_| ())
    }

    /// Asks the process to stop in order and waits until it did.
    ///
    /// # Errors
    /// It does not end within 30 seconds.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_end(Duration::from_secs(30)).await
    }

    /// The process, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.as_ref().and_then(Child::id);
        let pid = id
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("agent `{}` does not run", self.name))?;
        kill_process(pid, signal).with_context(|| format!("cannot signal agent `{}`", self.name))
    }

    /// Runs a sub-command of the binary on this agent's configuration and waits for it.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub async fn levada(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(place::levada()?);
        command.args(arguments).arg("--conf").arg(&self.config);
        command
            .output()
            .await
            .with_context(|| format!("cannot run `levada {}`", arguments.join(" ")))
    }

    /// The accounting identities, by the agent's own durable counters. It may run or not.
    ///
    /// # Errors
    /// `levada audit` failed or does not speak JSON.
    pub async fn audit(&self) -> Result<Audit> {
        let output = self.levada(&["audit", "--json"]).await?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "`levada audit` said: {}",
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    /// The dead letters, as `levada dlq ls` gives them.
    ///
    /// # Errors
    /// It fails, or does not speak JSON.
    pub async fn letters(&self) -> Result<Vec<serde_json::Value>> {
        let output = self.levada(&["dlq", "ls", "--json"]).await?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The metrics text.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(http::get(self.admin, "/metrics").await?.text())
    }

    /// The sum of a metric over all labels that hold `label`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let text = self.metrics().await?;
        let value = |line: &str| {
            line.rsplit(' ')
                .next()
                .and_then(|word| word.parse::<f64>().ok())
        };
        let fits = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
                && line.contains(label)
        };
        Ok(text.lines().filter(fits).filter_map(value).sum())
    }

    /// Waits until the sum of a metric satisfies a condition.
    ///
    /// # Errors
    /// It does not within that time.
    pub async fn metric_until(
        &self,
        name: &str,
        label: &str,
        within: Duration,
        holds: impl Fn(f64) -> bool,
    ) -> Result<f64> {
        let what = format!("metric `{name}` of agent `{}`", self.name);
        wait::until(&what, within, || async {
            let value = self.metric(name, label).await.ok();
            Ok(value.filter(|value| holds(*value)))
        })
        .await
    }

    /// The last lines of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let logged = self.logged();
        let lines: Vec<_> = logged.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}
