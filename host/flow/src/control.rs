//! The handle on a running flow, for operators.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use levada_core::PartId;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::{
    change::Running,
    flow::{OpenErrors, Surroundings},
    ingest::SourceIngest,
    plan::Plan,
};

/// Changes a running flow and puts dead letters back into it. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    orders: mpsc::Sender<Order>,
    pub(crate) ingests: Ingests,
    pub(crate) around: Surroundings,
    pub(crate) replaying: Arc<tokio::sync::Mutex<()>>,
}

/// What stands behind the sources that run.
pub(crate) type Ingests = Arc<Mutex<BTreeMap<PartId, Arc<SourceIngest>>>>;

/// Why a flow was not changed: it runs as before.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChangeError {
    #[error("the agent is stopping")]
    Stopping,
    #[error("a part cannot be opened")]
    Open(#[source] OpenErrors),
}

/// A plan that a running flow is to take over.
pub(crate) struct Order {
    plan: Plan,
    reply: oneshot::Sender<Result<(), OpenErrors>>,
}

impl Order {
    pub(crate) async fn carry_out(self, running: &mut Running) {
        let changed = running.change(self.plan).await;
        // Who asked may be gone; the change is made all the same.
        let _heard = self.reply.send(changed).is_ok();
    }
}

impl Control {
    pub(crate) fn new(around: &Surroundings) -> (Self, mpsc::Receiver<Order>) {
        // One change at a time.
        let (orders, taken) = mpsc::channel(1);
        let control = Self {
            orders,
            ingests: Arc::default(),
            around: around.clone(),
            replaying: Arc::default(),
        };
        (control, taken)
    }

    /// Makes the running flow what `plan` says, part by part: see [`Difference`](crate::Difference).
    /// Parts that stay the same are not touched. Returns when the old parts have ended.
    ///
    /// # Errors
    /// [`ChangeError`]: everything runs as before.
    pub async fn change(&self, plan: Plan) -> Result<(), ChangeError> {
        let (reply, changed) = oneshot::channel();
        let order = Order { plan, reply };
        let sent = self.orders.send(order).await;
        sent.map_err(|_| ChangeError::Stopping)?;
        let changed = changed.await.map_err(|_| ChangeError::Stopping)?;
        changed.map_err(ChangeError::Open)
    }

    pub(crate) fn ingest(&self, source: &PartId) -> Option<Arc<SourceIngest>> {
        let ingests = self.ingests.lock().unwrap_or_else(PoisonError::into_inner);
        ingests.get(source).cloned()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}
