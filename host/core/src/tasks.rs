//! The only place that spawns tasks and hands work to threads that may block.

use std::{collections::HashMap, future::Future, time::Duration};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::{self, JoinError, JoinSet},
    time,
};
use tracing::{Instrument, Span, info_span};

/// Named tasks with one owner who waits for them. Dropping the set cancels what still runs.
#[derive(Debug, Default)]
pub struct TaskSet {
    tasks: JoinSet<()>,
    names: HashMap<task::Id, String>,
}

/// How a task ended.
#[derive(Debug)]
pub struct Ended {
    pub name: String,
    /// The text of its panic, if it panicked.
    pub panic: Option<String>,
}

impl TaskSet {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task under a name that logs and a slow shutdown show.
    pub fn spawn(
        &mut self,
        name: impl Into<String>,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let name = name.into();
        let span = info_span!("task", name = %name);
        let id = self.tasks.spawn(future.instrument(span)).id();
        self.names.insert(id, name);
    }

    /// Waits for the next task to end; `None` if there is none. Safe to cancel.
    pub async fn next(&mut self) -> Option<Ended> {
        let (id, panic) = match self.tasks.join_next_with_id().await? {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), panic_text(error)),
        };
        Some(Ended {
            name: self.names.remove(&id).unwrap_or_default(),
            panic,
        })
    }

    /// Waits until all have ended, or until the time is over; whether all have ended.
    pub async fn join(&mut self, most: Duration) -> bool {
        let all = async { while self.next().await.is_some() {} };
        time::timeout(most, all).await.is_ok()
    }

    /// Cancels what still runs and waits until it is gone.
    pub async fn abort(&mut self) {
        self.tasks.abort_all();
        while self.next().await.is_some() {}
    }

    /// The names of the tasks that still run.
    pub fn running(&self) -> impl Iterator<Item = &str> {
        self.names.values().map(String::as_str)
    }

    /// The number of tasks that still run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no task runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// Runs work that takes long, but not unboundedly long, on the thread that holds the data.
///
/// On a multi-thread runtime the other tasks of this worker move elsewhere meanwhile; on a
/// single-thread one, and outside a runtime, it is a plain call.
pub fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => task::block_in_place(work),
        _ => work(),
    }
}

/// Runs work that may block for long on a thread of its own pool. It runs to its end even when the
/// caller is cancelled.
///
/// # Panics
/// Goes on with the panic of `work`.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let span = Span::current();
    match task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn panic_text(error: JoinError) -> Option<String> {
    let payload = error.try_into_panic().ok()?;
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    Some(
        text.or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_default(),
    )
}
