use levada_core::Batch;
use levada_net::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;
use crate::{
    golden::{CALLS, HASH, REPLIES, frame, hex},
    handshake::{self, PROTOCOL},
};

/// What became of a connection.
#[derive(Debug)]
struct Served {
    replies: Vec<u8>,
    batches: Vec<Batch>,
    result: Result<(), ServerError>,
}

impl Served {
    fn bodies(&self) -> Vec<&[u8]> {
        self.batches
            .iter()
            .flat_map(|batch| batch.iter().map(|event| event.body()))
            .collect()
    }
}

/// Serves a peer that says `input` in pieces of `step` bytes and hangs up; every call is OK.
async fn serve(input: &[u8], step: usize) -> Served {
    serve_with(input, step, ServerParams::default()).await
}

async fn serve_with(input: &[u8], step: usize, params: ServerParams) -> Served {
    let (mut ours, theirs) = duplex(1 << 20);
    let mut server = Server::new(Box::new(theirs) as Box<dyn Stream>, params);
    let mut batches = Vec::new();
    let taken = &mut batches;
    let serving = async move {
        while let Some(call) = server.next().await? {
            taken.push(call.checked.batch);
            server.reply(call.token, Status::Ok, &Meta::new()).await?;
        }
        Ok(())
    };
    let talking = async {
        for piece in input.chunks(step) {
            // The server may have hung up already.
            if ours.write_all(piece).await.is_err() {
                break;
            }
        }
        let _gone = ours.shutdown().await.is_ok();
    };
    let (result, ()) = tokio::join!(serving, talking);
    let mut replies = Vec::new();
    ours.read_to_end(&mut replies).await.unwrap();
    Served {
        replies,
        batches,
        result,
    }
}

/// The concatenation of the buffers of the only reply.
fn message(replies: &[u8]) -> Vec<u8> {
    let mut decoder = crate::frame::Decoder::new(1 << 20);
    let mut rest = replies;
    let frame = decoder.decode(&mut rest).unwrap().unwrap();
    assert!(rest.is_empty(), "more than one reply");
    frame.message.to_vec()
}

#[tokio::test]
async fn a_java_client_is_answered_byte_for_byte() {
    let calls = hex(CALLS);
    for step in [1, 7, calls.len()] {
        let served = serve(&calls, step).await;
        assert_eq!(served.replies, hex(REPLIES));
        served.result.as_ref().unwrap();
        let plain: &[u8] = b"plain";
        let text = "ünïcode ☃ 𝄞".as_bytes();
        let bodies = [b"hello", plain, text, b"", b"e0", b"e1", b"last"];
        assert_eq!(served.bodies(), bodies);
        assert_eq!(served.batches[0].get(0).unwrap().header("k"), Some("v"));
        assert_eq!(
            served.batches[1].get(1).unwrap().header("clé"),
            Some("välue ☃")
        );
        assert_eq!(served.batches[1].get(2).unwrap().header("empty"), Some(""));
    }
}

#[tokio::test]
async fn the_cut_of_a_message_changes_nothing() {
    let first = format!("{HASH} 00 {HASH} 0200 00 0c617070656e64 02026b027600 0a68656c6c6f");
    let one = frame(1, &hex(&first));
    assert_eq!(one[..12], hex("00000001 00000001 00000037"));
    let three = format!(
        "00000001 00000003 0000002b {HASH} 00 {HASH} 0200 00 0c617070656e64 00000000 \
         0000000c 02026b027600 0a68656c6c6f"
    );
    for input in [one, hex(&three)] {
        let served = serve(&input, 1).await;
        assert_eq!(served.replies, hex(REPLIES)[..27]);
        assert_eq!(served.bodies(), [b"hello"]);
    }
}

#[tokio::test]
async fn an_unknown_hash_is_asked_for_its_text_and_then_served_once() {
    let unknown = "11".repeat(16);
    let call = "00 0c617070656e64 00 0a68656c6c6f";
    let asking = frame(1, &hex(&format!("{unknown} 00 {HASH} 0200 {call}")));
    let served = serve(&asking, 9).await;
    assert!(served.batches.is_empty(), "the call was not executed");
    let none = message(&served.replies);
    assert_eq!(
        none[..3],
        [4, 2, 0xfa],
        "NONE, with a text of 509 characters"
    );
    assert_eq!(none[4..4 + 509], *PROTOCOL.as_bytes());
    assert_eq!(none[513..], hex(&format!("02 {HASH} 00")));

    let mut text = hex(&format!("{unknown} 02"));
    levada_core::avro::write_bytes(&mut text, PROTOCOL.as_bytes());
    for (server_hash, matched) in [(HASH, 0), (&*unknown, 2)] {
        let mut input = asking.clone();
        let tail = hex(&format!("{server_hash} 0200 {call}"));
        input.extend(frame(2, &[&text[..], &tail].concat()));
        let served = serve(&input, 100).await;
        let reply = message(&served.replies[asking_reply_length(&none)..]);
        assert_eq!((reply[0], served.bodies()), (matched, vec![&b"hello"[..]]));
        assert!(reply.ends_with(&[0, 0, 0]), "empty metadata, no error, OK");
    }
}

fn asking_reply_length(none: &[u8]) -> usize {
    none.len() + 12
}

#[tokio::test]
async fn another_server_hash_is_told_ours_and_the_call_is_executed() {
    let other = "22".repeat(16);
    let input = format!("{HASH} 00 {other} 00 00 0c617070656e64 00 0a68656c6c6f");
    let served = serve(&frame(5, &hex(&input)), 1000).await;
    let mut expected = Vec::new();
    handshake::write_response(&mut expected, Match::Client, &Meta::new());
    expected.extend([0, 0, 0]);
    assert_eq!(message(&served.replies), expected);
    assert_eq!(served.bodies(), [b"hello"]);
}

#[tokio::test]
async fn a_ping_is_answered_with_the_handshake_alone_and_later_with_nothing() {
    let mut meta = hex("02 02");
    levada_core::avro::write_bytes(&mut meta, b"levada");
    levada_core::avro::write_bytes(&mut meta, &[7; 300]);
    meta.push(0);
    let hello = [hex(&format!("{HASH} 00 {HASH}")), meta, hex("00 00")].concat();
    let mut input = frame(1, &hello);
    input.extend(frame(2, &hex("00 00")));
    input.extend(frame(
        3,
        &hex("00 16617070656e644261746368 02 00 046530 00"),
    ));
    let served = serve(&input, 64).await;
    let expected = "00000001 00000001 00000004 00000000 \
                    00000002 00000001 00000000 \
                    00000003 00000003 00000000 00000001 00 00000002 0000";
    assert_eq!(served.replies, hex(expected));
    assert_eq!(served.bodies(), [b"e0"]);
}

#[tokio::test]
async fn an_unknown_name_is_an_error_and_the_connection_goes_on() {
    let mut input = frame(1, &hex(&format!("{HASH} 00 {HASH} 0200 00 086e6f7065")));
    input.extend(frame(2, &hex("00 0c617070656e64 00 0a68656c6c6f")));
    let served = serve(&input, 64).await;
    let error = b"org.apache.avro.AvroRuntimeException: No such remote message: nope";
    assert!(served.replies.windows(error.len()).any(|at| at == error));
    assert!(served.replies.ends_with(&hex("00000001 00 00000002 0000")));
    assert_eq!(served.bodies(), [b"hello"]);
    served.result.unwrap();
}

#[tokio::test]
async fn legal_but_odd_arrays_are_taken() {
    let front = format!("{HASH} 00 {HASH} 0200 00 16617070656e644261746368");
    let check = async |params: &str, bodies: &[&[u8]]| {
        let served = serve(&frame(1, &hex(&format!("{front} {params}"))), 1000).await;
        assert_eq!(served.bodies(), bodies, "{params}");
        assert!(served.replies.ends_with(&hex("00000002 0000")), "{params}");
    };
    check("00", &[]).await;
    check("02 00 046530 02 00 046531 00", &[b"e0", b"e1"]).await;
    check("01 14 01 08 026b0276 00 04 6530 00", &[b"e0"]).await;
    check("02 00 046530 00 ffffffff", &[b"e0"]).await;
}

#[tokio::test]
async fn garbage_is_answered_with_an_error_and_ends_the_connection() {
    let hello = format!("{HASH} 00 {HASH} 0200");
    let batch = "00 16617070656e644261746368";
    let long = "ffffffffffffffffff01";
    let check = async |message: &str, expected: &str| {
        let mut input = frame(1, &hex(message));
        input.extend(frame(2, &hex("00 0c617070656e64 00 0a68656c6c6f")));
        let served = serve(&input, 1000).await;
        let error = served.result.unwrap_err();
        assert!(error.is_violation());
        assert!(
            error.report().contains(expected),
            "{message}: {}",
            error.report()
        );
        assert!(
            served.batches.is_empty() && !served.replies.is_empty(),
            "{message}"
        );
    };
    // No handshake, as a Java server sees it, too.
    check("00 0c617070656e64 00 0a68656c6c6f", "handshake").await;
    check("", "handshake").await;
    check(
        &format!("{HASH} 04 {HASH} 0200"),
        "number that means nothing: 2",
    )
    .await;
    check(&format!("{HASH} 02 01"), "protocol of the handshake").await;
    check(&format!("{HASH} 00 {HASH} 02 22 "), "more than 16 entries").await;
    check(
        &format!("{HASH} 00 {HASH} 02 03 {long}"),
        "metadata of the handshake",
    )
    .await;
    check(&format!("{hello} 02 026b {long}"), "metadata of the call").await;
    check(&format!("{hello} 00 {long}"), "name of the call").await;
    check(&format!("{hello} 00 04fffe"), "not text").await;
    // Length bombs in the parameters (F46).
    check(
        &format!("{hello} {batch} feffffffffffffffff01"),
        "more than 131072 events",
    )
    .await;
    check(
        &format!("{hello} {batch} {long} 00"),
        "more than 131072 events",
    )
    .await;
    check(&format!("{hello} {batch} d00f"), "the data ends").await;
    check(&format!("{hello} {batch} 02 {long}"), "byte").await;
    check(&format!("{hello} {batch} 02 00 01"), "negative length").await;
    check(
        &format!("{hello} {batch} 02 00 feffffffffffffffff01"),
        "the data ends",
    )
    .await;
    check(&format!("{hello} {batch} 02 02 01"), "negative length").await;
    check(&format!("{hello} {batch} 02 00 046530"), "the data ends").await;
    check(&format!("{hello} 00 0c617070656e64 00"), "the data ends").await;
}

#[tokio::test]
async fn frames_beyond_the_limits_end_the_connection() {
    let params = ServerParams {
        max_frame: 100,
        ..ServerParams::default()
    };
    let check = async |input: &str, expected: FrameError| {
        let served = serve_with(&hex(input), 3, params).await;
        let Err(ServerError::Frame(error)) = served.result else {
            panic!("{input}: {:?}", served.result);
        };
        assert_eq!(error, expected, "{input}");
    };
    check("00000001 00000000", FrameError::Buffers { count: 0 }).await;
    check("00000001 ffffffff", FrameError::Buffers { count: -1 }).await;
    let bytes = usize::try_from(i32::MAX).unwrap();
    let bomb = FrameError::TooLarge {
        bytes,
        allowed: 100,
    };
    check("00000001 00000001 7fffffff", bomb).await;
    // A peer that speaks zlib, and one that speaks TLS.
    check(
        "789c6260 6060606462",
        FrameError::Buffers { count: 0x6060_6064 },
    )
    .await;
    check(
        "16030100 c8010000c4",
        FrameError::Buffers {
            count: -939_458_560,
        },
    )
    .await;
}

#[tokio::test]
async fn a_protocol_text_of_ten_megabytes_is_refused() {
    let mut message = hex(&format!("{} 02", "33".repeat(16)));
    levada_core::avro::write_bytes(&mut message, &vec![b'{'; 10_000_000]);
    message.extend(hex(&format!("{HASH} 0200 00 00")));
    let served = serve(&frame(1, &message), 1 << 16).await;
    assert!(
        served
            .result
            .unwrap_err()
            .report()
            .contains("more than the 65536 allowed")
    );
}

#[tokio::test]
async fn a_flood_of_unknown_hashes_ends() {
    let mut input = Vec::new();
    for n in 0..100 {
        let hash = format!("{n:02x}").repeat(16);
        input.extend(frame(
            n,
            &hex(&format!("{hash} 00 {HASH} 0200 00 0c617070656e64 00 00")),
        ));
    }
    let served = serve(&input, 1 << 16).await;
    assert!(matches!(served.result, Err(ServerError::Handshake)));
    assert!(served.batches.is_empty());
}

#[tokio::test]
async fn a_schema_without_end_is_never_looked_at() {
    let text = r#"{"protocol":"p","types":[{"name":"A","type":"record","fields":[{"name":"a","type":"A"}]}]}"#;
    let mut message = hex(&format!("{} 02", "44".repeat(16)));
    levada_core::avro::write_bytes(&mut message, text.as_bytes());
    message.extend(hex(&format!(
        "{HASH} 0200 00 0c617070656e64 00 0a68656c6c6f"
    )));
    let served = serve(&frame(1, &message), 1 << 16).await;
    assert_eq!(served.bodies(), [b"hello"]);
}

#[tokio::test]
async fn events_beyond_a_limit_are_set_aside_and_their_neighbours_taken() {
    let events = Limits {
        event: 8,
        ..Limits::default()
    };
    let (mut ours, theirs) = duplex(1 << 16);
    let params = ServerParams {
        events,
        ..ServerParams::default()
    };
    let mut server = Server::new(Box::new(theirs), params);
    let params = "06 00 046530 00 1431323334353637383930 00 046531 00";
    let call = format!("{HASH} 00 {HASH} 0200 00 16617070656e644261746368 {params}");
    ours.write_all(&frame(1, &hex(&call))).await.unwrap();
    let checked = server.next().await.unwrap().unwrap().checked;
    assert_eq!(checked.batch.len(), 2);
    assert_eq!((checked.faults.len(), checked.faults[0].index), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_left_after_a_while() {
    let check = async |said: &[u8], expected: u64| {
        let (mut ours, theirs) = duplex(1 << 16);
        let mut server = Server::new(Box::new(theirs), ServerParams::default());
        ours.write_all(said).await.unwrap();
        let began = tokio::time::Instant::now();
        let error = loop {
            match server.next().await {
                Ok(call) => drop(call.unwrap()),
                Err(error) => break error,
            }
        };
        let ServerError::Io(error) = error else {
            panic!("{error:?}")
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), expected);
    };
    let calls = hex(CALLS);
    check(&[], 60).await;
    check(&calls[..20], 10).await;
    check(&calls, 60).await;
    check(&calls[..calls.len() - 1], 60).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_take_its_replies_is_left() {
    let (mut ours, theirs) = duplex(16);
    let mut server = Server::new(Box::new(theirs), ServerParams::default());
    let calls = hex(CALLS);
    let serving = async move {
        loop {
            let call = server.next().await?.unwrap();
            server.reply(call.token, Status::Ok, &Meta::new()).await?;
        }
    };
    let (result, _): (Result<(), ServerError>, _) =
        tokio::join!(serving, async { ours.write_all(&calls[..100]).await });
    assert!(
        matches!(result, Err(ServerError::Io(error)) if error.kind() == io::ErrorKind::TimedOut)
    );
}
