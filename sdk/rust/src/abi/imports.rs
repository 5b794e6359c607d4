//! What the host offers, as raw imports.

mod granted;

pub(crate) use granted::*;

use super::Lowered;

#[link(wasm_import_module = "levada:handler/call@0.1.0")]
unsafe extern "C" {
    #[link_name = "component"]
    fn call_component(out: *mut [u32; 3]);
    #[link_name = "handler"]
    fn call_handler(out: *mut [u32; 3]);
    #[link_name = "attempt"]
    safe fn call_attempt() -> u32;
    #[link_name = "batch-key"]
    fn call_batch_key(out: *mut [u32; 3]);
    #[link_name = "received-ms"]
    safe fn call_received_ms() -> f64;
    #[link_name = "remaining-ms"]
    safe fn call_remaining_ms() -> u32;
}

#[link(wasm_import_module = "levada:handler/logging@0.1.0")]
unsafe extern "C" {
    #[link_name = "write"]
    fn logging_write(level: u32, message: *const u8, len: usize);
}

#[link(wasm_import_module = "levada:handler/settings@0.1.0")]
unsafe extern "C" {
    #[link_name = "get"]
    fn settings_get(key: *const u8, len: usize, out: *mut [u32; 3]);
    #[link_name = "all"]
    fn settings_all(out: *mut [u32; 3]);
}

#[link(wasm_import_module = "levada:handler/text@0.1.0")]
unsafe extern "C" {
    #[link_name = "decode"]
    fn text_decode(bytes: *const u8, len: usize, out: *mut [u32; 3]);
    #[link_name = "encode"]
    fn text_encode(text: *const u8, len: usize, out: *mut [u32; 3]);
}

#[link(wasm_import_module = "levada:handler/metrics@0.1.0")]
unsafe extern "C" {
    #[link_name = "add"]
    fn metrics_add(name: *const u8, len: usize, amount: f64);
    #[link_name = "set"]
    fn metrics_set(name: *const u8, len: usize, value: f64);
}

pub(crate) fn component() -> String {
    // SAFETY: the function writes a list into `out`.
    string(|out| unsafe { call_component(out) })
}

pub(crate) fn handler() -> String {
    // SAFETY: the function writes a list into `out`.
    string(|out| unsafe { call_handler(out) })
}

pub(crate) fn attempt() -> u32 {
    call_attempt()
}

pub(crate) fn batch_key() -> String {
    // SAFETY: the function writes a list into `out`.
    string(|out| unsafe { call_batch_key(out) })
}

pub(crate) fn received_ms() -> f64 {
    call_received_ms()
}

pub(crate) fn remaining_ms() -> u32 {
    call_remaining_ms()
}

pub(crate) fn write_log(level: u8, message: &str) {
    // SAFETY: pointer and length of a string that lives until the call returns.
    unsafe { logging_write(level.into(), message.as_ptr(), message.len()) }
}

pub(crate) fn setting(key: &str) -> Option<String> {
    // SAFETY: pointer and length of a string that lives until the call returns; the function
    // writes an optional list into `out`.
    optional_string(|out| unsafe { settings_get(key.as_ptr(), key.len(), out) })
}

pub(crate) fn all_settings() -> String {
    // SAFETY: the function writes a list into `out`.
    string(|out| unsafe { settings_all(out) })
}

pub(crate) fn decode(bytes: &[u8]) -> Option<String> {
    // SAFETY: pointer and length of bytes that live until the call returns; the function writes an
    // optional list into `out`.
    optional_string(|out| unsafe { text_decode(bytes.as_ptr(), bytes.len(), out) })
}

pub(crate) fn encode(text: &str) -> Vec<u8> {
    // SAFETY: pointer and length of a string that lives until the call returns; the function
    // writes a list into `out`.
    list(|out| unsafe { text_encode(text.as_ptr(), text.len(), out) }).to_vec()
}

pub(crate) fn add_metric(name: &str, amount: f64) {
    // SAFETY: pointer and length of a string that lives until the call returns.
    unsafe { metrics_add(name.as_ptr(), name.len(), amount) }
}

pub(crate) fn set_metric(name: &str, value: f64) {
    // SAFETY: pointer and length of a string that lives until the call returns.
    unsafe { metrics_set(name.as_ptr(), name.len(), value) }
}

/// Calls an import that returns a list.
fn list(call: impl FnOnce(*mut [u32; 3])) -> Lowered {
    let mut out = [0; 3];
    call(&raw mut out);
    // SAFETY: the host lowered a list for this call: its address and its length.
    unsafe { Lowered::new(out[0] as *mut u8, out[1] as usize) }
}

/// Calls an import that returns a string; the host guarantees UTF-8.
fn string(call: impl FnOnce(*mut [u32; 3])) -> String {
    String::from_utf8_lossy(&list(call)).into_owned()
}

/// Calls an import that returns an optional string.
fn optional_string(call: impl FnOnce(*mut [u32; 3])) -> Option<String> {
    let list = optional_list(call)?;
    Some(String::from_utf8_lossy(&list).into_owned())
}

/// Calls an import that returns an optional list.
fn optional_list(call: impl FnOnce(*mut [u32; 3])) -> Option<Lowered> {
    let mut out = [0; 3];
    call(&raw mut out);
    // The first byte says whether there is one; the others of its word are free.
    if out[0] & 0xff == 0 {
        return None;
    }
    // SAFETY: the host lowered a list for this call: its address and its length.
    Some(unsafe { Lowered::new(out[1] as *mut u8, out[2] as usize) })
}
