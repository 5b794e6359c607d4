//! An allocator for many short-lived values.
//!
//! Handling an event makes many small values and drops them again before the next one. Here such a
//! value costs a few additions: memory is handed out in a row from a chunk of 64 KiB, and a chunk
//! is empty again when as many values were dropped as were made in it. After a call that kept
//! nothing, all of it is free, without a list of holes having been walked.
//!
//! What outlives a call stays valid: it keeps its chunk, and values that come later go behind it or
//! into other chunks. When all chunks are kept, and for values above 8 KiB, the system's allocator
//! serves instead. So a handler that caches much is slower, never wrong, and the arena holds one
//! MiB and no more.

#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fmt, ptr,
};

/// Bytes of a chunk.
const CHUNK: usize = 64 * 1024;

/// Number of chunks.
const CHUNKS: usize = 16;

/// Larger values are left to the system: copying them costs more than finding room for them.
const LARGEST: usize = 8 * 1024;

/// The alignment of the region; values with a larger one are left to the system.
const ALIGN: usize = 16;

/// Every chunk's bit in `free`.
const ALL_FREE: u32 = (1 << CHUNKS) - 1;

/// The arena of a component that uses this crate.
#[cfg(all(target_arch = "wasm32", feature = "arena"))]
#[global_allocator]
static ARENA: Arena = Arena::new();

// SAFETY: without the feature `atomics` a module of WebAssembly has one thread, so nothing is ever
// shared between two.
#[cfg(all(target_arch = "wasm32", not(target_feature = "atomics")))]
unsafe impl Sync for Arena {}

/// An allocator for many short-lived values; see the module.
///
/// Invariants: the region is `len` bytes from `base`, or nothing was reserved and `len` is 0.
/// `live[c]` is the number of values in chunk `c` that were handed out and not given back. Every
/// such value of the current chunk lies before `next`. A bit in `free` stands for a chunk without
/// values that is not the current one.
pub struct Arena {
    base: Cell<*mut u8>,
    len: Cell<usize>,
    /// Offset of the first byte in the current chunk that is not handed out.
    next: Cell<usize>,
    /// Offset of the current chunk's end; 0 before there is one.
    end: Cell<usize>,
    free: Cell<u32>,
    live: [Cell<u32>; CHUNKS],
}

impl Arena {
    /// An arena that has reserved nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            base: Cell::new(ptr::null_mut()),
            len: Cell::new(0),
            next: Cell::new(0),
            end: Cell::new(0),
            free: Cell::new(ALL_FREE),
            live: [const { Cell::new(0) }; CHUNKS],
        }
    }

    /// The number of chunks that hold values.
    #[must_use]
    pub fn chunks_in_use(&self) -> usize {
        self.live.iter().filter(|live| live.get() > 0).count()
    }

    /// Room in the current chunk or, if that is full, in another one.
    #[inline]
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        if layout.size() > LARGEST || layout.align() > ALIGN {
            return None;
        }
        loop {
            let start = self.next.get().next_multiple_of(layout.align());
            if start + layout.size() <= self.end.get() {
                self.next.set(start + layout.size());
                let live = &self.live[start / CHUNK % CHUNKS];
                live.set(live.get() + 1);
                // SAFETY: `end <= len`, so `start` lies inside of the region that `base` points to.
                return Some(unsafe { self.base.get().add(start) });
            }
            if !self.change_chunk() {
                return None;
            }
        }
    }

    /// Goes on in a chunk without values, if there is one.
    #[cold]
    fn change_chunk(&self) -> bool {
        if self.len.get() == 0 && !self.reserve() {
            return false;
        }
        let chunk = self.free.get().trailing_zeros() as usize;
        if chunk >= CHUNKS {
            return false;
        }
        self.free.set(self.free.get() & !(1 << chunk));
        self.next.set(chunk * CHUNK);
        self.end.set((chunk + 1) * CHUNK);
        true
    }

    /// Asks the system for the region; whether it gave it.
    fn reserve(&self) -> bool {
        // SAFETY: the size is not zero.
        let base = unsafe { System.alloc(region()) };
        if base.is_null() {
            return false;
        }
        self.base.set(base);
        self.len.set(CHUNK * CHUNKS);
        true
    }

    /// Where in the region a value lies; nothing if it is the system's.
    #[inline]
    fn offset(&self, value: *mut u8) -> Option<usize> {
        let offset = value.addr().wrapping_sub(self.base.get().addr());
        (offset < self.len.get()).then_some(offset)
    }

    /// Whether a value of the region ends where the current chunk is free from.
    #[inline]
    fn is_last(&self, offset: usize, size: usize) -> bool {
        // A full chunk's `next` may be the start of its neighbour, so the chunk is compared too.
        offset + size == self.next.get() && offset + CHUNK >= self.end.get()
    }

    /// Takes a value of the region back.
    #[inline]
    fn give_back(&self, offset: usize, size: usize) {
        let chunk = offset / CHUNK % CHUNKS;
        let left = self.live[chunk].get() - 1;
        self.live[chunk].set(left);
        if left == 0 {
            if chunk * CHUNK + CHUNK == self.end.get() {
                self.next.set(chunk * CHUNK);
            } else {
                self.free.set(self.free.get() | 1 << chunk);
            }
        } else if self.is_last(offset, size) {
            self.next.set(offset);
        }
    }
}

// SAFETY: what `take` gives lies in the region, in one chunk, and overlaps no value that is live:
// live values of the current chunk lie before `next`, and another chunk is begun only when it has
// none. `next` moves back only over a value that is given back (`is_last`), or when none is left.
// Everything else is the system's, and goes back to the system because its address lies outside.
unsafe impl GlobalAlloc for Arena {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            Some(value) => value,
            // SAFETY: the caller's promise is passed on.
            None => unsafe { System.alloc(layout) },
        }
    }

    #[inline]
    unsafe fn dealloc(&self, value: *mut u8, layout: Layout) {
        match self.offset(value) {
            Some(offset) => self.give_back(offset, layout.size()),
            // SAFETY: it is not from the region, so the system gave it.
            None => unsafe { System.dealloc(value, layout) },
        }
    }

    unsafe fn realloc(&self, value: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(offset) = self.offset(value) else {
            // SAFETY: it is not from the region, so the system gave it.
            return unsafe { System.realloc(value, layout, new_size) };
        };
        if self.is_last(offset, layout.size()) && offset + new_size <= self.end.get() {
            self.next.set(offset + new_size);
            return value;
        }
        if new_size <= layout.size() {
            return value;
        }
        // SAFETY: the caller promises that `new_size` is legal with this alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the new value is at least as long as the old one and does not overlap it, which
        // is live until it is given back here.
        unsafe {
            let moved = self.alloc(new_layout);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(value, moved, layout.size());
                self.dealloc(value, layout);
            }
            moved
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.len.get() > 0 {
            // SAFETY: `reserve` took it with this layout, and nobody who could hold a value of an
            // arena outlives it: a global one is never dropped.
            unsafe { System.dealloc(self.base.get(), region()) }
        }
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("chunks_in_use", &self.chunks_in_use())
            .finish_non_exhaustive()
    }
}

/// The layout of the whole region.
const fn region() -> Layout {
    match Layout::from_size_align(CHUNK * CHUNKS, ALIGN) {
        Ok(layout) => layout,
        Err(_) => unreachable!(),
    }
}

#[cfg(test)]
mod tests;
