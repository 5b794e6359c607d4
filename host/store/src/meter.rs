//! Counts what a storage backend does, and slows its syncs down where a benchmark asks for it.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use levada_telemetry::{Counter, Histogram, Registry};
use redb::StorageBackend;

/// How many sync latencies are remembered.
const RING: usize = 512;

/// What the pages cost since this start.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) flushes: Counter,
    pub(crate) written: Counter,
    latency: Histogram,
    ring: Mutex<Ring>,
    pub(crate) length: AtomicU64,
}

#[derive(Debug)]
struct Ring {
    micros: Vec<u64>,
    next: usize,
}

impl Meter {
    pub(crate) fn new(registry: &Registry) -> Arc<Self> {
        Arc::new(Self {
            flushes: registry.counter(
                "levada_store_flushes",
                "Syncs of the store's file for commits",
                &[],
            ),
            written: registry.counter(
                "levada_store_written_bytes",
                "Bytes of pages written to the store's file",
                &[],
            ),
            latency: registry.histogram(
                "levada_store_sync_seconds",
                "How long syncs of the store's file took",
                &[],
            ),
            ring: Mutex::new(Ring {
                micros: Vec::new(),
                next: 0,
            }),
            length: AtomicU64::new(0),
        })
    }

    fn synced(&self, took: Duration) {
        self.flushes.add(1);
        self.latency.observe(took);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.micros.len() < RING {
            ring.micros.push(micros);
        } else {
            let next = ring.next;
            ring.micros[next] = micros;
            ring.next = (next + 1) % RING;
        }
    }

    /// Median and 99th percentile of the latest syncs, in microseconds; 0 before the first.
    pub(crate) fn sync_percentiles(&self) -> (u64, u64) {
        let mut micros = self
            .ring
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .micros
            .clone();
        micros.sort_unstable();
        let at = |percent: usize| {
            micros
                .get(micros.len() * percent / 100)
                .copied()
                .unwrap_or(0)
        };
        (at(50), at(99))
    }
}

/// A backend whose work is counted.
#[derive(Debug)]
pub(crate) struct Metered {
    inner: Box<dyn StorageBackend>,
    meter: Arc<Meter>,
    delay: Duration,
    /// Whether something was written since the last sync that worked: redb syncs a grown file once
    /// more, and here the space is often there and synced already.
    dirty: AtomicBool,
}

impl Metered {
    pub(crate) fn new(inner: Box<dyn StorageBackend>, meter: Arc<Meter>, delay: Duration) -> Self {
        Self {
            inner,
            meter,
            delay,
            dirty: AtomicBool::new(true),
        }
    }
}

impl StorageBackend for Metered {
    fn len(&self) -> io::Result<u64> {
        let len = self.inner.len()?;
        self.meter.length.store(len, Ordering::Relaxed);
        Ok(len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.dirty.store(true, Ordering::SeqCst);
        self.inner.set_len(len)?;
        self.meter.length.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if !self.dirty.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        let started = Instant::now();
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
        }
        let done = self.inner.sync_data();
        if done.is_err() {
            self.dirty.store(true, Ordering::SeqCst);
        }
        self.meter.synced(started.elapsed());
        done
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.dirty.store(true, Ordering::SeqCst);
        self.inner.write(offset, data)?;
        self.meter.written.add(data.len() as u64);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}
