//! What a hostile or broken peer may send to the Avro source (F46, F48, F50): refused before any
//! memory is taken for it; the peer is named in the log; everybody else goes on.

use anyhow::Result;
use levada_tests::avro::{self, HASH, Met};
use tokio::net::TcpStream;

use crate::gateway::Gateway;

/// `max-frame` of the source.
const FRAME: u64 = 16 << 20;

/// The first byte of a handshake's answer that asks for the protocol text.
const NONE: u8 = 4;

/// A call after a good handshake, with these parameters.
fn bad_call(method: &str, parameters: &[u8]) -> Vec<u8> {
    avro::frame(
        1,
        &[avro::handshake(HASH, None), avro::call(method, parameters)].concat(),
    )
}

/// A header of a frame that claims what does not follow.
fn claim(buffers: u32, length: u32) -> Vec<u8> {
    [1, buffers, length].map(u32::to_be_bytes).concat()
}

fn length_bombs() -> Vec<(&'static str, Vec<u8>)> {
    let huge = avro::long(i64::MAX);
    let big = avro::long(1 << 31);
    let body = |length: &[u8]| [&[2, 0][..], length].concat();
    let name = |length: &[u8]| [&[2, 2][..], length].concat();
    vec![
        ("2^31 buffers", claim(1 << 31, 8)),
        ("2^31 - 1 buffers", claim(i32::MAX.cast_unsigned(), 8)),
        ("no buffers", claim(0, 0)),
        (
            "a buffer of 2^31 - 1 bytes",
            claim(1, i32::MAX.cast_unsigned()),
        ),
        ("a buffer of -1 bytes", claim(1, u32::MAX)),
        ("array of 2^63 - 1 events", bad_call("appendBatch", &huge)),
        ("array of 2^31 events", bad_call("appendBatch", &big)),
        (
            "negative block of -2^63",
            bad_call("appendBatch", &avro::long(i64::MIN)),
        ),
        (
            "body of 2^63 - 1 bytes",
            bad_call("appendBatch", &body(&huge)),
        ),
        (
            "body of -1 bytes",
            bad_call("appendBatch", &body(&avro::long(-1))),
        ),
        (
            "header name of 2^31 bytes",
            bad_call("appendBatch", &name(&big)),
        ),
        (
            "header name of -1 bytes",
            bad_call("appendBatch", &name(&avro::long(-1))),
        ),
        (
            "map of 2^63 - 1 headers",
            bad_call("appendBatch", &[&[2][..], &huge].concat()),
        ),
        (
            "a number of eleven bytes",
            bad_call("appendBatch", &[0xff; 11]),
        ),
        (
            "an event that ends early",
            bad_call("append", &[0, 20, b'x']),
        ),
        (
            "method name of 2^31 bytes",
            avro::frame(1, &[&avro::handshake(HASH, None)[..], &[0], &big].concat()),
        ),
        (
            "metadata of 2^63 - 1 entries",
            avro::frame(1, &[&avro::handshake(HASH, None)[..], &huge].concat()),
        ),
        (
            "protocol text of 2^63 - 1 bytes",
            avro::frame(1, &[&HASH[..], &[2], &huge].concat()),
        ),
        (
            "protocol text of -1 bytes",
            avro::frame(1, &[&HASH[..], &[2], &avro::long(-1)].concat()),
        ),
        (
            "no handshake at all",
            avro::frame(1, b"GET / HTTP/1.1\r\n\r\n"),
        ),
        (
            "another protocol",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn length_bombs_are_refused_without_memory() -> Result<()> {
    let mut gateway = Gateway::start("").await?;
    gateway.goes_on().await?;
    let before = gateway.peak_memory()?;
    for (what, bytes) in length_bombs() {
        let met = avro::send(gateway.avro, &bytes).await?;
        assert!(!avro::is_ok(&met), "{what} was taken: {met:?}");
        gateway.goes_on().await?;
    }
    let taken = gateway.peak_memory()?.saturating_sub(before);
    assert!(
        taken <= 2 * FRAME,
        "{taken} bytes of memory for claims that were never met"
    );
    let events = gateway.events(2 + 2 * length_bombs().len() as u64).await?;
    assert!(
        events.iter().all(|event| event.body == "good"),
        "something of a bomb was stored"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn handshake_games_cost_nothing() -> Result<()> {
    let mut gateway = Gateway::start("").await?;
    gateway.goes_on().await?;
    let before = gateway.peak_memory()?;
    // Unknown hashes, a thousand: each is asked for its text, and who never gives one is sent away.
    let mut stream = TcpStream::connect(gateway.avro).await?;
    let mut asked = 0;
    for n in 0..1000_u32 {
        let mut hash = HASH;
        hash[..4].copy_from_slice(&n.to_be_bytes());
        let message = [avro::handshake(hash, None), avro::call("", &[])].concat();
        match avro::exchange(&mut stream, &avro::frame(n, &message)).await? {
            Met::Answered(answer) if answer.first() == Some(&NONE) => asked += 1,
            met => {
                assert!(!avro::is_ok(&met), "{met:?}");
                stream = TcpStream::connect(gateway.avro).await?;
            }
        }
    }
    assert!(asked > 0, "nobody was asked for the text");
    // Texts: 10 MB long, and one that refers to itself.
    let recursive = br#"{"protocol":"p","types":[{"type":"record","name":"r","fields":
        [{"name":"f","type":"r"}]}],"messages":{}}"#;
    for text in [&vec![b'{'; 10 << 20][..], &recursive[..], &[0xff; 100][..]] {
        let mut hash = HASH;
        hash[0] = 0;
        let message = [avro::handshake(hash, Some(text)), avro::call("", &[])].concat();
        avro::send(gateway.avro, &avro::frame(1, &message)).await?;
    }
    gateway.goes_on().await?;
    let taken = gateway.peak_memory()?.saturating_sub(before);
    assert!(taken <= 2 * FRAME, "{taken} bytes of memory for handshakes");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversize_event_does_not_harm_its_neighbours() -> Result<()> {
    let mut gateway = Gateway::start("").await?;
    let names: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
    let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
    let long_name = "n".repeat(1 << 20);
    let batch = [
        avro::event(&[], b"first"),
        avro::event(&[], &vec![b'x'; (1 << 20) + 1]),
        avro::event(&[], b"second"),
        avro::event(&headers, b"too many headers"),
        avro::event(&[(&long_name, "v")], b"a long name"),
        avro::event(&[("nul", "a\0b\r\nc")], b"third"),
    ];
    let met = avro::send(gateway.avro, &avro::append_batch(1, &batch)).await?;
    assert!(avro::is_ok(&met), "{met:?}");
    let letters = gateway.agent.metric("levada_dead_letters", "").await?;
    let events = gateway.events(3).await?;
    let bodies: Vec<_> = events.iter().map(|event| event.body.as_str()).collect();
    assert_eq!(bodies, ["first", "second", "third"]);
    assert_eq!(events[2].headers["nul"], "a\0b\r\nc");
    assert_eq!(letters, 3.0, "three events beyond a limit");
    let audit = gateway.agent.audit().await?;
    assert!(audit.holds, "{audit:?}");
    assert_eq!(audit.count("sources.rpc", "accepted"), Some(6));
    assert_eq!(audit.count("sources.rpc", "put"), Some(3));
    Ok(())
}
