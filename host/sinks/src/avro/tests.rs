use levada_core::{
    Batch, BatchBuilder, Chance, Peer, Problems, Stopper, SystemClock, Value,
    settings::{Key, Span},
};
use levada_net::{Listener, Memory};
use levada_rpc::{Meta, Server, ServerParams, Status};
use tokio::time;

use super::{params::SMALLEST_FRAME, *};
use crate::fake_hop::FakeHop;

/// What the other side does with a call.
#[derive(Clone, Copy)]
enum Does {
    Answers(Status),
    Complains,
    /// Takes the call and hangs up without a word.
    HangsUp,
    /// Takes the call and answers nothing.
    IsSilent,
    /// Answers OK and hangs up then.
    AnswersAndHangsUp,
}

/// A sink and the world it sends to.
struct World {
    sink: Box<dyn Sink>,
    listener: Box<dyn Listener>,
    registry: Registry,
    cx: RunContext,
    /// Connections that stay open until the test is over.
    held: Mutex<Vec<Server>>,
}

impl World {
    async fn new(set: impl FnOnce(&mut Params)) -> Self {
        let memory = Memory::new();
        let listener = memory.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let mut params = Params {
            to: listener.local_addr().unwrap().to_string(),
            connections: 1,
            window: 8,
            request_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(20),
            max_frame: SMALLEST_FRAME,
            tls: None,
            compression: None,
            compression_level: 6,
            deflate_over_tls: true,
        };
        set(&mut params);
        let registry = Registry::new();
        let factory = Factory {
            transport: Arc::new(memory),
            registry: registry.clone(),
            clock: Arc::new(SystemClock),
        };
        let part = PartId::parse("sinks.up").unwrap();
        let mut sink = factory.build(&part, &params);
        sink.open(&Marks::default(), &FakeHop::any()).await.unwrap();
        let (_, stop) = Stopper::new();
        let cx = RunContext {
            part,
            stop,
            clock: Arc::new(SystemClock),
            chance: Chance::seeded(1),
            peer: Peer::default(),
        };
        Self {
            sink,
            listener,
            registry,
            cx,
            held: Mutex::default(),
        }
    }

    async fn deliver(&self, batch: &Batch) -> Result<Delivery, SinkError> {
        self.sink
            .deliver(&Lease::loose(batch.clone()), &self.cx)
            .await
    }

    /// Serves connections, one after the other, as `does` says; then gives the bodies it took.
    async fn serve(&self, does: &[Does]) -> Vec<String> {
        let mut taken = Vec::new();
        let mut left = does.iter();
        'connections: while left.len() > 0 {
            let (stream, _) = self.listener.accept().await.unwrap();
            let mut server = Server::new(stream, ServerParams::default());
            while left.len() > 0 {
                let Some(call) = server.next().await.unwrap() else {
                    continue 'connections;
                };
                let does = left.next().unwrap();
                if let Does::Answers(Status::Ok) | Does::AnswersAndHangsUp = does {
                    let batch = &call.checked.batch;
                    let bodies = batch
                        .iter()
                        .map(|event| String::from_utf8_lossy(event.body()));
                    taken.extend(bodies.map(|body| body.chars().take(8).collect()));
                }
                match does {
                    Does::Answers(status) => {
                        server
                            .reply(call.token, *status, &Meta::new())
                            .await
                            .unwrap();
                    }
                    Does::Complains => {
                        server.reply_error(call.token, "no thanks").await.unwrap();
                    }
                    Does::AnswersAndHangsUp => {
                        server
                            .reply(call.token, Status::Ok, &Meta::new())
                            .await
                            .unwrap();
                        continue 'connections;
                    }
                    Does::HangsUp => continue 'connections,
                    Does::IsSilent => {
                        self.held.lock().unwrap().push(server);
                        continue 'connections;
                    }
                }
            }
            self.held.lock().unwrap().push(server);
        }
        taken
    }

    fn metric(&self, line: &str) -> bool {
        self.registry.render().contains(line)
    }
}

fn batch(bodies: &[&str]) -> Batch {
    let mut builder = BatchBuilder::default();
    for body in bodies {
        builder.push([("k", "v")], body.as_bytes());
    }
    builder.finish()
}

fn is_done(delivery: &Delivery) -> bool {
    delivery.outcomes == Outcomes::Done && delivery.rejects.is_empty()
}

#[tokio::test(start_paused = true)]
async fn batches_are_delivered_over_one_connection() {
    let world = World::new(|_| ()).await;
    let delivering = async {
        assert!(is_done(&world.deliver(&batch(&["a", "b"])).await.unwrap()));
        assert!(is_done(&world.deliver(&batch(&["c"])).await.unwrap()));
    };
    let (taken, ()) = tokio::join!(world.serve(&[Does::Answers(Status::Ok); 2]), delivering);
    assert_eq!(taken, ["a", "b", "c"]);
    assert!(world.metric(r#"levada_avro_connects_total{part="sinks.up"} 1"#));
    assert!(world.metric(r#"levada_avro_sent_calls_total{part="sinks.up",result="ok"} 2"#));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_refuses_keeps_its_connection() {
    let world = World::new(|_| ()).await;
    let does = [
        Does::Answers(Status::Failed),
        Does::Answers(Status::Unknown),
        Does::Complains,
        Does::Answers(Status::Ok),
    ];
    let delivering = async {
        for expected in ["FAILED", "FAILED", "no thanks"] {
            let error = world.deliver(&batch(&["a"])).await.unwrap_err();
            assert!(matches!(error, SinkError::Refused { .. }), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert!(is_done(&world.deliver(&batch(&["a"])).await.unwrap()));
    };
    let (taken, ()) = tokio::join!(world.serve(&does), delivering);
    assert_eq!(taken, ["a"]);
    assert!(world.metric(r#"levada_avro_connects_total{part="sinks.up"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_gone_is_told_from_one_that_is_silent() {
    let world = World::new(|_| ()).await;
    let does = [Does::HangsUp, Does::IsSilent, Does::Answers(Status::Ok)];
    let delivering = async {
        let gone = world.deliver(&batch(&["a"])).await.unwrap_err();
        assert!(matches!(gone, SinkError::Unreachable { .. }), "{gone:?}");
        let began = Instant::now();
        let silent = world.deliver(&batch(&["a"])).await.unwrap_err();
        assert!(matches!(silent, SinkError::Refused { .. }), "{silent:?}");
        assert!(silent.to_string().contains("within 20s"), "{silent}");
        assert_eq!(began.elapsed().as_secs(), 20);
        assert!(is_done(&world.deliver(&batch(&["a"])).await.unwrap()));
    };
    let (taken, ()) = tokio::join!(world.serve(&does), delivering);
    assert_eq!(taken, ["a"]);
    assert!(world.metric(r#"levada_avro_connects_total{part="sinks.up"} 3"#));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ended_meanwhile_costs_no_delivery() {
    let world = World::new(|_| ()).await;
    let does = [Does::AnswersAndHangsUp, Does::Answers(Status::Ok)];
    let delivering = async {
        assert!(is_done(&world.deliver(&batch(&["a"])).await.unwrap()));
        time::sleep(Duration::from_secs(1)).await;
        assert!(is_done(&world.deliver(&batch(&["b"])).await.unwrap()));
    };
    let (taken, ()) = tokio::join!(world.serve(&does), delivering);
    assert_eq!(taken, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_listening_is_unreachable() {
    let world = World::new(|params| params.to = "nowhere:1".into()).await;
    let error = world.deliver(&batch(&["a"])).await.unwrap_err();
    assert!(matches!(error, SinkError::Unreachable { .. }), "{error:?}");
    assert_eq!(error.to_string(), "cannot connect to `nowhere:1`");
}

#[tokio::test(start_paused = true)]
async fn a_large_batch_is_sent_in_parts_and_an_event_that_fits_none_is_rejected() {
    let world = World::new(|_| ()).await;
    let [one, two, three] = ["1", "2", "3"].map(|n| n.repeat(30_000));
    let huge = "h".repeat(70_000);
    let delivering = async {
        world
            .deliver(&batch(&[&one, &two, &huge, &three]))
            .await
            .unwrap()
    };
    let (taken, delivery) = tokio::join!(world.serve(&[Does::Answers(Status::Ok); 2]), delivering);
    assert_eq!(taken, ["11111111", "22222222", "33333333"]);
    let outcomes = [Outcome::Done, Outcome::Done, Outcome::Dead, Outcome::Done];
    assert_eq!(delivery.outcomes, Outcomes::Each(outcomes.into()));
    assert_eq!(delivery.rejects.len(), 1);
    assert!(
        delivery.rejects[0].reason.contains("70009 bytes"),
        "{:?}",
        delivery.rejects
    );
}

#[tokio::test(start_paused = true)]
async fn the_parts_that_arrived_are_settled_although_a_later_one_did_not() {
    let world = World::new(|_| ()).await;
    let parts = ["1", "2", "3", "4"].map(|n| n.repeat(50_000));
    let all: Vec<_> = parts.iter().map(String::as_str).collect();
    let does = [Does::Answers(Status::Ok), Does::Answers(Status::Failed)];
    let delivering = async { world.deliver(&batch(&all)).await.unwrap() };
    let (taken, delivery) = tokio::join!(world.serve(&does), delivering);
    assert_eq!(taken, ["11111111"]);
    let outcomes = [
        Outcome::Done,
        Outcome::Retry,
        Outcome::Retry,
        Outcome::Retry,
    ];
    assert_eq!(delivery.outcomes, Outcomes::Each(outcomes.into()));
}

#[tokio::test(start_paused = true)]
async fn several_connections_carry_several_batches_at_once() {
    let world = World::new(|params| params.connections = 3).await;
    assert_eq!(world.sink.window(), 3);
    let serve = async {
        // Nobody is answered before all three calls are there.
        let mut calls = Vec::new();
        for _ in 0..3 {
            let (stream, _) = world.listener.accept().await.unwrap();
            let mut server = Server::new(stream, ServerParams::default());
            let call = server.next().await.unwrap().unwrap();
            calls.push((server, call));
        }
        for (mut server, call) in calls {
            server
                .reply(call.token, Status::Ok, &Meta::new())
                .await
                .unwrap();
        }
    };
    let (a, b, c) = (batch(&["a"]), batch(&["b"]), batch(&["c"]));
    let all = async {
        let (a, b, c) = tokio::join!(world.deliver(&a), world.deliver(&b), world.deliver(&c));
        assert!(
            [a, b, c]
                .iter()
                .all(|delivery| is_done(delivery.as_ref().unwrap()))
        );
    };
    tokio::join!(serve, all);
}

#[test]
fn settings_are_checked_with_their_place() {
    let check = |entries: &[(&str, Value)], expected: &[&str]| {
        let deps = Deps {
            transport: Arc::new(Memory::new()),
            registry: Registry::new(),
            clock: Arc::new(SystemClock),
            chance: Chance::seeded(1),
            agent: "a".into(),
        };
        let key = |name: &str| Key {
            name: name.into(),
            span: Span::default(),
        };
        let entries = entries
            .iter()
            .map(|(name, value)| (key(name), value.clone()))
            .collect();
        let table = Table {
            path: "sinks.up".into(),
            span: Span::default(),
            entries,
        };
        let mut problems = Problems::new();
        let part = PartId::parse("sinks.up").unwrap();
        let built = kinds(&deps)[0].check(&part, &table, &[], &mut problems);
        let found = problems.into_sorted();
        let found: Vec<_> = found.iter().map(|found| &*found.key).collect();
        assert_eq!(found, expected);
        assert_eq!(built.is_none(), !expected.is_empty());
    };
    let to = || ("to", Value::from("agg1.example:4141"));
    check(&[to()], &[]);
    check(&[], &["sinks.up.to"]);
    check(&[("to", "agg1.example".into())], &["sinks.up.to"]);
    check(&[("to", "http://agg1:80".into())], &["sinks.up.to"]);
    check(
        &[to(), ("connections", 0.into())],
        &["sinks.up.connections"],
    );
    check(
        &[to(), ("connections", 65.into())],
        &["sinks.up.connections"],
    );
    check(
        &[to(), ("max-frame", "1KiB".into())],
        &["sinks.up.max-frame"],
    );
    check(
        &[to(), ("request-timeout", "0s".into())],
        &["sinks.up.request-timeout"],
    );
    let order = ("deflate-over-tls", false.into());
    for compression in ["none", "zstd", "deflate"] {
        let compression = ("compression", compression.into());
        check(&[to(), compression.clone()], &[]);
        let key = "sinks.up.deflate-over-tls";
        check(&[to(), compression, order.clone()], &[key]);
    }
    check(&[to(), ("window", 8.into())], &[]);
    check(&[to(), ("window", 0.into())], &["sinks.up.window"]);
    check(&[to(), ("ids", "headers".into())], &["sinks.up.ids"]);
}
