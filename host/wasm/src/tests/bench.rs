//! What the path from batch to guest and back costs; printed on demand, since a test cannot judge
//! time on a shared machine. `LEVADA_TIMES` is the path of a component that passes everything.

use std::time::Instant;

use super::*;

#[tokio::test]
async fn cost_of_a_call() {
    let Some(path) = std::env::var_os("LEVADA_TIMES") else {
        return;
    };
    let house = house();
    let handler = house.load(&HandlerSpec::new(path)).await;
    let plant = part("sources.plant");
    let facts = Call {
        part: &plant,
        attempt: 1,
        received_ms: 1,
        states: &Stateless,
    };
    for events in [1, 100, 1000] {
        let mut builder = BatchBuilder::default();
        for _ in 0..events {
            builder.push([("host", "edge-17"), ("type", "telemetry")], &[b'b'; 100]);
        }
        let batch = builder.finish();
        let rounds = 500_000 / events;
        let started = Instant::now();
        for _ in 0..rounds {
            let mut effects = Effects::default();
            let out = handler.intercept(batch.clone(), &facts, &mut effects).await;
            assert_eq!(out.unwrap().len(), events);
        }
        let each = started.elapsed().as_nanos() / rounds as u128;
        println!(
            "{events} events: {each} ns a call, {} ns an event",
            each / events as u128
        );
    }
}
