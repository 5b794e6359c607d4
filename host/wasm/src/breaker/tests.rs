use levada_telemetry::Registry;
use tokio::time;

use super::*;

fn breaker() -> Breaker {
    let registry = Registry::new();
    let open = registry.gauge("open", "", &[]);
    let trips = registry.counter("trips", "", &[]);
    Breaker::new("handlers.h", Chance::seeded(3), open, trips)
}

/// Runs one batch through; whether it was let in.
fn batch(breaker: &Breaker, handled: u32, failed: u32) -> bool {
    match breaker.admit() {
        Ok(pass) => {
            pass.end(Tally { handled, failed }, Some("unreachable"));
            true
        }
        Err(_) => false,
    }
}

fn is_open(breaker: &Breaker) -> bool {
    breaker.open.get() == 1
}

#[tokio::test(start_paused = true)]
async fn three_batches_in_a_row_of_which_nothing_was_handled_open_it() {
    let breaker = breaker();
    for (handled, failed) in [(0, 5), (0, 5), (1, 4), (0, 1), (0, 1)] {
        assert!(batch(&breaker, handled, failed));
        assert!(!is_open(&breaker));
    }
    assert!(batch(&breaker, 0, 1));
    assert!(is_open(&breaker));
    let Err(InterceptError::Broken { reason, after }) = breaker.admit() else {
        panic!("let in");
    };
    assert_eq!(
        reason,
        "the breaker is open: 3 batches in a row failed (unreachable)"
    );
    assert!(after.unwrap() <= Duration::from_secs(2), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn more_than_half_of_the_last_hundred_events_open_it() {
    let breaker = breaker();
    // What lies further back does not count.
    assert!(batch(&breaker, 1, 50));
    assert!(batch(&breaker, 100, 0));
    for _ in 0..10 {
        assert!(batch(&breaker, 5, 5));
    }
    assert!(!is_open(&breaker), "exactly half is not more than half");
    assert!(batch(&breaker, 4, 6));
    assert!(is_open(&breaker));
}

#[tokio::test(start_paused = true)]
async fn one_batch_that_a_search_saved_is_no_reason() {
    let breaker = breaker();
    for _ in 0..1000 {
        assert!(batch(&breaker, 999, 50));
        assert!(!is_open(&breaker));
    }
}

#[tokio::test(start_paused = true)]
async fn one_batch_probes_and_the_waits_grow_until_it_is_handled() {
    let breaker = breaker();
    (0..3).for_each(|_| assert!(batch(&breaker, 0, 1)));
    let mut longest = Duration::ZERO;
    for _ in 0..12 {
        let Err(InterceptError::Broken { after, .. }) = breaker.admit() else {
            panic!("let in before its time");
        };
        longest = longest.max(after.unwrap());
        time::advance(after.unwrap()).await;
        let probe = breaker.admit().unwrap();
        assert!(breaker.admit().is_err(), "one at a time");
        let (handled, failed) = (0, 1);
        probe.end(Tally { handled, failed }, None);
    }
    assert!(longest > Duration::from_secs(10), "{longest:?}");
    assert!(longest <= Duration::from_secs(60), "{longest:?}");
    assert_eq!(breaker.trips.get(), 1);
    time::advance(Duration::from_secs(60)).await;
    assert!(batch(&breaker, 1, 0));
    assert!(!is_open(&breaker));
    assert!(batch(&breaker, 0, 1), "what failed before is forgotten");
    assert!(!is_open(&breaker));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_cancelled_or_empty_leaves_the_next_one_its_turn() {
    let breaker = breaker();
    (0..3).for_each(|_| assert!(batch(&breaker, 0, 1)));
    time::advance(Duration::from_secs(60)).await;
    drop(breaker.admit().unwrap());
    breaker.admit().unwrap().end(Tally::default(), None);
    assert!(batch(&breaker, 1, 0));
    assert!(!is_open(&breaker));
}

#[tokio::test(start_paused = true)]
async fn what_began_before_it_opened_does_not_close_it() {
    let breaker = breaker();
    let early = breaker.admit().unwrap();
    (0..3).for_each(|_| assert!(batch(&breaker, 0, 1)));
    let (handled, failed) = (100, 0);
    early.end(Tally { handled, failed }, None);
    assert!(is_open(&breaker));
}
