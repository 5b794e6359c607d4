//! Both sides over zstd, and peers that abuse it.

use crate::{Calls, ClientError, PackingError, Replies, frame::FrameError, packing::Packer};

use super::*;

const KEY: &str = "test";

/// Both sides of a connection that was opened and speaks zstd now.
async fn opened(stream: Box<dyn Stream>, theirs: Box<dyn Stream>) -> (Server, Client) {
    let params = ServerParams {
        max_frame: 1 << 20,
        ..ServerParams::default()
    };
    let mut server = Server::new(theirs, params);
    let mut meta = Meta::new();
    meta.set(KEY, Bytes::from_static(b"hello"));
    let mut client = Client::new(stream).with_meta(meta);
    let serving = async {
        let opening = server.opening(KEY).await.unwrap().unwrap();
        server.welcome(opening, &Meta::new()).await.unwrap();
    };
    tokio::join!(serving, async { client.ping().await.unwrap() });
    server.begin_zstd().unwrap();
    client.begin_zstd().unwrap();
    (server, client)
}

async fn pair() -> (Server, Client) {
    let (ours, theirs) = duplex(1000);
    opened(Box::new(ours), Box::new(theirs)).await
}

/// A server that speaks zstd, and the bare connection of its peer.
async fn bare() -> (Server, impl AsyncReadExt + AsyncWriteExt + Unpin) {
    let (ours, theirs) = duplex(1 << 20);
    let (mut watched, passed) = duplex(1 << 20);
    // The opening is a client's; what follows is said without one.
    let mut relayed = ours;
    let relay = tokio::io::copy_bidirectional(&mut watched, &mut relayed);
    let server = tokio::select! {
        (server, _) = opened(Box::new(passed), Box::new(theirs)) => server,
        _ = relay => unreachable!("the opening comes first"),
    };
    (server, relayed)
}

async fn converse(
    server: &mut Server,
    (mut calls, mut replies): (Calls, Replies),
    batches: &[Batch],
) {
    let serving = async {
        for batch in batches {
            let call = server.next().await.unwrap().unwrap();
            assert_eq!(call.checked.batch, *batch);
            server
                .reply(call.token, Status::Ok, &Meta::new())
                .await
                .unwrap();
        }
    };
    let calling = async {
        // The next is said when the last was answered: nothing may be held back.
        for batch in batches {
            calls.send(batch, &Meta::new()).await.unwrap();
            assert_eq!(replies.receive().await.unwrap().result, Ok(Status::Ok));
            assert!(!replies.is_disturbed().await);
        }
    };
    tokio::join!(serving, calling);
}

#[tokio::test]
async fn every_call_and_answer_arrives_when_it_was_said() {
    let (mut server, client) = pair().await;
    let sizes = [
        (1, 0),
        (3, 10),
        (1000, 250),
        (1, 900_000),
        (0, 0),
        (7, 9000),
    ];
    let batches = sizes.map(|(events, body)| batch(events, body));
    converse(&mut server, client.pipelined().unwrap(), &batches).await;
}

#[tokio::test]
async fn one_that_hangs_up_is_noticed_below_zstd() {
    let (server, client) = pair().await;
    let (_, mut replies) = client.pipelined().unwrap();
    assert!(!replies.is_disturbed().await);
    drop(server);
    assert!(replies.is_disturbed().await);
    assert!(matches!(replies.receive().await, Err(ClientError::Ended)));
}

#[tokio::test]
async fn a_bomb_stops_at_the_largest_frame() {
    let (mut server, mut peer) = bare().await;
    let (mut packer, mut packed) = (Packer::new().unwrap(), Vec::new());
    // A message of 64 MiB, of which no buffer is too large by itself.
    let mut message = [1_i32, 128].map(i32::to_be_bytes).concat();
    for _ in 0..128 {
        message.extend_from_slice(&(512_i32 << 10).to_be_bytes());
        message.resize(message.len() + (512 << 10), 0);
    }
    packer.pack(&message, &mut packed).unwrap();
    assert!(packed.len() < 64 << 10, "{} bytes", packed.len());
    peer.write_all(&packed).await.unwrap();
    let refused = server.next().await.unwrap_err();
    let too_large = matches!(
        refused,
        ServerError::Frame(FrameError::TooLarge { allowed, .. }) if allowed == 1 << 20
    );
    assert!(too_large && refused.is_violation(), "{refused:?}");
    assert!(refused.report().contains("`max-frame`"), "{refused:?}");
}

#[tokio::test]
async fn a_flood_of_nothing_and_a_length_bomb_are_refused() {
    let (mut server, mut peer) = bare().await;
    // A stream of a small window, blocks that hold nothing, and one of eight bytes as they are.
    let mut packed = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x40];
    packed.resize(packed.len() + 3 * 100_000, 0);
    packed.extend_from_slice(&[8 << 3, 0, 0]);
    packed.extend([1, i32::MAX].map(i32::to_be_bytes).concat());
    peer.write_all(&packed).await.unwrap();
    let refused = server.next().await.unwrap_err();
    let buffers = matches!(refused, ServerError::Frame(FrameError::Buffers { .. }));
    assert!(buffers, "{refused:?}");
}

#[tokio::test]
async fn bytes_that_were_not_packed_as_agreed_are_named() {
    let (mut server, mut peer) = bare().await;
    peer.write_all(&hex(CALLS)).await.unwrap();
    let refused = server.next().await.unwrap_err();
    let damaged = matches!(refused, ServerError::Packing(PackingError::Damaged(_)));
    assert!(damaged && refused.is_violation(), "{refused:?}");
    assert!(refused.report().contains("zstd"), "{}", refused.report());
}
