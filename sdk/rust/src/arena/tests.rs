//! Runs natively and under miri: `cargo +nightly miri test -p levada-sdk arena`.

use super::*;

/// Miri is slow, and sees itself what lies outside of a value: there a few bytes are looked at.
const STEP: usize = if cfg!(miri) { 509 } else { 1 };

/// A value that a test holds, filled with a byte of its own.
struct Held {
    at: *mut u8,
    layout: Layout,
    fill: u8,
}

impl Held {
    fn new(arena: &Arena, size: usize, align: usize, fill: u8) -> Self {
        let layout = Layout::from_size_align(size, align).unwrap();
        // SAFETY: the size is never 0 in these tests.
        let at = unsafe { arena.alloc(layout) };
        assert!(!at.is_null());
        assert_eq!(at.addr() % align, 0);
        // SAFETY: `at` has `size` bytes.
        unsafe { at.write_bytes(fill, size) };
        Self { at, layout, fill }
    }

    fn check(&self) {
        // SAFETY: written in full when it was made.
        let bytes = unsafe { std::slice::from_raw_parts(self.at, self.layout.size()) };
        assert!(bytes.iter().step_by(STEP).all(|byte| *byte == self.fill));
    }

    fn resize(&mut self, arena: &Arena, size: usize) {
        self.check();
        let kept = size.min(self.layout.size());
        // SAFETY: `at` came from this arena with this layout.
        self.at = unsafe { arena.realloc(self.at, self.layout, size) };
        self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
        // SAFETY: `kept` bytes were carried over.
        let bytes = unsafe { std::slice::from_raw_parts(self.at, kept) };
        assert!(bytes.iter().step_by(STEP).all(|byte| *byte == self.fill));
        // SAFETY: `at` has `size` bytes.
        unsafe { self.at.write_bytes(self.fill, size) };
    }

    fn give_back(self, arena: &Arena) {
        self.check();
        // SAFETY: `at` came from this arena with this layout.
        unsafe { arena.dealloc(self.at, self.layout) };
    }
}

#[test]
fn a_call_that_keeps_nothing_leaves_nothing() {
    let arena = Arena::new();
    let mut starts = Vec::new();
    for call in 0..3 {
        let held: Vec<_> = (1..400).map(|n| Held::new(&arena, n, 8, call)).collect();
        assert!(arena.chunks_in_use() > 1);
        starts.push(held[0].at);
        held.into_iter().for_each(|value| value.give_back(&arena));
        assert_eq!(arena.chunks_in_use(), 0);
    }
    assert!(arena.len.get() == CHUNK * CHUNKS);
}

#[test]
fn what_outlives_a_call_stays_as_it_is() {
    let arena = Arena::new();
    let kept = Held::new(&arena, 100, 8, 7);
    for _ in 0..50 {
        let held: Vec<_> = (1..100).map(|n| Held::new(&arena, n * 20, 4, 9)).collect();
        held.into_iter()
            .rev()
            .for_each(|value| value.give_back(&arena));
        kept.check();
        assert_eq!(arena.chunks_in_use(), 1);
    }
    kept.give_back(&arena);
    assert_eq!(arena.chunks_in_use(), 0);
}

#[test]
fn when_every_chunk_is_kept_the_system_serves() {
    let arena = Arena::new();
    let inside = CHUNK / LARGEST * CHUNKS;
    let mut held: Vec<_> = (0..inside)
        .map(|_| Held::new(&arena, LARGEST, 16, 1))
        .collect();
    assert!(held.iter().all(|value| arena.offset(value.at).is_some()));
    let outside = Held::new(&arena, 10, 1, 2);
    assert!(arena.offset(outside.at).is_none());
    held.swap_remove(40).give_back(&arena);
    held.into_iter().for_each(|value| value.give_back(&arena));
    let again = Held::new(&arena, 10, 1, 3);
    assert!(arena.offset(again.at).is_some());
    outside.give_back(&arena);
    again.give_back(&arena);
}

#[test]
fn large_and_widely_aligned_values_are_the_systems() {
    let arena = Arena::new();
    for (size, align) in [(LARGEST + 1, 1), (64, 4096), (32, 32)] {
        let held = Held::new(&arena, size, align, 5);
        assert!(arena.offset(held.at).is_none());
        held.give_back(&arena);
    }
    assert_eq!(arena.chunks_in_use(), 0);
}

#[test]
fn a_value_that_grows_at_the_end_stays_where_it_is() {
    let arena = Arena::new();
    let before = Held::new(&arena, 3, 1, 1);
    let mut growing = Held::new(&arena, 16, 8, 2);
    let at = growing.at;
    for size in [32, 64, 4096, LARGEST * 2, 20] {
        growing.resize(&arena, size);
        assert_eq!(growing.at, at);
    }
    let behind = Held::new(&arena, 1, 1, 3);
    growing.resize(&arena, 21);
    assert_ne!(growing.at, at, "the neighbour was in the way");
    for value in [before, growing, behind] {
        value.give_back(&arena);
    }
    assert_eq!(arena.chunks_in_use(), 0);
}

/// Two chunks side by side, the lower one full: its last value must not move the upper one's mark.
#[test]
fn the_end_of_a_full_chunk_is_not_the_end_of_its_neighbour() {
    let arena = Arena::new();
    let full: Vec<_> = (0..CHUNK / LARGEST)
        .map(|_| Held::new(&arena, LARGEST, 1, 1))
        .collect();
    let upper = Held::new(&arena, 8, 1, 2);
    upper.give_back(&arena);
    assert_eq!(
        arena.next.get(),
        CHUNK,
        "the upper chunk is empty again, and current"
    );
    let mut full = full;
    let mut last = full.pop().unwrap();
    last.resize(&arena, LARGEST - 1);
    last.resize(&arena, LARGEST);
    let upper = Held::new(&arena, 8, 1, 3);
    last.give_back(&arena);
    upper.check();
    full.into_iter().for_each(|value| value.give_back(&arena));
    upper.give_back(&arena);
    assert_eq!(arena.chunks_in_use(), 0);
}

/// Random making, growing and dropping: no value ever changes under its holder.
#[test]
fn no_value_ever_overlaps_another() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed >> 33).unwrap() % below
    };
    let arena = Arena::new();
    let mut held: Vec<Held> = Vec::new();
    let steps = if cfg!(miri) { 2_000 } else { 200_000 };
    for step in 0..steps {
        match random(5) {
            0 | 1 if held.len() < 600 => {
                let align = 1 << random(6);
                let most = if random(20) == 0 { 20_000 } else { 300 };
                let size = 1 + random(most);
                held.push(Held::new(
                    &arena,
                    size,
                    align,
                    u8::try_from(step % 256).unwrap(),
                ));
            }
            2 if !held.is_empty() => {
                let n = random(held.len());
                let size = 1 + random(2_000);
                held[n].resize(&arena, size);
            }
            3 | 4 if !held.is_empty() => {
                let n = random(held.len());
                held.swap_remove(n).give_back(&arena);
            }
            _ => {}
        }
    }
    held.into_iter().for_each(|value| value.give_back(&arena));
    assert_eq!(arena.chunks_in_use(), 0);
}
