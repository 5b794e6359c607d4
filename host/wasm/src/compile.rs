//! Compiling a component where a bad one can do no harm: in a process of its own, with one thread,
//! bounded memory and bounded time.
//!
//! Over the pipes: on standard input three little-endian `u64` (profile, bytes of memory, seconds),
//! and then the component; on standard output `LEVADA01`, a byte (0 = code follows, 1 = a text that
//! says why not follows).

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    process::{ExitCode, Stdio},
    time::Duration,
};

use levada_core::{ByteSize, tasks, units::format_duration};
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
        bounds: CompileBounds,
    },
    /// This process, without any bound: for tools that run what their own user built.
    InProcess,
}

/// What one compilation may use (security model 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileBounds {
    /// Bytes of memory that the child may take.
    pub memory: u64,
    /// Wall time until it is killed. Its CPU time is bounded, too, by a second more, so that it
    /// also ends when nobody waits for it any more.
    pub time: Duration,
}

impl Default for CompileBounds {
    fn default() -> Self {
        Self {
            memory: 1 << 30,
            time: Duration::from_secs(60),
        }
    }
}

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
    #[error(
        "compiling took more than the {} allowed; make the component's largest functions smaller",
        format_duration(*.allowed)
    )]
    TooLong { allowed: Duration },
    #[error("the compiler ended with {status}; its memory is limited to {memory}{said}")]
    Died {
        status: String,
        memory: ByteSize,
        said: String,
    },
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
            Self::Child {
                program,
                args,
                bounds,
            } => {
                let input = Input {
                    reservation,
                    bounds: *bounds,
                };
                let allowed = bounds.time;
                time::timeout(allowed, run_child(program, args, input, &component))
                    .await
                    .map_err(|_| CompileError::TooLong { allowed })??
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
    head: Input,
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
    let memory = head.bounds.memory;
    let write = async move {
        input.write_all(&head.to_bytes()).await?;
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
            memory: ByteSize(memory),
            said: first_line(&said),
        }),
    }
}

/// What a dying process says first is why; hints on how to debug it follow.
fn first_line(said: &str) -> String {
    match said.lines().find(|line| !line.trim().is_empty()) {
        Some(line) => format!(": {}", line.escape_debug()),
        None => String::new(),
    }
}

/// What stands before the component on the child's standard input.
#[derive(Debug, Clone, Copy)]
struct Input {
    reservation: MemoryReservation,
    bounds: CompileBounds,
}

impl Input {
    fn to_bytes(self) -> Vec<u8> {
        let profile = match self.reservation {
            MemoryReservation::Full => 0,
            MemoryReservation::Small => 1,
        };
        // One more second than the parent waits: its own clock is to be the first.
        let seconds = self.bounds.time.as_secs() + 1;
        [profile, self.bounds.memory, seconds]
            .map(u64::to_le_bytes)
            .concat()
    }

    fn read(from: &mut impl Read) -> Result<Self, String> {
        let mut word = || {
            let mut bytes = [0; 8];
            from.read_exact(&mut bytes)
                .map(|()| u64::from_le_bytes(bytes))
                .map_err(|error| format!("cannot read what to compile: {error}"))
        };
        let (profile, memory, seconds) = (word()?, word()?, word()?);
        let reservation = match profile {
            0 => MemoryReservation::Full,
            1 => MemoryReservation::Small,
            other => return Err(format!("unknown profile {other}")),
        };
        let time = Duration::from_secs(seconds);
        let bounds = CompileBounds { memory, time };
        Ok(Self {
            reservation,
            bounds,
        })
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
    let result = compile_input();
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
    let mut input = io::stdin().lock();
    let head = Input::read(&mut input)?;
    bind(head.bounds).map_err(|error| format!("cannot bound the compiler: {error}"))?;
    let mut component = Vec::new();
    let most = LARGEST_COMPONENT as u64 + 1;
    input
        .take(most)
        .read_to_end(&mut component)
        .map_err(|error| format!("cannot read the component: {error}"))?;
    let engine =
        Engine::new(&engine::config(head.reservation)).map_err(|error| format!("{error:#}"))?;
    compile(&engine, &component)
}

/// Sets the bounds of this process, for good.
fn bind(bounds: CompileBounds) -> io::Result<()> {
    let limit = |resource, value: u64| {
        let rlimit = Rlimit {
            current: Some(value),
            maximum: Some(value),
        };
        setrlimit(resource, rlimit)
    };
    limit(Resource::Data, bounds.memory)?;
    limit(Resource::Cpu, bounds.time.as_secs())?;
    limit(Resource::Core, 0)?;
    Ok(())
}
