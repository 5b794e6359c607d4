//! Hops out of a channel with lanes: a session for each.

use std::collections::BTreeMap;

use super::{node::KEYS, *};

const LANES: u32 = 4;

/// Fails unless these are the numbers below `count`, each once, and each key in order.
fn check(numbers: &[u64], count: u64, what: &str) {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for number in numbers {
        let before = last.insert(number % KEYS, *number);
        assert!(
            before.is_none_or(|before| before < *number),
            "{what}: {numbers:?}"
        );
    }
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..count).collect::<Vec<_>>(), "{what}");
}

fn divided() -> Hop {
    Hop {
        sender: Node::divided(LANES),
        ..Hop::new()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_lane_has_a_session_of_its_own() -> Result<()> {
    for receiver in [Node::in_memory(), Node::divided(3)] {
        let hop = Hop {
            receiver,
            ..divided()
        };
        for n in 0..40 {
            hop.sender.put(n * 25..n * 25 + 25).await?;
        }
        let ids: std::collections::BTreeSet<_> = hop.sender.ids().await.iter().collect();
        hop.run(Sender::small(), Receiver::default()).await;
        check(&hop.receiver.numbers().await, 1000, "undisturbed");
        let arrived: std::collections::BTreeSet<_> = hop.receiver.ids().await.iter().collect();
        assert!(arrived == ids && ids.len() == 1000);
        let lanes = hop.receiver.metric("levada_hop_baselines_total");
        assert!(lanes > 1 && lanes <= u64::from(LANES), "{lanes} lanes");
        assert_eq!(hop.receiver.metric("levada_hop_sessions_total"), lanes);
        assert_eq!(hop.sender.metric("levada_avro_connects_total"), lanes);
    }
    Ok(())
}

/// One connection after the other is reset, each behind other bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_of_any_lane_loses_nothing_and_repeats_nothing() -> Result<()> {
    let whole = divided();
    whole.sender.put(0..40).await?;
    whole.run(Sender::packing(), Receiver::default()).await;
    let length = whole.wire.passed(Direction::There) / 2;
    let mut repeats = 0;
    for (direction, step) in [(Direction::There, 5), (Direction::Back, 3)] {
        for offset in (0..length).step_by(step) {
            let hop = divided();
            hop.sender.put(0..40).await?;
            hop.wire.cut(direction, offset);
            hop.run(Sender::packing(), Receiver::default()).await;
            check(&hop.receiver.numbers().await, 40, "reset");
            repeats += hop.receiver.metric("levada_hop_repeated_events_total");
            repeats += hop.sender.metric("levada_hop_known_events_total");
        }
    }
    println!("{length} bytes: {repeats} events were known to be there already");
    assert!(repeats > 0, "no cut hit between a commit and its answer");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_whose_ends_are_stopped_again_and_again_are_stored_once() -> Result<()> {
    let hop = divided();
    for n in 0..100 {
        hop.sender.put(n * 20..n * 20 + 20).await?;
    }
    let chance = levada_core::Chance::seeded(5);
    let mut rounds = 0;
    while hop.sender.queued() > 0 {
        let receiving = hop.receiver.receive(&hop.wire, Receiver::default()).await;
        let sending = hop.sender.send(&hop.wire, Sender::small()).await;
        tokio::time::sleep(chance.jitter(Duration::from_millis(6))).await;
        if chance.below(2) == 0 {
            receiving.kill().await;
            sending.stop().await;
        } else {
            sending.kill().await;
            receiving.stop().await;
        }
        rounds += 1;
        assert!(rounds < 2000, "it does not come to an end");
    }
    check(&hop.receiver.numbers().await, 2000, "stopped");
    hop.sender.check_books();
    hop.receiver.check_books();
    println!("{rounds} rounds");
    Ok(())
}

/// F22 with lanes: one new incarnation is enough for all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_sender_with_lanes_loses_nothing() -> Result<()> {
    let hop = divided();
    hop.sender.put(0..100).await?;
    hop.sender.close();
    let backup = hop.sender.copy()?;
    let sender = hop.sender.open()?;
    sender.put(100..300).await?;
    let hop = Hop { sender, ..hop };
    hop.run(Sender::small(), Receiver::default()).await;
    check(&hop.receiver.numbers().await, 300, "before");

    let restored = backup.open()?;
    restored.put(1000..2000).await?;
    let hop = Hop {
        sender: restored,
        ..hop
    };
    hop.run(Sender::small(), Receiver::default()).await;
    let numbers = hop.receiver.numbers().await;
    let missing = (0..300).chain(1000..2000).filter(|n| !numbers.contains(n));
    assert_eq!(missing.count(), 0);
    println!(
        "{} events twice, all of them from the backup",
        numbers.len() - 1300
    );
    assert!(numbers.len() <= 1400);
    assert_eq!(hop.sender.metric("levada_hop_regressions_total"), 1);
    Ok(())
}
