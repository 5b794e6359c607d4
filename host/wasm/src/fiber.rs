//! Calls that may wait: on a fiber, inside a task. What counts as their CPU time is their polls.

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use crate::ticker::Ticker;

/// The CPU time of the calls of one instance, of which never two run at once: the thread's time
/// from the beginning of each poll to its end. What other tasks use of the thread in between does
/// not count, and neither does waiting.
#[derive(Debug, Default)]
pub(crate) struct PollTime {
    used_ns: AtomicU64,
    /// The thread's clock when the poll that runs began; 0 outside of a poll.
    since_ns: AtomicU64,
}

impl PollTime {
    /// Begins a call.
    pub(crate) fn reset(&self) {
        self.used_ns.store(0, Ordering::Relaxed);
    }

    /// CPU time since the call began.
    pub(crate) fn used(&self) -> Duration {
        let since = self.since_ns.load(Ordering::Relaxed);
        let now = if since == 0 { 0 } else { nanoseconds() - since };
        Duration::from_nanos(self.used_ns.load(Ordering::Relaxed) + now)
    }

    fn enter(&self) {
        self.since_ns.store(nanoseconds().max(1), Ordering::Relaxed);
    }

    fn leave(&self) {
        let used = u64::try_from(self.used().as_nanos()).unwrap_or(u64::MAX);
        self.used_ns.store(used, Ordering::Relaxed);
        self.since_ns.store(0, Ordering::Relaxed);
    }
}

/// A call while it runs. A panic in it is its result; while it waits no epoch passes for it.
///
/// Dropped before its end it leaves an instance that must not be used again.
pub(crate) struct Fiber<'a, T> {
    call: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    time: &'a PollTime,
    ticker: &'a Ticker,
}

impl<'a, T> Fiber<'a, T> {
    pub(crate) fn new(
        call: impl Future<Output = T> + Send + 'a,
        time: &'a PollTime,
        ticker: &'a Ticker,
    ) -> Self {
        Self {
            call: Box::pin(call),
            time,
            ticker,
        }
    }
}

impl<T> Future for Fiber<'_, T> {
    type Output = Result<T, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let _ticking = self.ticker.run();
        self.time.enter();
        let call = self.call.as_mut();
        let polled = panic::catch_unwind(AssertUnwindSafe(|| call.poll(cx)));
        self.time.leave();
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

/// The CPU time of this thread.
pub(crate) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn nanoseconds() -> u64 {
    u64::try_from(thread_cpu().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
