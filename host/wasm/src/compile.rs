//! Compiling a component where a bad one can do no harm: in a process of its own, with one thread,
//! bounded memory and bounded time.
//!
//! Over the pipes: on standard input a byte that names the profile and then the component; on
//! standard output `LEVADA01`, a byte (0 = code follows, 1 = a text that says why not follows).

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    process::{ExitCode, Stdio},
    time::Duration,
};

use levada_core::tasks;
use rustix::process::{Resource, Rlimit, setrlimit};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time,
};
use wasmtime::Engine;

use crate::{
    engine::{self, MemoryReservation},
    inspect::LARGEST_COMPONENT,
    precompiled::Trusted,
};

/// Who compiles.
#[derive(Debug, Clone)]
pub enum Compiler {
    /// A child process: this program with these arguments must call [`compile_child`].
    Child {
        program: PathBuf,
        args: Vec<OsString>,
    },
    /// This process, without any bound: for tools that run what their own user built.
    InProcess,
}

/// Memory and time of a compilation (security model 4.3).
const MEMORY: u64 = 1 << 30;
const TIME: Duration = Duration::from_secs(60);

/// The largest machine code that is taken back.
const LARGEST_CODE: u64 = 256 << 20;

const MAGIC: &[u8; 8] = b"LEVADA01";

/// Why there is no machine code.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompileError {
    #[error("cannot start the compiler `{program}`")]
    Start { program: String, source: io::Error },
    #[error("cannot speak with the compiler")]
    Pipe(#[source] io::Error),
    #[error("compiling took more than {} s", TIME.as_secs())]
    TooLong,
    #[error("the compiler ended with {status}; its memory is limited to 1GiB{said}")]
    Died { status: String, said: String },
    #[error("{0}")]
    Refused(String),
}

impl Compiler {
    /// Compiles. Safe to cancel: the child is killed.
    pub(crate) async fn compile(
        &self,
        engine: &Engine,
        reservation: MemoryReservation,
        component: Vec<u8>,
    ) -> Result<Trusted, CompileError> {
        let code = match self {
            Self::Child { program, args } => {
                let child = run_child(program, args, reservation, &component);
                time::timeout(TIME, child)
                    .await
                    .map_err(|_| CompileError::TooLong)??
            }
            Self::InProcess => {
                let engine = engine.clone();
                tasks::blocking(move || compile(&engine, &component))
                    .await
                    .map_err(CompileError::Refused)?
            }
        };
        Ok(Trusted::from_compiler(code))
    }
}

async fn run_child(
    program: &PathBuf,
    args: &[OsString],
    reservation: MemoryReservation,
    component: &[u8],
) -> Result<Vec<u8>, CompileError> {
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| CompileError::Start {
            program: program.display().to_string(),
            source,
        })?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut input), Some(output), Some(errors)) = pipes else {
        return Err(CompileError::Pipe(io::Error::other("a pipe is missing")));
    };
    let write = async move {
        input.write_all(&[profile_byte(reservation)]).await?;
        input.write_all(component).await?;
        input.shutdown().await
    };
    let mut answer = Vec::new();
    let mut said = String::new();
    // A child that stops reading shows in its status and in what it said.
    let mut output = output.take(LARGEST_CODE);
    let mut errors = errors.take(4096);
    let (_written, read, _said) = tokio::join!(
        write,
        output.read_to_end(&mut answer),
        errors.read_to_string(&mut said)
    );
    read.map_err(CompileError::Pipe)?;
    let status = child.wait().await.map_err(CompileError::Pipe)?;
    let (head, rest) = answer.split_at(answer.len().min(MAGIC.len() + 1));
    match (head.strip_prefix(MAGIC), status.success()) {
        (Some([0]), true) => Ok(rest.to_vec()),
        (Some([1]), _) => {
            let text = String::from_utf8_lossy(rest);
            Err(CompileError::Refused(text.chars().take(2000).collect()))
        }
        _ => Err(CompileError::Died {
            status: status.to_string(),
            said: last_line(&said),
        }),
    }
}

fn last_line(said: &str) -> String {
    match said.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!(": {}", line.escape_debug()),
        None => String::new(),
    }
}

fn profile_byte(reservation: MemoryReservation) -> u8 {
    match reservation {
        MemoryReservation::Full => 0,
        MemoryReservation::Small => 1,
    }
}

/// Compiles one component in this process; a panic of the compiler is an error.
fn compile(engine: &Engine, component: &[u8]) -> Result<Vec<u8>, String> {
    let work = AssertUnwindSafe(|| engine.precompile_component(component));
    match panic::catch_unwind(work) {
        Ok(Ok(code)) => Ok(code),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err("the compiler panicked".into()),
    }
}

/// What the child process does: compiles standard input to standard output, within bounds that it
/// sets for itself first. For the hidden command `levada handler compile-child`.
#[must_use]
pub fn compile_child() -> ExitCode {
    let limit = |resource, value: u64| {
        let rlimit = Rlimit {
            current: Some(value),
            maximum: Some(value),
        };
        setrlimit(resource, rlimit)
    };
    let bounded = limit(Resource::Data, MEMORY)
        .and_then(|()| limit(Resource::Cpu, TIME.as_secs()))
        .and_then(|()| limit(Resource::Core, 0));
    let result = match bounded {
        Ok(()) => compile_input(),
        Err(error) => Err(format!("cannot bound the compiler: {error}")),
    };
    let (status, rest) = match &result {
        Ok(code) => (0, &code[..]),
        Err(text) => (1, text.as_bytes()),
    };
    let mut output = io::stdout().lock();
    let written = output
        .write_all(MAGIC)
        .and_then(|()| output.write_all(&[status]))
        .and_then(|()| output.write_all(rest))
        .and_then(|()| output.flush());
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn compile_input() -> Result<Vec<u8>, String> {
    let mut input = Vec::new();
    let most = LARGEST_COMPONENT as u64 + 2;
    io::stdin()
        .lock()
        .take(most)
        .read_to_end(&mut input)
        .map_err(|error| format!("cannot read the component: {error}"))?;
    let (profile, component) = input.split_first().ok_or("nothing to compile")?;
    let reservation = match profile {
        0 => MemoryReservation::Full,
        1 => MemoryReservation::Small,
        other => return Err(format!("unknown profile {other}")),
    };
    let engine = Engine::new(&engine::config(reservation)).map_err(|error| format!("{error:#}"))?;
    compile(&engine, component)
}
