//! The few pieces of Avro's binary encoding that events and calls are made of.
//!
//! Avro specification 1.12, "Binary Encoding": a `long` is a zigzag varint of at most ten bytes, a
//! `string` or `bytes` is its length as a `long` and then its bytes.

use thiserror::Error;

/// Why bytes are not the Avro value that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AvroError {
    #[error("the data ends inside a value at byte {at}")]
    Truncated { at: usize },
    #[error("a number of more than 64 bits at byte {at}")]
    Overlong { at: usize },
    #[error("a negative length at byte {at}")]
    Negative { at: usize },
    #[error("a length of {length} at byte {at}, more than the {allowed} allowed")]
    TooLong {
        at: usize,
        length: u64,
        allowed: usize,
    },
}

/// Reads a zigzag varint at `*at` and moves `*at` past it.
///
/// # Errors
/// [`AvroError::Truncated`] and [`AvroError::Overlong`]; `*at` is then left where it was.
#[inline]
pub fn read_long(bytes: &[u8], at: &mut usize) -> Result<i64, AvroError> {
    match bytes.get(*at) {
        Some(&byte) if byte < 0x80 => {
            *at += 1;
            Ok(i64::from(byte >> 1) ^ -i64::from(byte & 1))
        }
        _ => read_long_slow(bytes, at),
    }
}

#[cold]
#[inline(never)]
fn read_long_slow(bytes: &[u8], at: &mut usize) -> Result<i64, AvroError> {
    let mut value = 0_u64;
    for i in 0..10 {
        let byte = *bytes.get(*at + i).ok_or(AvroError::Truncated { at: *at })?;
        if i == 9 && byte > 1 {
            return Err(AvroError::Overlong { at: *at });
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *at += i + 1;
            return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    Err(AvroError::Overlong { at: *at })
}

/// Reads the length of a `string` or `bytes` and checks that its bytes are there.
///
/// Moves `*at` to the first byte of the value; no memory is allocated from what a peer claims.
///
/// # Errors
/// All of [`AvroError`].
#[inline]
pub fn read_length(bytes: &[u8], at: &mut usize, allowed: usize) -> Result<usize, AvroError> {
    let start = *at;
    let length = read_long(bytes, at)?;
    let length = u64::try_from(length).map_err(|_| AvroError::Negative { at: start })?;
    let left = bytes.len() - *at;
    match usize::try_from(length) {
        Ok(length) if length > allowed => Err(AvroError::TooLong {
            at: start,
            length: length as u64,
            allowed,
        }),
        Ok(length) if length > left => Err(AvroError::Truncated { at: start }),
        Ok(length) => Ok(length),
        Err(_) => Err(AvroError::TooLong {
            at: start,
            length,
            allowed,
        }),
    }
}

/// Reads a `string` or `bytes` value.
///
/// # Errors
/// All of [`AvroError`].
pub fn read_bytes<'a>(
    bytes: &'a [u8],
    at: &mut usize,
    allowed: usize,
) -> Result<&'a [u8], AvroError> {
    let length = read_length(bytes, at, allowed)?;
    let value = &bytes[*at..*at + length];
    *at += length;
    Ok(value)
}

/// Appends a zigzag varint, in its shortest form.
#[inline]
pub fn write_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 0x80")]
    out.push(rest as u8);
}

/// Appends a `string` or `bytes` value.
#[inline]
pub fn write_bytes(out: &mut Vec<u8>, value: &[u8]) {
    write_length(out, value.len());
    out.extend_from_slice(value);
}

/// Appends a length or count.
#[inline]
pub fn write_length(out: &mut Vec<u8>, length: usize) {
    write_long(
        out,
        i64::try_from(length).expect("a length in memory fits 63 bits"),
    );
}

/// The number of bytes [`write_length`] appends.
#[must_use]
pub fn length_size(length: usize) -> usize {
    let bits = usize::BITS - (length << 1 | 1).leading_zeros();
    bits.div_ceil(7) as usize
}
