//! Bytes that were captured between real Flumes 1.9.0 and 1.11.0, all pairs alike.

/// Four calls of a Java client: `append`, `appendBatch` of three and of two, `append`.
pub(crate) const CALLS: &str = "
    00000001 00000002
    0000002b 86aadae2c45474c0fe93ffd0f2350a65 00 86aadae2c45474c0fe93ffd0f2350a65 0200
             00 0c617070656e64
    0000000c 02026b027600 0a68656c6c6f
    00000002 00000002
    0000000d 00 16617070656e644261746368
    00000038 06 00 0a706c61696e 02 08636cc3a9 1476c3a46c756520e29883 00
             24c3bc6ec3af636f646520e2988320f09d849e 02 0a656d707479 00 00 00 00
    00000003 00000002
    0000000d 00 16617070656e644261746368
    0000000a 04 00 046530 00 046531 00
    00000004 00000002
    00000008 00 0c617070656e64
    0000000c 02026b04763200 086c617374";

/// What the server answered.
pub(crate) const REPLIES: &str = "
    00000001 00000003 00000004 00000000 00000001 00 00000002 0000
    00000002 00000003 00000000 00000001 00 00000002 0000
    00000003 00000003 00000000 00000001 00 00000002 0000
    00000004 00000003 00000000 00000001 00 00000002 0000";

/// The hash of Flume's protocol.
pub(crate) const HASH: &str = "86aadae2c45474c0fe93ffd0f2350a65";

/// Bytes from hexadecimal digits with spaces between.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    assert_eq!(digits.len() % 2, 0, "{text}");
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap())
        .collect()
}

/// A frame of one buffer.
pub(crate) fn frame(serial: i32, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    crate::frame::write_head(&mut out, serial, 1);
    crate::frame::write_buffer(&mut out, |out| out.extend_from_slice(message));
    out
}
