mod broker;
mod settings;

use std::{collections::VecDeque, sync::Mutex};

use bytes::Bytes;
use levada_core::{
    Chance, Marks, Name, PartKind, Peer, Put, PutError, Stopper, SystemClock, batch::FaultKind,
};
use tokio::sync::{Notify, Semaphore};

use super::{
    link::{AckToken, Acked, Connected, LinkError, Message},
    *,
};

/// What happened, in order: `put a b`, `ack 1.7`, `connect`, ...
#[derive(Clone, Default)]
struct Story(Arc<Mutex<Vec<String>>>, Arc<Notify>);

impl Story {
    fn tell(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
        self.1.notify_waiters();
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Waits until a line is told.
    async fn until(&self, line: &str) {
        loop {
            let told = self.1.notified();
            if self.lines().iter().any(|known| known == line) {
                return;
            }
            told.await;
        }
    }
}

/// A broker that says what it was told to, connection by connection.
struct Script {
    connections: VecDeque<VecDeque<Say>>,
    now: VecDeque<Say>,
    number: u64,
    story: Story,
}

enum Say {
    /// A message with this packet id, 0 for quality of service 0.
    Message(u16, Message),
    Lost,
    /// Nothing until a line of the story is told.
    Await(&'static str),
}

#[async_trait]
impl MqttLink for Script {
    async fn connect(&mut self) -> Result<Connected, LinkError> {
        self.number += 1;
        self.story.tell("connect");
        self.now = self.connections.pop_front().unwrap_or_default();
        Ok(Connected {
            session_present: self.number > 1,
        })
    }

    async fn next(&mut self) -> Result<Message, LinkError> {
        while let Some(Say::Await(line)) = self.now.front() {
            self.story.until(line).await;
            self.now.pop_front();
        }
        match self.now.pop_front() {
            Some(Say::Message(packet, mut message)) => {
                let connection = self.number;
                message.token = (packet > 0).then_some(AckToken { connection, packet });
                Ok(message)
            }
            Some(Say::Lost) => Err(LinkError("lost".into())),
            Some(Say::Await(_)) | None => std::future::pending().await,
        }
    }

    fn acknowledge(&mut self, token: AckToken) -> Result<Acked, LinkError> {
        if token.connection != self.number {
            self.story
                .tell(format!("stale {}.{}", token.connection, token.packet));
            return Ok(Acked::Stale);
        }
        self.story
            .tell(format!("ack {}.{}", token.connection, token.packet));
        Ok(Acked::Sent)
    }

    async fn close(&mut self) {
        self.story.tell("close");
    }
}

/// Tells what is put; answers are taken from a list, then `Ok`.
struct Channels {
    story: Story,
    answers: Mutex<VecDeque<Result<(), PutError>>>,
    /// One permit for each put that may end.
    gate: Semaphore,
    puts: Mutex<Vec<Put>>,
}

#[async_trait]
impl Ingest for Channels {
    async fn put(&self, put: Put) -> Result<(), PutError> {
        let bodies = put
            .batch
            .iter()
            .map(|event| String::from_utf8_lossy(event.body()).into_owned());
        let bodies = bodies.collect::<Vec<_>>().join(" ");
        self.story.tell(format!("put {bodies}"));
        self.gate.acquire().await.unwrap().forget();
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Ok(()));
        match &answer {
            Ok(()) => self.story.tell(format!("stored {bodies}")),
            Err(error) => self.story.tell(format!("refused {error}")),
        }
        self.puts.lock().unwrap().push(put);
        answer
    }

    fn marks(&self) -> Marks {
        Marks::default()
    }
}

fn message(body: &str) -> Message {
    Message {
        topic: Bytes::from_static(b"plant/7"),
        payload: Bytes::copy_from_slice(body.as_bytes()),
        ..Message::default()
    }
}

fn say(packet: u16, body: &str) -> Say {
    Say::Message(packet, message(body))
}

/// A source over a script.
struct Play {
    script: Script,
    session: Session,
    channels: Arc<Channels>,
    story: Story,
}

impl Play {
    fn new(connections: Vec<Vec<Say>>, window: usize, events: usize) -> Self {
        let story = Story::default();
        let part = PartId::new(PartKind::Sources, Name::new("m").unwrap());
        let script = Script {
            connections: connections.into_iter().map(VecDeque::from).collect(),
            now: VecDeque::new(),
            number: 0,
            story: story.clone(),
        };
        let session = Session {
            batch: BatchParams {
                events,
                ..BatchParams::or_default(None)
            },
            limits: limits(ByteSize::kib(1)),
            window,
            put_timeout: Duration::from_secs(10),
            metrics: Metrics::new(&Registry::new(), &part),
            url: "mqtt://x".into(),
        };
        let channels = Channels {
            story: story.clone(),
            answers: Mutex::default(),
            gate: Semaphore::new(1000),
            puts: Mutex::default(),
        };
        Self {
            script,
            session,
            channels: Arc::new(channels),
            story,
        }
    }

    fn answers(self, answers: Vec<Result<(), PutError>>) -> Self {
        *self.channels.answers.lock().unwrap() = answers.into();
        self
    }

    /// Runs until a line is told, then stops in order; what was told.
    async fn until(mut self, line: &str) -> (Result<(), SourceError>, Vec<String>, Vec<Put>) {
        let (stopper, stop) = Stopper::new();
        let part = PartId::new(PartKind::Sources, Name::new("m").unwrap());
        let (clock, chance) = (Arc::new(SystemClock), Chance::seeded(1));
        let cx = RunContext {
            part,
            stop,
            clock,
            chance,
            peer: Peer::default(),
        };
        let out: Arc<dyn Ingest> = self.channels.clone();
        let stop = async {
            self.story.until(line).await;
            stopper.drain();
        };
        let (ended, ()) = tokio::join!(run(&mut self.script, &self.session, out, &cx), stop);
        let puts = std::mem::take(&mut *self.channels.puts.lock().unwrap());
        (ended, self.story.lines(), puts)
    }
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_follow_the_commit_in_the_order_of_arrival() {
    let says = vec![say(9, "a"), say(0, "zero"), say(3, "b"), say(5, "c")];
    let (ended, told, puts) = Play::new(vec![says], 100, 100).until("ack 1.5").await;
    ended.unwrap();
    let expected = [
        "connect",
        "put a zero b c",
        "stored a zero b c",
        "ack 1.9",
        "ack 1.3",
        "ack 1.5",
    ];
    assert_eq!(told[..6], expected);
    let batch = &puts[0].batch;
    let header = |n: usize, name| batch.get(n).unwrap().header(name).map(str::to_owned);
    assert_eq!(header(0, "topic").as_deref(), Some("plant/7"));
    assert_eq!(
        (header(0, "qos").as_deref(), header(1, "qos").as_deref()),
        (Some("1"), Some("0"))
    );
    assert_eq!(header(0, "retain").as_deref(), Some("false"));
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_given_on_when_the_window_is_full() {
    // The broker says nothing more until it has two acknowledgements; nor does time go by.
    let says = vec![
        say(1, "a"),
        say(2, "b"),
        Say::Await("ack 1.2"),
        say(3, "c"),
        say(4, "d"),
    ];
    let started = tokio::time::Instant::now();
    let (ended, told, _) = Play::new(vec![says], 2, 1000).until("ack 1.4").await;
    ended.unwrap();
    assert_eq!(told[1..4], ["put a b", "stored a b", "ack 1.1"]);
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_full_by_events_too_and_is_gathered_while_another_is_put() {
    let says = (1..=6).map(|n| say(n, &n.to_string())).collect();
    let (ended, told, _) = Play::new(vec![says], 100, 2).until("ack 1.6").await;
    ended.unwrap();
    let puts: Vec<_> = told.iter().filter(|line| line.starts_with("put")).collect();
    assert_eq!(puts, ["put 1 2", "put 3 4", "put 5 6"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_is_not_acknowledged_and_put_again_as_it_was() {
    let full = || {
        Err(PutError::Full {
            channel: "main".into(),
        })
    };
    let says = vec![
        say(1, "a"),
        Say::Await("refused no room within the time allowed"),
        say(2, "b"),
    ];
    let play = Play::new(vec![says], 100, 100);
    let (ended, told, _) = play
        .answers(vec![full(), Err(PutError::Deadline)])
        .until("ack 1.2")
        .await;
    ended.unwrap();
    let expected = [
        "connect",
        "put a",
        "refused channel `main` is full",
        "put a",
        "refused no room within the time allowed",
        "put a",
        "stored a",
        "ack 1.1",
        "put b",
        "stored b",
        "ack 1.2",
    ];
    assert_eq!(told[..11], expected);
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_for_a_lost_connection_are_dropped() {
    let mut play = Play::new(
        vec![
            vec![say(1, "a"), Say::Await("put a"), Say::Lost],
            vec![say(1, "a again")],
        ],
        1,
        100,
    );
    play.channels.gate.forget_permits(1000);
    play.session.metrics = Metrics::new(&Registry::new(), &PartId::parse("sources.m").unwrap());
    let (channels, stale) = (
        Arc::clone(&play.channels),
        play.session.metrics.stale_acks.clone(),
    );
    let told = play.story.clone();
    let open_gate = async {
        // The connection is lost while the put hangs; the put ends only now.
        told.until("put a").await;
        channels.gate.add_permits(1000);
    };
    let ((ended, told, _), ()) = tokio::join!(play.until("ack 2.1"), open_gate);
    ended.unwrap();
    // The first put was waited for before the second connection, and acknowledged on its own one.
    let place = |line: &str| told.iter().position(|known| known == line).unwrap();
    assert!(place("stored a") < place("put a again"), "{told:?}");
    assert!(place("close") < told.iter().rposition(|line| line == "connect").unwrap());
    assert_eq!(told.iter().filter(|line| *line == "ack 2.1").count(), 1);
    assert_eq!(stale.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_only_gathered_comes_again_after_a_lost_connection() {
    let connections = vec![vec![say(1, "a"), Say::Lost], vec![say(1, "a again")]];
    let (ended, told, _) = Play::new(connections, 100, 100).until("ack 2.1").await;
    ended.unwrap();
    assert_eq!(told[..4], ["connect", "close", "connect", "put a again"]);
}

#[tokio::test(start_paused = true)]
async fn draining_acknowledges_what_is_committed_and_nothing_else() {
    let play = Play::new(vec![vec![say(1, "a"), say(2, "late")]], 1, 100);
    play.channels.gate.forget_permits(1000);
    let channels = Arc::clone(&play.channels);
    let told = play.story.clone();
    let open_gate = async {
        told.until("put a").await;
        // The stop comes first: `until` below was told of the put, too.
        tokio::time::sleep(Duration::from_millis(1)).await;
        channels.gate.add_permits(1000);
    };
    let ((ended, told, _), ()) = tokio::join!(play.until("put a"), open_gate);
    ended.unwrap();
    assert_eq!(told, ["connect", "put a", "stored a", "ack 1.1", "close"]);
}

#[tokio::test(start_paused = true)]
async fn stopping_while_a_put_is_refused_leaves_the_batch_to_the_broker() {
    let full = PutError::Full {
        channel: "main".into(),
    };
    let play = Play::new(vec![vec![say(1, "a")]], 1, 100).answers(vec![Err(full)]);
    let (ended, told, _) = play.until("refused channel `main` is full").await;
    ended.unwrap();
    assert!(!told.iter().any(|line| line.starts_with("ack")), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn events_beyond_a_limit_are_faults_and_their_neighbours_are_not() {
    let large = message(&"x".repeat(2000));
    let cut = Message {
        cut_from: Some(9_000_000),
        ..message("beginning")
    };
    let bad_topic = Message {
        topic: Bytes::from_static(b"a\xff"),
        ..message("topic")
    };
    let nameless = Message {
        properties: vec![(String::new(), "v".into())],
        ..message("n")
    };
    let pairs = (0..300).map(|n| (format!("p{n}"), String::new())).collect();
    let crowded = Message {
        properties: pairs,
        ..message("c")
    };
    let says = vec![
        say(1, "first"),
        Say::Message(2, large),
        Say::Message(3, cut),
        Say::Message(4, bad_topic),
        Say::Message(5, nameless),
        Say::Message(6, crowded),
        say(7, "last"),
    ];
    let play = Play::new(vec![says], 100, 100);
    let oversize = play.session.metrics.oversize.clone();
    let (ended, _, puts) = play.until("ack 1.7").await;
    ended.unwrap();
    let bodies: Vec<_> = puts[0]
        .batch
        .iter()
        .map(|event| event.body().to_vec())
        .collect();
    assert_eq!(bodies, [b"first".to_vec(), b"last".to_vec()]);
    let faults = &puts[0].faults;
    assert_eq!(
        faults.iter().map(|fault| fault.index).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    assert!(matches!(
        faults[0].kind,
        FaultKind::EventSize {
            bytes: 2001..,
            allowed: 1024
        }
    ));
    assert!(matches!(
        faults[1].kind,
        FaultKind::EventSize {
            bytes: 9_000_000,
            ..
        }
    ));
    assert_eq!(faults[2].kind, FaultKind::NotText);
    assert!(matches!(faults[3].kind, FaultKind::Name { bytes: 0, .. }));
    assert!(matches!(
        faults[4].kind,
        FaultKind::Headers { allowed: 256 }
    ));
    let kept = levada_core::EventRef::from_stored(&faults[1].event);
    assert_eq!(
        (kept.header("topic"), kept.body()),
        (Some("plant/7"), &b"beginning"[..])
    );
    assert_eq!(oversize.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn user_properties_become_headers_and_cannot_pass_for_ours() {
    let pairs = [
        ("site", "north"),
        ("topic", "forged"),
        ("levada.o", "forged"),
    ];
    let properties = pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    let content_type = Some("text/csv".to_owned());
    let rich = Message {
        properties,
        content_type,
        retain: true,
        dup: true,
        ..message("x")
    };
    let play = Play::new(vec![vec![Say::Message(1, rich)]], 1, 100);
    let redelivered = play.session.metrics.redelivered.clone();
    let (ended, _, puts) = play.until("ack 1.1").await;
    ended.unwrap();
    let mut headers: Vec<_> = puts[0].batch.get(0).unwrap().headers().collect();
    headers.sort_unstable();
    let expected = [
        ("content-type", "text/csv"),
        ("qos", "1"),
        ("retain", "true"),
        ("site", "north"),
        ("topic", "plant/7"),
    ];
    assert_eq!(headers, expected);
    assert_eq!(redelivered.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_batch_larger_than_the_channel_goes_in_halves() {
    let large = || {
        Err(PutError::TooLarge {
            channel: "main".into(),
            bytes: 9,
        })
    };
    let says = (1..=4).map(|n| say(n, &n.to_string())).collect();
    let play = Play::new(vec![says], 4, 100).answers(vec![large(), Ok(()), large()]);
    let (ended, told, _) = play.until("ack 1.4").await;
    ended.unwrap();
    let stored: Vec<_> = told
        .iter()
        .filter(|line| line.starts_with("stored"))
        .collect();
    assert_eq!(stored, ["stored 1 2", "stored 3", "stored 4"]);
    let single = Play::new(vec![vec![say(1, "a")]], 1, 100).answers(vec![large()]);
    let (ended, told, _) = single.until("close").await;
    assert!(
        ended.is_err() && !told.iter().any(|line| line.starts_with("ack")),
        "{told:?}"
    );
}
