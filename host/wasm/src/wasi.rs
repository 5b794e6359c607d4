//! WASI 0.2 that is there and does nothing: what the run-time libraries of common languages ask
//! for at start, without giving them anything.
//!
//! No files, no environment, no sockets, no input. Output becomes log lines, the clock stands
//! still within a call, random numbers come from a seed, leaving the process is a trap. Functions
//! are defined from what the component itself imports, so that every 0.2.x is served alike; what
//! has no meaning here answers with its interface's own refusal, and traps where it has none.

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};
use wasmtime::{
    Engine, StoreContextMut,
    component::{
        Component, Linker, ResourceAny, ResourceDynamic, ResourceType, Type, Val,
        types::{ComponentFunc, ComponentItem},
    },
};

use crate::{
    event::Blob,
    guest::Guest,
    instance::Side,
    limits::{Limit, LimitReached},
};

/// Every resource of WASI 0.2; a resource's place in this list is its type.
const RESOURCES: [&str; 13] = [
    "error",
    "pollable",
    "input-stream",
    "output-stream",
    "descriptor",
    "directory-entry-stream",
    "network",
    "tcp-socket",
    "udp-socket",
    "incoming-datagram-stream",
    "outgoing-datagram-stream",
    "resolve-address-stream",
    "terminal-input",
];

/// Bytes an output stream takes at once.
const OUTPUT_ROOM: u64 = 64 << 10;

type Cx<'a> = StoreContextMut<'a, Guest>;

/// Defines what `component` imports of WASI.
pub(crate) fn link(
    linker: &mut Linker<Guest>,
    engine: &Engine,
    component: &Component,
    side: Side,
) -> wasmtime::Result<()> {
    let ty = component.component_type();
    for (name, import) in ty.imports(engine) {
        let ComponentItem::ComponentInstance(instance) = import.ty else {
            continue;
        };
        let Some(interface) = name.strip_prefix("wasi:").and_then(|n| n.split('@').next()) else {
            continue;
        };
        let mut target = linker.instance(name)?;
        for (item, export) in instance.exports(engine) {
            match export.ty {
                ComponentItem::Resource(_) => {
                    let ty = ResourceType::host_dynamic(resource_type(item));
                    target.resource(item, ty, |_, _| Ok(()))?;
                }
                ComponentItem::ComponentFunc(_) => {
                    let function: Arc<str> = format!("{interface}.{item}").into();
                    match side {
                        Side::Sync => target.func_new(item, move |cx, ty, params, results| {
                            call(cx, &function, &ty, params, results)
                        })?,
                        Side::Async => {
                            target.func_new_async(item, move |cx, ty, params, results| {
                                let function = Arc::clone(&function);
                                Box::new(async move {
                                    call_on_fiber(cx, &function, &ty, params, results).await
                                })
                            })?;
                        }
                    }
                }
                ComponentItem::CoreFunc(_)
                | ComponentItem::Module(_)
                | ComponentItem::Component(_)
                | ComponentItem::ComponentInstance(_)
                | ComponentItem::Type(_) => {}
            }
        }
    }
    Ok(())
}

fn resource_type(name: &str) -> u32 {
    let known = RESOURCES.iter().position(|known| *known == name);
    u32::try_from(known.unwrap_or(RESOURCES.len())).unwrap_or(u32::MAX)
}

/// One call of any function of WASI.
fn call(
    mut cx: Cx<'_>,
    function: &str,
    ty: &ComponentFunc,
    params: &[Val],
    results: &mut [Val],
) -> wasmtime::Result<()> {
    answer_into(&mut cx, function, ty, params, results)?;
    for handle in handles(params) {
        // An error means that the handle was given back before.
        let _gone = handle.resource_drop(&mut cx).is_ok();
    }
    Ok(())
}

/// The same inside a call that may wait.
async fn call_on_fiber(
    mut cx: Cx<'_>,
    function: &str,
    ty: &ComponentFunc,
    params: &[Val],
    results: &mut [Val],
) -> wasmtime::Result<()> {
    answer_into(&mut cx, function, ty, params, results)?;
    for handle in handles(params) {
        let _gone = handle.resource_drop_async(&mut cx).await.is_ok();
    }
    Ok(())
}

fn answer_into(
    cx: &mut Cx<'_>,
    function: &str,
    ty: &ComponentFunc,
    params: &[Val],
    results: &mut [Val],
) -> wasmtime::Result<()> {
    cx.data_mut().host_call()?;
    let answer = match answer(cx, function, params)? {
        Answer::Value(value) => Some(value),
        Answer::Nothing => None,
        Answer::Refused => Some(refusal(ty).ok_or_else(|| {
            wasmtime::Error::msg(format!("`wasi:{function}` is not available to handlers"))
        })?),
    };
    if let (Some(result), Some(value)) = (results.first_mut(), answer) {
        *result = value;
    }
    Ok(())
}

enum Answer {
    Value(Val),
    Nothing,
    /// As the interface itself says no.
    Refused,
}

impl From<Val> for Answer {
    fn from(value: Val) -> Self {
        Self::Value(value)
    }
}

fn answer(cx: &mut Cx<'_>, function: &str, params: &[Val]) -> wasmtime::Result<Answer> {
    let answer = match function {
        "cli/environment.get-environment"
        | "cli/environment.get-arguments"
        | "filesystem/preopens.get-directories" => Val::List(Vec::new()).into(),
        "cli/environment.initial-cwd"
        | "cli/terminal-stdin.get-terminal-stdin"
        | "cli/terminal-stdout.get-terminal-stdout"
        | "cli/terminal-stderr.get-terminal-stderr"
        | "filesystem/types.filesystem-error-code"
        | "filesystem/types.http-error-code" => Val::Option(None).into(),
        "cli/exit.exit" | "cli/exit.exit-with-code" => {
            return Err(wasmtime::Error::msg("the guest tried to leave the process"));
        }
        "cli/stdin.get-stdin" => new(cx, "input-stream", 0)?.into(),
        "cli/stdout.get-stdout" => new(cx, "output-stream", 0)?.into(),
        "cli/stderr.get-stderr" => new(cx, "output-stream", 1)?.into(),
        "sockets/instance-network.instance-network" => new(cx, "network", 0)?.into(),
        _ => match function.split_once('.') {
            Some((interface @ ("clocks/monotonic-clock" | "clocks/wall-clock"), name)) => {
                clock(cx, interface, name)?
            }
            Some(("io/poll", name)) => poll(name, params),
            Some(("io/streams", name)) => stream(cx, name, params)?,
            Some(("io/error", _)) => Val::String(String::new()).into(),
            Some(("random/random" | "random/insecure" | "random/insecure-seed", name)) => {
                random(cx, name, params)?
            }
            _ => Answer::Refused,
        },
    };
    Ok(answer)
}

/// A clock that stands still, unless a real one is granted: all of a call happens at the moment the
/// guest first asks. Waiting takes no time on either.
fn clock(cx: &mut Cx<'_>, interface: &str, name: &str) -> wasmtime::Result<Answer> {
    let datetime = |seconds, nanoseconds| {
        Answer::Value(Val::Record(vec![
            ("seconds".into(), Val::U64(seconds)),
            ("nanoseconds".into(), Val::U32(nanoseconds)),
        ]))
    };
    Ok(match (interface, name) {
        ("clocks/monotonic-clock", "now") => {
            let now = told(cx, "monotonic-clock.now", (), |guest| {
                Ok(monotonic_ns(guest))
            })?;
            Val::U64(now).into()
        }
        ("clocks/monotonic-clock", "resolution") => Val::U64(1_000_000).into(),
        (_, "now") => {
            let wall_ms = told(cx, "wall-clock.now", (), |guest| Ok(wall_ms(guest)))?;
            let millis = u32::try_from(wall_ms % 1000).unwrap_or(0);
            datetime(wall_ms / 1000, millis * 1_000_000)
        }
        (_, "resolution") => datetime(0, 1_000_000),
        (_, "subscribe-instant" | "subscribe-duration") => new(cx, "pollable", 0)?.into(),
        _ => Answer::Refused,
    })
}

fn wall_ms(guest: &mut Guest) -> u64 {
    match guest.shared.grants.wall_clock {
        true => guest.shared.clock.wall_ms(),
        false => guest.wall_ms(),
    }
}

fn monotonic_ns(guest: &mut Guest) -> u64 {
    match guest.shared.grants.wall_clock {
        true => u64::try_from(guest.shared.since.elapsed().as_nanos()).unwrap_or(u64::MAX),
        false => guest.wall_ms() * 1_000_000,
    }
}

/// What is not the same every time, unless the call is replayed.
fn told<W: Serialize, A: Serialize + DeserializeOwned>(
    cx: &mut Cx<'_>,
    ask: &str,
    with: W,
    work: impl FnOnce(&mut Guest) -> wasmtime::Result<A>,
) -> wasmtime::Result<A> {
    let guest = cx.data_mut();
    if let Some(known) = guest.known(ask, &with)? {
        return Ok(known);
    }
    let answer = work(guest)?;
    guest.answered(&answer);
    Ok(answer)
}

fn poll(name: &str, params: &[Val]) -> Answer {
    match name {
        "[method]pollable.ready" => Val::Bool(true).into(),
        "[method]pollable.block" => Answer::Nothing,
        // Everything is ready, since nothing ever will be more ready than now.
        "poll" => {
            let count = match params.first() {
                Some(Val::List(pollables)) => u32::try_from(pollables.len()).unwrap_or(u32::MAX),
                _ => 0,
            };
            Val::List((0..count).map(Val::U32).collect()).into()
        }
        _ => Answer::Refused,
    }
}

fn stream(cx: &mut Cx<'_>, name: &str, params: &[Val]) -> wasmtime::Result<Answer> {
    let closed = || {
        let closed = Val::Variant("closed".into(), None);
        Answer::Value(Val::Result(Err(Some(Box::new(closed)))))
    };
    let ok = |value: Option<Val>| Answer::Value(Val::Result(Ok(value.map(Box::new))));
    let Some((resource, method)) = name
        .strip_prefix("[method]")
        .and_then(|name| name.split_once('.'))
    else {
        return Ok(Answer::Refused);
    };
    Ok(match (resource, method) {
        (_, "subscribe") => new(cx, "pollable", 0)?.into(),
        ("output-stream", "check-write") => ok(Some(Val::U64(OUTPUT_ROOM))),
        ("output-stream", "write" | "blocking-write-and-flush") => {
            write(cx, params)?;
            ok(None)
        }
        (
            "output-stream",
            "flush" | "blocking-flush" | "write-zeroes" | "blocking-write-zeroes-and-flush",
        ) => ok(None),
        _ => closed(),
    })
}

/// Gives what a guest writes to the log.
fn write(cx: &mut Cx<'_>, params: &[Val]) -> wasmtime::Result<()> {
    let [Val::Resource(handle), Val::List(values)] = params else {
        return Ok(());
    };
    let bytes: Vec<u8> = values
        .iter()
        .filter_map(|value| {
            if let Val::U8(byte) = value {
                Some(*byte)
            } else {
                None
            }
        })
        .collect();
    let stream = ResourceDynamic::try_from_resource_any(*handle, &mut *cx)?.rep();
    cx.data_mut().output(usize::from(stream == 1), &bytes);
    Ok(())
}

fn random(cx: &mut Cx<'_>, name: &str, params: &[Val]) -> wasmtime::Result<Answer> {
    Ok(match name {
        "get-random-u64" | "get-insecure-random-u64" => {
            Val::U64(told(cx, "random.u64", (), |guest| bits(guest))?).into()
        }
        "insecure-seed" | "get-insecure-seed" => {
            let seed = told(cx, "random.seed", (), |guest| {
                Ok([bits(guest)?, bits(guest)?])
            })?;
            Val::Tuple(seed.map(Val::U64).into()).into()
        }
        "get-random-bytes" | "get-insecure-random-bytes" => {
            let Some(Val::U64(count)) = params.first() else {
                return Ok(Answer::Refused);
            };
            let Blob(bytes) = told(cx, "random.bytes", (*count,), |guest| {
                random_bytes(guest, *count)
            })?;
            Val::List(bytes.into_iter().map(Val::U8).collect()).into()
        }
        _ => Answer::Refused,
    })
}

fn random_bytes(guest: &mut Guest, count: u64) -> wasmtime::Result<Blob> {
    match guest.call.random_left.checked_sub(count) {
        Some(left) => guest.call.random_left = left,
        None => {
            let allowed = levada_core::ByteSize(guest.shared.limits.random);
            return Err(LimitReached::new(Limit::Random, allowed).into());
        }
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(count);
    while bytes.len() < count {
        let more = bits(guest)?.to_le_bytes();
        bytes.extend(more.into_iter().take(count - bytes.len()));
    }
    Ok(Blob(bytes))
}

/// 64 random bits: of the system if that is granted, else from the instance's seed.
fn bits(guest: &Guest) -> wasmtime::Result<u64> {
    if !guest.shared.grants.random {
        return Ok(guest.random.bits());
    }
    let id = guest.shared.chance.id()?;
    let (low, _) = id.split_at(8);
    Ok(u64::from_le_bytes(low.try_into().unwrap_or_default()))
}

/// A handle of the host's for the guest to own.
fn new(cx: &mut Cx<'_>, resource: &str, rep: u32) -> wasmtime::Result<Val> {
    let resource = ResourceDynamic::new_own(rep, resource_type(resource));
    Ok(Val::Resource(resource.try_into_resource_any(&mut *cx)?))
}

/// The handles that came with a call and are to be given back.
fn handles(params: &[Val]) -> Vec<ResourceAny> {
    let mut found = Vec::new();
    for param in params {
        match param {
            Val::Resource(handle) => found.push(*handle),
            Val::List(values) => found.extend(handles(values)),
            _ => {}
        }
    }
    found
}

/// The error that a function of this type says no with: the first of these words that it knows.
fn refusal(ty: &ComponentFunc) -> Option<Val> {
    let words = ["access-denied", "not-supported", "access", "unsupported"];
    let Type::Result(result) = ty.results().next()? else {
        return None;
    };
    let Type::Enum(error) = result.err()? else {
        return None;
    };
    let word = words
        .into_iter()
        .find(|word| error.names().any(|name| name == *word))?;
    Some(Val::Result(Err(Some(Box::new(Val::Enum(word.into()))))))
}
