mod hops;
mod settings;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use levada_core::{
    Batch, BatchBuilder, Fault, MarkWrite, Marks, Peer, Put, PutError, Stopper, SystemClock, Value,
    marks::Expect,
};
use levada_net::{Memory, Stream};
use levada_rpc::{Client, Meta, Reply, Status};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{self, Instant},
};

use super::*;

/// What the channels behind the source do with the next put.
enum Does {
    Fails(PutError),
    /// Has no room until the deadline.
    IsFull,
    /// Takes its time.
    Waits(Duration),
    /// Holds no batch of more than so many bytes.
    IsSmall(usize),
}

#[derive(Default)]
struct Channels {
    next: Mutex<VecDeque<Does>>,
    taken: Mutex<Vec<Put>>,
    marks: Mutex<BTreeMap<String, Bytes>>,
}

impl Channels {
    /// Writes marks, all or none.
    fn mark(&self, writes: &[MarkWrite]) -> Result<(), PutError> {
        let mut marks = self.marks.lock().unwrap();
        let meets = |write: &&MarkWrite| match &write.expect {
            Expect::Any => true,
            Expect::Exactly(expected) => marks.get(&write.key) == expected.as_ref(),
        };
        if let Some(write) = writes.iter().find(|write| !meets(write)) {
            let key = write.key.clone();
            return Err(PutError::Conflict { key });
        }
        for write in writes {
            match &write.value {
                Some(value) => marks.insert(write.key.clone(), value.clone()),
                None => marks.remove(&write.key),
            };
        }
        Ok(())
    }

    fn bodies(&self) -> Vec<String> {
        let taken = self.taken.lock().unwrap();
        let bodies = taken
            .iter()
            .flat_map(|put| put.batch.iter().map(|event| event.body()));
        bodies
            .map(|body| String::from_utf8_lossy(body).into_owned())
            .collect()
    }

    fn faults(&self) -> Vec<Fault> {
        self.taken
            .lock()
            .unwrap()
            .iter()
            .flat_map(|put| put.faults.clone())
            .collect()
    }
}

#[async_trait]
impl Ingest for Channels {
    async fn put(&self, put: Put) -> Result<(), PutError> {
        let next = self
            .next
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        match next {
            None => {}
            Some(Does::Fails(error)) => return Err(error),
            Some(Does::IsFull) => {
                time::sleep_until(put.deadline.unwrap()).await;
                return Err(PutError::Deadline);
            }
            Some(Does::Waits(time)) => time::sleep(time).await,
            Some(Does::IsSmall(most)) => {
                self.next.lock().unwrap().push_front(Does::IsSmall(most));
                let bytes = put.batch.bytes();
                if bytes > most {
                    return Err(PutError::TooLarge {
                        channel: "main".into(),
                        bytes,
                    });
                }
            }
        }
        self.mark(&put.marks)?;
        self.taken.lock().unwrap().push(put);
        Ok(())
    }

    fn marks(&self) -> Marks {
        Marks::new(self.marks.lock().unwrap().clone())
    }
}

/// A source that runs in a world of its own.
struct World {
    memory: Memory,
    channels: Arc<Channels>,
    registry: Registry,
    stopper: Stopper,
    stop: levada_core::Stop,
}

impl World {
    fn new(does: impl IntoIterator<Item = Does>) -> Self {
        let (stopper, stop) = Stopper::new();
        let channels = Channels {
            next: Mutex::new(does.into_iter().collect()),
            ..Channels::default()
        };
        Self {
            memory: Memory::new(),
            channels: Arc::new(channels),
            registry: Registry::new(),
            stopper,
            stop,
        }
    }

    /// Runs a source beside `peers`, and stops it when they are done.
    async fn run(&self, set: impl FnOnce(&mut Params), peers: impl Future<Output = ()>) {
        let mut params = params();
        set(&mut params);
        let factory = Factory {
            transport: Arc::new(self.memory.clone()),
            registry: self.registry.clone(),
            clock: Arc::new(SystemClock),
            chance: Chance::seeded(1),
        };
        let part = PartId::parse("sources.in").unwrap();
        let mut source = factory.build(&part, &params);
        source.open().await.unwrap();
        let cx = RunContext {
            part,
            stop: self.stop.clone(),
            clock: Arc::new(SystemClock),
            chance: Chance::seeded(1),
            peer: Peer::default(),
        };
        let out: Arc<dyn Ingest> = Arc::clone(&self.channels) as Arc<dyn Ingest>;
        let running = async { source.run(out, &cx).await.unwrap() };
        let peers = async {
            peers.await;
            self.stopper.drain();
        };
        tokio::join!(running, peers);
    }

    async fn connect(&self) -> Box<dyn Stream> {
        self.memory
            .connect("in:4141", Duration::from_secs(1))
            .await
            .unwrap()
    }

    async fn client(&self) -> Client {
        Client::new(self.connect().await)
    }

    fn metric(&self, line: &str) -> bool {
        self.registry.render().contains(line)
    }
}

fn params() -> Params {
    Params {
        listen: "127.0.0.1:4141".parse().unwrap(),
        plaintext: None,
        tls: None,
        compression: None,
        put_timeout: Duration::from_secs(10),
        max_event: ByteSize::kib(1),
        max_frame: ByteSize::mib(16),
        max_connections: 5000,
        max_connections_per_ip: 100,
        idle_timeout: Duration::from_secs(60),
        trust_plaintext: true,
    }
}

fn batch<T: AsRef<str>>(bodies: &[T]) -> Batch {
    let mut builder = BatchBuilder::default();
    for body in bodies {
        builder.push([("k", "v")], body.as_ref().as_bytes());
    }
    builder.finish()
}

async fn give(client: &mut Client, bodies: &[&str]) -> Result<Status, String> {
    let reply: Reply = client
        .append_batch(&batch(bodies), &Meta::new())
        .await
        .unwrap();
    reply.result
}

#[tokio::test(start_paused = true)]
async fn events_are_answered_when_they_are_stored() {
    let world = World::new([Does::Waits(Duration::from_secs(9))]);
    let peers = async {
        let mut client = world.client().await;
        let began = Instant::now();
        assert_eq!(give(&mut client, &["a", "b"]).await, Ok(Status::Ok));
        assert_eq!(began.elapsed().as_secs(), 9);
        assert_eq!(give(&mut client, &[]).await, Ok(Status::Ok));
        assert_eq!(give(&mut client, &["c"]).await, Ok(Status::Ok));
        assert!(world.metric(r#"levada_avro_connections{part="sources.in"} 1"#));
    };
    world.run(|_| (), peers).await;
    assert_eq!(world.channels.bodies(), ["a", "b", "c"]);
    let calls = r#"levada_avro_received_calls_total{part="sources.in",status="ok"} 3"#;
    assert!(world.metric(calls), "{}", world.registry.render());
    assert!(world.metric(r#"levada_avro_connections{part="sources.in"} 0"#));
}

#[tokio::test(start_paused = true)]
async fn a_full_channel_is_answered_in_time_and_the_connection_stays() {
    let world = World::new([Does::IsFull]);
    let peers = async {
        let mut client = world.client().await;
        let began = Instant::now();
        assert_eq!(give(&mut client, &["a"]).await, Ok(Status::Failed));
        assert_eq!(began.elapsed().as_secs(), 10);
        assert_eq!(give(&mut client, &["a"]).await, Ok(Status::Ok));
    };
    world.run(|_| (), peers).await;
    assert_eq!(world.channels.bodies(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_reason_that_may_pass_is_waited_for_and_another_is_not() {
    let later = |after| PutError::Later {
        part: "handlers.x".into(),
        reason: "x".into(),
        after,
    };
    let store = PutError::Store {
        reason: "no space".into(),
    };
    let full = PutError::Full {
        channel: "main".into(),
    };
    let world = World::new([
        Does::Fails(later(Some(Duration::from_secs(3)))),
        Does::Fails(store.clone()),
        Does::Waits(Duration::ZERO),
        Does::Fails(full),
        Does::Fails(later(Some(Duration::from_secs(60)))),
    ]);
    let peers = async {
        let mut client = world.client().await;
        let began = Instant::now();
        assert_eq!(give(&mut client, &["a"]).await, Ok(Status::Ok));
        assert!((3..6).contains(&began.elapsed().as_secs()));
        let began = Instant::now();
        assert_eq!(give(&mut client, &["b"]).await, Ok(Status::Failed));
        assert_eq!(began.elapsed().as_secs(), 0);
        assert_eq!(give(&mut client, &["b"]).await, Ok(Status::Failed));
        assert_eq!(began.elapsed().as_secs(), 10);
    };
    world.run(|_| (), peers).await;
    assert_eq!(world.channels.bodies(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn what_no_channel_can_hold_is_stored_in_parts_or_set_aside() {
    let world = World::new([Does::IsSmall(40)]);
    let long = "long".repeat(20);
    let peers = async {
        let mut client = world.client().await;
        let bodies = ["a", "b", "c", &long, "d", "e", "f", "g", "h", "i"];
        assert_eq!(give(&mut client, &bodies).await, Ok(Status::Ok));
    };
    world.run(|_| (), peers).await;
    assert_eq!(
        world.channels.bodies(),
        ["a", "b", "c", "d", "e", "f", "g", "h", "i"]
    );
    let faults = world.channels.faults();
    assert_eq!((faults.len(), faults[0].index), (1, 3));
    assert!(
        faults[0]
            .kind
            .to_string()
            .contains("more than a channel holds")
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_beyond_a_limit_is_set_aside_and_its_batch_is_taken() {
    let world = World::new([]);
    let long = "x".repeat(2000);
    let peers = async {
        let mut client = world.client().await;
        assert_eq!(give(&mut client, &["a", &long, "b"]).await, Ok(Status::Ok));
    };
    world.run(|_| (), peers).await;
    assert_eq!(world.channels.bodies(), ["a", "b"]);
    let faults = world.channels.faults();
    assert_eq!((faults.len(), faults[0].index), (1, 1));
    assert!(faults[0].kind.to_string().contains("max-event"));
}

#[tokio::test(start_paused = true)]
async fn one_that_breaks_the_protocol_is_left_and_others_are_served() {
    let world = World::new([]);
    let peers = async {
        let mut client = world.client().await;
        let mut wild = world.connect().await;
        assert_eq!(give(&mut client, &["a"]).await, Ok(Status::Ok));
        wild.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(wild.read(&mut [0; 100]).await.unwrap(), 0);
        assert_eq!(give(&mut client, &["b"]).await, Ok(Status::Ok));
    };
    world.run(|_| (), peers).await;
    assert_eq!(world.channels.bodies(), ["a", "b"]);
    assert!(world.metric(r#"levada_avro_violations_total{part="sources.in"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn draining_finishes_the_call_in_hand_and_no_other() {
    let world = World::new([Does::Waits(Duration::from_secs(5))]);
    let mut idle = None;
    let peers = async {
        let mut client = world.client().await;
        idle = Some(world.connect().await);
        let all = batch(&["a"]);
        client
            .send(levada_rpc::Method::AppendBatch, &all, &Meta::new())
            .await
            .unwrap();
        time::sleep(Duration::from_secs(1)).await;
        world.stopper.drain();
        let levada_rpc::Answer::Reply(reply) = client.receive().await.unwrap() else {
            panic!("the first call is a reply");
        };
        assert_eq!(reply.result, Ok(Status::Ok));
        assert!(client.append_batch(&all, &Meta::new()).await.is_err());
        let late = world
            .memory
            .connect("in:4141", Duration::from_secs(1))
            .await;
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    };
    world.run(|_| (), peers).await;
    assert_eq!(idle.unwrap().read(&mut [0]).await.unwrap(), 0);
    assert_eq!(world.channels.bodies(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn many_peers_are_served_each_in_its_order() {
    let world = World::new([]);
    let peer = async |n: usize| {
        let mut client = world.client().await;
        for call in 0..20 {
            let bodies = [format!("{n} {call} 0"), format!("{n} {call} 1")];
            let reply = client
                .append_batch(&batch(&bodies), &Meta::new())
                .await
                .unwrap();
            assert_eq!(reply.result, Ok(Status::Ok));
        }
    };
    let peers = async {
        // Of 60 peers each ten at a time make their calls side by side.
        for tens in 0..6 {
            let at = |n: usize| peer(tens * 10 + n);
            tokio::join!(
                at(0),
                at(1),
                at(2),
                at(3),
                at(4),
                at(5),
                at(6),
                at(7),
                at(8),
                at(9)
            );
        }
    };
    world.run(|_| (), Box::pin(peers)).await;
    let bodies = world.channels.bodies();
    assert_eq!(bodies.len(), 60 * 40);
    for n in 0..60 {
        let mine = bodies
            .iter()
            .filter(|body| body.starts_with(&format!("{n} ")));
        let expected = (0..20).flat_map(|call| [0, 1].map(|event| format!("{n} {call} {event}")));
        assert!(mine.eq(&expected.collect::<Vec<_>>()), "peer {n}");
    }
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_limit_are_refused_and_counted() {
    let world = World::new([]);
    let peers = async {
        let mut first = world.client().await;
        assert_eq!(give(&mut first, &["a"]).await, Ok(Status::Ok));
        let mut second = world.connect().await;
        assert_eq!(second.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(give(&mut first, &["b"]).await, Ok(Status::Ok));
    };
    world
        .run(|params| params.max_connections_per_ip = 1, peers)
        .await;
    assert!(world.metric(r#"levada_avro_refused_connections_total{part="sources.in"} 1"#));
}
