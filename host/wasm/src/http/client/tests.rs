//! Requests to servers on this machine that behave as their test says, byte by byte.

use std::{collections::VecDeque, net::Ipv4Addr, sync::Mutex};

use levada_core::{Secret, SystemClock, TaskSet};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{super::Header, *};
use crate::CredentialParams;

/// Answers one lookup after the other.
#[derive(Debug, Default)]
struct Scripted {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Names for Scripted {
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.lock().unwrap().push(name.to_owned());
        let answer = self.answers.lock().unwrap().pop_front();
        answer.ok_or_else(|| io::Error::other("no such name"))
    }
}

/// A server that gives every connection the same bytes, and keeps what it was sent.
struct Server {
    at: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    _tasks: TaskSet,
}

/// What a server does with a connection once it has read a request.
#[derive(Clone)]
enum Does {
    Says(&'static str),
    /// The same bytes again and again, as long as they are taken.
    NeverEnds(&'static str),
    /// Says this and then nothing, and keeps the connection.
    Stops(&'static str),
}

impl Server {
    async fn start(does: Does) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = TaskSet::new();
        let keeps = Arc::clone(&heard);
        tasks.spawn("server", async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = request_in(&mut stream).await;
                keeps.lock().unwrap().push(request);
                match does.clone() {
                    Does::Says(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                    Does::NeverEnds(text) => {
                        while stream.write_all(text.as_bytes()).await.is_ok() {}
                    }
                    Does::Stops(text) => {
                        stream.write_all(text.as_bytes()).await.unwrap();
                        open.push(stream);
                    }
                }
            }
        });
        Self {
            at,
            heard,
            _tasks: tasks,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.at)
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

/// The head of a request and as much of a body as it announces.
async fn request_in(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length = length.map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return text;
            }
        }
        assert!(read > 0, "half a request: {text}");
    }
}

fn spec(http: &[&str], private: &[&str]) -> HandlerSpec {
    let mut spec = HandlerSpec::new("a.wasm");
    let destination = |text: &&str| Destination::parse(text).unwrap();
    spec.grants.http = http.iter().map(destination).collect();
    let network = |text: &&str| Network::parse(text).unwrap();
    spec.grants.allow_private = private.iter().map(network).collect();
    spec
}

fn open(spec: &HandlerSpec, names: Arc<dyn Names>) -> HttpClient {
    let part = PartId::parse("handlers.test").unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    HttpClient::open(&part, spec, &clock, names)
        .unwrap()
        .unwrap()
}

/// A client that may speak to everything on this machine that is granted.
fn local(http: &[&str]) -> HttpClient {
    open(&spec(http, &["127.0.0.0/8"]), Arc::new(MachineNames))
}

fn get(url: impl Into<String>) -> Request {
    Request {
        method: "GET".into(),
        url: url.into(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout_ms: 0,
    }
}

/// Long enough for what comes to an end by itself.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_answer_comes_back_whole() {
    let says = "HTTP/1.1 201 Created\r\ncontent-length: 4\r\nX-Id: 7\r\n\r\nmade";
    let server = Server::start(Does::Says(says)).await;
    let client = local(&[&server.url("/in")]);
    let mut request = get(server.url("/in/a?b=c"));
    request.method = "POST".into();
    request.headers.push(Header {
        name: "Content-Type".into(),
        value: "text/plain".into(),
    });
    request.body = b"hello".to_vec();
    let reply = client.send(request, LONG).await.unwrap();
    assert_eq!((reply.status, &reply.body[..]), (201, &b"made"[..]));
    assert!(
        reply
            .headers
            .iter()
            .any(|h| h.name == "x-id" && h.value == "7")
    );
    let heard = server.heard().remove(0);
    assert!(heard.starts_with("POST /in/a?b=c HTTP/1.1\r\n"), "{heard}");
    assert!(
        heard.contains(&format!("host: {}\r\n", server.at)),
        "{heard}"
    );
    assert!(heard.ends_with("\r\n\r\nhello"), "{heard}");
    assert!(!heard.to_lowercase().contains("referer"), "{heard}");
}

/// F67: no lookup and no connection for what is not granted.
#[tokio::test]
async fn what_is_not_granted_is_refused_before_any_name_is_asked() {
    let names = Arc::new(Scripted::default());
    let client = open(
        &spec(&["https://api.example/v1"], &[]),
        Arc::clone(&names) as _,
    );
    for url in [
        "https://other.example/v1",
        "http://api.example/v1",
        "https://api.example/v2",
        "https://user@api.example/v1",
    ] {
        let problem = client.send(get(url), LONG).await.unwrap_err();
        assert!(matches!(problem, Problem::Denied(_)), "{url}: {problem:?}");
    }
    for method in ["CONNECT", "TRACE", "get", "", "A B", "G\u{cb}T"] {
        let mut request = get("https://api.example/v1");
        request.method = method.into();
        let problem = client.send(request, LONG).await.unwrap_err();
        assert!(
            matches!(problem, Problem::Denied(_)),
            "{method}: {problem:?}"
        );
    }
    assert!(names.asked.lock().unwrap().is_empty());
}

/// F68: a granted address, however it is written, and a granted name that means one.
#[tokio::test]
async fn private_addresses_are_refused_where_they_are_dialled() {
    let server = Server::start(Does::Says("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
    let port = server.at.port();
    let grants = [
        format!("http://127.0.0.1:{port}"),
        format!("http://inside.example:{port}"),
    ];
    let grants = [&*grants[0], &*grants[1]];
    let names = Arc::new(Scripted::default());
    let loopback = || vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
    let mapped = || vec!["::ffff:127.0.0.1".parse().unwrap()];
    *names.answers.lock().unwrap() = [loopback(), mapped(), loopback()].into();
    let client = open(&spec(&grants, &[]), Arc::clone(&names) as _);
    let urls = [
        format!("http://127.0.0.1:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://inside.example:{port}/"),
        format!("http://inside.example:{port}/"),
    ];
    for url in urls {
        match client.send(get(&url), LONG).await.unwrap_err() {
            Problem::Denied(why) => assert!(why.contains("allow-private"), "{url}: {why}"),
            other => panic!("{url}: {other:?}"),
        }
    }
    assert!(server.heard().is_empty(), "a connection was used");
    // The operator says otherwise.
    let client = open(&spec(&grants, &["127.0.0.1"]), names as _);
    let url = format!("http://inside.example:{port}/");
    assert_eq!(client.send(get(url), LONG).await.unwrap().status, 200);
}

/// F68: the second answer of a name is another one. What is dialled is what was checked, and every
/// lookup is checked.
#[tokio::test]
async fn a_name_that_changes_its_mind_is_refused() {
    // The connection is closed after each answer, so that every request asks anew.
    let says = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let server = Server::start(Does::Says(says)).await;
    let grant = format!("http://moving.example:{}", server.at.port());
    let names = Arc::new(Scripted::default());
    let allowed = || IpAddr::from(Ipv4Addr::LOCALHOST);
    let private: IpAddr = "10.0.0.7".parse().unwrap();
    *names.answers.lock().unwrap() = [vec![allowed()], vec![private]].into();
    let client = open(&spec(&[&grant], &["127.0.0.1"]), Arc::clone(&names) as _);
    assert_eq!(client.send(get(&grant), LONG).await.unwrap().status, 200);
    match client.send(get(&grant), LONG).await.unwrap_err() {
        Problem::Denied(why) => assert!(why.contains("10.0.0.7/32"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(*names.asked.lock().unwrap(), ["moving.example"; 2]);
    // Among several addresses only those that may be dialled are.
    *names.answers.lock().unwrap() = [vec![private, allowed()]].into();
    assert_eq!(client.send(get(&grant), LONG).await.unwrap().status, 200);
    assert_eq!(server.heard().len(), 2);
}

/// F69: a redirection is an answer, wherever it points.
#[tokio::test]
async fn redirections_are_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let says = format!(
            "HTTP/1.1 {status} Elsewhere\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
        );
        let server = Server::start(Does::Says(String::leak(says))).await;
        let client = local(&[&server.url("/")]);
        let reply = client.send(get(server.url("/")), LONG).await.unwrap();
        assert_eq!(reply.status, status);
        assert!(reply.headers.iter().any(|header| header.name == "location"));
        assert_eq!(server.heard().len(), 1);
    }
}

#[tokio::test]
async fn an_answer_without_an_end_is_cut() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = "1000\r\n";
    let endless = String::leak(format!("{head}{chunk}"));
    // One head and then the same again: the body is what comes, chunk or not.
    let server = Server::start(Does::NeverEnds(endless)).await;
    let client = local(&[&server.url("/")]);
    let problem = client.send(get(server.url("/")), LONG).await.unwrap_err();
    let known = matches!(problem, Problem::TooLarge | Problem::Protocol(_));
    assert!(known, "{problem:?}");
    // Without a length the body lasts as long as the connection.
    let body = String::leak("x".repeat(1 << 16));
    let until_closed = String::leak(format!("HTTP/1.1 200 OK\r\n\r\n{body}"));
    let server = Server::start(Does::NeverEnds(until_closed)).await;
    let client = local(&[&server.url("/")]);
    let problem = client.send(get(server.url("/")), LONG).await.unwrap_err();
    assert_eq!(problem, Problem::TooLarge);
    // What announces too much is not read at all.
    let says = "HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n";
    let server = Server::start(Does::Stops(says)).await;
    let client = local(&[&server.url("/")]);
    let problem = client.send(get(server.url("/")), LONG).await.unwrap_err();
    assert_eq!(problem, Problem::TooLarge);
}

#[tokio::test]
async fn what_is_no_answer_is_named_as_such() {
    for says in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: nine\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "\0\0\0",
        "",
    ] {
        let server = Server::start(Does::Says(says)).await;
        let client = local(&[&server.url("/")]);
        let problem = client.send(get(server.url("/")), LONG).await.unwrap_err();
        assert!(
            matches!(problem, Problem::Protocol(_)),
            "{says:?}: {problem:?}"
        );
    }
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}/", nobody.local_addr().unwrap());
    drop(nobody);
    let problem = local(&[&url]).send(get(&url), LONG).await.unwrap_err();
    assert!(matches!(problem, Problem::Connect(_)), "{problem:?}");
}

/// A server that says one byte and then nothing holds a request no longer than its time.
#[tokio::test]
async fn a_slow_answer_ends_with_its_time() {
    for says in ["", "H", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"] {
        let server = Server::start(Does::Stops(says)).await;
        let client = local(&[&server.url("/")]);
        let within = Duration::from_millis(300);
        let problem = client.send(get(server.url("/")), within).await.unwrap_err();
        assert_eq!(problem, Problem::Timeout, "{says:?}");
    }
}

#[tokio::test]
async fn credentials_go_to_their_server_and_nowhere_else() {
    let says = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let (first, second) = (
        Server::start(Does::Says(says)).await,
        Server::start(Does::Says(says)).await,
    );
    let mut spec = spec(&[&first.url("/"), &second.url("/")], &["127.0.0.1"]);
    let params = CredentialParams {
        header: "Authorization".into(),
        value: Secret::new("Bearer s3cret"),
    };
    let to = Destination::parse(&first.url("/private")).unwrap();
    spec.credentials = vec![(to, params)];
    let client = open(&spec, Arc::new(MachineNames));
    client
        .send(get(first.url("/private/a")), LONG)
        .await
        .unwrap();
    client.send(get(first.url("/other")), LONG).await.unwrap();
    client
        .send(get(second.url("/private/a")), LONG)
        .await
        .unwrap();
    let with = |heard: &String| heard.contains("authorization: Bearer s3cret");
    let first: Vec<bool> = first.heard().iter().map(with).collect();
    assert_eq!(first, [true, false]);
    assert!(!second.heard().iter().any(with));
    assert!(!format!("{client:?}").contains("s3cret"), "{client:?}");
}

#[tokio::test]
async fn a_client_that_cannot_be_set_up_says_why_and_keeps_the_secret() {
    let mut spec = spec(&["http://api.example"], &[]);
    let params = CredentialParams {
        header: "host".into(),
        value: Secret::new("s3cret"),
    };
    spec.credentials = vec![(Destination::parse("http://api.example").unwrap(), params)];
    let part = PartId::parse("handlers.test").unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let error = HttpClient::open(&part, &spec, &clock, Arc::new(MachineNames)).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("credentials") && error.contains("connection"),
        "{error}"
    );
    assert!(!error.contains("s3cret"));
    spec.grants.http.clear();
    spec.credentials.clear();
    let none = HttpClient::open(&part, &spec, &clock, Arc::new(MachineNames)).unwrap();
    assert!(none.is_none());
}
