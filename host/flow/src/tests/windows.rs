//! Several batches in flight.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use levada_core::{Delivery, MarkWrite, SinkError};
use tokio::time;

use super::{bodies, eventually, fake_parts::FakeSink, fake_store::FakeStore, run};
use crate::{Plan, flights::Flights};

#[tokio::test(start_paused = true)]
async fn calls_are_made_in_order_each_polled_first_and_settled_in_order() {
    let store = FakeStore::durable(&[("main", 100)]);
    store.fill("main", 0..6);
    let log = Arc::new(Mutex::new(Vec::new()));
    let sink_log = Arc::clone(&log);
    // The later the call, the faster the answer.
    let sink = FakeSink::new(move |call, batch| {
        let log = Arc::clone(&sink_log);
        async move {
            log.lock()
                .unwrap()
                .push(format!("call {}", bodies(&batch).join(" ")));
            time::sleep(Duration::from_millis(100 / call as u64)).await;
            log.lock().unwrap().push(format!("answer {call}"));
            let mark = MarkWrite::set("last", call.to_string().into_bytes());
            Ok(Delivery {
                marks: vec![mark],
                ..Delivery::done()
            })
        }
    });
    let plan = Plan {
        sinks: vec![sink.window(3).plan("sinks.up", "main", 2)],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    eventually(|| store.queued("main").is_empty()).await;
    let expected = [
        "call 0 1", "call 2 3", "call 4 5", "answer 3", "answer 2", "answer 1",
    ];
    assert_eq!(*log.lock().unwrap(), expected);
    let marks: Vec<_> = store
        .state()
        .settlements
        .iter()
        .map(|s| s.marks[0].value.clone())
        .collect();
    assert_eq!(
        marks,
        [Some("1".into()), Some("2".into()), Some("3".into())]
    );
    assert_eq!(running.stop().await.lost_events(), 0);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_nothing_new_is_taken_until_all_are_back() {
    let store = FakeStore::durable(&[("main", 100)]);
    store.fill("main", 0..8);
    let log = Arc::new(Mutex::new(Vec::new()));
    let sink_log = Arc::clone(&log);
    // As a hop does it: when the first call fails, those behind it fail too, later.
    let sink = FakeSink::new(move |call, batch| {
        let log = Arc::clone(&sink_log);
        async move {
            log.lock().unwrap().push(bodies(&batch).join(" "));
            if call > 3 {
                return Ok(Delivery::done());
            }
            time::sleep(Duration::from_secs(call as u64)).await;
            Err(SinkError::Unreachable {
                what: "no route to host".into(),
                source: None,
            })
        }
    });
    let plan = Plan {
        sinks: vec![sink.window(3).plan("sinks.up", "main", 1)],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    eventually(|| store.queued("main").is_empty()).await;
    let expected = ["0", "1", "2", "0", "1", "2", "3", "4", "5", "6", "7"];
    assert_eq!(*log.lock().unwrap(), expected);
    assert_eq!(
        running.metric("levada_sink_failures_total{part=\"sinks.up\",reason=\"unreachable\"}"),
        Some(3)
    );
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn never_more_than_the_window() {
    let store = FakeStore::durable(&[("main", 1000)]);
    store.fill("main", 0..100);
    let now = Arc::new(Mutex::new((0, 0)));
    let counted = Arc::clone(&now);
    let sink = FakeSink::new(move |call, _| {
        let counted = Arc::clone(&counted);
        async move {
            {
                let mut counted = counted.lock().unwrap();
                counted.0 += 1;
                counted.1 = counted.1.max(counted.0);
            }
            time::sleep(Duration::from_millis(call as u64 % 7)).await;
            counted.lock().unwrap().0 -= 1;
            Ok(Delivery::done())
        }
    });
    let plan = Plan {
        sinks: vec![sink.window(4).plan("sinks.up", "main", 3)],
        ..Plan::default()
    };
    let running = run(plan, &store).await;
    eventually(|| store.queued("main").is_empty()).await;
    assert_eq!(now.lock().unwrap().1, 4);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_flight_is_polled_before_the_next_one_is_launched() {
    let log = Mutex::new(Vec::new());
    let flight = |n: u64, answers_after| {
        let log = &log;
        async move {
            log.lock().unwrap().push(n);
            time::sleep(Duration::from_secs(answers_after)).await;
            n
        }
    };
    let mut flights = Flights::new();
    flights.launch(0, flight(1, 3)).await;
    assert_eq!(*log.lock().unwrap(), [1]);
    flights.launch(0, flight(2, 0)).await;
    assert_eq!(*log.lock().unwrap(), [1, 2]);
    flights.launch(0, flight(3, 2)).await;
    let side = flights.beside(time::sleep(Duration::from_secs(2)));
    side.await;
    assert_eq!(
        flights.len(),
        3,
        "the first one is not back, so none is answered"
    );
    let cut = time::timeout(Duration::from_millis(10), flights.next());
    assert!(cut.await.is_err(), "waiting for an answer can be given up");
    let began = time::Instant::now();
    assert_eq!(
        (
            flights.next().await,
            flights.next().await,
            flights.next().await
        ),
        (1, 2, 3)
    );
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "all went on meanwhile"
    );
    assert!(flights.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lane_is_answered_in_order_and_waits_for_no_other() {
    let flight = |n: u64, answers_after| async move {
        time::sleep(Duration::from_secs(answers_after)).await;
        n
    };
    let mut flights = Flights::new();
    for (lane, n, answers_after) in [(0, 1, 9), (1, 2, 2), (0, 3, 0), (1, 4, 0), (2, 5, 1)] {
        flights.launch(lane, flight(n, answers_after)).await;
    }
    let mut answers = Vec::new();
    while !flights.is_empty() {
        answers.push(flights.next().await);
    }
    assert_eq!(answers, [5, 2, 4, 1, 3]);
}
