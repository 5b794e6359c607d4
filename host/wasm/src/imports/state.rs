//! `state`: what a handler keeps from one batch to the next.

use wasmtime::component::Linker;

use super::{Cx, VERSION, enter};
use crate::{guest::Guest, state::Session};

/// Counts the call and lends the state.
fn session<'a>(cx: &'a mut Cx<'_>) -> wasmtime::Result<&'a mut Session> {
    let session = enter(cx)?.state.as_deref_mut();
    session.ok_or_else(|| wasmtime::Error::msg("there is no state outside of a call"))
}

type Write = (String, Vec<u8>, Option<u32>);
type Add = (String, f64, Option<u32>);
type List = (String, Option<String>, u32);

/// Adds it to a linker.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut state = linker.instance(&format!("levada:handler/state@{VERSION}"))?;
    state.func_wrap("get", |mut cx: Cx<'_>, (key,): (String,)| {
        let value = session(&mut cx)?.get(&key);
        Ok((value.map(|bytes| bytes.to_vec()),))
    })?;
    state.func_wrap("set", |mut cx: Cx<'_>, (key, value, ttl_s): Write| {
        Ok((session(&mut cx)?.set(key, value, ttl_s),))
    })?;
    state.func_wrap("remove", |mut cx: Cx<'_>, (key,): (String,)| {
        session(&mut cx)?.remove(key);
        Ok(())
    })?;
    state.func_wrap("increment", |mut cx: Cx<'_>, (key, by, ttl_s): Add| {
        Ok((session(&mut cx)?.increment(key, by, ttl_s),))
    })?;
    state.func_wrap("keys", |mut cx: Cx<'_>, (prefix, after, limit): List| {
        let keys = session(&mut cx)?.keys(&prefix, after.as_deref(), limit);
        Ok((keys,))
    })
}
