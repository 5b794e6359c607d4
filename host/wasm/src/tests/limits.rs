//! Limits that no other test comes to: each is hit by a guest, and named.

use super::{imports::caller, *};
use crate::{InspectError, inspect};

/// A guest that writes so many log lines of 4 bytes in every call.
fn writes(lines: u32) -> String {
    caller(
        r#"(import "levada:handler/logging@0.1.0" (instance $logging
             (type $l0 (enum "trace" "debug" "info" "warn" "error")) (export "level" (type $l (eq $l0)))
             (export "write" (func (param "level" $l) (param "message" string)))))"#,
        r#"(core func $write (canon lower (func $logging "write") (memory (core memory $libc "memory"))))
           (core instance $host (export "write" (func $write)))"#,
        r#"(import "host" "write" (func $write (param i32 i32 i32)))
           (global $left (mut i32) (i32.const 0))"#,
        &format!(
            "(global.set $left (i32.const {lines}))
             (loop $more
               (call $write (i32.const 0) (i32.const 16) (i32.const 4))
               (global.set $left (i32.sub (global.get $left) (i32.const 1)))
               (br_if $more (global.get $left)))"
        ),
    )
}

#[tokio::test]
async fn log_lines_beyond_the_limit_are_dropped_and_counted() {
    let house = house();
    let handler = house.load(&house.spec(&writes(130))).await;
    let (out, _) = call(&*handler, &bodies(["a"])).await.unwrap();
    assert_eq!(texts(&out), ["a"]);
    assert!(house.shows(r#"levada_handler_log_dropped_total{part="handlers.test"} 30"#));
    let mut spec = house.spec(&writes(20));
    spec.limits.log_bytes = 4 * 15;
    let handler = house.load(&spec).await;
    call(&*handler, &bodies(["a"])).await.unwrap();
    assert!(house.shows(r#"levada_handler_log_dropped_total{part="handlers.test"} 35"#));
}

#[tokio::test]
async fn random_bytes_beyond_the_limit_are_a_trap() {
    let house = house();
    let asks = |bytes: u32| {
        caller(
            r#"(import "wasi:random/random@0.2.6" (instance $random
                 (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))"#,
            r#"(core func $ask (canon lower (func $random "get-random-bytes")
                 (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
               (core instance $host (export "ask" (func $ask)))"#,
            r#"(import "host" "ask" (func $ask (param i64 i32)))"#,
            &format!("(call $ask (i64.const {bytes}) (i32.const 16))"),
        )
    };
    for (bytes, limit) in [(64 << 10, None), ((64 << 10) + 1, Some("random-bytes"))] {
        for granted in [false, true] {
            let mut spec = house.spec(&asks(bytes));
            spec.grants.random = granted;
            let handler = house.load(&spec).await;
            let (_, effects) = call(&*handler, &bodies(["a"])).await.unwrap();
            let letter = effects.dead_letters.first();
            assert_eq!(
                letter.and_then(|letter| letter.limit.as_deref()),
                limit,
                "{bytes}"
            );
            let named = "the limit `random-bytes` of 64KiB was reached";
            assert!(
                letter.is_none_or(|letter| letter.reason == named),
                "{letter:?}"
            );
        }
    }
}

#[test]
fn a_component_beyond_the_limit_is_refused_by_its_size() {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    bytes.resize((32 << 20) + 1, 0);
    let error = inspect(&bytes).unwrap_err();
    assert!(matches!(error, InspectError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("33554432 allowed"), "{error}");
}

#[test]
fn every_limit_is_listed_with_its_value() {
    let mut spec = HandlerSpec::new("x.wasm");
    spec.limits.memory = 16 << 20;
    spec.grants.state = Some(levada_core::ByteSize::mib(2));
    let rows = spec.limit_rows();
    let allowed = |limit: &str| {
        let row = rows.iter().find(|row| row.limit == limit);
        row.map(|row| row.allowed.as_str())
    };
    for limit in Limit::ALL {
        assert!(allowed(limit.as_str()).is_some(), "{limit}");
    }
    assert_eq!(allowed("memory"), Some("16MiB"));
    assert_eq!(allowed("wasm-stack"), Some("256KiB"));
    assert_eq!(allowed("state-bytes"), Some("2MiB"));
    assert_eq!(allowed("compile-memory"), Some("1GiB"));
    assert_eq!(allowed("component-size"), Some("32MiB"));
    // What the security model's table has beside those.
    for (limit, value) in [
        ("http-requests", "50, 2 an event if more"),
        ("http-at-once", "6"),
        ("http-body", "8MiB"),
        ("http-header-bytes", "16KiB"),
        ("log-lines", "100"),
        ("log-bytes", "64KiB"),
        ("events-out", "100 out of one"),
        ("event-bytes", "1MiB"),
        ("compile-time", "1m"),
        (
            "deadline",
            "1s, 30s of a sink or source, twice the CPU time if more",
        ),
    ] {
        assert_eq!(allowed(limit), Some(value), "{limit}");
    }
    assert_eq!(rows.len(), Limit::ALL.len() + 14);
}
