//! Instances between calls: used again within one handler, given up in time.

use std::sync::{Mutex, PoisonError};

use crate::{
    Reuse,
    broken::Broken,
    instance::{Live, Mould, Spent},
    meters::Retired,
    record::Tape,
};

/// The idle instances of one handler. An instance never serves two handlers.
#[derive(Debug)]
pub(crate) struct Pool {
    mould: Mould,
    reuse: Reuse,
    /// Most instances that work, or wait for work.
    most: usize,
    #[expect(
        clippy::vec_box,
        reason = "an instance goes from call to call as the pointer that it came as"
    )]
    idle: Mutex<Vec<Box<Live>>>,
}

impl Pool {
    pub(crate) fn new(mould: Mould, reuse: Reuse, most: usize) -> Self {
        Self {
            mould,
            reuse,
            most,
            idle: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn mould(&self) -> &Mould {
        &self.mould
    }

    /// How many instances may be at work at once.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// An idle instance, or a new one.
    pub(crate) async fn take(&self) -> Result<Box<Live>, Box<Broken>> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        match idle {
            Some(live) => Ok(live),
            None => self.fresh(None).await,
        }
    }

    /// A new instance, with its tape if it has one.
    pub(crate) async fn fresh(&self, tape: Option<Tape>) -> Result<Box<Live>, Box<Broken>> {
        let made = self.mould.instantiate(tape).await;
        if let Err(broken) = &made {
            self.mould.shared.meters.failed(broken.limit, false);
        }
        made
    }

    /// Takes an instance back after a call that ended well.
    pub(crate) fn give(&self, live: Box<Live>) {
        match self.end_of(&live) {
            Some(reason) => self.mould.shared.meters.retired(reason),
            None => {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                if idle.len() < self.most {
                    idle.push(live);
                }
            }
        }
    }

    /// Counts an instance that failed; its owner drops it.
    pub(crate) fn lost(&self) {
        self.mould.shared.meters.retired(Retired::Failure);
    }

    fn end_of(&self, live: &Live) -> Option<Retired> {
        let half = self.mould.shared.limits.memory / 2;
        match live.is_spent() {
            _ if self.reuse == Reuse::Fresh && live.calls > 0 => Some(Retired::Fresh),
            Spent::Calls => Some(Retired::Batches),
            Spent::Age => Some(Retired::Age),
            Spent::No if live.calls > 0 && live.memory() > half => Some(Retired::Memory),
            Spent::No => None,
        }
    }
}
