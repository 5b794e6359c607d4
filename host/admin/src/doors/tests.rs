use std::sync::Arc;

use levada_core::{
    Chance, Commit, Count, Counter, DeadLetter, Lease, Marks, Name, PartId, PutError, Settlement,
    States, Stopper, Store, SystemClock, TakeError, TaskSet, Want,
    hop::Lane,
    inspect::{ChannelInfo, DeadLetterInfo, Inspect, StoreInfo},
    state::SavedState,
};
use levada_flow::{Flow, Plan, Surroundings};
use levada_net::{Inbound, Tcp};
use levada_telemetry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    Done, Lines, Operate, Order, TapOrder, ask, audit::tests::channel, order, view::Facts, watch,
};

/// A store with 40 dead letters and one channel that is even.
#[derive(Debug)]
struct Shown;

impl Inspect for Shown {
    fn channels(&self) -> Vec<ChannelInfo> {
        vec![channel("main", "durable", 3)]
    }

    fn store(&self) -> Option<StoreInfo> {
        None
    }

    fn counts(&self) -> Result<Vec<Count>, String> {
        Ok(vec![Count {
            part: PartId::parse("channels.main").unwrap(),
            counter: Counter::Put,
            reason: String::new(),
            amount: 3,
        }])
    }

    fn dead_letters(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeadLetterInfo>, String> {
        let from = after.map_or(1, |after| after + 1);
        Ok((from..=40).take(limit).map(dead_letter).collect())
    }

    fn dead_letter(&self, _: u64) -> Result<Option<DeadLetter>, String> {
        Ok(None)
    }
}

fn dead_letter(id: u64) -> DeadLetterInfo {
    DeadLetterInfo {
        id,
        part: "handlers.h".into(),
        flow: "sources.s".into(),
        reason: "bad".into(),
        limit: None,
        backtrace: None,
        handler: None,
        recording: None,
        origin: None,
        attempts: 1,
        at_ms: 0,
        headers: Vec::new(),
        bytes: 2,
        body: "x".repeat(1000),
        event_hex: "00ff".into(),
    }
}

impl States for Shown {
    fn state(&self, _: &Name) -> Result<SavedState, TakeError> {
        Ok(SavedState::default())
    }
}

#[async_trait]
impl Store for Shown {
    async fn commit(&self, _: Commit) -> Result<(), PutError> {
        Err(PutError::Stopping)
    }

    async fn lease(&self, _: &levada_core::ChannelName, _: Want) -> Result<Lease, TakeError> {
        Err(TakeError::Closed)
    }

    async fn settle(&self, _: Lease, _: Settlement) -> Result<(), TakeError> {
        Err(TakeError::Closed)
    }

    fn marks(&self, _: &PartId) -> Marks {
        Marks::default()
    }

    fn lane(&self, _: &levada_core::ChannelName, _: u32) -> Result<Lane, TakeError> {
        Err(TakeError::Closed)
    }

    fn holds(
        &self,
        _: &levada_core::ChannelName,
        _: u32,
        _: std::ops::Range<u64>,
    ) -> Result<bool, TakeError> {
        Err(TakeError::Closed)
    }

    fn chain_at(
        &self,
        _: &levada_core::ChannelName,
        _: u32,
        _: u64,
    ) -> Result<Option<u64>, TakeError> {
        Err(TakeError::Closed)
    }
}

#[async_trait]
impl Operate for Shown {
    async fn carry_out(&self, order: Order, by: &str) -> Done {
        match order {
            Order::Replay { letter: 7 } => Done::Well(serde_json::json!({ "by": by })),
            Order::Replay { .. } => Done::Refused(serde_json::json!({ "error": "no letter" })),
            Order::Reload(reload) => Done::Well(format!("{reload:?}").into()),
        }
    }

    async fn tap(&self, tap: TapOrder, by: &str) -> Result<Box<dyn Lines>, String> {
        match tap.handler.as_str() {
            "endless" => Ok(Box::new(Endless(0))),
            other => Err(format!("{by}: no handler `{other}`")),
        }
    }
}

/// Counts as fast as it is asked.
struct Endless(u64);

#[async_trait]
impl Lines for Endless {
    async fn next(&mut self) -> Option<String> {
        self.0 += 1;
        Some(format!("{}\n", self.0))
    }
}

/// A view of an agent without parts.
pub(crate) fn view() -> View {
    let registry = Registry::new();
    registry.counter("levada_test", "A test", &[]).add(7);
    let around = Surroundings {
        store: Arc::new(Shown),
        inspect: Arc::new(Shown),
        registry: registry.clone(),
        clock: Arc::new(SystemClock),
        chance: Chance::seeded(1),
    };
    let open = Flow::open(Plan::default(), around);
    let mut open = std::pin::pin!(open);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Ok(flow)) = open.as_mut().poll(&mut cx) else {
        panic!("a flow without parts opens at once");
    };
    View {
        operate: Arc::new(Shown),
        facts: Arc::new(Mutex::new(Facts {
            agent: "gw".into(),
            version: "0",
            pid: 1,
            started_ms: 0,
            listening: Vec::new(),
            risks: Vec::new(),
        })),
        status: flow.status(),
        inspect: Arc::new(Shown),
        registry,
        clock: Arc::new(SystemClock),
        stop: Stopper::new().1,
    }
}

/// The user who runs this test owns what it made.
fn owner(folder: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(folder).unwrap().uid()
}

#[tokio::test]
async fn both_doors_answer_until_the_agent_stops() {
    let folder = tempfile::tempdir().unwrap();
    // What a killed agent leaves behind.
    drop(std::os::unix::net::UnixListener::bind(folder.path().join(SOCKET)).unwrap());
    let at = "127.0.0.1:0".parse().unwrap();
    let doors = Doors::open(Some((at, Inbound::default())), folder.path(), &Tcp)
        .await
        .unwrap();
    let tcp = doors.tcp_addr().unwrap();
    let mode = fs::metadata(folder.path().join(SOCKET))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let (stopper, stop) = Stopper::new();
    let mut tasks = TaskSet::new();
    tasks.spawn("doors", async move { doors.serve(view(), &stop).await });

    let (status, body) = ask(folder.path(), "/channels").await.unwrap();
    assert_eq!(status, 200);
    assert!(body.starts_with(b"[{\"name\":\"main\""));
    let (status, body) = order(folder.path(), "/dead-letters/7/replay")
        .await
        .unwrap();
    let me = format!("uid {} pid {}", owner(folder.path()), std::process::id());
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &said["by"]), (200, &me.into()));
    let (status, _) = order(folder.path(), "/dead-letters/8/replay")
        .await
        .unwrap();
    assert_eq!(status, 422);
    let answer = raw(tcp, "POST /reload HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    let answer = raw(tcp, "GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        !answer.to_ascii_lowercase().contains("access-control"),
        "{answer}"
    );
    let answer = raw(tcp, "GET /status HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let bomb = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(1 << 20));
    let answer = raw(tcp, &bomb).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");

    stopper.drain();
    assert!(tasks.join(Duration::from_secs(10)).await);
    assert!(!folder.path().join(SOCKET).exists());
    let gone = ask(folder.path(), "/channels").await.unwrap_err();
    assert!(matches!(gone, crate::AskError::NotRunning { .. }), "{gone}");
}

#[tokio::test]
async fn a_tap_tells_lines_until_its_reader_has_seen_enough() {
    use std::ops::ControlFlow;
    let folder = tempfile::tempdir().unwrap();
    let doors = Doors::open(None, folder.path(), &Tcp).await.unwrap();
    let (stopper, stop) = Stopper::new();
    let mut tasks = TaskSet::new();
    let mut view = view();
    view.stop = stop.clone();
    tasks.spawn("doors", async move { doors.serve(view, &stop).await });
    let path = |handler: &str, filter: Option<&str>| {
        let (handler, filter) = (handler.to_owned(), filter.map(ToOwned::to_owned));
        TapOrder { handler, filter }.path()
    };
    // More readers than the socket has connections: each that has gone leaves its place.
    let endless = path("endless", Some("a && b"));
    for _ in 0..100 {
        let mut seen = Vec::new();
        let watched = watch(folder.path(), &endless, |line| {
            seen.push(line.to_owned());
            match seen.len() {
                3 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        assert_eq!(watched.await.unwrap().0, 200);
        assert_eq!(seen, ["1", "2", "3"]);
    }
    let nobody = |_: &str| panic!("there is nothing to see");
    let (status, body) = watch(folder.path(), &path("other", None), nobody)
        .await
        .unwrap();
    assert_eq!(status, 422);
    let said = String::from_utf8(body.to_vec()).unwrap();
    assert!(said.contains("no handler `other`"), "{said}");
    let (status, _) = watch(folder.path(), "/handlers/endless/tap?x=y", nobody)
        .await
        .unwrap();
    assert_eq!(status, 400);
    // Who reads when the agent stops is told the end.
    let watched = watch(folder.path(), &endless, |_| {
        stopper.drain();
        ControlFlow::Continue(())
    });
    assert_eq!(watched.await.unwrap().0, 200);
    assert!(tasks.join(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let error = Doors::open(Some((at, Inbound::default())), folder.path(), &Tcp)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&at.to_string()) && text.contains("in use"),
        "{text}"
    );
}

/// Sends bytes and reads until the other side closes, or a part of an answer is there.
async fn raw(at: SocketAddr, request: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
    // The other side may close before it has read a request that is too large.
    let _sent = stream.write_all(request.as_bytes()).await;
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap_or(0);
    String::from_utf8_lossy(&answer[..read]).into_owned()
}
