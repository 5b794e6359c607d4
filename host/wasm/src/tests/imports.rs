//! What guests may call, and what WASI answers.

use std::time::Instant;

use super::*;

/// A packed guest that calls `$call` in every call and passes one event.
pub(super) fn caller(imports: &str, lowered: &str, module_imports: &str, body: &str) -> String {
    PUPPET
        .replacen("(core module $m", &format!("{imports} (core module $libc (memory (export \"memory\") 2)
            (global $at (mut i32) (i32.const 4096))
            (func (export \"realloc\") (param i32 i32 i32 i32) (result i32) (local $p i32)
              (local.set $p (global.get $at))
              (global.set $at (i32.add (local.get $p) (i32.and (i32.add (local.get 3) (i32.const 15)) (i32.const -8))))
              (local.get $p)))
            (core instance $libc (instantiate $libc)) {lowered}
            (core module $m {module_imports}"), 1)
        .replacen("(global.set $calls (i32.add", &format!("{body} (global.set $calls (i32.add"), 1)
        .replacen(
            "(core instance $i (instantiate $m))",
            "(core instance $i (instantiate $m (with \"host\" (instance $host)) (with \"libc\" (instance $libc))))",
            1,
        )
}

#[tokio::test]
async fn a_flood_of_calls_to_the_host_is_a_trap() {
    let house = house();
    let wat = caller(
        r#"(import "levada:handler/call@0.1.0" (instance $call (export "attempt" (func (result u32)))))"#,
        r#"(core func $attempt (canon lower (func $call "attempt")))
           (core instance $host (export "attempt" (func $attempt)))"#,
        r#"(import "host" "attempt" (func $attempt (result i32)))"#,
        "(loop $l (drop (call $attempt)) (br $l))",
    );
    let handler = house.load(&house.spec(&wat)).await;
    let (_, effects) = call(&*handler, &bodies(["a"])).await.unwrap();
    let letter = &effects.dead_letters[0];
    assert_eq!(
        letter.limit.as_deref(),
        Some("host-calls"),
        "{}",
        letter.reason
    );
    assert!(letter.reason.contains("10016"), "{}", letter.reason);
}

#[tokio::test]
async fn settings_and_facts_reach_the_guest() {
    // The guest traps unless the setting `drop` has 5 bytes and the attempt is 1.
    let house = house();
    let wat = caller(
        r#"(import "levada:handler/call@0.1.0" (instance $call (export "attempt" (func (result u32)))))
           (import "levada:handler/settings@0.1.0" (instance $settings
             (export "get" (func (param "key" string) (result (option string))))))"#,
        r#"(core func $attempt (canon lower (func $call "attempt")))
           (core func $get (canon lower (func $settings "get") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
           (core instance $host (export "attempt" (func $attempt)) (export "get" (func $get)))"#,
        r#"(import "host" "attempt" (func $attempt (result i32)))
           (import "host" "get" (func $get (param i32 i32 i32)))
           (import "libc" "memory" (memory $shared 2))"#,
        r#"(i32.store $shared (i32.const 16) (i32.const 0x706f7264))
           (call $get (i32.const 16) (i32.const 4) (i32.const 32))
           (if (i32.ne (i32.load $shared (i32.const 40)) (i32.const 5)) (then unreachable))
           (if (i32.ne (call $attempt) (i32.const 1)) (then unreachable))"#,
    );
    // The imported memory comes first, so the guest's own must be named where it is used.
    let wat = own_memory(&wat);
    let spec = house.spec(&wat).with_config(r#"{"drop":"debug","n":5}"#);
    let handler = house.load(&spec).await;
    let (out, effects) = call(&*handler, &bodies(["a"])).await.unwrap();
    assert!(
        effects.dead_letters.is_empty(),
        "{:?}",
        effects.dead_letters
    );
    assert_eq!(out.len(), 1);
    let other = house.spec(&wat).with_config(r#"{"drop":"info"}"#);
    let handler = house.load(&other).await;
    assert_eq!(
        call(&*handler, &bodies(["a"]))
            .await
            .unwrap()
            .1
            .dead_letters
            .len(),
        1
    );
}

/// A log whose reader stands still for a moment: each line of a guest waits so long.
struct SlowLog(Duration);

impl tracing::Subscriber for SlowLog {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::INFO
    }

    fn event(&self, _: &tracing::Event<'_>) {
        let begun = Instant::now();
        while begun.elapsed() <= self.0 {
            std::thread::park_timeout(self.0);
        }
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::Id {
        tracing::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}

    fn enter(&self, _: &tracing::Id) {}

    fn exit(&self, _: &tracing::Id) {}
}

#[tokio::test]
async fn a_call_that_takes_time_without_using_it_ends_at_its_deadline() {
    // The host waits inside of a call to it, which costs the guest no CPU time.
    let house = house();
    let wat = caller(
        r#"(import "levada:handler/logging@0.1.0" (instance $logging
             (type $l0 (enum "trace" "debug" "info" "warn" "error")) (export "level" (type $l (eq $l0)))
             (export "write" (func (param "level" $l) (param "message" string)))))"#,
        r#"(core func $write (canon lower (func $logging "write") (memory (core memory $libc "memory"))))
           (core instance $host (export "write" (func $write)))"#,
        r#"(import "host" "write" (func $write (param i32 i32 i32)))"#,
        r#"(call $write (i32.const 2) (i32.const 16) (i32.const 4)) (loop $ever (br $ever))"#,
    );
    let mut spec = house.spec(&wat);
    spec.limits.cpu = Duration::from_millis(100);
    spec.limits.deadline = Duration::from_millis(200);
    let handler = house.load(&spec).await;
    let slow = SlowLog(Duration::from_millis(220));
    let _guard = tracing::subscriber::set_default(slow);
    let (_, effects) = call(&*handler, &bodies(["a"])).await.unwrap();
    let letter = &effects.dead_letters[0];
    assert_eq!(letter.limit.as_deref(), Some("deadline"));
    assert_eq!(letter.reason, "the limit `deadline` of 200ms was reached");
}

/// Makes every unnamed memory access one of the guest's own memory.
pub(super) fn own_memory(wat: &str) -> String {
    let (head, body) = wat.split_once("(core module $m").unwrap();
    let mut body = body.replacen(
        "(memory (export \"memory\") 4)",
        "(memory $own (export \"memory\") 4)",
        1,
    );
    for access in ["i32.store16", "i32.store", "i32.load8_u", "i32.load"] {
        for next in [" (", " offset", "\n"] {
            body = body.replace(&format!("{access}{next}"), &format!("{access} $own{next}"));
        }
    }
    let body = body
        .replace("memory.grow (", "memory.grow $own (")
        .replace("(memory.size)", "(memory.size $own)");
    format!("{head}(core module $m{body}")
}

/// What the guest imports of WASI.
const WASI_IMPORTS: &str = r#"
        (import "wasi:io/error@0.2.6" (instance $error (export "error" (type (sub resource)))))
        (alias export $error "error" (type $error-type))
        (import "wasi:io/poll@0.2.6" (instance $poll (export "pollable" (type $p (sub resource)))
          (export "[method]pollable.block" (func (param "self" (borrow $p))))))
        (alias export $poll "pollable" (type $pollable))
        (import "wasi:io/streams@0.2.6" (instance $streams
          (alias outer 1 $error-type (type $e0)) (export "error" (type $e (eq $e0)))
          (type $se0 (variant (case "last-operation-failed" (own $e)) (case "closed")))
          (export "stream-error" (type $se (eq $se0)))
          (export "output-stream" (type $o (sub resource)))
          (export "[method]output-stream.blocking-write-and-flush"
            (func (param "self" (borrow $o)) (param "contents" (list u8)) (result (result (error $se)))))))
        (alias export $streams "output-stream" (type $output))
        (import "wasi:cli/stdout@0.2.6" (instance $stdout
          (alias outer 1 $output (type $o0)) (export "output-stream" (type $o (eq $o0)))
          (export "get-stdout" (func (result (own $o))))))
        (import "wasi:clocks/monotonic-clock@0.2.6" (instance $clock
          (alias outer 1 $pollable (type $p0)) (export "pollable" (type $p (eq $p0)))
          (export "now" (func (result u64)))
          (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
        (import "wasi:cli/environment@0.2.6" (instance $env
          (export "get-environment" (func (result (list (tuple string string)))))))
        (import "wasi:random/random@0.2.6" (instance $random (export "get-random-u64" (func (result u64)))))
        (import "wasi:sockets/network@0.2.6" (instance $network
          (type $c0 (enum "unknown" "access-denied" "not-supported")) (export "error-code" (type $c (eq $c0)))
          (type $f0 (enum "ipv4" "ipv6")) (export "ip-address-family" (type $f (eq $f0)))))
        (alias export $network "error-code" (type $code))
        (alias export $network "ip-address-family" (type $family))
        (import "wasi:sockets/tcp@0.2.6" (instance $tcp (export "tcp-socket" (type (sub resource)))))
        (alias export $tcp "tcp-socket" (type $socket))
        (import "wasi:sockets/tcp-create-socket@0.2.6" (instance $create
          (alias outer 1 $code (type $c0)) (export "error-code" (type $c (eq $c0)))
          (alias outer 1 $family (type $f0)) (export "ip-address-family" (type $f (eq $f0)))
          (alias outer 1 $socket (type $s0)) (export "tcp-socket" (type $s (eq $s0)))
          (export "create-tcp-socket" (func (param "address-family" $f) (result (result (own $s) (error $c)))))))
        (import "wasi:cli/exit@0.2.6" (instance $exit (export "exit" (func (param "status" (result))))))"#;

/// The same as core functions.
const WASI_LOWERED: &str = r#"
        (core func $stdout (canon lower (func $stdout "get-stdout")))
        (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
          (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
        (core func $now (canon lower (func $clock "now")))
        (core func $sleep (canon lower (func $clock "subscribe-duration")))
        (core func $block (canon lower (func $poll "[method]pollable.block")))
        (core func $environment (canon lower (func $env "get-environment")
          (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
        (core func $random (canon lower (func $random "get-random-u64")))
        (core func $socket (canon lower (func $create "create-tcp-socket") (memory (core memory $libc "memory"))))
        (core func $exit (canon lower (func $exit "exit")))
        (core func $drop (canon resource.drop $pollable))
        (core instance $host (export "stdout" (func $stdout)) (export "write" (func $write))
          (export "now" (func $now)) (export "sleep" (func $sleep)) (export "block" (func $block))
          (export "environment" (func $environment)) (export "random" (func $random))
          (export "socket" (func $socket)) (export "exit" (func $exit)) (export "drop" (func $drop)))"#;

/// The same in its core module.
const WASI_MODULE_IMPORTS: &str = r#"
        (import "host" "stdout" (func $stdout (result i32)))
        (import "host" "write" (func $write (param i32 i32 i32 i32)))
        (import "host" "now" (func $now (result i64)))
        (import "host" "sleep" (func $sleep (param i64) (result i32)))
        (import "host" "block" (func $block (param i32)))
        (import "host" "drop" (func $drop (param i32)))
        (import "host" "environment" (func $environment (param i32)))
        (import "host" "random" (func $random (result i64)))
        (import "host" "socket" (func $socket (param i32 i32)))
        (import "host" "exit" (func $exit (param i32)))
        (import "libc" "memory" (memory $shared 2))"#;

/// What it does with them in every call.
const WASI_BODY: &str = r#"
        (local $out i32) (local $p i32)
        (local.set $out (call $stdout))
        (i32.store $shared (i32.const 16) (i32.const 0x0a696968))
        (call $write (local.get $out) (i32.const 16) (i32.const 4) (i32.const 24))
        (if (i32.load8_u $shared (i32.const 24)) (then unreachable))
        (if (i64.ne (call $now) (i64.const 1700000000123000000)) (then unreachable))
        (local.set $p (call $sleep (i64.const 1000000000000)))
        (call $block (local.get $p))
        (call $drop (local.get $p))
        (if (i64.ne (call $now) (i64.const 1700000000123000000)) (then unreachable))
        (call $environment (i32.const 32))
        (if (i32.load $shared (i32.const 36)) (then unreachable))
        (if (i64.eq (call $random) (call $random)) (then unreachable))
        (call $socket (i32.const 0) (i32.const 48))
        (if (i32.ne (i32.load8_u $shared (i32.const 48)) (i32.const 1)) (then unreachable))
        (if (i32.ne (i32.load8_u $shared (i32.const 52)) (i32.const 1)) (then unreachable))"#;

#[tokio::test]
async fn wasi_is_there_and_inert() {
    // Every kind of function once: records, resources, results, lists. The guest traps itself if
    // the environment is not empty, and ends in `exit`, which is a trap.
    let house = house();
    // Locals must come first in the function.
    let (locals, rest) = WASI_BODY.split_once("(local.set $out").unwrap();
    let rest = format!("(local.set $out{rest}");
    let wat = caller(WASI_IMPORTS, WASI_LOWERED, WASI_MODULE_IMPORTS, &rest).replacen(
        "(local $byte i32)",
        &format!("(local $byte i32) {locals}"),
        1,
    );
    let wat = own_memory(&wat);
    let handler = house.load(&house.spec(&wat)).await;
    let (out, effects) = call(&*handler, &bodies(["a"])).await.unwrap();
    assert!(
        effects.dead_letters.is_empty(),
        "{:?}",
        effects.dead_letters
    );
    assert_eq!(out.len(), 1);
    let wat = wat.replacen(
        "(local.set $out (call $stdout))",
        "(call $exit (i32.const 0))",
        1,
    );
    let handler = house.load(&house.spec(&wat)).await;
    let (_, effects) = call(&*handler, &bodies(["a"])).await.unwrap();
    assert!(effects.dead_letters[0].reason.contains("leave the process"));
    // Handles that are never given back end at their limit.
    let flood = "(loop $l (drop (call $stdout)) (br $l)) (local.set $out (call $stdout))";
    let wat = wat.replacen("(call $exit (i32.const 0))", flood, 1);
    let handler = house.load(&house.spec(&wat)).await;
    let (_, effects) = call(&*handler, &bodies(["a"])).await.unwrap();
    assert_eq!(effects.dead_letters[0].limit.as_deref(), Some("handles"));
}
