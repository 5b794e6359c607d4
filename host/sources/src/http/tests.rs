mod hostile;

use std::{io::Write, sync::Mutex};

use flate2::{Compression, write::GzEncoder};
use levada_core::{
    Batch, Chance, Marks, Name, PartKind, Peer, Put, PutError, Stopper, SystemClock, TaskSet,
    Value,
    settings::{Key, ValueKind, parse_params},
};
use levada_net::{Memory, Stream, Tcp};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    time::Instant,
};

use super::*;

/// Keeps what is put, or answers with the error it was told.
#[derive(Default)]
struct Kept {
    batches: Mutex<Vec<Batch>>,
    answer: Mutex<Option<PutError>>,
    /// Puts wait for the second of these if there are any, and say so with the first.
    gate: Option<(Notify, Notify)>,
}

#[async_trait]
impl Ingest for Kept {
    async fn put(&self, put: Put) -> Result<(), PutError> {
        if let Some((waiting, gate)) = &self.gate {
            waiting.notify_one();
            gate.notified().await;
        }
        if let Some(error) = self.answer.lock().unwrap().clone() {
            return Err(error);
        }
        self.batches.lock().unwrap().push(put.batch);
        Ok(())
    }

    fn marks(&self) -> Marks {
        Marks::default()
    }
}

impl Kept {
    /// Every event as `headers|body`.
    fn texts(&self) -> Vec<String> {
        let text = |event: levada_core::EventRef<'_>| {
            let mut headers: Vec<_> = event.headers().map(|(n, v)| format!("{n}={v}")).collect();
            headers.sort();
            format!(
                "{}|{}",
                headers.join(","),
                String::from_utf8_lossy(event.body())
            )
        };
        self.batches
            .lock()
            .unwrap()
            .iter()
            .flat_map(|batch| batch.iter().map(text))
            .collect()
    }
}

fn text(value: &str) -> Value {
    value.into()
}

fn table(pairs: &[(&str, Value)]) -> Table {
    let key = |name: &str| Key {
        name: name.into(),
        span: Default::default(),
    };
    let entries = pairs
        .iter()
        .map(|(name, value)| (key(name), value.clone()))
        .collect();
    Table {
        path: "sources.web".into(),
        entries,
        ..Table::default()
    }
}

/// A running source.
struct Running {
    transport: Arc<dyn Transport>,
    address: String,
    out: Arc<Kept>,
    stopper: Stopper,
    tasks: TaskSet,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Running {
    async fn start(pairs: &[(&str, Value)], out: Kept) -> Self {
        Self::start_on(Arc::new(Tcp), pairs, out).await
    }

    async fn start_on(transport: Arc<dyn Transport>, pairs: &[(&str, Value)], out: Kept) -> Self {
        let mut pairs = pairs.to_vec();
        pairs.push(("listen", text("127.0.0.1:0")));
        let mut problems = Problems::new();
        let params = parse_params::<Params>(&table(&pairs), &[], &mut problems);
        let params = params.unwrap_or_else(|| panic!("{problems:?}"));
        let part = PartId::new(PartKind::Sources, Name::new("web").unwrap());
        let (stopper, stop) = Stopper::new();
        let mut source = HttpSource {
            transport: Arc::clone(&transport),
            params,
            clock: Arc::new(SystemClock),
            metrics: Metrics::new(&Registry::new(), &part),
            inbound: Inbound::default(),
            listener: None,
        };
        source.open().await.unwrap();
        let address = source
            .listener
            .as_ref()
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        let out = Arc::new(out);
        let ingest: Arc<dyn Ingest> = out.clone();
        let (clock, chance) = (Arc::new(SystemClock), Chance::seeded(1));
        let mut tasks = TaskSet::new();
        tasks.spawn("source", async move {
            let cx = RunContext {
                part,
                stop,
                clock,
                chance,
                peer: Peer::default(),
            };
            source.run(ingest, &cx).await.unwrap();
        });
        Self {
            transport,
            address,
            out,
            stopper,
            tasks,
        }
    }

    async fn connect(&self) -> Box<dyn Stream> {
        self.transport
            .connect(&self.address, Duration::from_secs(5))
            .await
            .unwrap()
    }

    /// Sends raw bytes and reads to the end of the connection.
    async fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        // The other side may answer and end before it has read all.
        let _sent = stream.write_all(request).await.is_ok();
        let mut reply = Vec::new();
        let _whole = stream.read_to_end(&mut reply).await.is_ok();
        let reply = String::from_utf8(reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap_or((&reply, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .unwrap_or(0);
        Answer {
            status,
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    async fn post(&self, path: &str, fields: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\
             {fields}\r\n"
        );
        self.raw(&[head.as_bytes(), body].concat()).await
    }

    async fn json(&self, body: &str) -> Answer {
        self.post("/", "Content-Type: application/json\r\n", body.as_bytes())
            .await
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn flume_arrays_become_one_batch_in_order() {
    let web = Running::start(&[], Kept::default()).await;
    let body = r#"[{"headers":{"a":"b"},"body":"random_body"},
        {"body":"rand\"om <b>\u00e9</b>","headers":{"n":5,"t":true},"more":[{}]},
        {"headers":null}, {"body":null}]"#;
    let answer = web.json(body).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, r#"{"accepted":4}"#)
    );
    let expected = [
        "a=b|random_body",
        "n=5,t=true|rand\"om <b>\u{e9}</b>",
        "|",
        "|",
    ];
    assert_eq!(web.out.texts(), expected);
    assert_eq!(web.out.batches.lock().unwrap().len(), 1);
    assert_eq!(web.json("[]").await.body, r#"{"accepted":0}"#);
}

#[tokio::test]
async fn lines_and_raw_bodies_become_events_with_the_query_as_headers() {
    let web = Running::start(&[], Kept::default()).await;
    let lines = b"{\"a\": 1}\r\n\n  \n\"text\"\n17";
    let answer = web
        .post(
            "/?site=a%20b",
            "Content-Type: application/x-ndjson\r\n",
            lines,
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = web
        .post("/up?x=1&x=2", "Content-Type: text/plain\r\n", b"raw \xff")
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let expected = [
        "site=a b|{\"a\": 1}",
        "site=a b|\"text\"",
        "site=a b|17",
        "x=2|raw \u{fffd}",
    ];
    assert_eq!(web.out.texts(), expected);
}

#[tokio::test]
async fn an_own_header_wins_over_the_query() {
    let web = Running::start(&[], Kept::default()).await;
    let fields = "Content-Type: application/json; charset=UTF-8\r\n";
    let answer = web
        .post("/?a=query&b=query", fields, br#"[{"headers":{"a":"own"}}]"#)
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(web.out.texts(), ["a=own,b=query|"]);
}

#[tokio::test]
async fn a_bad_event_is_named_and_nothing_is_stored() {
    let web = Running::start(&[("max-event", text("2KiB"))], Kept::default()).await;
    let long = "x".repeat(3 << 10);
    let cases = [
        (r#"[{"body":"a"},{"body":7}]"#.to_owned(), 400, Some(1)),
        (
            r#"[{"body":"a"},{"headers":{"h":[]}}]"#.to_owned(),
            400,
            Some(1),
        ),
        (
            r#"[{"headers":{"levada.o":"forged"}}]"#.to_owned(),
            400,
            Some(0),
        ),
        (r#"[{"headers":{"":"no name"}}]"#.to_owned(), 400, Some(0)),
        (r#"[{},{},{"body":"\ud800"}]"#.to_owned(), 400, Some(2)),
        (r#"[{"body":"a"},{"body":"b"},"#.to_owned(), 400, Some(2)),
        (
            format!(r#"[{{"body":"a"}},{{"body":"{long}"}}]"#),
            413,
            Some(1),
        ),
        (format!(r#"[{{"headers":{{"{long}":""}}}}]"#), 400, Some(0)),
        (r#"{["a": "b"],"body": "x"}"#.to_owned(), 400, None),
        (r#"{"body":"no array"}"#.to_owned(), 400, None),
        (r#"[{}] []"#.to_owned(), 400, None),
        ("[".repeat(1_000_000), 400, None),
        (String::new(), 400, None),
    ];
    for (body, status, index) in cases {
        let answer = web.json(&body).await;
        let shown = &body[..body.len().min(60)];
        assert_eq!(answer.status, status, "{shown}: {}", answer.body);
        let index = index.map(|n: usize| format!(r#""index":{n}"#));
        match index {
            Some(index) => assert!(answer.body.contains(&index), "{shown}: {}", answer.body),
            None => assert!(!answer.body.contains("index"), "{shown}: {}", answer.body),
        }
    }
    let answer = web
        .post(
            "/",
            "Content-Type: application/x-ndjson\r\n",
            b"1\n{oops\n3",
        )
        .await;
    assert!(
        answer.status == 400 && answer.body.contains("\"index\":1"),
        "{}",
        answer.body
    );
    assert_eq!(web.out.texts(), Vec::<String>::new());
}

#[tokio::test]
async fn a_full_channel_says_when_to_come_again() {
    let web = Running::start(&[], Kept::default()).await;
    let after = Some(Duration::from_millis(6500));
    let cases = [
        (
            PutError::Full {
                channel: "main".into(),
            },
            503,
            "retry-after: 1",
        ),
        (PutError::Deadline, 503, "retry-after: 1"),
        (PutError::Stopping, 503, "retry-after: 1"),
        (
            PutError::Later {
                part: "h".into(),
                reason: "r".into(),
                after,
            },
            503,
            "retry-after: 7",
        ),
        (
            PutError::Store {
                reason: "disk".into(),
            },
            503,
            "retry-after: 10",
        ),
        (
            PutError::TooLarge {
                channel: "main".into(),
                bytes: 9,
            },
            413,
            "connection: close",
        ),
    ];
    for (error, status, field) in cases {
        *web.out.answer.lock().unwrap() = Some(error.clone());
        let answer = web.json(r#"[{"body":"x"}]"#).await;
        assert_eq!(answer.status, status, "{error}");
        assert!(answer.head.contains(field), "{error}: {}", answer.head);
        assert!(answer.body.contains(&error.to_string()), "{}", answer.body);
    }
    *web.out.answer.lock().unwrap() = None;
    assert_eq!(web.json(r#"[{"body":"x"}]"#).await.status, 200);
}

#[tokio::test]
async fn only_posts_on_known_paths_are_taken() {
    let paths = ValueKind::Array(vec![text("/events")]);
    let paths = Value {
        kind: paths,
        span: Default::default(),
    };
    let web = Running::start(&[("paths", paths)], Kept::default()).await;
    assert_eq!(web.post("/events?a=b", "", b"x").await.status, 200);
    assert_eq!(web.post("/other", "", b"x").await.status, 404);
    for method in ["GET", "PUT", "TRACE", "OPTIONS", "NONSENSE"] {
        let request = format!("{method} /events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = web.raw(request.as_bytes()).await;
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.head.contains("allow: post"));
    }
}

#[tokio::test]
async fn credentials_are_asked_for() {
    let secret = |pairs: &[(&str, Value)]| Value {
        kind: ValueKind::Table(table(pairs)),
        span: Default::default(),
    };
    let token = secret(&[("token", text("s3cret"))]);
    let web = Running::start(&[("auth", token)], Kept::default()).await;
    for (field, status) in [
        ("Authorization: Bearer s3cret\r\n", 200),
        ("Authorization: bearer  s3cret\r\n", 200),
        ("Authorization: Bearer s3cre\r\n", 401),
        ("Authorization: Bearer s3cres\r\n", 401),
        ("Authorization: Basic s3cret\r\n", 401),
        ("Authorization: \r\n", 401),
        ("", 401),
    ] {
        let answer = web.post("/", field, b"x").await;
        assert_eq!(answer.status, status, "{field}");
        assert_eq!(
            answer.head.contains("www-authenticate: bearer"),
            status == 401
        );
    }
    let pair = secret(&[("user", text("u")), ("password", text("p:w"))]);
    let web = Running::start(&[("auth", secret(&[("basic", pair)]))], Kept::default()).await;
    // "u:p:w" and "u:p"
    assert_eq!(
        web.post("/", "Authorization: Basic dTpwOnc=\r\n", b"x")
            .await
            .status,
        200
    );
    assert_eq!(
        web.post("/", "Authorization: Basic dTpw\r\n", b"x")
            .await
            .status,
        401
    );
    assert_eq!(
        web.post("/", "Authorization: Basic ***\r\n", b"x")
            .await
            .status,
        401
    );
}

#[test]
fn mistakes_in_the_settings_are_all_found() {
    let deps = Deps {
        transport: Arc::new(Memory::new()),
        registry: Registry::new(),
        clock: Arc::new(SystemClock),
        chance: Chance::seeded(1),
        agent: "test".into(),
    };
    let kind = levada_core::SourceKind::of(Factory::new(&deps));
    let paths = ValueKind::Array(vec![text("events")]);
    let auth = ValueKind::Table(table(&[]));
    let value = |kind| Value {
        kind,
        span: Default::default(),
    };
    let table = table(&[
        ("listen", text("0.0.0.0:5140")),
        ("max-body", text("1KiB")),
        ("paths", value(paths)),
        ("auth", value(auth)),
    ]);
    let mut problems = Problems::new();
    let part = PartId::new(PartKind::Sources, Name::new("web").unwrap());
    assert!(kind.check(&part, &table, &[], &mut problems).is_none());
    let mut keys: Vec<_> = problems.iter().map(|problem| problem.key.clone()).collect();
    keys.sort();
    let expected = ["auth", "listen", "max-body", "paths"].map(|key| format!("sources.web.{key}"));
    assert_eq!(keys, expected);
}
