use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

/// A packet: its first byte and so many bytes.
fn packet(first: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut rest = length;
    loop {
        let more = if rest >= 0x80 { 0x80 } else { 0 };
        bytes.push(u8::try_from(rest & 0x7f).unwrap() | more);
        rest >>= 7;
        if rest == 0 {
            break;
        }
    }
    bytes.extend((0..length).map(|n| u8::try_from(n % 251).unwrap()));
    bytes
}

/// What a reader sees of packets that come in pieces of this size.
async fn through(sent: Vec<u8>, piece: usize, most: usize) -> (io::Result<Vec<u8>>, Cuts) {
    let (mut theirs, ours) = duplex(64 << 10);
    let cuts = Cuts::default();
    let mut shrink = Shrink::new(Box::new(ours), most, cuts.clone());
    let send = async move {
        for piece in sent.chunks(piece) {
            if theirs.write_all(piece).await.is_err() {
                break;
            }
        }
    };
    let read = async move {
        let mut seen = Vec::new();
        shrink.read_to_end(&mut seen).await.map(|_| seen)
    };
    let ((), seen) = tokio::join!(send, read);
    (seen, cuts)
}

#[tokio::test]
async fn only_messages_beyond_the_limit_are_cut() {
    let most = KEPT + 10;
    // PINGRESP, a message at the limit, one beyond it, a large packet that is none, a small message.
    let sent = [
        packet(0xd0, 0),
        packet(0x32, most),
        packet(0x3a, most + 1),
        packet(0x90, most + 5),
        packet(0x30, 3),
    ];
    let (seen, cuts) = through(sent.concat(), 1000, most).await;
    let mut expected = sent.clone();
    expected[2] = packet(0x3a, KEPT);
    assert!(seen.unwrap() == expected.concat());
    assert_eq!(
        [cuts.take(0), cuts.take(1), cuts.take(2)],
        [None, Some(most + 1), None]
    );
}

#[tokio::test]
async fn the_largest_message_there_is_passes_as_its_beginning() {
    let (seen, cuts) = through(packet(0x30, 20_000_000), 60_000, 1).await;
    assert!(seen.unwrap() == packet(0x30, KEPT));
    assert_eq!(cuts.take(0), Some(20_000_000));
}

#[tokio::test]
async fn a_length_of_five_bytes_is_an_error() {
    let (seen, _) = through(vec![0x30, 0x80, 0x80, 0x80, 0x80, 1], 1, KEPT).await;
    assert_eq!(seen.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packets_come_out_as_they_went_in_whatever_the_pieces(
        packets in prop::collection::vec((any::<u8>(), 0..300_usize, any::<bool>()), 0..30),
        piece in 1..200_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = |(first, length, large): &(u8, usize, bool)| match large {
            true if length % 7 == 0 => packet(*first, KEPT + length),
            _ => packet(*first, *length),
        };
        let sent: Vec<_> = packets.iter().map(bytes).collect();
        let expected = sent.iter().map(|bytes| match bytes[0] >> 4 {
            PUBLISH if bytes.len() > KEPT + 4 => packet(bytes[0], KEPT),
            _ => bytes.clone(),
        });
        let expected = expected.collect::<Vec<_>>().concat();
        let (seen, _) = runtime.block_on(through(sent.concat(), piece, KEPT));
        prop_assert!(seen.unwrap() == expected);
    }
}
