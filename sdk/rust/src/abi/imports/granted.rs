//! What the host offers once it is granted, as raw imports.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Lowered, optional_list, optional_string};

#[link(wasm_import_module = "levada:handler/state@0.1.0")]
unsafe extern "C" {
    #[link_name = "get"]
    fn state_get_raw(key: *const u8, len: usize, out: *mut [u32; 3]);
    #[link_name = "set"]
    fn state_set_raw(
        key: *const u8,
        key_len: usize,
        value: *const u8,
        value_len: usize,
        has_ttl: u32,
        ttl_s: u32,
        out: *mut [u32; 3],
    );
    #[link_name = "remove"]
    fn state_remove_raw(key: *const u8, len: usize);
    #[link_name = "increment"]
    fn state_increment_raw(
        key: *const u8,
        len: usize,
        by: f64,
        has_ttl: u32,
        ttl_s: u32,
        out: *mut Sum,
    );
    #[link_name = "keys"]
    fn state_keys_raw(
        prefix: *const u8,
        prefix_len: usize,
        has_after: u32,
        after: *const u8,
        after_len: usize,
        limit: u32,
        out: *mut [u32; 2],
    );
}

#[link(wasm_import_module = "levada:handler/lookup@0.1.0")]
unsafe extern "C" {
    #[link_name = "find"]
    fn lookup_find(
        table: *const u8,
        table_len: usize,
        key: *const u8,
        key_len: usize,
        out: *mut [u32; 3],
    );
}

#[link(wasm_import_module = "levada:handler/secrets@0.1.0")]
unsafe extern "C" {
    #[link_name = "get"]
    fn secrets_get(name: *const u8, len: usize, out: *mut [u32; 3]);
}

unsafe extern "C" {
    /// Of the C library, up to 256 bytes at once.
    fn getentropy(buffer: *mut u8, len: usize) -> i32;
}

/// `result<f64, string>`: which case, then its payload.
#[repr(C, align(8))]
struct Sum {
    case: u32,
    payload: [u32; 2],
}

pub(crate) fn state_get(key: &str) -> Option<Vec<u8>> {
    // SAFETY: pointer and length of a string that lives until the call returns; the function
    // writes an optional list into `out`.
    let list = optional_list(|out| unsafe { state_get_raw(key.as_ptr(), key.len(), out) });
    list.map(|list| list.to_vec())
}

pub(crate) fn state_set(key: &str, value: &[u8], ttl_s: Option<u32>) -> Result<(), String> {
    let (has_ttl, ttl_s) = (u32::from(ttl_s.is_some()), ttl_s.unwrap_or(0));
    // SAFETY: pointers and lengths of what lives until the call returns; the function writes a
    // result into `out` that is laid out as an optional list: a string if it is an error.
    let refused = optional_string(|out| unsafe {
        let (key, len) = (key.as_ptr(), key.len());
        state_set_raw(key, len, value.as_ptr(), value.len(), has_ttl, ttl_s, out);
    });
    refused.map_or(Ok(()), Err)
}

pub(crate) fn state_remove(key: &str) {
    // SAFETY: pointer and length of a string that lives until the call returns.
    unsafe { state_remove_raw(key.as_ptr(), key.len()) }
}

pub(crate) fn state_increment(key: &str, by: f64, ttl_s: Option<u32>) -> Result<f64, String> {
    let (has_ttl, ttl_s) = (u32::from(ttl_s.is_some()), ttl_s.unwrap_or(0));
    let mut out = Sum {
        case: 0,
        payload: [0; 2],
    };
    // SAFETY: pointer and length of a string that lives until the call returns; the function
    // writes a result into `out`.
    unsafe { state_increment_raw(key.as_ptr(), key.len(), by, has_ttl, ttl_s, &raw mut out) };
    let [low, high] = out.payload;
    if out.case & 0xff == 0 {
        return Ok(f64::from_bits(u64::from(high) << 32 | u64::from(low)));
    }
    // SAFETY: the host lowered a string for this call: its address and its length.
    let text = unsafe { Lowered::new(low as *mut u8, high as usize) };
    Err(String::from_utf8_lossy(&text).into_owned())
}

pub(crate) fn state_keys(prefix: &str, after: Option<&str>, limit: u32) -> Vec<String> {
    let has_after = u32::from(after.is_some());
    let after = after.unwrap_or_default();
    let mut out = [0; 2];
    // SAFETY: pointers and lengths of strings that live until the call returns; the function
    // writes a list into `out`.
    unsafe {
        let (at, len) = (prefix.as_ptr(), prefix.len());
        let (after, after_len) = (after.as_ptr(), after.len());
        state_keys_raw(at, len, has_after, after, after_len, limit, &raw mut out);
    }
    strings(out)
}

pub(crate) fn find(table: &str, key: &str) -> Option<Vec<(String, String)>> {
    let mut out = [0; 3];
    // SAFETY: pointers and lengths of strings that live until the call returns; the function
    // writes an optional list into `out`.
    unsafe {
        let (at, len) = (table.as_ptr(), table.len());
        lookup_find(at, len, key.as_ptr(), key.len(), &raw mut out);
    }
    if out[0] & 0xff == 0 {
        return None;
    }
    // A record of two strings is laid out as two strings.
    let mut words = strings([out[1], out[2] * 2]).into_iter();
    let mut row = Vec::new();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        row.push((name, value));
    }
    Some(row)
}

pub(crate) fn secret(name: &str) -> Option<String> {
    // SAFETY: pointer and length of a string that lives until the call returns; the function
    // writes an optional list into `out`.
    optional_string(|out| unsafe { secrets_get(name.as_ptr(), name.len(), out) })
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn fill_random(buffer: &mut [u8]) {
    for part in buffer.chunks_mut(256) {
        // SAFETY: pointer and length of a buffer that is ours.
        let filled = unsafe { getentropy(part.as_mut_ptr(), part.len()) };
        assert!(filled == 0, "the host gives random bytes or traps");
    }
}

/// Takes a list of strings: its address, and how many they are.
fn strings([at, count]: [u32; 2]) -> Vec<String> {
    // SAFETY: the host lowered a list of strings for this call: for each its address and length.
    let words = unsafe { Lowered::words(at as *mut u8, count as usize * 8) };
    let pairs = words.chunks_exact(8).map(|pair| {
        let word =
            |at: usize| u32::from_le_bytes([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]]);
        (word(0), word(4))
    });
    let text = |(at, len): (u32, u32)| {
        // SAFETY: an element of that list.
        let text = unsafe { Lowered::new(at as *mut u8, len as usize) };
        String::from_utf8_lossy(&text).into_owned()
    };
    pairs.map(text).collect()
}
