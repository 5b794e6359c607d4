//! The import `http-client`.
//!
//! The parameters of `send` are flat: the fields of the record one after the other. Its result is a
//! `u8` for the case, then its payload, everything aligned to 4; the bytes between are free.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    slice,
    time::Duration,
};

use super::Lowered;
use crate::http::{Problem, Request, Response};

#[link(wasm_import_module = "levada:handler/http-client@0.1.0")]
unsafe extern "C" {
    #[link_name = "send"]
    fn http_send(
        method: *const u8,
        method_len: usize,
        url: *const u8,
        url_len: usize,
        headers: *const [u32; 4],
        headers_len: usize,
        body: *const u8,
        body_len: usize,
        timeout_ms: u32,
        out: *mut [u32; 6],
    );
}

pub(crate) fn send(request: &Request) -> Result<Response, Problem> {
    let Request {
        method,
        url,
        headers,
        body,
        timeout,
    } = request;
    let pair = |(name, value): &(String, String)| {
        let [name, value] = [name.as_bytes(), value.as_bytes()];
        [
            super::address(name),
            super::length(name),
            super::address(value),
            super::length(value),
        ]
    };
    let pairs: Vec<[u32; 4]> = headers.iter().map(pair).collect();
    let mut out = [0; 6];
    // SAFETY: addresses and lengths of what lives until the call returns; the host writes a
    // `result<response, problem>` into `out`.
    unsafe {
        http_send(
            method.as_ptr(),
            method.len(),
            url.as_ptr(),
            url.len(),
            pairs.as_ptr(),
            pairs.len(),
            body.as_ptr(),
            body.len(),
            milliseconds(*timeout),
            &raw mut out,
        );
        lift(out)
    }
}

/// 0 leaves the timeout to the host, so that one below a millisecond is a millisecond.
fn milliseconds(timeout: Option<Duration>) -> u32 {
    timeout.map_or(0, |timeout| {
        u32::try_from(timeout.as_millis()).map_or(u32::MAX, |ms| ms.max(1))
    })
}

/// # Safety
/// `out` is what the host wrote for a call of `send`.
unsafe fn lift(out: [u32; 6]) -> Result<Response, Problem> {
    let [case, first, a, b, c, d] = out;
    // SAFETY: lists that the host lowered for this call: their addresses and lengths.
    unsafe {
        if case & 0xff == 0 {
            return Ok(Response {
                status: (first & 0xffff) as u16,
                headers: headers(a, b),
                body: Lowered::new(a_pointer(c), d as usize).to_vec(),
            });
        }
        Err(match first & 0xff {
            0 => Problem::Denied(text(a, b)),
            1 => Problem::Timeout,
            2 => Problem::Connect(text(a, b)),
            3 => Problem::TooLarge,
            _ => Problem::Protocol(text(a, b)),
        })
    }
}

fn a_pointer(address: u32) -> *mut u8 {
    address as *mut u8
}

/// # Safety
/// A string that the host lowered for this call.
unsafe fn text(address: u32, len: u32) -> String {
    // SAFETY: the caller's promise.
    let text = unsafe { Lowered::new(a_pointer(address), len as usize) };
    String::from_utf8_lossy(&text).into_owned()
}

/// # Safety
/// A list of pairs of strings that the host lowered for this call.
unsafe fn headers(address: u32, len: u32) -> Vec<(String, String)> {
    if len == 0 {
        return Vec::new();
    }
    let pairs = address as *mut [u32; 4];
    // SAFETY: the caller's promise; each pair is four words.
    let read = unsafe { slice::from_raw_parts(pairs, len as usize) };
    let read = read.iter().map(|&[name, name_len, value, value_len]| {
        // SAFETY: as above; each string is read once.
        unsafe { (text(name, name_len), text(value, value_len)) }
    });
    let read = read.collect();
    if let Ok(layout) = Layout::array::<[u32; 4]>(len as usize) {
        // SAFETY: from `cabi_realloc`, which takes the system's memory; not used any more.
        unsafe { System.dealloc(pairs.cast(), layout) }
    }
    read
}
