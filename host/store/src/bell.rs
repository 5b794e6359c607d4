//! Wakes the writer.

use std::{
    sync::{Condvar, MutexGuard},
    time::Duration,
};

use tokio::sync::Notify;

/// Rings where the writer waits: on its thread in production, in a task of a simulation.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    thread: Condvar,
    task: Notify,
}

impl Bell {
    /// There is something to do, perhaps.
    pub(crate) fn ring(&self) {
        self.thread.notify_all();
        self.task.notify_one();
    }

    /// Waits on this thread, with the lock open meanwhile, at most so long.
    pub(crate) fn wait<T>(&self, guard: MutexGuard<'_, T>, most: Option<Duration>) {
        match most {
            Some(most) => drop(self.thread.wait_timeout(guard, most)),
            None => drop(self.thread.wait(guard)),
        }
    }

    /// Waits for the next ring, or for one that nobody has heard. Safe to cancel.
    pub(crate) async fn rung(&self) {
        self.task.notified().await;
    }
}
