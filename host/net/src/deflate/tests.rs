use std::io::Write;

use flate2::write::ZlibEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

/// Four calls of a Flume client and the answers of its server, captured: the client's bytes with
/// `compression-type = deflate` and without, and the server's.
const CLIENT_DEFLATED: &str = "789c62606060646060600262edb655b71e1d092939f06ff2ff0b9f4cb95219d00580aa78120b0a52f35280ca799898b299ca18b832527372f201000000ffff821a01c2bc0c6210354e8925c91940010b3606ae829cc4cc3c268ee49cc32b45ca0e2fc9294d557834a39941e5f09ebcc3eb93f353c05c850f735be63171a5e616945402f53100000000ffff0222665c8672b130b0a41a00b12103000000ffff02f258a0ca38d0dcc75266c4c09193585c02000000ffff03000e8b4015";
const CLIENT_PLAIN: &str = "00000001 00000002 0000002b 86aadae2c45474c0fe93ffd0f2350a65 00 86aadae2c45474c0fe93ffd0f2350a65 0200 00 0c617070656e64
    0000000c 02026b027600 0a68656c6c6f
    00000002 00000002 0000000d 00 16617070656e644261746368
    00000038 06 00 0a706c61696e 02 08636cc3a9 1476c3a46c756520e29883 00 24c3bc6ec3af636f646520e2988320f09d849e 02 0a656d707479 00 00 00 00
    00000003 00000002 0000000d 00 16617070656e644261746368  0000000a 04 00 046530 00 046531 00
    00000004 00000002 00000008 00 0c617070656e64            0000000c 02026b04763200 086c617374";
const SERVER_DEFLATED: &str = "789c6260606064606060066216060800f11998181800000000ffff8292cc68c200000000ffff820aa10b03000000ffff821a802e0c000000ffff";
const SERVER_PLAIN: &str = "00000001 00000003 00000004 00000000 00000001 00 00000002 0000
    00000002 00000003 00000000 00000001 00 00000002 0000
    00000003 00000003 00000000 00000001 00 00000002 0000
    00000004 00000003 00000000 00000001 00 00000002 0000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    let byte = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// What is read of these bytes when they arrive in pieces of `step`.
async fn inflated(packed: &[u8], step: usize) -> io::Result<Vec<u8>> {
    let (mut ours, theirs) = duplex(step);
    let mut stream = Deflate::detecting(Box::new(theirs));
    let mut read = Vec::new();
    let write = async {
        let _taken = ours.write_all(packed).await.is_ok();
        drop(ours);
    };
    let (_, read_all) = tokio::join!(write, stream.read_to_end(&mut read));
    read_all.map(|_| read)
}

#[tokio::test]
async fn the_bytes_of_a_flume_are_inflated() {
    for step in [1, 7, 1000] {
        let read = inflated(&bytes(CLIENT_DEFLATED), step).await.unwrap();
        assert_eq!(read, bytes(CLIENT_PLAIN));
        // The server ends without a trailer.
        let read = inflated(&bytes(SERVER_DEFLATED), step).await.unwrap();
        assert_eq!(read, bytes(SERVER_PLAIN));
        // A peer that does not deflate is read as it is.
        let read = inflated(&bytes(CLIENT_PLAIN), step).await.unwrap();
        assert_eq!(read, bytes(CLIENT_PLAIN));
    }
}

#[tokio::test]
async fn what_is_flushed_arrives_whole_before_anything_else_is_sent() {
    for level in [0, 1, 6, 9] {
        let (ours, theirs) = duplex(64 << 10);
        let mut ours = Deflate::new(Box::new(ours), level);
        let mut theirs = Deflate::detecting(Box::new(theirs));
        // Little, much, and what does not pack.
        let noise: Vec<u8> = (0..200_000_u32)
            .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
            .collect();
        for message in [&b"a"[..], &[7; 300_000], &noise, b"end"] {
            let write = async {
                ours.write_all(message).await.unwrap();
                ours.flush().await.unwrap();
            };
            let mut read = vec![0; message.len()];
            let (_, done) = tokio::join!(write, theirs.read_exact(&mut read));
            done.unwrap();
            assert!(read == message, "level {level}, {} bytes", message.len());
            // And back, on the same connection.
            theirs.write_all(b"ok").await.unwrap();
            theirs.flush().await.unwrap();
            let mut ok = [0; 2];
            ours.read_exact(&mut ok).await.unwrap();
            assert_eq!(&ok, b"ok");
        }
        ours.shutdown().await.unwrap();
        assert_eq!(theirs.read(&mut [0; 8]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn our_first_bytes_are_those_of_a_flume() {
    let (ours, mut theirs) = duplex(1024);
    let mut ours = Deflate::new(Box::new(ours), USUAL);
    ours.write_all(&bytes(CLIENT_PLAIN)[..12]).await.unwrap();
    ours.flush().await.unwrap();
    let mut head = [0; 2];
    theirs.read_exact(&mut head).await.unwrap();
    assert_eq!(head, [0x78, 0x9c]);
}

#[tokio::test]
async fn a_bomb_is_unpacked_into_the_buffer_of_the_reader_only() {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::best());
    for _ in 0..256 {
        packer.write_all(&[0; 1 << 20]).unwrap();
    }
    let bomb = packer.finish().unwrap();
    assert!(bomb.len() < 300_000, "256 MiB in {} bytes", bomb.len());
    let (mut ours, theirs) = duplex(1 << 20);
    ours.write_all(&bomb).await.unwrap();
    let mut stream = Deflate::detecting(Box::new(theirs));
    let mut read = 0;
    let mut buffer = [0; 4096];
    for _ in 0..1000 {
        read += stream.read(&mut buffer).await.unwrap();
    }
    // It stops when the reader stops: what is held is one chunk of what was packed.
    assert_eq!(read, 4096 * 1000);
    assert!(stream.input.capacity() <= CHUNK && stream.output.capacity() == 0);
}

#[tokio::test]
async fn what_is_no_deflate_is_an_error_and_not_a_loop() {
    let mut broken = bytes(CLIENT_DEFLATED);
    for byte in &mut broken[20..40] {
        *byte ^= 0x5a;
    }
    let error = inflated(&broken, 1000).await.unwrap_err();
    assert!(HandshakeError::is_in(&error), "{error}");
    let error = inflated(&[0x78, 0, 1, 2, 3], 1000).await.unwrap_err();
    assert!(
        error.to_string().contains("is `compression` the same"),
        "{error}"
    );
}
