//! What the path from batch to guest and back costs; printed on demand, since a test cannot judge
//! time on a shared machine.

use std::time::Instant;

use super::*;

#[tokio::test]
async fn cost_of_a_call() {
    if std::env::var_os("LEVADA_TIMES").is_none() {
        return;
    }
    let house = house();
    let handler = house.load(&house.spec(PUPPET)).await;
    for events in [1, 100, 1000] {
        let batch = bodies(std::iter::repeat_n("body of an event", events));
        let rounds = 200_000 / events;
        let started = Instant::now();
        for _ in 0..rounds {
            call(&*handler, &batch).await.unwrap();
        }
        let each = started.elapsed().as_nanos() / rounds as u128;
        println!(
            "{events} events: {each} ns a call, {} ns an event",
            each / events as u128
        );
        assert!(each < 1_000_000, "{events} events: {each} ns a call");
    }
}
