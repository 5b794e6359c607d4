//! Hostile components, one or more for every row of the fault catalogue that a guest can cause:
//! small, built from the texts in `zoo/`, and shipped, so that operators can let them loose on
//! their own build.
//!
//! Each is a packed interceptor that passes every event, but for those whose body begins with `P`:
//! there it does what it is here for. Some do it when they are loaded.

use std::borrow::Cow;

/// A hostile component.
#[derive(Debug, Clone, Copy)]
pub struct Animal {
    /// The row of the fault catalogue, such as `F62`.
    pub row: &'static str,
    pub name: &'static str,
    /// What it tries, in words that follow on its name.
    pub tries: &'static str,
    /// How it must end.
    pub ends: Ends,
    /// What it must be granted to get as far as that: a key under `grants`, or nothing.
    pub granted: &'static str,
    /// How many calls show it.
    pub calls: u32,
    pub component: fn() -> Cow<'static, [u8]>,
}

/// How an animal must end, each with words that must be said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// It is not loaded; the words are in the reason.
    Refused(&'static str),
    /// The call ends at this limit.
    Limit(&'static str),
    /// The call traps; the words are in the reason.
    Trap(&'static str),
    /// The answer is void; the words are in the reason.
    Contract(&'static str),
    /// The event goes on as it was; what is said is a metric that is not 0 then, and a label of it.
    Harmless(&'static str),
}

/// All of them, by their rows.
pub fn animals() -> impl Iterator<Item = &'static Animal> {
    TEXTS.iter().chain([&BOMB])
}

/// Those that are built from texts.
const TEXTS: &[Animal] = include!(concat!(env!("OUT_DIR"), "/animals.rs"));

/// What an event's body begins with to be misdone by.
pub const POISON: &str = "P";

/// The neighbour of all of them, which passes every event.
pub const HARMLESS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/harmless.wasm"));

/// Fills its memory, for each poisoned event, with what no other handler must ever see (F75).
pub const CANARY_PLANT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/canary-plant.wasm"));

/// Traps, for each poisoned event, if memory that is new to it is not empty (F75).
pub const CANARY_SEEK: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/canary-seek.wasm"));

const BOMB: Animal = Animal {
    row: "F76",
    name: "compile-bomb",
    tries: "takes minutes to compile",
    ends: Ends::Refused("compiling took more than"),
    granted: "",
    calls: 0,
    component: || Cow::Owned(compile_bomb(100_000)),
};

/// A component that takes longer and longer to compile: one function of so many small `if`s (F76).
/// 100,000 of them are 1.2 MB, and minutes of work.
fn compile_bomb(ifs: usize) -> Vec<u8> {
    // local 1 += 1 if local 0, over and over: every `if` joins two values of the local.
    const IF: [u8; 12] = [0x20, 0, 0x04, 0x40, 0x20, 1, 0x41, 1, 0x6a, 0x21, 1, 0x0b];
    // One function from i32 to nothing, with one local beside its parameter.
    const TYPES: [u8; 5] = [1, 0x60, 1, 0x7f, 0];
    let mut body = vec![1, 1, 0x7f];
    body.extend(IF.repeat(ifs));
    body.push(0x0b);
    let mut code = vec![1];
    sized(&mut code, &body);
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    for (id, section) in [(1, &TYPES[..]), (3, &[1, 0]), (10, &code)] {
        module.push(id);
        sized(&mut module, section);
    }
    // A core module that nobody instantiates is compiled all the same.
    let mut component = HARMLESS.to_vec();
    component.push(1);
    sized(&mut component, &module);
    component
}

/// Appends bytes behind their number as an unsigned LEB128.
fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes.len();
    while rest >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "seven bits")]
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 128")]
    out.push(rest as u8);
    out.extend_from_slice(bytes);
}
