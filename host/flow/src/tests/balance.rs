//! The source's identity (delivery contract D8) holds whatever interceptors do.

use std::sync::Arc;

use levada_core::{Batch, Counter, DeadLetter, Effects, Ingest, PartId};
use proptest::{collection, prelude::*};

use super::{
    channel, events,
    fake_parts::FakeInterceptor,
    fake_store::FakeStore,
    ingests::{Rig, put},
};
use crate::{Link, Multiplexing, MultiplexingRoutes};

/// What an interceptor does with one event.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Pass,
    Discard,
    /// Says nothing about it.
    Lose,
    Dead,
    Split(usize),
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        4 => Just(Fate::Pass),
        1 => Just(Fate::Discard),
        1 => Just(Fate::Lose),
        1 => Just(Fate::Dead),
        1 => (1..5_usize).prop_map(Fate::Split),
    ];
    collection::vec(fate, 1..8)
}

fn letter(batch: &Batch, n: usize, flow: &PartId) -> DeadLetter {
    DeadLetter {
        event: batch.event_bytes(n).unwrap(),
        origin: None,
        part: super::part("handlers.h"),
        flow: flow.clone(),
        reason: "test".into(),
        limit: None,
        backtrace: None,
        handler: None,
        recording: None,
        attempts: 1,
        at_ms: 0,
    }
}

/// An interceptor that deals the fates out in turn, and miscounts on purpose.
fn dealer(fates: Vec<Fate>, noise: u64) -> Link {
    FakeInterceptor::link(
        "handlers.h",
        move |batch: Batch, call, effects: &mut Effects| {
            let mut out = Vec::new();
            for n in 0..batch.len() {
                let one = batch.slice(n..n + 1);
                match fates[n % fates.len()] {
                    Fate::Pass => out.push(one),
                    Fate::Discard => {
                        let own = super::part("handlers.h");
                        effects.count_reason(&own, Counter::Discarded, "noise", 1);
                    }
                    Fate::Lose => {}
                    Fate::Dead => effects.dead_letters.push(letter(&batch, n, call.part)),
                    Fate::Split(children) => out.extend(std::iter::repeat_n(one, children)),
                }
            }
            effects.count(call.part, Counter::Made, noise);
            effects.count(call.part, Counter::DeadLettered, noise);
            Ok(Batch::concat(out))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]
    #[test]
    fn accepted_and_made_is_put_and_discarded_and_dead(
        batches in collection::vec(0..30_u32, 1..6),
        chain in collection::vec((fates(), 0..3_u64), 0..4),
        no_route in any::<bool>(),
    ) {
        let store = FakeStore::durable(&[("main", usize::MAX), ("alarm", 0)]);
        let links = chain.into_iter().map(|(fates, noise)| dealer(fates, noise)).collect();
        let selector = Multiplexing::new(MultiplexingRoutes {
            header: "none".into(),
            default: if no_route { vec![] } else { vec![channel("main")] },
            ..MultiplexingRoutes::default()
        });
        let rig = Rig::new(&store, links, Arc::new(selector));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for size in &batches {
            runtime.block_on(rig.ingest.put(put(events(0..*size)))).unwrap();
        }
        let count = |counter| store.count("sources.s", counter);
        prop_assert_eq!(count(Counter::Accepted), u64::from(batches.iter().sum::<u32>()));
        prop_assert_eq!(count(Counter::Put), store.queued("main").len() as u64);
        prop_assert_eq!(count(Counter::DeadLettered), store.state().dead.len() as u64);
        prop_assert_eq!(
            count(Counter::Accepted) + count(Counter::Made) + count(Counter::Replayed),
            count(Counter::Put) + count(Counter::Discarded) + count(Counter::DeadLettered)
        );
    }
}
