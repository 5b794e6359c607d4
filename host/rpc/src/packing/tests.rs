use super::*;

/// Text with repetitions, as telemetry has them, and some noise.
fn message(n: u32, bytes: usize) -> Vec<u8> {
    let mut noise = n;
    let mut next = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise >> 24
    };
    let mut text = Vec::new();
    while text.len() < bytes {
        text.extend(format!("device=edge-{} value={};", n % 7, next()).into_bytes());
    }
    text.truncate(bytes);
    text
}

/// Everything that comes of some packed bytes, read in pieces.
fn unpack(
    unpacker: &mut Unpacker,
    packed: &[u8],
    piece: usize,
    room: usize,
) -> Result<Vec<u8>, PackingError> {
    let (mut all, mut room) = (Vec::new(), vec![0; room]);
    for piece in packed.chunks(piece) {
        unpacker.input().extend_from_slice(piece);
        loop {
            match unpacker.unpack(&mut room)? {
                0 => break,
                count => all.extend_from_slice(&room[..count]),
            }
        }
    }
    Ok(all)
}

#[test]
fn every_message_is_there_once_it_was_packed() {
    let sizes = [0, 1, 5, 1 << 10, CHUNK, CHUNK + 1, 200 << 10, 3, 1 << 20];
    for (piece, room) in [(1 << 20, 64 << 10), (1, 4 << 10), (1000, 7)] {
        let (mut packer, mut unpacker) =
            (Packer::new().unwrap(), Unpacker::new(Vec::new()).unwrap());
        for (n, size) in (0..).zip(sizes) {
            let (said, mut packed) = (message(n, size), Vec::new());
            packer.pack(&said, &mut packed).unwrap();
            let heard = unpack(&mut unpacker, &packed, piece, room).unwrap();
            assert!(heard == said, "message {n} in pieces of {piece}");
        }
    }
}

#[test]
fn what_repeats_is_small_also_from_one_message_to_the_next() {
    let (mut packer, mut packed) = (Packer::new().unwrap(), Vec::new());
    let said = message(1, 10 << 10);
    packer.pack(&said, &mut packed).unwrap();
    let first = packed.len();
    packer.pack(&said, &mut packed).unwrap();
    assert!(first < said.len() / 3, "{first} bytes");
    assert!(packed.len() - first < 100, "{} bytes", packed.len() - first);
}

#[test]
fn a_bomb_goes_off_a_buffer_at_a_time() {
    let (mut packer, mut packed) = (Packer::new().unwrap(), Vec::new());
    let zeros = vec![0; 16 << 20];
    (0..16).for_each(|_| packer.pack(&zeros, &mut packed).unwrap());
    assert!(packed.len() < 64 << 10, "{} bytes", packed.len());
    let mut unpacker = Unpacker::new(packed).unwrap();
    let (mut room, mut all) = (vec![1; 4 << 10], 0);
    loop {
        match unpacker.unpack(&mut room).unwrap() {
            0 => break,
            count => all += count,
        }
    }
    assert_eq!(all, 256 << 20);
}

#[test]
fn a_window_beyond_the_agreed_one_is_refused() {
    let mut encoder = Encoder::new(LEVEL).unwrap();
    let larger = CParameter::WindowLog(WINDOW + 1);
    encoder.set_parameter(larger).unwrap();
    let (mut packer, mut packed) = (Packer(encoder), Vec::new());
    packer.pack(&message(1, 1 << 10), &mut packed).unwrap();
    let mut unpacker = Unpacker::new(packed).unwrap();
    let refused = unpacker.unpack(&mut [0; 4096]).unwrap_err();
    assert!(
        refused.to_string().contains("farther than the 256 KiB"),
        "{refused}"
    );
}

#[test]
fn other_bytes_and_bytes_behind_the_end_are_refused() {
    let mut unpacker = Unpacker::new(b"\0\0\0\x01\0\0\0\x02 not zstd".to_vec()).unwrap();
    let refused = unpacker.unpack(&mut [0; 4096]);
    assert!(
        matches!(refused, Err(PackingError::Damaged(_))),
        "{refused:?}"
    );

    let (mut packer, mut packed) = (Packer::new().unwrap(), Vec::new());
    packer.pack(b"last words", &mut packed).unwrap();
    append(&mut packed, |room| packer.0.finish(room, true)).unwrap();
    let mut unpacker = Unpacker::new(packed.clone()).unwrap();
    let mut room = [0; 4096];
    assert_eq!(unpacker.unpack(&mut room).unwrap(), 10);
    assert_eq!(unpacker.unpack(&mut room).unwrap(), 0);
    unpacker.input().extend_from_slice(&packed);
    let refused = unpacker.unpack(&mut room);
    assert!(matches!(refused, Err(PackingError::Ended)), "{refused:?}");
}

proptest::proptest! {
    #[test]
    fn no_bytes_do_more_than_fail(bytes in proptest::collection::vec(0_u8.., 0..300)) {
        let begun = [&[0x28, 0xb5, 0x2f, 0xfd][..], &bytes].concat();
        for bytes in [bytes, begun] {
            let mut unpacker = Unpacker::new(Vec::new()).unwrap();
            // Whatever comes of it, it comes to an end.
            let _either = unpack(&mut unpacker, &bytes, 50, 1000).is_ok();
        }
    }
}
