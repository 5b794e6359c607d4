use super::*;

#[test]
fn every_knob_is_where_it_was_set() {
    for reservation in [MemoryReservation::Full, MemoryReservation::Small] {
        let config = Engine::new(&config(reservation)).unwrap();
        assert!(!config.get_concurrency_support());
        assert!(config.get_epoch_interruption());
        assert!(!config.get_consume_fuel());
        assert_eq!(config.get_max_wasm_stack(), 256 << 10);
        assert_eq!(config.get_async_stack_size(), 1 << 20);
        assert!(!config.get_shared_memory());
        assert_eq!(config.get_native_unwind_info(), Some(false));
        assert_eq!(config.get_wasm_backtrace_max_frames(), 50);
        assert!(matches!(config.get_compiler_inlining(), Inlining::No));
        let features = config.get_wasm_features();
        for feature in ON {
            assert!(features.contains(feature), "{feature:?}");
        }
        for feature in OFF {
            assert!(!features.intersects(feature), "{feature:?}");
        }
        assert!(!features.intersects(WasmFeatures::CM_ASYNC | WasmFeatures::CM_GC));
    }
    let engine = |reservation| Engine::new(&config(reservation)).unwrap();
    let full = engine(MemoryReservation::Full);
    assert_eq!(
        (full.get_memory_reservation(), full.get_memory_guard_size()),
        (4 << 30, 32 << 20)
    );
    let small = engine(MemoryReservation::Small);
    assert_eq!(
        (
            small.get_memory_reservation(),
            small.get_memory_guard_size()
        ),
        (0, 64 << 10)
    );
}

#[test]
fn the_profiles_differ_and_are_stable() {
    let engine = |reservation| Engine::new(&config(reservation)).unwrap();
    let full = profile(&engine(MemoryReservation::Full));
    assert_eq!(full, profile(&engine(MemoryReservation::Full)));
    assert_ne!(full, profile(&engine(MemoryReservation::Small)));
}

#[test]
fn the_limits_are_those_of_the_public_table() {
    use std::time::Duration;
    let limits = Limits::default();
    assert_eq!(
        (limits.cpu, limits.deadline),
        (Duration::from_millis(250), Duration::from_secs(1))
    );
    assert_eq!(limits.cpu_of(1000), Duration::from_secs(1));
    assert_eq!(limits.deadline_of(100), Duration::from_secs(1));
    assert_eq!(limits.memory, 64 << 20);
    let counts = (
        limits.instances,
        limits.memories,
        limits.tables,
        limits.table_elements,
    );
    assert_eq!(counts, (64, 8, 64, 65_536));
    assert_eq!(
        (limits.lifted_of(0), limits.lifted_of(5 << 20)),
        (8 << 20, 10 << 20)
    );
    assert_eq!(
        (limits.answer_of(0), limits.answer_of(1 << 20)),
        (1 << 20, 2 << 20)
    );
    assert_eq!((limits.handles, limits.host_calls_of(100)), (1000, 11_600));
    assert_eq!((limits.log_lines, limits.log_bytes), (100, 64 << 10));
    assert_eq!((limits.events_out, limits.event_bytes), (100, 1 << 20));
    assert_eq!((limits.batch_events, limits.batch_bytes), (1000, 1 << 20));
    assert_eq!(limits.random, 64 << 10);
}
