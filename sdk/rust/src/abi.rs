//! The component's border: what bindings would generate, written by hand.
//!
//! By hand because a call then costs one function on each side: the batch is used where the host
//! lowered it, the answer is read from a buffer that lives until the next call, and nothing needs
//! to be called afterwards to release it. `world.bin` is the type of the world in binary form, as
//! `wit-component` encodes `wit/handler.wit`; a test compares the two.
//!
//! The layouts are those of the component model's canonical ABI for 32-bit memories.

#![expect(unsafe_code, reason = "lists cross the border as pointers and lengths")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    arch::wasm32,
    cell::UnsafeCell,
    ops::Deref,
    ptr, slice,
};

use crate::{Batch, Failure, Outcomes, Verdicts};

mod events;
pub(crate) mod http;
pub(crate) mod imports;
mod source;
mod timer;

pub use source::poll;
pub use timer::tick;

/// The type of the world `packed-interceptor-handler`, for the linker that makes the component. The
/// attribute puts it into the handler's own crate: there no linker leaves it out.
pub const WORLD: [u8; include_bytes!("abi/world.bin").len()] = *include_bytes!("abi/world.bin");

/// The type of the world `imports`, which goes with every other: what of it is not used is not
/// imported.
pub const IMPORTS: [u8; include_bytes!("abi/imports.bin").len()] =
    *include_bytes!("abi/imports.bin");

/// The type of the world `timer-handler`.
pub const TIMER: [u8; include_bytes!("abi/timer.bin").len()] = *include_bytes!("abi/timer.bin");

/// The type of the world `packed-sink-handler`.
pub const SINK: [u8; include_bytes!("abi/sink.bin").len()] = *include_bytes!("abi/sink.bin");

/// The type of the world `source-handler`.
pub const SOURCE: [u8; include_bytes!("abi/source.bin").len()] = *include_bytes!("abi/source.bin");

/// What lives from one call to the next.
struct Kept {
    verdicts: Verdicts,
    ticked: timer::Ticked,
    polled: source::Answer,
    outcomes: Outcomes,
    failure: Option<Failure>,
    result: [u32; 6],
    constructed: bool,
}

struct OneThread(UnsafeCell<Option<Kept>>);

// SAFETY: without the feature `atomics` a module of WebAssembly has one thread.
#[cfg(not(target_feature = "atomics"))]
unsafe impl Sync for OneThread {}

static KEPT: OneThread = OneThread(UnsafeCell::new(None));

/// Answers one call of `packed-interceptor.intercept`.
///
/// What is returned points to a `result<list<u8>, failure>`, valid until the next call.
///
/// # Safety
/// Only for the host, with two lists that were lowered for this call with `cabi_realloc`.
#[inline]
pub unsafe fn intercept(
    index: *mut u8,
    index_len: usize,
    events: *mut u8,
    events_len: usize,
    handler: impl FnOnce(&Batch<'_>, &mut Verdicts) -> Result<(), Failure>,
) -> *const u8 {
    // SAFETY: the caller's promise.
    let (index, events, kept) = unsafe { enter((index, index_len), (events, events_len)) };
    kept.verdicts.begin();
    kept.failure = Batch::parse(&index, &events)
        .and_then(|batch| handler(&batch, &mut kept.verdicts))
        .err();
    kept.result = lower(kept.failure.as_ref(), kept.verdicts.finish());
    kept.result.as_ptr().cast()
}

/// Answers one call of `packed-sink.deliver`, in the same way.
///
/// # Safety
/// Only for the host, with two lists that were lowered for this call with `cabi_realloc`.
#[inline]
pub unsafe fn deliver(
    index: *mut u8,
    index_len: usize,
    events: *mut u8,
    events_len: usize,
    handler: impl FnOnce(&Batch<'_>, &mut Outcomes) -> Result<(), Failure>,
) -> *const u8 {
    // SAFETY: the caller's promise.
    let (index, events, kept) = unsafe { enter((index, index_len), (events, events_len)) };
    kept.outcomes.begin();
    kept.failure = Batch::parse(&index, &events)
        .and_then(|batch| handler(&batch, &mut kept.outcomes))
        .err();
    kept.result = lower(kept.failure.as_ref(), kept.outcomes.finish());
    kept.result.as_ptr().cast()
}

/// Takes the two lists of a call, and what is kept.
///
/// # Safety
/// As for [`intercept`]; what was kept by an earlier call is not used any more.
unsafe fn enter(
    index: (*mut u8, usize),
    events: (*mut u8, usize),
) -> (Lowered, Lowered, &'static mut Kept) {
    // SAFETY: the caller's promise.
    let (index, events) = unsafe {
        (
            Lowered::new(index.0, index.1),
            Lowered::new(events.0, events.1),
        )
    };
    // SAFETY: as the function wants it.
    let kept = unsafe { kept() };
    (index, events, kept)
}

/// What lives from one call to the next, ready for a call.
///
/// # Safety
/// Only at the start of a call of the host's.
unsafe fn kept() -> &'static mut Kept {
    // SAFETY: there is one thread, the host never enters an instance twice, and a handler cannot
    // reach this function or `KEPT`. So this is the only reference.
    let kept = unsafe { &mut *KEPT.0.get() }.get_or_insert_with(Kept::new);
    kept.construct();
    kept
}

impl Kept {
    fn new() -> Self {
        Self {
            verdicts: Verdicts::default(),
            ticked: timer::Ticked::default(),
            polled: source::Answer::default(),
            outcomes: Outcomes::default(),
            failure: None,
            result: [0; 6],
            constructed: false,
        }
    }

    /// Runs the module's constructors once. Because this is here the linker leaves them to us; else
    /// it would wrap every export so that they run at every call.
    fn construct(&mut self) {
        unsafe extern "C" {
            fn __wasm_call_ctors();
        }
        if !self.constructed {
            self.constructed = true;
            // SAFETY: made by the linker, without arguments, called once.
            unsafe { __wasm_call_ctors() };
        }
    }
}

/// The result as the canonical ABI wants it: a `u8` that says which case, then its payload.
/// Everything is aligned to 4, and the bytes between are free.
fn lower(failure: Option<&Failure>, answer: &[u8]) -> [u32; 6] {
    match failure {
        None => [0, address(answer), length(answer), 0, 0, 0],
        Some(failure) => lower_failure(failure),
    }
}

/// The result of a call that failed.
fn lower_failure(failure: &Failure) -> [u32; 6] {
    match failure {
        Failure::Retry { reason, after } => {
            let after = after.map(|wait| u32::try_from(wait.as_millis()).unwrap_or(u32::MAX));
            let reason = reason.as_bytes();
            let given = u32::from(after.is_some());
            let after = after.unwrap_or(0);
            [1, 0, address(reason), length(reason), given, after]
        }
        Failure::Fatal(reason) => {
            let reason = reason.as_bytes();
            [1, 1, address(reason), length(reason), 0, 0]
        }
    }
}

/// Gives the host memory for what it lowers: arguments of a call, results of imports.
///
/// The system's memory and never the arena's: the C library lets the host lower lists for itself,
/// through this same function, and releases them with `free`.
///
/// # Safety
/// Only for the host; as the canonical ABI says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cabi_realloc(
    old: *mut u8,
    old_size: usize,
    align: usize,
    size: usize,
) -> *mut u8 {
    let Ok(layout) = Layout::from_size_align(old_size.max(size), align) else {
        wasm32::unreachable()
    };
    if size == 0 {
        return ptr::without_provenance_mut(align);
    }
    // SAFETY: the size is not zero; `old` came from here with `old_size` and this alignment.
    let given = unsafe {
        if old_size == 0 {
            System.alloc(layout)
        } else {
            let old_layout = Layout::from_size_align_unchecked(old_size, align);
            System.realloc(old, old_layout, size)
        }
    };
    if given.is_null() {
        wasm32::unreachable();
    }
    given
}

/// A list that the host lowered, in memory from [`cabi_realloc`]; so it goes back to the system's
/// allocator, whatever the global one is.
pub(crate) struct Lowered {
    at: *mut u8,
    len: usize,
    align: usize,
}

impl Lowered {
    /// # Safety
    /// `at` is a list of `len` bytes that was lowered with `cabi_realloc` and is ours.
    pub(crate) unsafe fn new(at: *mut u8, len: usize) -> Self {
        let align = 1;
        Self { at, len, align }
    }

    /// A list of what is made of 32-bit words.
    ///
    /// # Safety
    /// As [`new`](Self::new), with `len` the bytes of all elements.
    pub(crate) unsafe fn words(at: *mut u8, len: usize) -> Self {
        let align = 4;
        Self { at, len, align }
    }
}

impl Deref for Lowered {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: promised when it was made; nobody writes to it.
        unsafe { slice::from_raw_parts(self.at, self.len) }
    }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        if self.len > 0
            && let Ok(layout) = Layout::from_size_align(self.len, self.align)
        {
            // SAFETY: promised when it was made; it was not released before.
            unsafe { System.dealloc(self.at, layout) }
        }
    }
}

/// An address in the module's memory.
fn address(bytes: &[u8]) -> u32 {
    bytes.as_ptr().addr() as u32
}

/// A length in the module's memory.
fn length(bytes: &[u8]) -> u32 {
    bytes.len() as u32
}
