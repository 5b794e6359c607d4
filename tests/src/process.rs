//! A program that runs beside the tests, with its standard error in a file.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time,
};

/// A running program. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    /// What messages call it.
    pub name: String,
    log: PathBuf,
    child: Child,
}

/// How many lines of a log a message shows.
const TAIL: usize = 30;

impl Process {
    /// Starts a command; its standard output and error are appended to the file `log`.
    ///
    /// # Errors
    /// The log cannot be opened, or the program cannot be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let open = || {
            let file = OpenOptions::new().create(true).append(true).open(log);
            file.with_context(|| format!("cannot open `{}`", log.display()))
        };
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        Self::spawn(name, command, log)
    }

    /// Starts a command whose standard input and output the caller talks over.
    ///
    /// # Errors
    /// The log cannot be opened, or the program cannot be started.
    pub fn talk(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot open `{}`", log.display()))?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file);
        Self::spawn(name, command, log)
    }

    fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let child = command
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            log: log.to_owned(),
            child,
        })
    }

    /// Its pipes, if it was started to be talked to.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Fails with the end of the log if it does not run any more.
    ///
    /// # Errors
    /// It ended, or cannot be asked.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.tail()),
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.id().and_then(|id| i32::try_from(id).ok());
        let pid = pid.and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("{} does not run", self.name))?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Waits until it ended by itself.
    ///
    /// # Errors
    /// It still runs after that time; it is killed then.
    pub async fn wait_end(mut self, within: Duration) -> Result<ExitStatus> {
        let ended = time::timeout(within, self.child.wait()).await;
        let ended = ended.with_context(|| format!("{} still runs after {within:?}", self.name))?;
        Ok(ended?)
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait_end(Duration::from_secs(10)).await.map(|_| ())
    }

    /// Everything it logged so far, earlier starts with the same log included.
    #[must_use]
    pub fn logged(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let logged = self.logged();
        let lines: Vec<_> = logged.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}
