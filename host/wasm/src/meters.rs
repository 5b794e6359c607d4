//! The numbers of one handler.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use levada_telemetry::{Counter, Gauge, Registry};

use crate::{http::Ended, inspect::short, limits::Limit};

/// What the host counts.
#[derive(Debug)]
pub(crate) struct Meters {
    pub(crate) calls: Counter,
    pub(crate) cpu_nanoseconds: Counter,
    pub(crate) passed: Counter,
    pub(crate) patched: Counter,
    pub(crate) replaced: Counter,
    pub(crate) discarded: Counter,
    pub(crate) rejected: Counter,
    pub(crate) done: Counter,
    pub(crate) retried: Counter,
    pub(crate) guilty: Counter,
    pub(crate) bisections: Counter,
    pub(crate) poll_failures: Counter,
    pub(crate) reserved_headers: Counter,
    pub(crate) log_dropped: Counter,
    pub(crate) memory_high_water: Gauge,
    pub(crate) breaker_open: Gauge,
    pub(crate) breaker_trips: Counter,
    traps: Counter,
    contracts: Counter,
    limits: Vec<Counter>,
    requests: Vec<Counter>,
    retirements: Vec<Counter>,
}

/// Why an instance does not serve on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retired {
    Batches,
    Age,
    Memory,
    Failure,
    Fresh,
}

impl Retired {
    const ALL: [Self; 5] = [
        Self::Batches,
        Self::Age,
        Self::Memory,
        Self::Failure,
        Self::Fresh,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Batches => "batches",
            Self::Age => "age",
            Self::Memory => "memory",
            Self::Failure => "failure",
            Self::Fresh => "fresh",
        }
    }
}

impl Meters {
    /// The numbers of a handler; those that tell one version of it from another are counted for
    /// each digest of its component, of which the first 12 digits are shown.
    pub(crate) fn new(registry: &Registry, handler: &str, digest: &str) -> Self {
        let part = format!("handlers.{handler}");
        let digest = ("digest", short(digest));
        let one = |name, help| registry.counter(name, help, &[("part", &part)]);
        let each = |name, help| registry.counter(name, help, &[("part", &part), digest]);
        let by = |name, help, label: &str, value: &str| {
            registry.counter(name, help, &[("part", &part), (label, value), digest])
        };
        let verdict = |word| {
            by(
                "levada_handler_events",
                "Events by what the handler said of them",
                "verdict",
                word,
            )
        };
        let failure = |word| {
            let help = "Calls that trapped, hit a limit or broke the contract";
            by("levada_handler_failures", help, "limit", word)
        };
        let request = |word| {
            let help = "Requests over HTTP by how they ended";
            let labels = [("part", part.as_str()), ("end", word)];
            registry.counter("levada_handler_requests", help, &labels)
        };
        let retired = |word| {
            by(
                "levada_handler_retirements",
                "Instances that were given up",
                "reason",
                word,
            )
        };
        Self {
            calls: each("levada_handler_calls", "Calls of the handler"),
            cpu_nanoseconds: each("levada_handler_cpu_nanoseconds", "CPU time of its calls"),
            passed: verdict("pass"),
            patched: verdict("patch"),
            replaced: verdict("replace"),
            discarded: verdict("discard"),
            rejected: verdict("reject"),
            done: verdict("done"),
            retried: verdict("retry"),
            guilty: verdict("failed"),
            bisections: each(
                "levada_handler_bisections",
                "Batches searched for a guilty event",
            ),
            poll_failures: one(
                "levada_handler_poll_failures",
                "Polls that failed, or of which the handler said so",
            ),
            reserved_headers: one(
                "levada_handler_reserved_headers",
                "Headers skipped because their names belong to the host",
            ),
            log_dropped: one("levada_handler_log_dropped", "Log lines dropped by a limit"),
            memory_high_water: registry.gauge(
                "levada_handler_memory_high_water_bytes",
                "Most linear memory an instance had after a call",
                &[("part", &part), digest],
            ),
            breaker_open: registry.gauge(
                "levada_handler_breaker_open",
                "1 while the handler fails too often and is only probed",
                &[("part", &part)],
            ),
            breaker_trips: one(
                "levada_handler_breaker_trips",
                "How often the handler began to fail too often",
            ),
            traps: failure("none, a trap"),
            contracts: failure("none, a broken contract"),
            limits: Limit::ALL.map(|limit| failure(limit.as_str())).into(),
            requests: Ended::ALL.map(|ended| request(ended.as_str())).into(),
            retirements: Retired::ALL.map(|reason| retired(reason.as_str())).into(),
        }
    }

    pub(crate) fn retired(&self, reason: Retired) {
        self.retirements[reason as usize].add(1);
    }

    /// Counts a request of a guest.
    pub(crate) fn requested(&self, ended: Ended) {
        self.requests[ended as usize].add(1);
    }

    /// Counts a failed call by the limit it hit.
    pub(crate) fn failed(&self, limit: Option<Limit>, contract: bool) {
        match limit {
            Some(limit) => self.limits[limit as usize].add(1),
            None if contract => self.contracts.add(1),
            None => self.traps.add(1),
        }
    }

    pub(crate) fn memory(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if bytes > self.memory_high_water.get() {
            self.memory_high_water.set(bytes);
        }
    }
}

/// Names a guest may use for its own numbers.
const MOST_NAMES: usize = 32;

/// What the guest counts, under a bounded number of names.
#[derive(Debug)]
pub(crate) struct GuestNumbers {
    registry: Registry,
    part: String,
    numbers: Mutex<HashMap<String, Number>>,
    dropped: Counter,
}

#[derive(Debug)]
enum Number {
    /// A sum with the part of it that is no whole number yet.
    Sum(Counter, f64),
    Value(Gauge),
}

impl GuestNumbers {
    pub(crate) fn new(registry: &Registry, handler: &str) -> Self {
        let part = format!("handlers.{handler}");
        Self {
            registry: registry.clone(),
            dropped: registry.counter(
                "levada_handler_numbers_dropped",
                "Numbers of the handler that had no legal name or value, or a name too many",
                &[("part", &part)],
            ),
            part,
            numbers: Mutex::new(HashMap::new()),
        }
    }

    /// Adds to a sum; whole numbers show.
    pub(crate) fn add(&self, name: &str, amount: f64) {
        let legal = amount.is_finite() && (0.0..9e15).contains(&amount);
        self.change(name, legal, Kind::Sum, |number| {
            if let Number::Sum(counter, rest) = number {
                *rest += amount;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "between 0 and 9e15"
                )]
                counter.add(rest.trunc() as u64);
                *rest = rest.fract();
            }
        });
    }

    /// Sets a value, to the nearest whole number.
    pub(crate) fn set(&self, name: &str, value: f64) {
        let legal = value.is_finite() && value.abs() < 9e15;
        self.change(name, legal, Kind::Value, |number| {
            if let Number::Value(gauge) = number {
                #[expect(clippy::cast_possible_truncation, reason = "below 9e15")]
                gauge.set(value.round() as i64);
            }
        });
    }

    fn change(&self, name: &str, legal: bool, kind: Kind, change: impl FnOnce(&mut Number)) {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = numbers.get_mut(name) {
            if legal && number.kind() == kind {
                return change(number);
            }
        } else if legal && numbers.len() < MOST_NAMES && is_name(name) {
            let labels = [("part", self.part.as_str()), ("name", name)];
            let mut number = match kind {
                Kind::Sum => {
                    let help = "What handlers count";
                    Number::Sum(
                        self.registry.counter("levada_guest_sum", help, &labels),
                        0.0,
                    )
                }
                Kind::Value => {
                    let help = "What handlers measure, rounded";
                    Number::Value(self.registry.gauge("levada_guest_value", help, &labels))
                }
            };
            change(&mut number);
            numbers.insert(name.to_owned(), number);
            return;
        }
        self.dropped.add(1);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sum,
    Value,
}

impl Number {
    fn kind(&self) -> Kind {
        match self {
            Self::Sum(..) => Kind::Sum,
            Self::Value(_) => Kind::Value,
        }
    }
}

fn is_name(name: &str) -> bool {
    levada_core::Name::new(name).is_some()
}
