//! Two Levadas in one process, over a network that is told what to do: between them every event
//! arrives exactly once (delivery contract D4; F22, F26, F28-F31).

mod lanes;
mod node;
mod wire;

use std::time::Duration;

use anyhow::Result;
use levada_core::Store;
use levada_net::Transport;
use levada_rpc::{
    Client, Meta, Status,
    hop::{self, Open, Sent, Standing, Welcome},
};
use levada_store::Stores;

use self::{
    node::{Node, Receiver, Sender, at, channel, numbered},
    wire::{Direction, Wire},
};

/// Waits until a condition holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let within = Duration::from_secs(20);
    let looking = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let looked = tokio::time::timeout(within, looking).await;
    assert!(looked.is_ok(), "{what}: not within {within:?}");
}

/// Both ends of a hop, with their stores in memory.
struct Hop {
    sender: Node,
    receiver: Node,
    wire: Wire,
}

impl Hop {
    fn new() -> Self {
        Self {
            sender: Node::in_memory(),
            receiver: Node::in_memory(),
            wire: Wire::default(),
        }
    }

    /// Runs both ends until everything has arrived that the sender holds.
    async fn run(&self, sender: Sender, receiver: Receiver) {
        let receiving = self.receiver.receive(&self.wire, receiver).await;
        let sending = self.sender.send(&self.wire, sender).await;
        until("the sender is empty", || self.sender.queued() == 0).await;
        sending.stop().await;
        receiving.stop().await;
        self.sender.check_books();
        self.receiver.check_books();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_once_and_in_order_with_its_ids() -> Result<()> {
    let hop = Hop::new();
    for n in 0..40 {
        hop.sender.put(n * 7..n * 7 + 7).await?;
    }
    let ids = hop.sender.ids().await;
    hop.run(Sender::default(), Receiver::default()).await;
    assert_eq!(hop.receiver.numbers().await, (0..280).collect::<Vec<_>>());
    assert_eq!(hop.receiver.ids().await, ids);
    assert_eq!(hop.receiver.metric("levada_hop_baselines_total"), 1);
    assert_eq!(hop.receiver.metric("levada_hop_repeated_events_total"), 0);
    Ok(())
}

/// The bytes of one undisturbed session, towards the receiver and back.
async fn length_of_a_session(sender: Sender) -> Result<(usize, usize)> {
    let hop = Hop::new();
    hop.sender.put(0..8).await?;
    hop.run(sender, Receiver::default()).await;
    Ok((
        hop.wire.passed(Direction::There),
        hop.wire.passed(Direction::Back),
    ))
}

/// The connection is reset behind every byte of a session, once on the way there and once on the
/// way back: batches cut in half, answers lost, the opening torn.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_behind_any_byte_loses_nothing_and_repeats_nothing() -> Result<()> {
    reset_behind_any_byte(Sender::small()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_behind_any_byte_of_zstd_loses_nothing_and_repeats_nothing() -> Result<()> {
    reset_behind_any_byte(Sender::packing()).await
}

async fn reset_behind_any_byte(sender: Sender) -> Result<()> {
    let (there, back) = length_of_a_session(sender).await?;
    let mut repeats = 0;
    for (direction, length) in [(Direction::There, there), (Direction::Back, back)] {
        for offset in 0..=length {
            let hop = Hop::new();
            hop.sender.put(0..8).await?;
            hop.wire.cut(direction, offset);
            hop.run(sender, Receiver::default()).await;
            let numbers = hop.receiver.numbers().await;
            assert_eq!(
                numbers,
                (0..8).collect::<Vec<_>>(),
                "{direction:?} {offset}"
            );
            repeats += hop.receiver.metric("levada_hop_repeated_events_total");
            repeats += hop.sender.metric("levada_hop_known_events_total");
        }
    }
    println!("{there} + {back} bytes: {repeats} events were known to be there already");
    assert!(repeats > 0, "no cut hit between a commit and its answer");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_are_stopped_again_and_again_store_everything_once() -> Result<()> {
    let hop = Hop::new();
    for n in 0..100 {
        hop.sender.put(n * 10..n * 10 + 10).await?;
    }
    let chance = levada_core::Chance::seeded(3);
    let mut rounds = 0;
    while hop.sender.queued() > 0 {
        let receiving = hop.receiver.receive(&hop.wire, Receiver::default()).await;
        let sending = hop.sender.send(&hop.wire, Sender::small()).await;
        tokio::time::sleep(chance.jitter(Duration::from_millis(4))).await;
        // One of them is gone without a word, and the other goes on for a moment.
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
    assert_eq!(hop.receiver.numbers().await, (0..1000).collect::<Vec<_>>());
    hop.sender.check_books();
    hop.receiver.check_books();
    println!("{rounds} rounds");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_receiver_is_come_back_to_in_order() -> Result<()> {
    let hop = Hop {
        receiver: Node::with_room_for(25),
        ..Hop::new()
    };
    for n in 0..30 {
        hop.sender.put(n * 5..n * 5 + 5).await?;
    }
    let impatient = Receiver {
        put_timeout: "5ms",
        ..Receiver::default()
    };
    let receiving = hop.receiver.receive(&hop.wire, impatient).await;
    let sending = hop.sender.send(&hop.wire, Sender::small()).await;
    let mut seen = Vec::new();
    while seen.len() < 150 {
        until("events arrive", || hop.receiver.queued() > 0).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        seen.extend(hop.receiver.drain().await);
    }
    sending.stop().await;
    receiving.stop().await;
    assert_eq!(seen, (0..150).collect::<Vec<_>>());
    hop.sender.check_books();
    hop.receiver.check_books();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_fell_silent_is_opened_again_without_a_failure() -> Result<()> {
    let hop = Hop::new();
    let impatient = Receiver {
        idle_timeout: "20ms",
        ..Receiver::default()
    };
    let receiving = hop.receiver.receive(&hop.wire, impatient).await;
    let sending = hop.sender.send(&hop.wire, Sender::default()).await;
    for n in 0..3 {
        hop.sender.put(n..n + 1).await?;
        until("it has arrived", || hop.receiver.queued() > n).await;
        until("the receiver has hung up", || {
            hop.receiver.metric("levada_avro_connections") == 0
        })
        .await;
    }
    sending.stop().await;
    receiving.stop().await;
    assert_eq!(hop.receiver.numbers().await, [0, 1, 2]);
    assert_eq!(hop.sender.metric("levada_sink_failures_total"), 0);
    assert_eq!(hop.receiver.metric("levada_hop_sessions_total"), 3);
    Ok(())
}

/// F22: the sender's store is put back to an older copy, and takes more events than were lost by
/// that before it is heard again. Its positions are the same as before, its events are not.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_sender_loses_nothing() -> Result<()> {
    let wire = Wire::default();
    let (sender, receiver) = (Node::on_disk()?, Node::in_memory());
    sender.put(0..10).await?;
    sender.close();
    let backup = sender.copy()?;
    let sender = sender.open()?;
    sender.put(10..30).await?;
    let hop = Hop {
        sender,
        receiver,
        wire,
    };
    hop.run(Sender::small(), Receiver::default()).await;
    assert_eq!(hop.receiver.numbers().await, (0..30).collect::<Vec<_>>());

    let restored = backup.open()?;
    restored.put(100..200).await?;
    let hop = Hop {
        sender: restored,
        ..hop
    };
    hop.run(Sender::small(), Receiver::default()).await;
    let numbers = hop.receiver.numbers().await;
    let missing: Vec<_> = (0..30)
        .chain(100..200)
        .filter(|n| !numbers.contains(n))
        .collect();
    println!(
        "{} events twice, all of them from the backup",
        numbers.len() - 130
    );
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(numbers.len(), 140);
    assert_eq!(hop.sender.metric("levada_hop_regressions_total"), 1);
    Ok(())
}

/// The receiver's store is put back; what it had handed on by then is seen again.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_receiver_loses_nothing() -> Result<()> {
    let wire = Wire::default();
    let (sender, receiver) = (Node::in_memory(), Node::on_disk()?);
    sender.put(0..20).await?;
    let hop = Hop {
        sender,
        receiver,
        wire,
    };
    hop.run(Sender::small(), Receiver::default()).await;
    hop.receiver.close();
    let backup = hop.receiver.copy()?;

    let hop = Hop {
        receiver: hop.receiver.open()?,
        ..hop
    };
    hop.sender.put(20..40).await?;
    hop.run(Sender::small(), Receiver::default()).await;
    let mut seen = hop.receiver.drain().await;

    // Events 40.. lie above the mark of the backup, and the sender holds none below.
    hop.sender.put(40..60).await?;
    let hop = Hop {
        receiver: backup.open()?,
        ..hop
    };
    hop.run(Sender::small(), Receiver::default()).await;
    seen.extend(hop.receiver.drain().await);
    let missing: Vec<_> = (0..60).filter(|n| !seen.contains(n)).collect();
    println!("{} events twice", seen.len() - 60);
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(seen.len(), 80);
    Ok(())
}

/// F29: everything a sender ever said is said again on new connections, as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_replayed_stores_nothing() -> Result<()> {
    let hop = Hop::new();
    hop.sender.put(0..40).await?;
    let receiving = hop.receiver.receive(&hop.wire, Receiver::default()).await;
    let sending = hop.sender.send(&hop.wire, Sender::small()).await;
    until("all has arrived", || hop.sender.queued() == 0).await;
    let said = hop.wire.said();
    for _ in 0..3 {
        hop.wire.replay(&said).await?;
    }
    assert_eq!(hop.receiver.numbers().await, (0..40).collect::<Vec<_>>());
    assert_eq!(
        hop.receiver.metric("levada_hop_repeated_events_total"),
        3 * 40
    );
    // The real session was ended by the replays, and begins anew.
    hop.sender.put(40..50).await?;
    until("the rest has arrived", || hop.sender.queued() == 0).await;
    sending.stop().await;
    receiving.stop().await;
    assert_eq!(hop.receiver.numbers().await, (0..50).collect::<Vec<_>>());
    hop.receiver.check_books();
    Ok(())
}

/// A peer that knows the incarnation of a sender and claims to have sent far more.
async fn forge(wire: &Wire, sender: &Stores) -> Result<Standing> {
    let lane = sender.lane(&channel(), 0)?;
    let open = Open {
        incarnation: lane.incarnation,
        channel: "main".into(),
        lane: 0,
        oldest: 1_000_000,
        marks: true,
        zstd: false,
    };
    let meta = |value| {
        let mut meta = Meta::new();
        meta.set(hop::KEY, value);
        meta
    };
    let stream = wire.connect(at(), Duration::from_secs(5)).await?;
    let mut client = Client::new(stream).with_meta(meta(open.encode()));
    client.ping().await?;
    let value = client
        .peer_meta()
        .get(hop::KEY)
        .cloned()
        .unwrap_or_default();
    let standing = Welcome::decode(&value)?.standing;
    let sent = Sent {
        prev: 999_999,
        positions: levada_core::Positions::from_each([1_000_000]),
        chain: 77,
        origins: levada_core::Origins::default(),
    };
    let reply = client
        .append_batch(&numbered([666]), &meta(sent.encode()))
        .await?;
    assert_eq!(reply.result, Ok(Status::Ok));
    Ok(standing)
}

/// F30: a mark that anybody could have made is worth nothing, and where plaintext is trusted it
/// still fits no chain.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_mark_makes_nobodys_events_vanish() -> Result<()> {
    for (trusts, expected) in [(false, Standing::Off), (true, Standing::New)] {
        let hop = Hop::new();
        hop.sender.put(0..20).await?;
        let receiver = Receiver {
            trusts,
            ..Receiver::default()
        };
        let receiving = hop.receiver.receive(&hop.wire, receiver).await;
        assert_eq!(forge(&hop.wire, hop.sender.stores()).await?, expected);
        let sending = hop.sender.send(&hop.wire, Sender::small()).await;
        until("all has arrived", || hop.sender.queued() == 0).await;
        sending.stop().await;
        receiving.stop().await;
        let numbers = hop.receiver.numbers().await;
        assert_eq!(numbers, [666].into_iter().chain(0..20).collect::<Vec<_>>());
        let regressions = hop.sender.metric("levada_hop_regressions_total");
        assert_eq!(regressions, u64::from(trusts));
        let baselines = hop.receiver.metric("levada_hop_baselines_total");
        assert_eq!(baselines > 0, trusts, "without marks there is no baseline");
        hop.receiver.check_books();
    }
    Ok(())
}

/// A sender that offers zstd, beside receivers that take it and one that does not.
#[tokio::test(flavor = "multi_thread")]
async fn zstd_is_spoken_where_both_want_it_and_the_events_are_the_same() -> Result<()> {
    let mut lengths = Vec::new();
    for compression in ["zstd", "deflate", "none"] {
        let hop = Hop::new();
        hop.sender.put(0..1000).await?;
        let ids = hop.sender.ids().await;
        let receiver = Receiver {
            compression,
            ..Receiver::default()
        };
        hop.run(Sender::packing(), receiver).await;
        assert_eq!(hop.receiver.numbers().await, (0..1000).collect::<Vec<_>>());
        assert_eq!(hop.receiver.ids().await, ids);
        assert_eq!(hop.sender.metric("levada_sink_failures_total"), 0);
        lengths.push(hop.wire.passed(Direction::There));
    }
    println!("zstd, deflate, none: {lengths:?} bytes");
    assert!(lengths[0] * 2 < lengths[2] && lengths[1] * 2 < lengths[2]);
    Ok(())
}

/// Without marks an answer that is lost costs a repeat, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_sender_is_served_at_least_once() -> Result<()> {
    let hop = Hop::new();
    hop.sender.put(0..8).await?;
    let (_, back) = length_of_a_session(Sender::small()).await?;
    hop.wire.cut(Direction::Back, back - 1);
    let receiver = Receiver {
        trusts: false,
        ..Receiver::default()
    };
    hop.run(Sender::small(), receiver).await;
    let numbers = hop.receiver.numbers().await;
    assert!(
        numbers.len() > 8 && (0..8).all(|n| numbers.contains(&n)),
        "{numbers:?}"
    );
    Ok(())
}
