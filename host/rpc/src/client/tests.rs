use levada_core::{Batch, BatchBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::{
    Status,
    golden::{CALLS, HASH, REPLIES, frame, hex},
    handshake::write_response,
};

fn batch(events: &[(&[(&str, &str)], &str)]) -> Batch {
    let mut builder = BatchBuilder::default();
    for (headers, body) in events {
        builder.push(headers.iter().copied(), body.as_bytes());
    }
    builder.finish()
}

fn client() -> (Client, DuplexStream) {
    let (ours, theirs) = duplex(1 << 20);
    (Client::new(Box::new(ours)), theirs)
}

/// Has `reply` lie ready, makes a call, and gives what was said with what came of it.
async fn call(client: &mut Client, server: &mut DuplexStream, reply: &[u8]) -> CallResult {
    server.write_all(reply).await.unwrap();
    client
        .append_batch(&batch(&[(&[], "e0")]), &Meta::new())
        .await
}

type CallResult = Result<Reply, ClientError>;

async fn said(server: &mut DuplexStream, length: usize) -> Vec<u8> {
    let mut said = vec![0; length];
    server.read_exact(&mut said).await.unwrap();
    said
}

#[tokio::test]
async fn calls_are_the_bytes_that_a_java_client_says() {
    let (mut client, mut server) = client();
    server.write_all(&hex(REPLIES)).await.unwrap();
    let calls = [
        (Method::Append, batch(&[(&[("k", "v")], "hello")])),
        (
            Method::AppendBatch,
            batch(&[
                (&[], "plain"),
                (&[("clé", "välue ☃")], "ünïcode ☃ 𝄞"),
                (&[("empty", "")], ""),
            ]),
        ),
        (Method::AppendBatch, batch(&[(&[], "e0"), (&[], "e1")])),
        (Method::Append, batch(&[(&[("k", "v2")], "last")])),
    ];
    for (method, batch) in calls {
        client.send(method, &batch, &Meta::new()).await.unwrap();
        let ok = Reply {
            meta: Meta::new(),
            result: Ok(Status::Ok),
        };
        assert_eq!(client.receive().await.unwrap(), Answer::Reply(ok));
    }
    let expected = hex(CALLS);
    assert_eq!(said(&mut server, expected.len()).await, expected);
    assert!(client.is_usable().await);
}

#[tokio::test]
async fn events_that_do_not_touch_are_sent_without_what_is_between() {
    let (mut client, mut server) = client();
    server.write_all(&hex(REPLIES)).await.unwrap();
    let all = batch(&[(&[], "e0"), (&[], "gone"), (&[], "e1")]);
    client
        .append_batch(&batch(&[(&[], "x")]), &Meta::new())
        .await
        .unwrap();
    let first =
        hex("0000 0002 0000000d 00 16617070656e644261746368 0000000a 04 00 046530 00 046531 00");
    client
        .append_batch(&all.select([0, 2]), &Meta::new())
        .await
        .unwrap();
    drop(client);
    let mut said = Vec::new();
    server.read_to_end(&mut said).await.unwrap();
    assert!(said.ends_with(&first));
}

#[tokio::test]
async fn a_server_that_asks_for_the_text_gets_the_call_again() {
    let (mut client, mut server) = client();
    let mut none = Vec::new();
    write_response(&mut none, Match::None, &Meta::new());
    let mut replies = frame(1, &none);
    replies.extend(frame(2, &hex("00000000 00 0000")));
    let reply = call(&mut client, &mut server, &replies).await.unwrap();
    assert_eq!(reply.result, Ok(Status::Ok));
    let first = format!(
        "00000001 00000002 00000030 {HASH} 00 {HASH} 0200 00 16617070656e644261746368 \
         00000006 02 00 046530 00"
    );
    assert_eq!(said(&mut server, hex(&first).len()).await, hex(&first));
    let again = said(&mut server, 28).await;
    assert_eq!(again, hex(&format!("00000002 00000002 0000022f {HASH}")));
    let text = said(&mut server, 512).await;
    assert_eq!(
        (&text[..3], &text[3..]),
        (&hex("02 fa07")[..], PROTOCOL.as_bytes())
    );

    let mut third = frame(3, &hex("00 0002"));
    third.extend(frame(4, &hex("00 0004")));
    let reply = call(&mut client, &mut server, &third).await.unwrap();
    assert_eq!(reply.result, Ok(Status::Failed));
}

#[tokio::test]
async fn a_server_that_asks_twice_is_left() {
    let (mut client, mut server) = client();
    let mut none = Vec::new();
    write_response(&mut none, Match::None, &Meta::new());
    let replies = [frame(1, &none), frame(2, &none)].concat();
    let result = call(&mut client, &mut server, &replies).await;
    assert!(matches!(result, Err(ClientError::Refused)), "{result:?}");
    assert!(!client.is_usable().await);
    let result = call(&mut client, &mut server, &[]).await;
    assert!(matches!(result, Err(ClientError::Broken)), "{result:?}");
}

#[tokio::test]
async fn another_protocol_of_the_server_changes_nothing() {
    let (mut client, mut server) = client();
    let mut other = Vec::new();
    write_response(&mut other, Match::Client, &Meta::new());
    other.extend(hex("00 0000"));
    let reply = call(&mut client, &mut server, &frame(1, &other))
        .await
        .unwrap();
    assert_eq!(reply.result, Ok(Status::Ok));
    let reply = call(&mut client, &mut server, &frame(2, &hex("00 0000")))
        .await
        .unwrap();
    assert_eq!(reply.result, Ok(Status::Ok));
}

#[tokio::test]
async fn each_answer_is_told_apart() {
    let check = async |message: &str, expected: Result<Status, &str>| {
        let (mut client, mut server) = client();
        let reply = frame(1, &hex(&format!("00000000 {message}")));
        let reply = call(&mut client, &mut server, &reply).await.unwrap();
        assert_eq!(reply.result, expected.map_err(str::to_owned));
        assert!(client.is_usable().await);
    };
    check("00 0000", Ok(Status::Ok)).await;
    check("00 0002", Ok(Status::Failed)).await;
    check("00 0004", Ok(Status::Unknown)).await;
    check("00 0100 06626164", Err("bad")).await;
}

#[tokio::test]
async fn an_answer_that_is_none_breaks_the_connection() {
    let check = async |reply: &[u8], expected: &str| {
        let (mut client, mut server) = client();
        let error = call(&mut client, &mut server, reply).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!client.is_usable().await);
    };
    let of = |serial, text: &str| frame(serial, &hex(text));
    check(&of(2, "00000000 00 0000"), "answered call 2 instead of 1").await;
    check(&of(1, "00000000 00 0006"), "no reply").await;
    check(&of(1, "00000000 00 02"), "no reply").await;
    check(&of(1, "06000000 00 0000"), "no reply").await;
    check(&of(1, "00000000"), "no reply").await;
    check(&of(1, "00000000 00 01 00 ffffffffffffffffff01"), "no reply").await;
    check(&hex("00000001 00000000"), "no frame").await;
    check(b"HTTP/1.1 400 Bad Request\r\n\r\n", "no frame").await;
}

#[tokio::test]
async fn a_call_that_was_cancelled_breaks_the_connection() {
    let (mut client, mut server) = client();
    let (batch, meta) = (Batch::default(), Meta::new());
    let calling = client.append_batch(&batch, &meta);
    tokio::select! {
        biased;
        _ = calling => panic!("nobody answers"),
        () = std::future::ready(()) => {}
    }
    assert!(!client.is_usable().await);
    let result = call(&mut client, &mut server, &hex(REPLIES)).await;
    assert!(matches!(result, Err(ClientError::Broken)));
}

#[tokio::test]
async fn a_peer_that_ended_is_noticed_before_the_next_call() {
    let (mut client, mut server) = client();
    call(&mut client, &mut server, &hex(REPLIES)[..27])
        .await
        .unwrap();
    assert!(client.is_usable().await);
    drop(server);
    assert!(!client.is_usable().await);
}
