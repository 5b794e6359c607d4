//! Misbehaves on demand: the setting `mode` says how, and if the setting `poison` is there, only a
//! batch with an event whose body contains that text is treated so. All else passes.
//!
//! The modes are the names in `misdeed` and in `lies::answer`. Without the SDK, which would not let
//! it lie.

#![expect(unsafe_code, reason = "the bindings are generated")]

mod lies;
mod raw;

wit_bindgen::generate!({
    path: "../../../wit",
    world: "packed-interceptor-handler",
});

use exports::levada::handler::packed_interceptor::{Failure, Guest};
use levada::handler::{call, logging, metrics, settings, types::Later};

struct Hostile;

impl Guest for Hostile {
    fn intercept(index: Vec<u8>, events: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let bodies = bodies(&index, &events);
        let count = bodies.len() as u32;
        let mode = settings::get("mode").unwrap_or_default();
        let poisoned = settings::get("poison").is_none_or(|poison| {
            let poison = poison.as_bytes();
            let found = |body: &&[u8]| body.windows(poison.len().max(1)).any(|part| part == poison);
            bodies.iter().any(found)
        });
        if !poisoned {
            return Ok(lies::passing(count));
        }
        misdeed(&mode)?;
        Ok(lies::answer(&mode, count))
    }
}

/// What is done instead of an answer. Some of these come back, and then an answer is given.
fn misdeed(mode: &str) -> Result<(), Failure> {
    match mode {
        "loop" => loop {
            std::hint::black_box(0);
        },
        "grow" => grow(),
        "overflow" => {
            std::hint::black_box(overflow(1));
        }
        "panic" => panic!("asked to"),
        "divide" => {
            std::hint::black_box(1 / std::hint::black_box(0));
        }
        "index" => {
            let empty: &[u8] = std::hint::black_box(&[]);
            std::hint::black_box(empty[7]);
        }
        "unreachable" => raw::unreachable(),
        "out-of-bounds" => raw::read_beyond_memory(),
        "exit" => std::process::exit(3),
        "log-flood" => (0..1_000_000).for_each(|n| {
            logging::write(logging::Level::Info, &format!("line {n}\nwith a break"));
        }),
        "log-line" => logging::write(logging::Level::Warn, &"x".repeat(8 << 20)),
        "print-flood" => (0..100_000).for_each(|n| println!("line {n}")),
        "call-flood" => loop {
            std::hint::black_box(call::attempt());
        },
        "metric-flood" => (0..10_000).for_each(|n| metrics::add(&format!("name-{n}"), 1.0)),
        "metric-names" => {
            metrics::add("with space", 1.0);
            metrics::add("", 1.0);
            metrics::add("below", -1.0);
            metrics::set("none", f64::NAN);
        }
        "look-around" => look_around(),
        "retry" => {
            return Err(Failure::Retry(Later {
                reason: "asked to".to_owned(),
                after_ms: Some(250),
            }));
        }
        "fatal" => return Err(Failure::Fatal("asked to".to_owned())),
        _ => {}
    }
    Ok(())
}

/// Takes memory until there is none.
fn grow() {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    loop {
        taken.push(vec![1; 1 << 20]);
        std::hint::black_box(&taken);
    }
}

/// Calls itself until the stack ends.
#[expect(unconditional_recursion, reason = "the host must end it")]
fn overflow(depth: u64) -> u64 {
    let here = std::hint::black_box([depth; 32]);
    overflow(depth + 1) + here[31]
}

/// Logs what of the machine can be seen: there must be nothing.
fn look_around() {
    let seen = [
        ("arguments", std::env::args().count()),
        ("variables", std::env::vars().count()),
        ("root", std::fs::read_dir("/").map_or(0, Iterator::count)),
        (
            "passwords",
            std::fs::read("/etc/passwd").map_or(0, |file| file.len()),
        ),
    ];
    for (what, number) in seen {
        logging::write(logging::Level::Info, &format!("{what} {number}"));
    }
}

/// The bodies of the events, read from the index.
fn bodies<'a>(index: &[u8], events: &'a [u8]) -> Vec<&'a [u8]> {
    let word = |record: &[u8], at: usize| {
        record
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u32::from_le_bytes) as usize
    };
    let stride = word(index, 0) >> 16;
    index
        .get(8..)
        .unwrap_or_default()
        .chunks(stride.max(1))
        .map(|record| {
            let body = word(record, 8);
            events
                .get(body..body + word(record, 12))
                .unwrap_or_default()
        })
        .collect()
}

export!(Hostile);
