//! What clients may post (F49, F50, F51): a clear answer, nothing of the request stored, and the
//! next request is taken.

use anyhow::Result;
use bytes::Bytes;
use levada_tests::http::Connection;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::gateway::Gateway;

const JSON: (&str, &str) = ("content-type", "application/json");

fn array(events: &[serde_json::Value]) -> Bytes {
    serde_json::Value::from(events.to_vec()).to_string().into()
}

fn refused() -> Vec<(&'static str, Bytes, &'static [u16])> {
    let good = json!({ "headers": {}, "body": "must not be stored" });
    let many: serde_json::Map<_, _> = (0..100_000).map(|n| (n.to_string(), json!("v"))).collect();
    let large = json!({ "headers": {}, "body": "x".repeat((1 << 20) + 1) });
    let name = json!({ "headers": { "n".repeat(1 << 20): "v" }, "body": "x" });
    let deep = format!("[{{\"headers\":{{}},\"body\":{}", "[".repeat(1_000_000));
    let utf8 = b"[{\"headers\":{},\"body\":\"\xff\xfe\"}]";
    vec![
        ("a million [", "[".repeat(1_000_000).into(), &[400]),
        ("a million [ in a body", deep.into(), &[400]),
        ("not JSON", "hello".into(), &[400]),
        (
            "half of an array",
            "[{\"headers\":{},\"body\":\"x\"}".into(),
            &[400],
        ),
        ("an object instead of an array", "{}".into(), &[400]),
        (
            "a number as body",
            array(&[good.clone(), json!({ "headers": {}, "body": 1 })]),
            &[400],
        ),
        (
            "100,000 headers",
            array(&[good.clone(), json!({ "headers": many, "body": "" })]),
            &[400],
        ),
        (
            "a header name of 1 MiB",
            array(&[good.clone(), name]),
            &[400],
        ),
        (
            "an event above 1 MiB",
            array(&[good.clone(), large]),
            &[413],
        ),
        ("invalid UTF-8", Bytes::from_static(utf8), &[400]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_whole() -> Result<()> {
    let mut gateway = Gateway::start("").await?;
    for (what, body, expected) in refused() {
        let mut connection = Connection::open(gateway.http).await?;
        let answer = connection.send("POST", "/", &[JSON], body).await?;
        assert!(
            expected.contains(&answer.status),
            "{what}: {} {}",
            answer.status,
            answer.text()
        );
        assert!(!answer.body.is_empty(), "{what}: no reason given");
    }
    gateway.goes_on().await?;
    let events = gateway.events(2).await?;
    assert!(
        events.iter().all(|event| event.body == "good"),
        "part of a refused request is stored"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bad_event_is_named() -> Result<()> {
    let gateway = Gateway::start("").await?;
    let good = json!({ "headers": {}, "body": "x" });
    let body = array(&[good.clone(), good, json!({ "headers": {}, "body": 1 })]);
    let answer = Connection::open(gateway.http)
        .await?
        .send("POST", "/", &[JSON], body)
        .await?;
    assert_eq!(answer.status, 400);
    let text = answer.text();
    assert!(
        text.contains('2'),
        "the answer does not name event 2: {text}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_heads_end_the_connection() -> Result<()> {
    let mut gateway = Gateway::start("").await?;
    let many = "x: y\r\n".repeat(100_000);
    let heads = [
        (
            "100,000 headers",
            format!("POST / HTTP/1.1\r\nhost: x\r\n{many}\r\n"),
            &["400", "431"][..],
        ),
        (
            "length and chunks",
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n\
             ffffffffffffffffff\r\n"
                .to_owned(),
            &["400"],
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"
                .to_owned(),
            &["400"],
        ),
        (
            "a body above 16 MiB",
            format!(
                "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 16777217\r\n\r\n{}",
                " ".repeat(1 << 20)
            ),
            &["413"],
        ),
        (
            "no HTTP",
            "\x16\x03\x01\x02\x00 hello\r\n\r\n".to_owned(),
            &["400"],
        ),
    ];
    for (what, head, expected) in heads {
        let status = raw_status(&gateway, head.as_bytes()).await?;
        // A connection that ends without an answer is as good.
        let fits = status
            .as_deref()
            .is_none_or(|status| expected.contains(&status));
        assert!(fits, "{what}: {status:?}");
    }
    gateway.goes_on().await
}

/// The status of the answer, or none if the connection just ended.
async fn raw_status(gateway: &Gateway, request: &[u8]) -> Result<Option<String>> {
    let mut stream = TcpStream::connect(gateway.http).await?;
    // The agent may have seen enough before the last byte.
    stream.write_all(request).await.ok();
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(read) = stream.read(&mut buffer).await {
        answer.extend_from_slice(&buffer[..read]);
        if read == 0 || answer.len() >= 12 {
            break;
        }
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    Ok(text.split(' ').nth(1).map(str::to_owned))
}
