//! The one set-up of wasmtime. Every choice here is deliberate and asserted by a test.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use levada_core::choice;
use wasmtime::{Config, Engine, Inlining, MemoryType, Store, WasmBacktraceDetails, WasmFeatures};

use crate::{Limits, OpenError, code_memory::SealedCode, limits::Limiter};

choice! {
    /// How much address space each linear memory reserves.
    pub enum MemoryReservation {
        /// 4 GiB, so that most accesses need no check.
        Full = "full",
        /// Little, with explicit checks: some 30 % slower, for machines with little address space.
        Small = "small",
    }
}

/// Bytes of the stack that wasm code may use.
pub(crate) const WASM_STACK: usize = 256 << 10;

/// Bytes of the stack that a call which may wait runs on: that of the wasm code, and what the host
/// needs where the guest calls it.
const FIBER_STACK: usize = 1 << 20;

/// Frames that a backtrace shows.
const BACKTRACE_FRAMES: std::num::NonZeroUsize = std::num::NonZeroUsize::new(50).expect("not 0");

/// Proposals that QuickJS, Python, Go and Rust need.
const ON: [WasmFeatures; 9] = [
    WasmFeatures::MUTABLE_GLOBAL,
    WasmFeatures::SATURATING_FLOAT_TO_INT,
    WasmFeatures::SIGN_EXTENSION,
    WasmFeatures::EXTENDED_CONST,
    WasmFeatures::MULTI_MEMORY,
    WasmFeatures::MULTI_VALUE,
    WasmFeatures::BULK_MEMORY,
    WasmFeatures::REFERENCE_TYPES,
    WasmFeatures::COMPONENT_MODEL,
];

/// Proposals that nobody needs yet: each is surface for an attacker.
const OFF: [WasmFeatures; 12] = [
    WasmFeatures::GC,
    WasmFeatures::GC_TYPES,
    WasmFeatures::FUNCTION_REFERENCES,
    WasmFeatures::EXCEPTIONS,
    WasmFeatures::LEGACY_EXCEPTIONS,
    WasmFeatures::TAIL_CALL,
    WasmFeatures::MEMORY64,
    WasmFeatures::THREADS,
    WasmFeatures::RELAXED_SIMD,
    WasmFeatures::CUSTOM_PAGE_SIZES,
    WasmFeatures::WIDE_ARITHMETIC,
    WasmFeatures::STACK_SWITCHING,
];

/// The engine's settings. Those that decide what machine code looks like are part of the
/// profile's hash, so a child process must use this very function.
pub(crate) fn config(reservation: MemoryReservation) -> Config {
    let mut config = Config::new();
    // One thing at a time in an instance: a call that waits does so on a fiber of its own.
    config.concurrency_support(false);
    config.epoch_interruption(true);
    config.max_wasm_stack(WASM_STACK);
    config.async_stack_size(FIBER_STACK);
    // What the tool chains of guests need, and nothing else. A test loads a module of each kind.
    for feature in ON {
        config.wasm_features(feature, true);
    }
    for feature in OFF {
        config.wasm_features(feature, false);
    }
    config.wasm_features(WasmFeatures::SIMD, cfg!(not(target_arch = "riscv64")));
    config.shared_memory(false);
    config.compiler_inlining(Inlining::No);
    config.wasm_backtrace_max_frames(Some(BACKTRACE_FRAMES));
    config.wasm_backtrace_details(WasmBacktraceDetails::Enable);
    config.native_unwind_info(false);
    config.with_custom_code_memory(Some(Arc::new(SealedCode)));
    match reservation {
        MemoryReservation::Full => {
            config.memory_reservation(4 << 30);
            config.memory_guard_size(32 << 20);
        }
        MemoryReservation::Small => {
            config.memory_reservation(0);
            config.memory_guard_size(64 << 10);
            config.memory_reservation_for_growth(1 << 20);
        }
    }
    config
}

/// Makes the engine and shows that one linear memory can be had.
pub(crate) fn open(reservation: MemoryReservation) -> Result<Engine, OpenError> {
    let engine =
        Engine::new(&config(reservation)).map_err(|error| OpenError::Engine(error.to_string()))?;
    let mut store = Store::new(&engine, Limiter::new(&Limits::default()));
    store.limiter(|limiter| limiter);
    if let Err(error) = wasmtime::Memory::new(&mut store, MemoryType::new(1, None)) {
        return Err(OpenError::AddressSpace {
            reservation: reservation.as_str(),
            error: format!("{error:#}"),
        });
    }
    Ok(engine)
}

/// What decides whether precompiled code fits this process: engine, target, profile.
pub(crate) fn profile(engine: &Engine) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    format!(
        "levada {} {target} {:016x}",
        env!("CARGO_PKG_VERSION"),
        hasher.finish()
    )
}

#[cfg(test)]
mod tests;
