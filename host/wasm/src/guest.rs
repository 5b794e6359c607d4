//! What the host knows about an instance while it runs: its limits, its call, its log.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use levada_core::{Batch, Chance, Clock, PartId};
use ring::digest;
use wasmtime::{StoreContextMut, UpdateDeadline};

use crate::{
    Grants, Limits,
    fiber::{PollTime, thread_cpu},
    http::HttpClient,
    inspect::hex,
    limits::{Limit, LimitReached, Limiter},
    lookup::Tables,
    meters::{GuestNumbers, Meters},
    record::{Masks, Shelf, Tape},
    state::Session,
    tap::Taps,
    ticker::TICK,
};

/// What all instances of one handler share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The handler's name in the configuration.
    pub(crate) name: String,
    /// Its component: the digest, and the file.
    pub(crate) digest: String,
    pub(crate) component: PathBuf,
    pub(crate) limits: Limits,
    pub(crate) settings: Settings,
    pub(crate) grants: Grants,
    pub(crate) tables: Tables,
    /// What sends its requests, if any are granted.
    pub(crate) http: Option<HttpClient>,
    /// Where its clock begins, if it is real.
    pub(crate) since: Instant,
    pub(crate) meters: Meters,
    pub(crate) numbers: GuestNumbers,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) chance: Chance,
    pub(crate) log: Mutex<LogBucket>,
    /// Its secrets, for recordings to be without.
    pub(crate) masks: Arc<Masks>,
    /// Who looks on.
    pub(crate) taps: Arc<Taps>,
    /// Where calls that fail are recorded, if they are.
    pub(crate) shelf: Option<Shelf>,
}

/// The handler's settings, ready to be read.
#[derive(Default)]
pub(crate) struct Settings {
    /// All of them as JSON.
    pub(crate) all: String,
    /// Each as text: a text as it is, anything else as JSON.
    pub(crate) values: std::collections::HashMap<String, String>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Lines a handler may log over time: a burst, and then a steady rate.
#[derive(Debug)]
pub(crate) struct LogBucket {
    left: f64,
    at: Instant,
}

/// Lines at once, and lines a second after that.
const LOG_BURST: f64 = 1000.0;
const LOG_RATE: f64 = 50.0;

impl LogBucket {
    pub(crate) fn new() -> Self {
        Self {
            left: LOG_BURST,
            at: Instant::now(),
        }
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        let refill = now.duration_since(self.at).as_secs_f64() * LOG_RATE;
        self.left = (self.left + refill).min(LOG_BURST);
        self.at = now;
        let has = self.left >= 1.0;
        if has {
            self.left -= 1.0;
        }
        has
    }
}

/// The data of one store.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) shared: Arc<Shared>,
    pub(crate) limiter: Limiter,
    pub(crate) call: CallState,
    /// Text written to standard output and standard error that is no whole line yet.
    pub(crate) lines: [Vec<u8>; 2],
    /// What it keeps from batch to batch, while a batch has it.
    pub(crate) state: Option<Box<Session>>,
    /// The state of the guest's random numbers.
    pub(crate) random: Chance,
    /// What counts its CPU time, if its calls may wait.
    pub(crate) polls: Option<Arc<PollTime>>,
    /// What it asks and is answered, where that is recorded or replayed.
    pub(crate) tape: Option<Tape>,
}

/// The call that runs, or the last one.
#[derive(Debug)]
pub(crate) struct CallState {
    /// The source or sink; none before the first call.
    pub(crate) part: Option<PartId>,
    pub(crate) attempt: u32,
    pub(crate) received_ms: u64,
    /// The time by the clock, once the guest has asked for it: it stands still within a call.
    wall_ms: Option<u64>,
    pub(crate) batch: Batch,
    /// Where a poll goes on, if it is one and does not begin.
    pub(crate) cursor: Option<Bytes>,
    /// When it began.
    pub(crate) started: Instant,
    cpu: Cpu,
    cpu_allowed: Duration,
    deadline: Duration,
    host_calls_allowed: u64,
    host_calls: u64,
    pub(crate) random_left: u64,
    /// Requests that it sent.
    pub(crate) requests: u64,
    log_lines: u32,
    log_bytes: usize,
    log_dropped: u64,
}

/// CPU time of a call. Up to the first tick it is taken for the wall time, up to two ticks, since
/// asking the thread's own clock at every call costs more than a short call; from then on that
/// clock counts, so that waiting for the processor is free.
#[derive(Debug, Clone)]
enum Cpu {
    Unseen,
    Seen {
        used: Duration,
        at: Duration,
    },
    /// The call may wait, and go on on another thread.
    Polled(Arc<PollTime>),
}

impl Guest {
    pub(crate) fn new(shared: &Arc<Shared>, polls: Option<Arc<PollTime>>) -> Self {
        let mut guest = Self {
            limiter: Limiter::new(&shared.limits),
            call: CallState {
                part: None,
                attempt: 0,
                received_ms: shared.clock.wall_ms(),
                wall_ms: None,
                batch: Batch::default(),
                cursor: None,
                started: Instant::now(),
                cpu: Cpu::Unseen,
                cpu_allowed: Duration::ZERO,
                deadline: Duration::ZERO,
                host_calls_allowed: 0,
                host_calls: 0,
                random_left: 0,
                requests: 0,
                log_lines: 0,
                log_bytes: 0,
                log_dropped: 0,
            },
            lines: [Vec::new(), Vec::new()],
            state: None,
            random: Chance::seeded(shared.chance.bits()),
            polls,
            tape: None,
            shared: Arc::clone(shared),
        };
        guest.begin(0);
        guest
    }

    /// Sets the limits of a call with so many events.
    pub(crate) fn begin(&mut self, events: usize) {
        let limits = &self.shared.limits;
        let call = &mut self.call;
        call.started = Instant::now();
        call.wall_ms = None;
        call.cursor = None;
        call.cpu = match &self.polls {
            Some(polls) => {
                polls.reset();
                Cpu::Polled(Arc::clone(polls))
            }
            None => Cpu::Unseen,
        };
        call.cpu_allowed = limits.cpu_of(events);
        call.deadline = limits.deadline_of(events);
        call.host_calls_allowed = limits.host_calls_of(events);
        call.host_calls = 0;
        call.random_left = limits.random;
        call.requests = 0;
        (call.log_lines, call.log_bytes, call.log_dropped) = (0, 0, 0);
    }

    /// Ends a call: writes what is left of its output, counts what was dropped, gives its CPU time.
    pub(crate) fn end(&mut self) -> Duration {
        for stream in 0..2 {
            if !self.lines[stream].is_empty() {
                let rest = std::mem::take(&mut self.lines[stream]);
                self.output_line(stream, &rest);
            }
        }
        if self.call.log_dropped > 0 {
            self.shared.meters.log_dropped.add(self.call.log_dropped);
            self.call.log_dropped = 0;
        }
        self.call.batch = Batch::default();
        self.call.cpu_used()
    }

    /// Counts a call of the guest to the host.
    pub(crate) fn host_call(&mut self) -> Result<(), LimitReached> {
        self.call.host_calls += 1;
        if self.call.host_calls > self.call.host_calls_allowed {
            return Err(LimitReached::new(
                Limit::HostCalls,
                self.call.host_calls_allowed,
            ));
        }
        Ok(())
    }

    /// The source or sink of the call, as in the configuration.
    pub(crate) fn component(&self) -> String {
        self.call
            .part
            .as_ref()
            .map(PartId::to_string)
            .unwrap_or_default()
    }

    /// Milliseconds since 1970, the same for the whole call.
    pub(crate) fn wall_ms(&mut self) -> u64 {
        let clock = &self.shared.clock;
        *self.call.wall_ms.get_or_insert_with(|| clock.wall_ms())
    }

    /// Time until the deadline.
    pub(crate) fn remaining(&self) -> Duration {
        let spent = self.call.started.elapsed();
        self.call.deadline.saturating_sub(spent)
    }

    /// Milliseconds until the deadline.
    pub(crate) fn remaining_ms(&self) -> u32 {
        u32::try_from(self.remaining().as_millis()).unwrap_or(u32::MAX)
    }

    /// The same for every attempt at the same events at the same place.
    pub(crate) fn batch_key(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.component().as_bytes());
        if let Some(cursor) = &self.call.cursor {
            context.update(cursor);
            return hex(&context.finish().as_ref()[..16]);
        }
        let origins = self.call.batch.origins();
        if !origins.is_empty() {
            // Ids say all: other events have others, and the same events always have these.
            for id in origins.iter() {
                context.update(&id.incarnation.0);
                context.update(&id.sequence.to_le_bytes());
                context.update(&id.child.to_le_bytes());
            }
            return hex(&context.finish().as_ref()[..16]);
        }
        context.update(&self.call.received_ms.to_le_bytes());
        for length in self.call.batch.lengths() {
            context.update(&length.to_le_bytes());
        }
        self.call.batch.runs().for_each(|run| context.update(run));
        hex(&context.finish().as_ref()[..16])
    }

    /// Writes one line to the agent's log, or drops and counts it.
    pub(crate) fn log(&mut self, level: tracing::Level, text: &str) {
        let limits = &self.shared.limits;
        let call = &mut self.call;
        let fits = call.log_lines < limits.log_lines
            && call.log_bytes.saturating_add(text.len()) <= limits.log_bytes
            && self
                .shared
                .log
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
        if !fits {
            call.log_dropped += 1;
            return;
        }
        call.log_lines += 1;
        call.log_bytes += text.len();
        let (handler, line) = (&self.shared.name, escape(text));
        match level {
            tracing::Level::TRACE => tracing::trace!(handler, line, "handler says"),
            tracing::Level::DEBUG => tracing::debug!(handler, line, "handler says"),
            tracing::Level::INFO => tracing::info!(handler, line, "handler says"),
            tracing::Level::WARN => tracing::warn!(handler, line, "handler says"),
            tracing::Level::ERROR => tracing::error!(handler, line, "handler says"),
        }
    }

    /// Takes bytes of standard output (0) or standard error (1).
    pub(crate) fn output(&mut self, stream: usize, bytes: &[u8]) {
        let mut pending = std::mem::take(&mut self.lines[stream]);
        pending.extend_from_slice(bytes);
        let mut rest = &pending[..];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.output_line(stream, &rest[..end]);
            rest = &rest[end + 1..];
        }
        if rest.len() > self.shared.limits.log_bytes {
            self.output_line(stream, rest);
            rest = &[];
        }
        self.lines[stream] = rest.to_vec();
    }

    fn output_line(&mut self, stream: usize, line: &[u8]) {
        let level = [tracing::Level::INFO, tracing::Level::WARN][stream];
        self.log(level, &String::from_utf8_lossy(line));
    }
}

impl CallState {
    fn cpu_used(&self) -> Duration {
        match &self.cpu {
            // A thread that had to wait for the processor is not charged for it.
            Cpu::Unseen => self.started.elapsed().min(2 * TICK),
            Cpu::Seen { used, at } => *used + thread_cpu().saturating_sub(*at),
            Cpu::Polled(polls) => polls.used(),
        }
    }
}

/// What happens at every tick while the guest runs: time is added up, and limits are enforced.
pub(crate) fn at_tick(mut store: StoreContextMut<'_, Guest>) -> wasmtime::Result<UpdateDeadline> {
    let call = &mut store.data_mut().call;
    let used = call.cpu_used();
    let waits = matches!(call.cpu, Cpu::Polled(_));
    if !waits {
        let at = thread_cpu();
        call.cpu = Cpu::Seen { used, at };
    }
    if used > call.cpu_allowed {
        let allowed = levada_core::units::format_duration(call.cpu_allowed);
        return Err(LimitReached::new(Limit::Cpu, allowed).into());
    }
    if call.started.elapsed() > call.deadline {
        let allowed = levada_core::units::format_duration(call.deadline);
        return Err(LimitReached::new(Limit::Deadline, allowed).into());
    }
    Ok(match waits {
        // Others have their turn on this thread.
        true => UpdateDeadline::Yield(1),
        false => UpdateDeadline::Continue(1),
    })
}

/// Text of a guest for a log or a reason: control characters escaped, on one line.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Also what reverses or hides text in a terminal.
        let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if c.is_control() || hidden {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
