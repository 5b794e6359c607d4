//! Both sides against each other, against another Avro, and against noise.

mod zstd;

use std::time::Duration;

use apache_avro::{Schema, types::Value};
use bytes::Bytes;
use levada_core::{Batch, BatchBuilder};
use levada_net::{Listener, Memory, Stream, Tcp, Transport};
use proptest::{collection, prelude::*, sample};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::{
    Client, Meta, Server, ServerError, ServerParams, Status,
    golden::{CALLS, hex},
    handshake::{self, HandshakeRequest, HandshakeResponse, Match},
    message::Reader,
};

const LONG: Duration = Duration::from_secs(60);

fn batch(events: usize, body: usize) -> Batch {
    let mut builder = BatchBuilder::default();
    for n in 0..events {
        let text = n.to_string() + &".".repeat(body);
        builder.push(
            [("host", "edge-17"), ("n", &n.to_string())],
            text.as_bytes(),
        );
    }
    builder.finish()
}

/// Answers every call with OK; the batches, once the peer has gone.
async fn take_all(stream: Box<dyn Stream>) -> Result<Vec<Batch>, ServerError> {
    let mut server = Server::new(stream, ServerParams::default());
    let mut batches = Vec::new();
    while let Some(call) = server.next().await? {
        assert!(call.checked.faults.is_empty());
        batches.push(call.checked.batch);
        server.reply(call.token, Status::Ok, &Meta::new()).await?;
    }
    Ok(batches)
}

async fn give_all(stream: Box<dyn Stream>, batches: &[Batch]) {
    let mut client = Client::new(stream);
    for batch in batches {
        let reply = client.append_batch(batch, &Meta::new()).await.unwrap();
        assert_eq!(reply.result, Ok(Status::Ok));
        client.ping().await.unwrap();
    }
}

async fn over(transport: &dyn Transport) {
    let sizes = [
        (1, 0),
        (3, 10),
        (1000, 250),
        (1, 900_000),
        (0, 0),
        (10, 100_000),
        (5000, 3000),
    ];
    let batches: Vec<_> = sizes.map(|(events, body)| batch(events, body)).into();
    let listener: Box<dyn Listener> = transport
        .bind("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let serving = async { take_all(listener.accept().await.unwrap().0).await.unwrap() };
    let calling = async { give_all(transport.connect(&to, LONG).await.unwrap(), &batches).await };
    let (taken, ()) = tokio::join!(serving, calling);
    assert_eq!(taken, batches);
}

#[tokio::test]
async fn batches_arrive_as_they_are_over_memory() {
    over(&Memory::with_buffer(1000)).await;
}

#[tokio::test]
async fn batches_arrive_as_they_are_over_loopback() {
    over(&Tcp).await;
}

fn meta(name: &str) -> Meta {
    let mut meta = Meta::new();
    meta.set("levada", name.as_bytes().to_vec());
    meta
}

#[tokio::test]
async fn a_ping_opens_and_metadata_goes_both_ways() {
    let (ours, theirs) = duplex(1 << 16);
    let mut client = Client::new(Box::new(ours)).with_meta(meta("hello"));
    let mut server = Server::new(Box::new(theirs), ServerParams::default());
    let calling = async {
        client.ping().await.unwrap();
        assert_eq!(*client.peer_meta(), meta("welcome"));
        let (batch, nothing) = (batch(1, 1), meta("call"));
        let reply = client.append_batch(&batch, &nothing).await;
        assert_eq!(reply.unwrap().meta, meta("reply"));
    };
    let serving = async {
        let opening = server.opening("levada").await.unwrap().unwrap();
        assert_eq!(&opening.value[..], b"hello");
        server.welcome(opening, &meta("welcome")).await.unwrap();
        let call = server.next().await.unwrap().unwrap();
        assert_eq!(call.meta, meta("call"));
        let reply = meta("reply");
        server.reply(call.token, Status::Ok, &reply).await.unwrap();
    };
    tokio::join!(calling, serving);
}

#[tokio::test]
async fn what_opens_nothing_is_served_as_ever() {
    for (greeting, pings) in [
        (meta("hello"), false),
        (Meta::new(), true),
        (Meta::new(), false),
    ] {
        let (ours, theirs) = duplex(1 << 16);
        let mut client = Client::new(Box::new(ours)).with_meta(greeting);
        let mut server = Server::new(Box::new(theirs), ServerParams::default());
        let calling = async {
            if pings {
                client.ping().await.unwrap();
            }
            let (batch, nothing) = (batch(1, 1), Meta::new());
            let reply = client.append_batch(&batch, &nothing).await;
            assert_eq!(reply.unwrap().result, Ok(Status::Ok));
            assert!(client.peer_meta().is_empty());
        };
        let serving = async {
            assert!(server.opening("levada").await.unwrap().is_none());
            let call = server.next().await.unwrap().unwrap();
            let nothing = Meta::new();
            server
                .reply(call.token, Status::Ok, &nothing)
                .await
                .unwrap();
        };
        tokio::join!(calling, serving);
    }
}

#[tokio::test]
async fn an_opening_can_be_refused_with_a_reason() {
    let (ours, theirs) = duplex(1 << 16);
    let mut client = Client::new(Box::new(ours)).with_meta(meta("hello"));
    let mut server = Server::new(Box::new(theirs), ServerParams::default());
    let serving = async {
        let opening = server.opening("levada").await.unwrap().unwrap();
        server.refuse(opening, "not today").await.unwrap();
    };
    let (pinged, ()) = tokio::join!(client.ping(), serving);
    pinged.unwrap();
    assert!(client.peer_meta().is_empty());
}

#[tokio::test]
async fn several_calls_are_answered_in_order() {
    let (ours, theirs) = duplex(1000);
    let mut client = Client::new(Box::new(ours));
    let mut server = Server::new(Box::new(theirs), ServerParams::default());
    let calling = async {
        client.ping().await.unwrap();
        let (mut calls, mut replies) = client.pipelined().unwrap();
        let sending = async {
            for n in 1..=20 {
                let call = meta(&n.to_string());
                calls.send(&batch(n, 100), &call).await.unwrap();
            }
        };
        let receiving = async {
            for n in 1..=20 {
                let reply = replies.receive().await.unwrap();
                assert_eq!(reply.meta, meta(&n.to_string()));
            }
        };
        tokio::join!(sending, receiving);
    };
    let serving = async {
        while let Some(call) = server.next().await.unwrap() {
            server
                .reply(call.token, Status::Ok, &call.meta)
                .await
                .unwrap();
        }
    };
    tokio::join!(calling, serving);
}

#[tokio::test]
async fn calls_cannot_overlap_before_the_handshake() {
    let (ours, _theirs) = duplex(1000);
    let client = Client::new(Box::new(ours));
    assert!(matches!(
        client.pipelined(),
        Err(crate::ClientError::Broken)
    ));
}

/// A server that is asked for the next call again and again, and cut off each time.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_cut_off_loses_no_byte() {
    let (ours, theirs) = duplex(7);
    let mut client = Client::new(Box::new(ours));
    let mut server = Server::new(Box::new(theirs), ServerParams::default());
    let calling = async {
        for n in 1..=3 {
            client.ping().await.unwrap();
            let (batch, nothing) = (batch(n, 10), Meta::new());
            let reply = client.append_batch(&batch, &nothing).await;
            assert_eq!(reply.unwrap().result, Ok(Status::Ok));
        }
        drop(client);
    };
    let serving = async {
        let mut taken = Vec::new();
        loop {
            let next = tokio::select! {
                biased;
                next = server.next() => next.unwrap(),
                () = tokio::task::yield_now() => continue,
            };
            let Some(call) = next else { break };
            taken.push(call.checked.batch);
            let nothing = Meta::new();
            server
                .reply(call.token, Status::Ok, &nothing)
                .await
                .unwrap();
        }
        taken
    };
    let (taken, ()) = tokio::join!(serving, calling);
    assert_eq!(taken, [batch(1, 10), batch(2, 10), batch(3, 10)]);
}

#[tokio::test]
async fn an_error_of_the_server_reaches_the_client() {
    let (ours, theirs) = duplex(1 << 16);
    let mut client = Client::new(Box::new(ours));
    let mut server = Server::new(Box::new(theirs), ServerParams::default());
    let batch = batch(1, 1);
    let calling = async { client.append_batch(&batch, &Meta::new()).await.unwrap() };
    let serving = async {
        let call = server.next().await.unwrap().unwrap();
        server
            .reply_error(call.token, "the disk is on fire")
            .await
            .unwrap();
    };
    let (reply, ()) = tokio::join!(calling, serving);
    assert_eq!(reply.result, Err("the disk is on fire".into()));
}

const REQUEST: &str = r#"{"type":"record","name":"HandshakeRequest","fields":[
    {"name":"clientHash","type":{"type":"fixed","name":"MD5","size":16}},
    {"name":"clientProtocol","type":["null","string"]},
    {"name":"serverHash","type":"MD5"},
    {"name":"meta","type":["null",{"type":"map","values":"bytes"}]}]}"#;

const RESPONSE: &str = r#"{"type":"record","name":"HandshakeResponse","fields":[
    {"name":"match","type":{"type":"enum","name":"HandshakeMatch",
     "symbols":["BOTH","CLIENT","NONE"]}},
    {"name":"serverProtocol","type":["null","string"]},
    {"name":"serverHash","type":["null",{"type":"fixed","name":"MD5","size":16}]},
    {"name":"meta","type":["null",{"type":"map","values":"bytes"}]}]}"#;

/// Reads with another Avro, and writes again what was read.
fn rewritten(schema: &str, bytes: &[u8]) -> (Value, Vec<u8>) {
    let schema = Schema::parse_str(schema).unwrap();
    let reader = apache_avro::reader::datum::GenericDatumReader::builder(&schema)
        .build()
        .unwrap();
    let mut rest = bytes;
    let value = reader.read_value(&mut rest).unwrap();
    assert!(rest.is_empty(), "something is left");
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&schema)
        .build()
        .unwrap();
    let written = writer.write_value_to_vec(value.clone()).unwrap();
    (value, written)
}

fn metas() -> impl Strategy<Value = Meta> {
    let pair = ("[a-zé]{0,20}", collection::vec(any::<u8>(), 0..300));
    collection::vec(pair, 0..8).prop_map(|pairs| {
        let mut meta = Meta::new();
        for (name, value) in pairs {
            meta.set(name, value);
        }
        meta
    })
}

proptest! {
    #[test]
    fn another_avro_reads_and_writes_the_same_request(meta in metas(), text in any::<bool>()) {
        let protocol = text.then_some(handshake::PROTOCOL);
        let mut out = Vec::new();
        handshake::write_request(&mut out, protocol, &meta);
        let (_, written) = rewritten(REQUEST, &out);
        let message = Bytes::from(written);
        let mut reader = Reader::new(&message, 0);
        let read = HandshakeRequest::read(&mut reader).unwrap();
        prop_assert!(reader.is_at_end());
        let same = |name: &str| read.meta.get(name) == meta.get(name);
        prop_assert!(meta.names().all(same) && read.meta.names().count() == meta.names().count());
        prop_assert_eq!(read.has_protocol, text);
        prop_assert_eq!((read.client_hash, read.server_hash), (handshake::HASH, handshake::HASH));
    }

    #[test]
    fn another_avro_reads_and_writes_the_same_response(meta in metas(), n in 0_usize..3) {
        let matched = [Match::Both, Match::Client, Match::None][n];
        let mut out = Vec::new();
        handshake::write_response(&mut out, matched, &meta);
        let (_, written) = rewritten(RESPONSE, &out);
        let message = Bytes::from(written);
        let read = HandshakeResponse::read(&mut Reader::new(&message, 0)).unwrap();
        prop_assert_eq!(read.matched, matched);
        prop_assert_eq!(read.server_hash, (n > 0).then_some(handshake::HASH));
        prop_assert!(meta.names().all(|name| read.meta.get(name) == meta.get(name)));
    }

    /// F45: whatever a peer says, the connection ends in order, and what was not changed before the
    /// first wrong bit is taken as ever.
    #[test]
    fn flipped_bits_are_answered_or_end_the_connection(
        flips in collection::vec((any::<sample::Index>(), 0_u8..8), 1..4)
    ) {
        let mut input = hex(CALLS);
        for (at, bit) in flips {
            let at = at.index(input.len());
            input[at] ^= 1 << bit;
        }
        said(&input);
    }

    #[test]
    fn noise_is_answered_or_ends_the_connection(
        noise in collection::vec(any::<u8>(), 0..200), keep in any::<sample::Index>()
    ) {
        let calls = hex(CALLS);
        let keep = keep.index(calls.len());
        said(&[&calls[..keep], &noise].concat());
    }
}

/// Says `input` to a server and hangs up; the server must end, too.
fn said(input: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut ours, theirs) = duplex(1 << 16);
        ours.write_all(input).await.unwrap();
        ours.shutdown().await.unwrap();
        let _ended = take_all_faults(Box::new(theirs)).await;
        let mut replies = Vec::new();
        ours.read_to_end(&mut replies).await.unwrap();
    });
}

async fn take_all_faults(stream: Box<dyn Stream>) -> Result<(), ServerError> {
    let mut server = Server::new(stream, ServerParams::default());
    while let Some(call) = server.next().await? {
        for event in call.checked.batch.iter() {
            assert!(event.headers().count() <= event.as_bytes().len());
        }
        server.reply(call.token, Status::Ok, &Meta::new()).await?;
    }
    Ok(())
}
