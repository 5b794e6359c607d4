//! A peer that is a Levada, call by call (delivery contract D4).

use levada_core::{Incarnation, OriginId, Origins, Positions};
use levada_rpc::{
    Calls, ClientError, Replies, Status,
    hop::{self, Mark, Open, Sent, Standing, Welcome},
};

use super::*;
use crate::avro::lanes;

fn open(life: u8, oldest: u64) -> Open {
    Open {
        incarnation: Incarnation([life; 16]),
        channel: "main".into(),
        lane: 0,
        oldest,
        marks: true,
        zstd: false,
    }
}

fn meta(value: Bytes) -> Meta {
    let mut meta = Meta::new();
    meta.set(hop::KEY, value);
    meta
}

fn at(position: u64, chain: u64) -> Standing {
    Standing::At(Mark {
        position,
        chain: Some(chain),
    })
}

/// A session, seen from the peer.
struct Peer {
    calls: Calls,
    replies: Replies,
    standing: Standing,
    zstd: bool,
}

impl Peer {
    async fn begin(world: &World, open: Open) -> Self {
        let mut client = world.client().await.with_meta(meta(open.encode()));
        client.ping().await.unwrap();
        let value = client.peer_meta().get(hop::KEY).unwrap();
        let Welcome { standing, zstd, .. } = Welcome::decode(value).unwrap();
        if zstd {
            client.begin_zstd().unwrap();
        }
        let (calls, replies) = client.pipelined().unwrap();
        Self {
            calls,
            replies,
            standing,
            zstd,
        }
    }

    /// Sends events at these positions; the chain is ten times the last position.
    async fn say(&mut self, prev: u64, positions: &[u64]) {
        let bodies: Vec<_> = positions.iter().map(|at| format!("e{at}")).collect();
        self.say_these(prev, positions, &bodies).await;
    }

    async fn say_these(&mut self, prev: u64, positions: &[u64], bodies: &[String]) {
        let id = |at: &u64| OriginId {
            incarnation: Incarnation([7; 16]),
            sequence: *at,
            child: 0,
        };
        let sent = Sent {
            prev,
            positions: Positions::from_each(positions.iter().copied()),
            chain: positions.last().map_or(0, |last| last * 10),
            origins: Origins::from_ids(positions.iter().map(id)),
        };
        let call = meta(sent.encode());
        self.calls.send(&batch(bodies), &call).await.unwrap();
    }

    /// The answer, and the mark that came with it.
    async fn heard(&mut self) -> (Status, u64) {
        let reply = self.replies.receive().await.unwrap();
        let value = reply.meta.get(hop::KEY).unwrap();
        (reply.result.unwrap(), hop::decode_reply(value).unwrap())
    }

    async fn give(&mut self, prev: u64, positions: &[u64]) -> (Status, u64) {
        self.say(prev, positions).await;
        self.heard().await
    }
}

impl World {
    fn counted(&self, name: &str) -> u64 {
        let text = self.registry.render();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn repeats_are_cut_off_before_anything_sees_them() {
    let world = World::new([]);
    let peers = async {
        let mut first = Peer::begin(&world, open(1, 1)).await;
        assert_eq!(first.standing, Standing::New);
        assert_eq!(first.give(0, &[1, 2, 3]).await, (Status::Ok, 3));
        assert_eq!(first.give(3, &[4, 4, 6]).await, (Status::Ok, 6));
        // The very same call, and one that is new in part.
        assert_eq!(first.give(3, &[4, 4, 6]).await, (Status::Ok, 6));
        assert_eq!(first.give(3, &[6, 7, 9]).await, (Status::Ok, 9));
        drop(first);
        let mut second = Peer::begin(&world, open(1, 4)).await;
        assert_eq!(second.standing, at(9, 90));
        assert_eq!(second.give(9, &[10]).await, (Status::Ok, 10));
        // Another life of the sender is another lane.
        assert_eq!(
            Peer::begin(&world, open(2, 1)).await.standing,
            Standing::New
        );
    };
    world.run(|_| (), peers).await;
    let bodies = ["e1", "e2", "e3", "e4", "e4", "e6", "e7", "e9", "e10"];
    assert_eq!(world.channels.bodies(), bodies);
    let ids = world.channels.taken.lock().unwrap();
    let ids: Vec<_> = ids
        .iter()
        .flat_map(|put| put.batch.origins().iter())
        .collect();
    assert!(ids.iter().all(|id| id.incarnation == Incarnation([7; 16])));
    let sequences: Vec<_> = ids.iter().map(|id| id.sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 4, 6, 7, 9, 10]);
    assert_eq!(world.counted("levada_hop_repeated_events_total"), 4);
}

#[tokio::test(start_paused = true)]
async fn a_call_with_something_missing_before_it_is_sent_back() {
    let world = World::new([]);
    let peers = async {
        let mut peer = Peer::begin(&world, open(1, 5)).await;
        assert_eq!(peer.give(5, &[6]).await, (Status::Failed, 4));
        assert_eq!(peer.give(4, &[5, 8]).await, (Status::Ok, 8));
        assert_eq!(peer.give(9, &[10]).await, (Status::Failed, 8));
        assert_eq!(peer.give(8, &[9, 10]).await, (Status::Ok, 10));
    };
    world.run(|_| (), peers).await;
    assert_eq!(world.channels.bodies(), ["e5", "e8", "e9", "e10"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_behind_a_call_that_failed_fails_too() {
    let full = PutError::Full {
        channel: "main".into(),
    };
    let world = World::new([Does::Waits(Duration::ZERO), Does::Fails(full)]);
    let peers = async {
        let mut peer = Peer::begin(&world, open(1, 1)).await;
        for n in 1..=5 {
            peer.say(n - 1, &[n]).await;
        }
        assert_eq!(peer.heard().await, (Status::Ok, 1));
        for _ in 2..=5 {
            assert_eq!(peer.heard().await, (Status::Failed, 1));
        }
        assert_eq!(peer.give(1, &[2, 3, 4, 5]).await, (Status::Ok, 5));
    };
    world.run(|_| (), peers).await;
    assert_eq!(world.channels.bodies(), ["e1", "e2", "e3", "e4", "e5"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_session_waits_for_what_the_old_one_has_on_its_way() {
    let world = World::new([Does::Waits(Duration::from_secs(5))]);
    let peers = async {
        let mut old = Peer::begin(&world, open(1, 1)).await;
        old.say(0, &[1, 2]).await;
        time::sleep(Duration::from_secs(1)).await;
        let began = Instant::now();
        let mut new = Peer::begin(&world, open(1, 1)).await;
        assert_eq!(began.elapsed().as_secs(), 4);
        assert_eq!(new.standing, at(2, 20));
        // The old one learns nothing more.
        let error = old.replies.receive().await.unwrap_err();
        assert!(matches!(error, ClientError::Ended), "{error}");
        assert_eq!(new.give(2, &[3]).await, (Status::Ok, 3));
    };
    world.run(|_| (), peers).await;
    assert_eq!(world.channels.bodies(), ["e1", "e2", "e3"]);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_has_gone_on_elsewhere_begins_at_its_oldest() {
    let world = World::new([]);
    let peers = async {
        let mut peer = Peer::begin(&world, open(1, 1)).await;
        assert_eq!(peer.give(0, &[1]).await, (Status::Ok, 1));
        assert_eq!(world.counted("levada_hop_baselines_total"), 1);
        drop(peer);
        // Nothing between is held any more; and where nothing is missing nothing begins anew.
        for (oldest, standing, baselines) in [(50, at(1, 10), 2), (51, at(50, 500), 2)] {
            let mut peer = Peer::begin(&world, open(1, oldest)).await;
            assert_eq!(peer.standing, standing);
            assert_eq!(peer.give(oldest - 1, &[oldest]).await, (Status::Ok, oldest));
            assert_eq!(world.counted("levada_hop_baselines_total"), baselines);
        }
    };
    world.run(|_| (), peers).await;
    assert_eq!(world.channels.bodies(), ["e1", "e50", "e51"]);
}

#[tokio::test(start_paused = true)]
async fn without_trust_nothing_is_kept_of_a_lane() {
    let world = World::new([]);
    let peers = async {
        for _ in 0..2 {
            let mut peer = Peer::begin(&world, open(1, 1)).await;
            assert_eq!(peer.standing, Standing::Off);
            // Within the session repeats are cut off and order is kept all the same.
            assert_eq!(peer.give(0, &[1, 2]).await, (Status::Ok, 2));
            assert_eq!(peer.give(0, &[1, 2]).await, (Status::Ok, 2));
            assert_eq!(peer.give(5, &[6]).await, (Status::Failed, 2));
        }
        assert_eq!(world.counted("levada_hop_baselines_total"), 0);
    };
    world
        .run(|params| params.trust_plaintext = false, peers)
        .await;
    assert_eq!(world.channels.bodies(), ["e1", "e2", "e1", "e2"]);
    assert!(world.channels.marks.lock().unwrap().is_empty());
}

/// A sender that has not the lane alone sends in any order.
#[tokio::test(start_paused = true)]
async fn a_lane_that_others_empty_too_has_no_order() {
    let world = World::new([]);
    let peers = async {
        let open = Open {
            marks: false,
            ..open(1, 1)
        };
        let mut peer = Peer::begin(&world, open).await;
        assert_eq!(peer.standing, Standing::Off);
        assert_eq!(peer.give(20, &[21]).await.0, Status::Ok);
        assert_eq!(peer.give(0, &[1, 2]).await.0, Status::Ok);
    };
    world.run(|_| (), peers).await;
    assert_eq!(world.channels.bodies(), ["e21", "e1", "e2"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_put_in_parts_is_marked_part_by_part() {
    let world = World::new([Does::IsSmall(20)]);
    let peers = async {
        let mut peer = Peer::begin(&world, open(1, 1)).await;
        // The children of 3 stay together.
        assert_eq!(peer.give(0, &[1, 2, 3, 3, 4]).await, (Status::Ok, 4));
    };
    world.run(|_| (), peers).await;
    let taken = world.channels.taken.lock().unwrap();
    let parts: Vec<_> = taken
        .iter()
        .map(|put| {
            let value = put.marks.last().unwrap().value.clone().unwrap();
            let (mark, _) = lanes::decode(&value).unwrap();
            (put.batch.len(), mark.position, mark.chain)
        })
        .collect();
    assert_eq!(parts, [(2, 2, None), (2, 3, None), (1, 4, Some(40))]);
}

#[tokio::test(start_paused = true)]
async fn an_event_beyond_a_limit_keeps_its_place_among_the_others() {
    let world = World::new([]);
    let peers = async {
        let mut peer = Peer::begin(&world, open(1, 1)).await;
        let mut bodies: Vec<_> = (1..=4).map(|n| format!("e{n}")).collect();
        bodies[1] = "x".repeat(2000);
        peer.say_these(0, &[1, 2, 3, 4], &bodies).await;
        assert_eq!(peer.heard().await, (Status::Ok, 4));
        // It comes again together with something new.
        bodies.push("e5".into());
        peer.say_these(0, &[1, 2, 3, 4, 5], &bodies).await;
        assert_eq!(peer.heard().await, (Status::Ok, 5));
    };
    world.run(|_| (), peers).await;
    assert_eq!(world.channels.bodies(), ["e1", "e3", "e4", "e5"]);
    assert_eq!(world.channels.faults().len(), 1);
    let taken = world.channels.taken.lock().unwrap();
    let ids = taken.iter().flat_map(|put| put.batch.origins().iter());
    assert_eq!(ids.map(|id| id.sequence).collect::<Vec<_>>(), [1, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_hop_is_refused_by_name_and_others_go_on() {
    let world = World::new([]);
    let peers = async {
        let mut good = Peer::begin(&world, open(1, 1)).await;
        // An opening of bytes that mean nothing.
        let mut client = world
            .client()
            .await
            .with_meta(meta(Bytes::from_static(b"\x01xx")));
        client.ping().await.unwrap();
        assert!(client.peer_meta().is_empty());
        let ended = client.append_batch(&batch(&["a"]), &Meta::new()).await;
        ended.unwrap_err();
        // A call without its part, one with another's, and one that claims too many events.
        let note = |positions: &[u64]| Sent {
            prev: 0,
            positions: Positions::from_each(positions.iter().copied()),
            chain: 0,
            origins: Origins::default(),
        };
        let calls = [
            Meta::new(),
            meta(Bytes::from_static(b"\x00\x01")),
            meta(note(&[1, 2]).encode()),
        ];
        for (n, call) in calls.into_iter().enumerate() {
            let mut bad = Peer::begin(&world, open(2, 1)).await;
            bad.calls.send(&batch(&["bad"]), &call).await.unwrap();
            let reply = bad.replies.receive().await;
            assert!(reply.is_err() || reply.unwrap().result.is_err(), "{n}");
        }
        assert_eq!(good.give(0, &[1]).await, (Status::Ok, 1));
    };
    world.run(|_| (), peers).await;
    assert_eq!(world.channels.bodies(), ["e1"]);
    assert_eq!(world.counted("levada_avro_violations_total"), 4);
}

#[tokio::test(start_paused = true)]
async fn zstd_is_agreed_on_where_both_sides_want_it() {
    let cases = [
        (None, true),
        (Some(Compression::Zstd), true),
        (Some(Compression::Deflate), true),
        (Some(Compression::None), false),
    ];
    for (compression, takes) in cases {
        let world = World::new([]);
        let peers = async {
            for (n, offers) in [(1, false), (2, true)] {
                let open = Open {
                    zstd: offers,
                    ..open(n, 1)
                };
                let mut peer = Peer::begin(&world, open).await;
                assert_eq!(peer.zstd, offers && takes, "{compression:?}");
                assert_eq!(peer.give(0, &[1, 2]).await, (Status::Ok, 2));
                assert_eq!(peer.give(2, &[3]).await, (Status::Ok, 3));
            }
        };
        world
            .run(|params| params.compression = compression, peers)
            .await;
        let bodies = ["e1", "e2", "e3", "e1", "e2", "e3"];
        assert_eq!(world.channels.bodies(), bodies, "{compression:?}");
    }
}
