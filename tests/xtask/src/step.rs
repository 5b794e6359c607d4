//! One step of a task: a command that is shown, run, timed, and explained when it fails.
#![expect(
    clippy::print_stderr,
    reason = "talking to the person at the terminal is its purpose"
)]

use std::{
    env,
    ffi::OsStr,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

/// Where the workspace is, and which cargo to call.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    cargo: PathBuf,
}

impl Workspace {
    /// The workspace this program was built in, or the one of `CARGO_MANIFEST_DIR` if it moved.
    pub(crate) fn find() -> Result<Self> {
        let own = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = own
            .ancestors()
            .nth(2)
            .context("the task runner is not in `tests/xtask`")?;
        let cargo = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        Ok(Self {
            root: root.to_owned(),
            cargo,
        })
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target(&self) -> PathBuf {
        match env::var_os("CARGO_TARGET_DIR") {
            Some(path) => self.root.join(path),
            None => self.root.join("target"),
        }
    }

    /// A cargo command that runs in the workspace's root.
    pub(crate) fn cargo<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command(&self.cargo);
        command.args(arguments);
        command
    }

    /// Any other command that runs in the workspace's root.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }
}

/// How a command ended that was allowed to say "not here".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Well,
    /// Exit code 77: what it needs is not on this machine.
    NotRun,
}

/// The exit code by which a script says that it cannot run here (as in automake's tests).
const NOT_RUN: i32 = 77;

/// Runs a command as one step. `next` says what to do if it fails.
///
/// # Errors
/// The command cannot be started, or it failed.
pub(crate) fn run(name: &str, command: &mut Command, next: &str) -> Result<()> {
    match run_or_skip(name, command, next)? {
        Ended::Well => Ok(()),
        Ended::NotRun => bail!("`{name}` could not run here: {next}"),
    }
}

/// Runs a command as one step that may answer with exit code 77: not run.
pub(crate) fn run_or_skip(name: &str, command: &mut Command, next: &str) -> Result<Ended> {
    let styles = Styles::of_stderr();
    eprintln!(
        "{}{name}{} {}{}{}",
        styles.bold,
        styles.plain,
        styles.dim,
        shown(command),
        styles.plain
    );
    let start = Instant::now();
    let status = command
        .status()
        .map_err(|error| not_started(command, &error, next))?;
    let time = seconds(start.elapsed());
    if status.success() {
        eprintln!("{}{name}: done in {time}{}", styles.green, styles.plain);
        return Ok(Ended::Well);
    }
    if status.code() == Some(NOT_RUN) {
        eprintln!(
            "{}{name}: not run (see above){}",
            styles.yellow, styles.plain
        );
        return Ok(Ended::NotRun);
    }
    Err(anyhow!(
        "`{name}` failed after {time} ({status})\nnext: {next}"
    ))
}

/// Runs a command silently and gives what it printed.
///
/// # Errors
/// The command cannot be started, or it failed; its standard error is part of the message.
pub(crate) fn read(command: &mut Command, next: &str) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_started(command, &error, next))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}\nnext: {next}", shown(command), said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` gave no text", shown(command)))
}

/// Says one line that is not a step.
pub(crate) fn note(text: &str) {
    let styles = Styles::of_stderr();
    eprintln!("{}{text}{}", styles.yellow, styles.plain);
}

/// Says that a whole task is done.
pub(crate) fn done(text: &str, start: Instant) {
    let styles = Styles::of_stderr();
    eprintln!(
        "{}{}{text} in {}{}",
        styles.bold,
        styles.green,
        seconds(start.elapsed()),
        styles.plain
    );
}

/// Says why the task ended.
pub(crate) fn say_failed(error: &anyhow::Error) {
    let styles = Styles::of_stderr();
    eprintln!(
        "{}{}error:{} {error:#}",
        styles.bold, styles.red, styles.plain
    );
}

fn not_started(command: &Command, error: &io::Error, next: &str) -> anyhow::Error {
    anyhow!(
        "cannot start `{}`: {error}\nnext: {next}",
        command.get_program().display()
    )
}

/// A command as one would type it, with the program's path shortened to its name.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default();
    let mut words = vec![program.to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    if whole < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

/// Escape codes, or nothing where nobody would see them.
struct Styles {
    bold: &'static str,
    dim: &'static str,
    green: &'static str,
    yellow: &'static str,
    red: &'static str,
    plain: &'static str,
}

impl Styles {
    fn of_stderr() -> Self {
        if io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none() {
            Self {
                bold: "\x1b[1m",
                dim: "\x1b[2m",
                green: "\x1b[32m",
                yellow: "\x1b[33m",
                red: "\x1b[31m",
                plain: "\x1b[0m",
            }
        } else {
            Self {
                bold: "",
                dim: "",
                green: "",
                yellow: "",
                red: "",
                plain: "",
            }
        }
    }
}
