//! What every handler may call: the interfaces of `levada:handler` that need no grant.

mod lookup;
mod state;

use wasmtime::{
    StoreContextMut,
    component::{ComponentType, Lift, Linker},
};

use crate::guest::Guest;

/// The version that is linked; the linker gives it to every 0.1.
pub(crate) const VERSION: &str = "0.1.0";

/// `logging.level`
#[derive(Debug, Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "lifting makes them from their numbers")]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

impl From<Level> for tracing::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Trace => Self::TRACE,
            Level::Debug => Self::DEBUG,
            Level::Info => Self::INFO,
            Level::Warn => Self::WARN,
            Level::Error => Self::ERROR,
        }
    }
}

type Cx<'a> = StoreContextMut<'a, Guest>;

/// Counts the call and lends what the host knows.
fn enter<'a>(cx: &'a mut Cx<'_>) -> wasmtime::Result<&'a mut Guest> {
    let guest = cx.data_mut();
    guest.host_call()?;
    Ok(guest)
}

/// Adds all of them to a linker.
pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    link_call(linker)?;
    lookup::link(linker)?;
    state::link(linker)?;
    let mut logging = linker.instance(&format!("levada:handler/logging@{VERSION}"))?;
    logging.func_wrap(
        "write",
        |mut cx: Cx<'_>, (level, message): (Level, String)| {
            enter(&mut cx)?.log(level.into(), &message);
            Ok(())
        },
    )?;
    let mut settings = linker.instance(&format!("levada:handler/settings@{VERSION}"))?;
    settings.func_wrap("get", |mut cx: Cx<'_>, (key,): (String,)| {
        Ok((enter(&mut cx)?.shared.settings.values.get(&key).cloned(),))
    })?;
    settings.func_wrap("all", |mut cx: Cx<'_>, (): ()| {
        Ok((enter(&mut cx)?.shared.settings.all.clone(),))
    })?;
    let mut text = linker.instance(&format!("levada:handler/text@{VERSION}"))?;
    text.func_wrap("decode", |mut cx: Cx<'_>, (bytes,): (Vec<u8>,)| {
        enter(&mut cx)?;
        Ok((String::from_utf8(bytes).ok(),))
    })?;
    text.func_wrap("encode", |mut cx: Cx<'_>, (text,): (String,)| {
        enter(&mut cx)?;
        Ok((text.into_bytes(),))
    })?;
    let mut metrics = linker.instance(&format!("levada:handler/metrics@{VERSION}"))?;
    metrics.func_wrap("add", |mut cx: Cx<'_>, (name, amount): (String, f64)| {
        enter(&mut cx)?.shared.numbers.add(&name, amount);
        Ok(())
    })?;
    metrics.func_wrap("set", |mut cx: Cx<'_>, (name, value): (String, f64)| {
        enter(&mut cx)?.shared.numbers.set(&name, value);
        Ok(())
    })
}

fn link_call(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut call = linker.instance(&format!("levada:handler/call@{VERSION}"))?;
    call.func_wrap("component", |mut cx: Cx<'_>, (): ()| {
        Ok((enter(&mut cx)?.component(),))
    })?;
    call.func_wrap("handler", |mut cx: Cx<'_>, (): ()| {
        Ok((enter(&mut cx)?.shared.name.clone(),))
    })?;
    call.func_wrap("attempt", |mut cx: Cx<'_>, (): ()| {
        Ok((enter(&mut cx)?.call.attempt,))
    })?;
    call.func_wrap("batch-key", |mut cx: Cx<'_>, (): ()| {
        Ok((enter(&mut cx)?.batch_key(),))
    })?;
    call.func_wrap("received-ms", |mut cx: Cx<'_>, (): ()| {
        #[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
        Ok((enter(&mut cx)?.call.received_ms as f64,))
    })?;
    call.func_wrap("remaining-ms", |mut cx: Cx<'_>, (): ()| {
        Ok((enter(&mut cx)?.remaining_ms(),))
    })
}
