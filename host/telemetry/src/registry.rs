//! The metrics of one agent.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use prometheus_client::{
    encoding::text,
    metrics::{counter, family::Family, gauge, histogram},
    registry,
};

type Labels = Vec<(String, String)>;
type CounterFamily = Family<Labels, counter::Counter<u64, AtomicU64>>;
type GaugeFamily = Family<Labels, gauge::Gauge<i64, AtomicI64>>;
type HistogramFamily = Family<Labels, histogram::Histogram, fn() -> histogram::Histogram>;

/// Every metric of one agent. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<State>>);

/// A registry as its own refreshes may hold it: it keeps nothing alive.
#[derive(Clone)]
pub struct WeakRegistry(Weak<Mutex<State>>);

impl WeakRegistry {
    /// The registry, if anybody still has it.
    #[must_use]
    pub fn upgrade(&self) -> Option<Registry> {
        self.0.upgrade().map(Registry)
    }
}

#[derive(Default)]
struct State {
    text: registry::Registry,
    counters: HashMap<&'static str, CounterFamily>,
    gauges: HashMap<&'static str, GaugeFamily>,
    histograms: HashMap<&'static str, HistogramFamily>,
    refresh: Vec<Arc<dyn Fn() + Send + Sync>>,
}

/// A number that only rises.
#[derive(Debug, Clone)]
pub struct Counter(counter::Counter<u64, AtomicU64>);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// Its value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.inner().load(Ordering::Relaxed)
    }
}

/// A number that rises and falls.
#[derive(Debug, Clone)]
pub struct Gauge(gauge::Gauge<i64, AtomicI64>);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: i64) {
        self.0.set(value);
    }

    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.inc_by(n);
    }

    /// Its value now.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}

/// How long things took, in seconds: buckets from 100 us to 100 s, three a decade.
#[derive(Debug, Clone)]
pub struct Histogram(histogram::Histogram);

impl Histogram {
    /// Records one duration.
    pub fn observe(&self, duration: std::time::Duration) {
        self.0.observe(duration.as_secs_f64());
    }
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter of a family with these labels; made at the first call. `_total` is appended to
    /// the name in the text.
    #[must_use]
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
    ) -> Counter {
        let mut state = self.lock();
        let State { text, counters, .. } = &mut *state;
        let family = counters.entry(name).or_insert_with(|| {
            let family = CounterFamily::default();
            text.register(name, sentence(help), family.clone());
            family
        });
        Counter(family.get_or_create(&owned(labels)).clone())
    }

    /// The gauge of a family with these labels; made at the first call.
    #[must_use]
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Gauge {
        let mut state = self.lock();
        let State { text, gauges, .. } = &mut *state;
        let family = gauges.entry(name).or_insert_with(|| {
            let family = GaugeFamily::default();
            text.register(name, sentence(help), family.clone());
            family
        });
        Gauge(family.get_or_create(&owned(labels)).clone())
    }

    /// The histogram of a family with these labels; made at the first call. Name it `..._seconds`.
    #[must_use]
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
    ) -> Histogram {
        let mut state = self.lock();
        let State {
            text, histograms, ..
        } = &mut *state;
        let family = histograms.entry(name).or_insert_with(|| {
            let family = HistogramFamily::new_with_constructor(buckets);
            text.register(name, sentence(help), family.clone());
            family
        });
        Histogram(family.get_or_create(&owned(labels)).clone())
    }

    /// Has `refresh` called before every reading, to set gauges that are computed.
    pub fn before_reading(&self, refresh: impl Fn() + Send + Sync + 'static) {
        self.lock().refresh.push(Arc::new(refresh));
    }

    /// For what is kept in [`before_reading`](Self::before_reading) and needs the registry.
    #[must_use]
    pub fn downgrade(&self) -> WeakRegistry {
        WeakRegistry(Arc::downgrade(&self.0))
    }

    /// All metrics in OpenMetrics text, which Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        let refresh = self.lock().refresh.clone();
        for refresh in refresh {
            refresh();
        }
        let mut out = String::new();
        text::encode(&mut out, &self.lock().text).expect("writing to a string cannot fail");
        out
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for WeakRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakRegistry").finish_non_exhaustive()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// A help text as the writer wants it: it adds the full stop itself.
fn sentence(help: &str) -> &str {
    help.strip_suffix('.').unwrap_or(help)
}

fn owned(labels: &[(&str, &str)]) -> Labels {
    labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn buckets() -> histogram::Histogram {
    let decades = (-4..2).map(|power| 10_f64.powi(power));
    histogram::Histogram::new(decades.flat_map(|d| [d, 2.0 * d, 5.0 * d]).chain([100.0]))
}

#[cfg(test)]
mod tests;
