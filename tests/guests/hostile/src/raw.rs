//! What safe Rust would not let happen.

#![expect(unsafe_code, reason = "the host must bear what broken memory does")]

/// Executes the instruction that only traps.
pub fn unreachable() {
    std::arch::wasm32::unreachable()
}

/// Reads where no memory is.
pub fn read_beyond_memory() {
    let beyond = std::hint::black_box(usize::MAX - 64) as *const u8;
    // SAFETY: none: the engine traps at an address beyond the memory, and that is what is wanted.
    std::hint::black_box(unsafe { beyond.read_volatile() });
}

/// A list that lies, for the most part, outside of the memory.
pub fn list_beyond_memory() -> Vec<u8> {
    // SAFETY: none: nobody here looks at it, and the host refuses to.
    unsafe { Vec::from_raw_parts(0x1_0000 as *mut u8, 1 << 30, 1 << 30) }
}
