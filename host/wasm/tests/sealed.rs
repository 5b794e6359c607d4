//! In a process that may not execute what was written, handlers run all the same. Alone in its
//! binary: the process is like that for ever.

use std::{fs, sync::Arc};

use levada_core::{
    BatchBuilder, Chance, Effects, PartId, SystemClock, interceptor::Call, state::Stateless,
};
use levada_telemetry::Registry;
use levada_wasm::{
    Compiler, HandlerSpec, Handlers, HandlersConfig, MemoryReservation, deny_write_execute,
};

const PUPPET: &str = include_str!("../src/tests/puppet.wat");

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_runs_where_written_memory_may_not_be_executed() {
    assert!(deny_write_execute(), "this test wants Linux 6.3");
    // What wasmtime does by itself is forbidden: the switch is on.
    let plain = wasmtime::Engine::default();
    let module = wasmtime::Module::new(&plain, "(module (func (export \"f\")))");
    assert!(module.is_err(), "nothing was forbidden");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("guest.wasm");
    fs::write(&path, wat::parse_str(PUPPET).unwrap()).unwrap();
    let handlers = Handlers::open(HandlersConfig {
        cache_dir: None,
        compiler: Compiler::InProcess,
        memory_reservation: MemoryReservation::Full,
        recordings: None,
        registry: Registry::new(),
        clock: Arc::new(SystemClock),
        chance: Chance::seeded(1),
    })
    .unwrap();
    let part = PartId::parse("handlers.test").unwrap();
    let loaded = handlers.load(&part, &HandlerSpec::new(path)).await.unwrap();
    let mut batch = BatchBuilder::default();
    batch.push([("host", "a")], b"body");
    let call = Call {
        part: &PartId::parse("sources.test").unwrap(),
        attempt: 1,
        received_ms: 1,
        states: &Stateless,
    };
    let interceptor = loaded.interceptor.as_ref().unwrap();
    let mut effects = Effects::default();
    let out = interceptor
        .intercept(batch.finish(), &call, &mut effects)
        .await;
    assert_eq!(out.unwrap().len(), 1, "{:?}", effects.dead_letters);
    // The code lies in a sealed file in memory, and nowhere is memory writable and executable.
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let has = |rights: &str, name: &str| {
        let fits = |line: &&str| line.contains(rights) && line.contains(name);
        maps.lines().any(|line| fits(&line))
    };
    assert!(has(" r-xp ", "/memfd:levada-handler"), "{maps}");
    assert!(!has(" rwx", ""), "{maps}");
    // It goes with the handler.
    drop((loaded, handlers));
}
