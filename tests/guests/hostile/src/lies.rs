//! Answers in packed form that break the contract, each in one way.

use crate::raw;

const PASS: u32 = 0;
const PATCH: u32 = 1;
const PATCH_AND_BODY: u32 = 2;
const REPLACE: u32 = 3;
const DISCARD: u32 = 4;
const REJECT: u32 = 5;
const RETRY: u32 = 6;

/// The answer that lets `count` events pass.
pub fn passing(count: u32) -> Vec<u8> {
    answer_of(&[operation(PASS, count, b"")])
}

/// The answer for a batch of `count` events; a true one if the mode is no lie.
///
/// A lie is about the first event where it is about one; the others pass.
pub fn answer(mode: &str, count: u32) -> Vec<u8> {
    let first = |op, payload: &[u8]| {
        let rest = operation(PASS, count.saturating_sub(1), b"");
        let rest = if count > 1 { rest } else { Vec::new() };
        answer_of(&[operation(op, 1, payload), rest])
    };
    match mode {
        // The frame.
        "empty" => Vec::new(),
        "version" => [&[2, 0, 0, 0][..], &passing(count)[4..]].concat(),
        "reserved" => [&[1, 0, 7, 0][..], &passing(count)[4..]].concat(),
        "short" => passing(count.saturating_sub(1)),
        "none" => answer_of(&[]),
        "long" => passing(count + 1),
        "zero" => answer_of(&[operation(PASS, 0, b""), operation(PASS, count, b"")]),
        "unknown-op" => first(7, b""),
        "sink-op" => first(RETRY, &[0xff, 0xff, 0xff, 0xff, b'n', b'o']),
        "past-end" => [&passing(count)[..8], &[0xff, 0xff, 0xff, 0x7f]].concat(),
        "left-over" => [&passing(count)[..], &[1, 2, 3]].concat(),
        "pass-with-payload" => first(PASS, b"x"),
        // Texts.
        "reason-utf8" => first(REJECT, &[b'a', 0xff, 0xfe]),
        "header-utf8" => first(PATCH, &patch(&[(b"name", &[0xff])], &[])),
        "long-reason" => first(DISCARD, "r".repeat(100_000).as_bytes()),
        // Patches.
        "varint" => first(PATCH, &[1, 0, 0, 0, 0x82, 0x00, b'a', 2, b'b']),
        "twice" => first(PATCH, &patch(&[(b"a", b"1"), (b"a", b"2")], &[])),
        "set-and-remove" => first(PATCH, &patch(&[(b"a", b"1")], &[b"a"])),
        "no-name" => first(PATCH, &patch(&[(b"", b"1")], &[])),
        "long-name" => first(PATCH, &patch(&[(&[b'n'; 2000], b"1")], &[])),
        "long-value" => first(PATCH, &patch(&[(b"n", &vec![b'v'; 70_000])], &[])),
        "many-headers" => first(PATCH, &many_headers()),
        "patch-cut" => first(PATCH, &patch(&[(b"a", b"1")], &[])[..6]),
        "forged" => first(
            PATCH,
            &patch(
                &[(b"levada.o", b"forged"), (b"fair", b"yes")],
                &[b"levada.s"],
            ),
        ),
        "same-body" => answer_of(&[operation(PATCH_AND_BODY, count.max(2), &patch(&[], &[]))]),
        // Events out.
        "no-events" => first(REPLACE, b""),
        "event-cut" => first(REPLACE, &[0, 200, 1, b'x']),
        "event-headers" => first(REPLACE, &[2, 2, b'a', 2, b'b', 2, 2, b'c', 2, b'd', 0, 0]),
        "forged-event" => first(REPLACE, b"\x04\x10levada.o\x02x\x02a\x02b\x00\x04ok"),
        "many" => first(REPLACE, &"\0".repeat(2_000_000).into_bytes()),
        "large-event" => first(REPLACE, &large_event()),
        "large-body" => first(
            PATCH_AND_BODY,
            &[&[0; 4][..], &vec![b'x'; 2 << 20]].concat(),
        ),
        "huge" => first(REJECT, &vec![b'x'; 32 << 20]),
        "far" => raw::list_beyond_memory(),
        _ => passing(count),
    }
}

fn answer_of(operations: &[Vec<u8>]) -> Vec<u8> {
    [&[1, 0, 0, 0][..], &operations.concat()].concat()
}

fn operation(op: u32, count: u32, payload: &[u8]) -> Vec<u8> {
    let word = count << 8 | op;
    let len = payload.len() as u32;
    [&word.to_le_bytes()[..], &len.to_le_bytes(), payload].concat()
}

fn patch(set: &[(&[u8], &[u8])], remove: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&(set.len() as u16).to_le_bytes());
    out.extend_from_slice(&(remove.len() as u16).to_le_bytes());
    for (name, value) in set {
        string(&mut out, name);
        string(&mut out, value);
    }
    for name in remove {
        string(&mut out, name);
    }
    out
}

fn many_headers() -> Vec<u8> {
    let names: Vec<String> = (0..300).map(|n| format!("n{n}")).collect();
    let set: Vec<(&[u8], &[u8])> = names
        .iter()
        .map(|name| (name.as_bytes(), &b"v"[..]))
        .collect();
    patch(&set, &[])
}

/// One event of two megabytes.
fn large_event() -> Vec<u8> {
    let mut event = vec![0];
    string(&mut event, &vec![b'x'; 2 << 20]);
    event
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut zigzag = bytes.len() << 1;
    while zigzag >= 0x80 {
        out.push((zigzag & 0x7f) as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
    out.extend_from_slice(bytes);
}
