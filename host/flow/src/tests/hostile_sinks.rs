//! Whatever a sink answers, every event leaves its channel once, and none is lost on the way.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use levada_core::{Delivery, Outcome, Outcomes, SinkError};
use proptest::{collection, prelude::*};
use tokio::time;

use super::{bodies, eventually, fake_parts::FakeSink, fake_store::FakeStore, run};
use crate::Plan;

/// What a sink does with one call.
#[derive(Debug, Clone)]
enum Answer {
    Done,
    Each(Vec<Outcome>),
    Unreachable,
    Refused(Option<Duration>),
    Fatal,
    Panic,
}

fn answers() -> impl Strategy<Value = Vec<(Answer, u64)>> {
    let outcome = prop_oneof![
        Just(Outcome::Done),
        Just(Outcome::Retry),
        Just(Outcome::Dead),
        Just(Outcome::Discard)
    ];
    let answer = prop_oneof![
        Just(Answer::Done),
        collection::vec(outcome, 0..8).prop_map(Answer::Each),
        Just(Answer::Unreachable),
        prop_oneof![Just(None), Just(Some(Duration::from_secs(3)))].prop_map(Answer::Refused),
        Just(Answer::Fatal),
        Just(Answer::Panic),
    ];
    collection::vec((answer, 0..50_u64), 0..30)
}

/// Answers as told, then delivers everything.
fn sink(answers: Vec<(Answer, u64)>, delivered: &Arc<Mutex<Vec<String>>>) -> FakeSink {
    let delivered = Arc::clone(delivered);
    FakeSink::new(move |call, batch| {
        let (answer, millis) = answers.get(call - 1).cloned().unwrap_or((Answer::Done, 0));
        let delivered = Arc::clone(&delivered);
        async move {
            time::sleep(Duration::from_millis(millis)).await;
            let outcomes = match answer {
                Answer::Done => Outcomes::Done,
                Answer::Each(each) => Outcomes::Each(each),
                Answer::Unreachable => {
                    return Err(SinkError::Unreachable {
                        what: "gone".into(),
                        source: None,
                    });
                }
                Answer::Refused(after) => {
                    return Err(SinkError::Refused {
                        what: "no".into(),
                        after,
                        source: None,
                    });
                }
                Answer::Fatal => {
                    return Err(SinkError::Fatal {
                        what: "help".into(),
                        source: None,
                    });
                }
                Answer::Panic => panic!("as told"),
            };
            let done = |(n, _): &(usize, String)| outcomes.get(*n) == Outcome::Done;
            let done = bodies(&batch).into_iter().enumerate().filter(done);
            delivered.lock().unwrap().extend(done.map(|(_, body)| body));
            Ok(Delivery {
                outcomes,
                ..Delivery::done()
            })
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]
    #[test]
    fn no_event_is_lost_or_settled_twice(
        answers in answers(),
        events in 0..60_u32,
        window in 1..5_usize,
        batch in 1..9_usize,
        failing_settles in 0..4_usize,
        max_attempts in prop_oneof![Just(None), Just(Some(2))],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let store = FakeStore::durable(&[("main", 1000)]);
            store.fill("main", 0..events);
            store.state().failing_settles = failing_settles;
            let delivered = Arc::default();
            let sink = sink(answers, &delivered).window(window);
            let mut sink = sink.plan("sinks.up", "main", batch);
            sink.retry.max_attempts = max_attempts;
            let running = run(Plan { sinks: vec![sink], ..Plan::default() }, &store).await;
            eventually(|| store.queued("main").is_empty()).await;
            let count = |name| {
                running.metric(&format!("levada_sink_{name}_events_total{{part=\"sinks.up\"}}"))
            };
            let gone = ["delivered", "dead_lettered", "discarded"].map(|name| count(name).unwrap());
            assert_eq!(gone.iter().sum::<u64>(), u64::from(events), "{gone:?}");
            assert_eq!(store.state().dead.len() as u64, gone[1]);
            let delivered = delivered.lock().unwrap().clone();
            let once: BTreeSet<_> = delivered.iter().collect();
            assert!(once.len() as u64 >= gone[0], "what counts as delivered was delivered");
            if window == 1 && failing_settles == 0 {
                assert_eq!(once.len(), delivered.len(), "nothing twice without a failure to settle");
            }
            running.stop().await;
        });
    }
}
