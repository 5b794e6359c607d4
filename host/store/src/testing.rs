//! Doors for tests and simulations; no part of the product's interface.

use std::{sync::Arc, time::Instant};

pub use crate::{
    disk::Disk,
    file::{Ahead, Pace},
    writer::Step,
};
use crate::{
    open,
    params::{OpenError, StoreParams},
    shared,
    stores::{Closed, Stores},
    writer::Writer,
};

/// The writer of a store that was opened without a thread.
#[derive(Debug)]
pub struct Stepper {
    stores: Arc<Stores>,
    writer: Writer,
}

/// Opens a store whose writer does nothing until it is stepped.
///
/// # Errors
/// As [`open`](crate::open).
pub fn open_stepped(params: StoreParams) -> Result<(Arc<Stores>, Stepper), OpenError> {
    let (shared, writer) = open::open(params)?;
    let stores = Arc::new(Stores::new(shared, None));
    Ok((Arc::clone(&stores), Stepper { stores, writer }))
}

impl Stepper {
    /// Does what is to be done at `now`; whether something was.
    pub fn step(&mut self, now: Instant) -> bool {
        self.advance(now) == Step::Worked
    }

    /// As [`step`](Self::step); says when the next one is due.
    pub fn advance(&mut self, now: Instant) -> Step {
        self.writer.step(now)
    }

    /// Waits until the writer may have something to do before that. Safe to cancel.
    pub async fn rung(&self) {
        self.stores.shared.wake.rung().await;
    }

    /// Closes the store in order.
    pub fn close(mut self) -> Closed {
        self.stores.begin_close();
        while self.writer.step(shared::now()) == Step::Worked {}
        drop(self.writer);
        self.stores.end_close(None)
    }
}
