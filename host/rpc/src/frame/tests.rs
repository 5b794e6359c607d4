use super::*;

/// All frames in `input`, given to the decoder in pieces of `step` bytes.
fn decode(input: &[u8], step: usize, max_frame: usize) -> Result<Vec<Frame>, FrameError> {
    let mut decoder = Decoder::new(max_frame);
    let mut frames = Vec::new();
    for mut piece in input.chunks(step) {
        while let Some(frame) = decoder.decode(&mut piece)? {
            frames.push(frame);
        }
        assert!(piece.is_empty(), "the decoder takes everything");
    }
    Ok(frames)
}

/// A frame with these buffers.
fn frame(serial: i32, buffers: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    write_head(&mut out, serial, i32::try_from(buffers.len()).unwrap());
    for buffer in buffers {
        write_buffer(&mut out, |out| out.extend_from_slice(buffer));
    }
    out
}

#[test]
fn a_message_is_the_same_however_it_is_cut() {
    let cuts: [&[&[u8]]; 4] = [
        &[b"hello"],
        &[b"he", b"llo"],
        &[b"", b"h", b"", b"ello", b""],
        &[b"hell", b"o"],
    ];
    for cut in cuts {
        let mut bytes = frame(-7, cut);
        bytes.extend(frame(8, &[b""]));
        for step in 1..bytes.len() {
            let frames = decode(&bytes, step, 5).unwrap();
            let hello = Frame {
                serial: -7,
                message: Bytes::from_static(b"hello"),
            };
            assert_eq!(
                frames,
                [
                    hello,
                    Frame {
                        serial: 8,
                        message: Bytes::new()
                    }
                ]
            );
        }
    }
}

#[test]
fn lengths_are_refused_before_memory_is_taken() {
    let check = |words: &[i32], expected: FrameError| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        for step in [1, bytes.len()] {
            assert_eq!(decode(&bytes, step, 100), Err(expected), "{words:?}");
        }
    };
    check(&[1, 0], FrameError::Buffers { count: 0 });
    check(&[1, -1], FrameError::Buffers { count: -1 });
    check(&[1, i32::MAX], FrameError::Buffers { count: i32::MAX });
    check(
        &[1, MAX_BUFFERS + 1],
        FrameError::Buffers {
            count: MAX_BUFFERS + 1,
        },
    );
    check(&[1, 1, -1], FrameError::Negative { length: -1 });
    check(
        &[1, 2, 0, i32::MIN],
        FrameError::Negative { length: i32::MIN },
    );
    let most = usize::try_from(i32::MAX).unwrap();
    check(
        &[1, 1, i32::MAX],
        FrameError::TooLarge {
            bytes: most,
            allowed: 100,
        },
    );
    check(
        &[1, 1, 101],
        FrameError::TooLarge {
            bytes: 101,
            allowed: 100,
        },
    );
    check(
        &[1, 3, 4, 0, 97],
        FrameError::TooLarge {
            bytes: 101,
            allowed: 100,
        },
    );
}

#[test]
fn memory_follows_the_bytes_that_came() {
    let max_frame = 16 << 20;
    let mut decoder = Decoder::new(max_frame);
    let mut claim = frame(1, &[]);
    claim[7] = 1;
    claim.extend_from_slice(&(16_i32 << 20).to_be_bytes());
    assert_eq!(decoder.decode(&mut &claim[..]).unwrap(), None);
    assert_eq!(decoder.missing(), max_frame);
    let mut came = 0;
    while decoder.missing() > 0 {
        let room = decoder.in_place().remaining_mut();
        assert!(decoder.message.capacity() <= (2 * came).clamp(FIRST, max_frame));
        let piece = room.min(10_000);
        decoder.in_place().put_bytes(7, piece);
        came += piece;
        if let Some(frame) = decoder.filled(piece) {
            assert_eq!(frame.message.len(), max_frame);
        }
    }
    assert_eq!(came, max_frame);
    assert!(decoder.is_between_frames());
}

#[test]
fn the_last_buffer_gets_no_more_memory_than_it_needs() {
    let bytes = frame(1, &[b"small"]);
    let mut decoder = Decoder::new(1 << 20);
    assert_eq!(
        decoder.decode(&mut &bytes[..bytes.len() - 1]).unwrap(),
        None
    );
    assert_eq!(decoder.message.capacity(), 5);
}
