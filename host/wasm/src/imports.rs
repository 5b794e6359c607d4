//! What every handler may call: the interfaces of `levada:handler` that need no grant.

mod lookup;
mod state;

use serde::{Serialize, de::DeserializeOwned};
use wasmtime::{
    StoreContextMut,
    component::{ComponentType, Lift, Linker},
};

use crate::guest::Guest;

/// The version that is linked; the linker gives it to every 0.1.
pub(crate) const VERSION: &str = "0.1.0";

/// `logging.level`
#[derive(Debug, Clone, Copy, ComponentType, Lift, Serialize)]
#[component(enum)]
#[serde(rename_all = "kebab-case")]
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

/// Answers a question: as it was answered before where the call is replayed.
fn answer<W: Serialize, A: Serialize + DeserializeOwned>(
    cx: &mut Cx<'_>,
    ask: &str,
    with: W,
    work: impl FnOnce(&mut Guest, W) -> wasmtime::Result<A>,
) -> wasmtime::Result<A> {
    let guest = enter(cx)?;
    if let Some(known) = guest.known(ask, &with)? {
        return Ok(known);
    }
    let answer = work(guest, with)?;
    guest.answered(&answer);
    Ok(answer)
}

/// Takes what a guest has to say; also when the call is replayed.
fn hear<W: Serialize>(
    cx: &mut Cx<'_>,
    say: &str,
    with: W,
    work: impl FnOnce(&mut Guest, W),
) -> wasmtime::Result<()> {
    let guest = enter(cx)?;
    let _said_before: Option<()> = guest.known(say, &with)?;
    work(guest, with);
    guest.answered(&());
    Ok(())
}

/// Adds all of them to a linker.
pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    link_call(linker)?;
    lookup::link(linker)?;
    state::link(linker)?;
    let mut logging = linker.instance(&format!("levada:handler/logging@{VERSION}"))?;
    logging.func_wrap("write", |mut cx: Cx<'_>, with: (Level, String)| {
        hear(&mut cx, "logging.write", with, |guest, (level, message)| {
            guest.log(level.into(), &message);
        })
    })?;
    let mut settings = linker.instance(&format!("levada:handler/settings@{VERSION}"))?;
    settings.func_wrap("get", |mut cx: Cx<'_>, key: (String,)| {
        let value = |guest: &mut Guest, (key,): (String,)| {
            Ok(guest.shared.settings.values.get(&key).cloned())
        };
        Ok((answer(&mut cx, "settings.get", key, value)?,))
    })?;
    settings.func_wrap("all", |mut cx: Cx<'_>, (): ()| {
        let all = |guest: &mut Guest, ()| Ok(guest.shared.settings.all.clone());
        Ok((answer(&mut cx, "settings.all", (), all)?,))
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
    metrics.func_wrap("add", |mut cx: Cx<'_>, with: (String, f64)| {
        hear(
            &mut cx,
            "metrics.add",
            exact(with),
            |guest, (name, amount)| {
                guest.shared.numbers.add(&name, amount.0);
            },
        )
    })?;
    metrics.func_wrap("set", |mut cx: Cx<'_>, with: (String, f64)| {
        hear(
            &mut cx,
            "metrics.set",
            exact(with),
            |guest, (name, value)| {
                guest.shared.numbers.set(&name, value.0);
            },
        )
    })
}

fn exact<T>((of, number): (T, f64)) -> (T, Number) {
    (of, Number(number))
}

/// A number that is written as text, so that it is the same number when it is read.
#[derive(Debug, Clone, Copy)]
struct Number(f64);

impl Serialize for Number {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

fn link_call(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut call = linker.instance(&format!("levada:handler/call@{VERSION}"))?;
    call.func_wrap("component", |mut cx: Cx<'_>, (): ()| {
        let part = |guest: &mut Guest, ()| Ok(guest.component());
        Ok((answer(&mut cx, "call.component", (), part)?,))
    })?;
    call.func_wrap("handler", |mut cx: Cx<'_>, (): ()| {
        let name = |guest: &mut Guest, ()| Ok(guest.shared.name.clone());
        Ok((answer(&mut cx, "call.handler", (), name)?,))
    })?;
    call.func_wrap("attempt", |mut cx: Cx<'_>, (): ()| {
        let attempt = |guest: &mut Guest, ()| Ok(guest.call.attempt);
        Ok((answer(&mut cx, "call.attempt", (), attempt)?,))
    })?;
    call.func_wrap("batch-key", |mut cx: Cx<'_>, (): ()| {
        let key = |guest: &mut Guest, ()| Ok(guest.batch_key());
        Ok((answer(&mut cx, "call.batch-key", (), key)?,))
    })?;
    call.func_wrap("received-ms", |mut cx: Cx<'_>, (): ()| {
        let received = |guest: &mut Guest, ()| Ok(guest.call.received_ms);
        let received = answer(&mut cx, "call.received-ms", (), received)?;
        #[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
        Ok((received as f64,))
    })?;
    call.func_wrap("remaining-ms", |mut cx: Cx<'_>, (): ()| {
        let left = |guest: &mut Guest, ()| Ok(guest.remaining_ms());
        Ok((answer(&mut cx, "call.remaining-ms", (), left)?,))
    })
}
