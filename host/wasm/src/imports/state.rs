//! `state`: what a handler keeps from one batch to the next.

use wasmtime::component::Linker;

use super::{Cx, Number, VERSION, answer};
use crate::{event::Blob, guest::Guest, state::Session};

/// Lends the state.
fn session(guest: &mut Guest) -> wasmtime::Result<&mut Session> {
    let session = guest.state.as_deref_mut();
    session.ok_or_else(|| wasmtime::Error::msg("there is no state outside of a call"))
}

type Write = (String, Vec<u8>, Option<u32>);
type Add = (String, f64, Option<u32>);
type List = (String, Option<String>, u32);

/// Adds it to a linker.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut state = linker.instance(&format!("levada:handler/state@{VERSION}"))?;
    state.func_wrap("get", |mut cx: Cx<'_>, key: (String,)| {
        let value = answer(&mut cx, "state.get", key, |guest, (key,)| {
            let value = session(guest)?.get(&key);
            Ok(value.map(|bytes| Blob(bytes.to_vec())))
        })?;
        Ok((value.map(|Blob(bytes)| bytes),))
    })?;
    state.func_wrap("set", |mut cx: Cx<'_>, (key, value, ttl_s): Write| {
        let with = (key, Blob(value), ttl_s);
        Ok((answer(&mut cx, "state.set", with, |guest, with| {
            let (key, Blob(value), ttl_s) = with;
            Ok(session(guest)?.set(key, value, ttl_s))
        })?,))
    })?;
    state.func_wrap("remove", |mut cx: Cx<'_>, key: (String,)| {
        answer(&mut cx, "state.remove", key, |guest, (key,)| {
            session(guest)?.remove(key);
            Ok(())
        })
    })?;
    state.func_wrap("increment", |mut cx: Cx<'_>, (key, by, ttl_s): Add| {
        let with = (key, Number(by), ttl_s);
        let sum = answer(
            &mut cx,
            "state.increment",
            with,
            |guest, (key, by, ttl_s)| Ok(session(guest)?.increment(key, by.0, ttl_s).map(Number)),
        )?;
        Ok((sum.map(|Number(sum)| sum),))
    })?;
    state.func_wrap("keys", |mut cx: Cx<'_>, with: List| {
        Ok((answer(&mut cx, "state.keys", with, |guest, with| {
            let (prefix, after, limit) = with;
            Ok(session(guest)?.keys(&prefix, after.as_deref(), limit))
        })?,))
    })
}
