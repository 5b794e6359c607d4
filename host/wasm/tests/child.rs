//! Compiling in a process of its own. This test is its own compiler: it starts itself again.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test without the usual frame"
)]

use std::{ffi::OsString, process::ExitCode, sync::Arc, time::Duration};

use levada_core::{Chance, PartId, SystemClock};
use levada_telemetry::Registry;
use levada_wasm::{
    CompileBounds, Compiler, HandlerSpec, Handlers, HandlersConfig, LoadError, MemoryReservation,
    compile_child,
};

const PUPPET: &str = include_str!("../src/tests/puppet.wat");

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("compile-child") => compile_child(),
        Some("die") => std::process::abort(),
        Some("silent") => ExitCode::SUCCESS,
        _ => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(parent());
            ExitCode::SUCCESS
        }
    }
}

async fn load(args: &[&str], bytes: &[u8]) -> Result<(), LoadError> {
    load_within(CompileBounds::default(), args, bytes).await
}

async fn load_within(bounds: CompileBounds, args: &[&str], bytes: &[u8]) -> Result<(), LoadError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("guest.wasm");
    std::fs::write(&path, bytes).unwrap();
    let handlers = Handlers::open(HandlersConfig {
        cache_dir: None,
        compiler: Compiler::Child {
            program: std::env::current_exe().unwrap(),
            args: args.iter().map(OsString::from).collect(),
            bounds,
        },
        memory_reservation: MemoryReservation::Full,
        recordings: None,
        registry: Registry::new(),
        clock: Arc::new(SystemClock),
        chance: Chance::seeded(1),
    })
    .unwrap();
    let part = PartId::parse("handlers.test").unwrap();
    handlers
        .load(&part, &HandlerSpec::new(path))
        .await
        .map(|_| ())
}

fn why(error: LoadError) -> String {
    match error {
        LoadError::Compile(error) => error.to_string(),
        other => panic!("{other}"),
    }
}

async fn parent() {
    let good = wat::parse_str(PUPPET).unwrap();
    load(&["compile-child"], &good).await.unwrap();
    // A component that does not validate is refused with the compiler's words.
    let bad = PUPPET.replacen(
        "(core module $m",
        "(core module (func (result i32))) (core module $m",
        1,
    );
    let bad = wat::parse_str(bad).unwrap();
    let text = why(load(&["compile-child"], &bad).await.unwrap_err());
    assert!(text.contains("type mismatch"), "{text}");
    // A compiler that dies, or says nothing, is an error and nothing else.
    let text = why(load(&["die"], &good).await.unwrap_err());
    assert!(text.contains("signal"), "{text}");
    let text = why(load(&["silent"], &good).await.unwrap_err());
    assert!(text.contains("the compiler ended with"), "{text}");
    bombs(&good).await;
}

/// Functions that take the compiler more than they took their author (F76): many branches in one.
async fn bombs(good: &[u8]) {
    let defaults = CompileBounds::default();
    assert_eq!(defaults.time, Duration::from_secs(60));
    assert_eq!(defaults.memory, 1 << 30);

    let bomb = bomb(20_000);
    let brief = CompileBounds {
        time: Duration::from_secs(1),
        ..defaults
    };
    let text = why(load_within(brief, &["compile-child"], &bomb)
        .await
        .unwrap_err());
    assert!(text.contains("more than the 1s allowed"), "{text}");

    let small = CompileBounds {
        memory: 48 << 20,
        ..defaults
    };
    load_within(small, &["compile-child"], good).await.unwrap();
    let text = why(load_within(small, &["compile-child"], &bomb)
        .await
        .unwrap_err());
    assert!(text.contains("limited to 48MiB"), "{text}");
    assert!(text.contains("memory allocation of"), "{text}");
}

fn bomb(branches: usize) -> Vec<u8> {
    let branch = "(if (local.get 0) (then (local.set 0 (i32.add (local.get 0) (i32.const 1)))))";
    let module = format!(
        "(core module (func (param i32) {})) (core module $m",
        branch.repeat(branches)
    );
    wat::parse_str(PUPPET.replacen("(core module $m", &module, 1)).unwrap()
}
