//! One session per lane: a new one ends the old (delivery contract D4.3).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};

/// Who may write the mark of each lane.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<String, Arc<Lane>>>>);

#[derive(Debug)]
struct Lane {
    /// The number of the newest session.
    newest: watch::Sender<u64>,
    /// Held by the session whose puts may be on their way.
    gate: Arc<AsyncMutex<()>>,
}

/// The right to put events of a lane, until it is dropped. It is to be dropped when a newer session
/// waits for it, as soon as everything that was staged is committed.
#[derive(Debug)]
pub(super) struct Turn {
    key: String,
    turns: Turns,
    number: u64,
    newest: watch::Receiver<u64>,
    /// `None` while dropping.
    gate: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Ends the session that has the lane now, and waits until it is done. `None` if an even newer
    /// one came meanwhile. Safe to cancel.
    pub(super) async fn take(&self, key: &str) -> Option<Turn> {
        let lane = {
            let mut lanes = self.lock();
            let lane = lanes.entry(key.to_owned()).or_insert_with(|| {
                Arc::new(Lane {
                    newest: watch::channel(0).0,
                    gate: Arc::default(),
                })
            });
            Arc::clone(lane)
        };
        let mut number = 0;
        lane.newest.send_modify(|newest| {
            *newest += 1;
            number = *newest;
        });
        let gate = Arc::clone(&lane.gate).lock_owned().await;
        let turn = Turn {
            key: key.to_owned(),
            turns: self.clone(),
            number,
            newest: lane.newest.subscribe(),
            gate: Some(gate),
        };
        drop(lane);
        (!turn.is_over()).then_some(turn)
    }

    /// Whether a session has this lane, or waits for it.
    pub(super) fn is_taken(&self, key: &str) -> bool {
        self.lock().contains_key(key)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Lane>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Waits until a newer session wants the lane. Safe to cancel.
    pub(super) async fn over(&self) {
        let mut newest = self.newest.clone();
        // The sending side lives in the lane, which lives as long as a turn is there.
        let _over = newest
            .wait_for(|newest| *newest != self.number)
            .await
            .is_ok();
    }

    fn is_over(&self) -> bool {
        *self.newest.borrow() != self.number
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lanes = self.turns.lock();
        drop(self.gate.take());
        // Whoever waits for the gate holds the lane, too.
        if lanes
            .get(&self.key)
            .is_some_and(|lane| Arc::strong_count(lane) == 1)
        {
            lanes.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_new_session_ends_the_old_and_waits_for_it() {
        let turns = Turns::default();
        let first = turns.take("a").await.unwrap();
        assert!(timeout(SHORT, first.over()).await.is_err());
        let other = turns.take("b").await.unwrap();
        let second = turns.take("a");
        tokio::pin!(second);
        assert!(timeout(SHORT, &mut second).await.is_err());
        first.over().await;
        assert!(timeout(SHORT, other.over()).await.is_err());
        drop(first);
        let second = second.await.unwrap();
        assert!(turns.is_taken("a") && turns.is_taken("b"));
        drop((second, other));
        assert!(!turns.is_taken("a") && turns.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_that_wait_the_newest_gets_the_lane() {
        let turns = Turns::default();
        let first = turns.take("a").await.unwrap();
        let (second, third) = (turns.take("a"), turns.take("a"));
        tokio::pin!(second, third);
        assert!(timeout(SHORT, &mut second).await.is_err());
        assert!(timeout(SHORT, &mut third).await.is_err());
        drop(first);
        assert!(second.await.is_none());
        assert!(third.await.is_some());
        assert!(turns.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_no_longer_waits_is_forgotten() {
        let turns = Turns::default();
        let first = turns.take("a").await.unwrap();
        assert!(timeout(SHORT, turns.take("a")).await.is_err());
        first.over().await;
        drop(first);
        assert!(turns.take("a").await.is_some());
        assert!(turns.lock().is_empty());
    }
}
