//! What is granted, as a guest meets it.

use levada_core::{ByteSize, TakeError, state::SavedState};

use super::{
    imports::{caller, own_memory},
    *,
};
use crate::When;

/// A packed guest that adds 1 to the number under `n` at the start of every call.
pub(super) fn counter() -> String {
    let wat = caller(
        r#"(import "levada:handler/state@0.1.0" (instance $state
             (export "increment" (func (param "key" string) (param "by" f64) (param "ttl-s" (option u32))
               (result (result f64 (error string)))))))"#,
        r#"(core func $add (canon lower (func $state "increment") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
           (core instance $host (export "add" (func $add)))"#,
        r#"(import "host" "add" (func $add (param i32 i32 f64 i32 i32 i32)))
           (import "libc" "memory" (memory $shared 2))"#,
        r#"(i32.store8 $shared (i32.const 16) (i32.const 110))
           (call $add (i32.const 16) (i32.const 1) (f64.const 1) (i32.const 0) (i32.const 0) (i32.const 32))
           (if (i32.load8_u $shared (i32.const 32)) (then unreachable))"#,
    );
    own_memory(&wat)
}

/// A store in which nothing is.
#[derive(Debug)]
struct Empty;

impl States for Empty {
    fn state(&self, _: &levada_core::Name) -> Result<SavedState, TakeError> {
        Ok(SavedState::default())
    }
}

/// What a batch left under `n`, if it changed that.
fn counted(effects: &Effects) -> Option<String> {
    let change = effects.states.first()?;
    let value = change.writes.get("n")?.as_ref()?;
    Some(String::from_utf8(value.bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn an_import_that_is_not_granted_is_refused_with_the_line_that_grants_it() {
    let house = house();
    let mut spec = house.spec(&counter());
    let error = house.try_load(&spec).await.unwrap_err().to_string();
    let line = r#"grants = { state = "1MiB" }"#;
    assert!(
        error.contains("levada:handler/state@0.1.0") && error.contains(line),
        "{error}"
    );
    spec.grants.state = Some(ByteSize::mib(1));
    house.load(&spec).await;
    assert!(Handlers::remarks(&spec).await.is_empty());
    spec.grants.random = true;
    spec.every = Some(Duration::from_secs(1));
    let remarks = Handlers::remarks(&spec).await;
    let keys: Vec<_> = remarks.iter().map(|remark| remark.key.as_str()).collect();
    assert_eq!(keys, ["grants.random", "every"]);
}

#[tokio::test]
async fn calls_that_fail_leave_no_writes() {
    let house = house();
    let mut spec = house.spec(&counter());
    spec.grants.state = Some(ByteSize::mib(1));
    let handler = house.load(&spec).await;
    let (_, effects) = call_on(&*handler, &bodies(["a", "b"]), &Empty)
        .await
        .unwrap();
    assert_eq!(counted(&effects).as_deref(), Some("1"));
    effects.states[0].ticket.pass_on();
    effects.states[0].ticket.committed();
    drop(effects);
    // Two calls of all four and one of the guilty half fail, and so does the one of the guilty
    // event: what counts are the halves that were handled.
    let (out, effects) = call_on(&*handler, &bodies(["a", "b", "e", "U"]), &Empty)
        .await
        .unwrap();
    assert_eq!(texts(&out), ["a", "b", "e"]);
    assert_eq!(effects.dead_letters.len(), 1);
    assert_eq!(counted(&effects).as_deref(), Some("3"));
    drop(effects);
    // That batch came to nothing, so all is read again, from a store that knows nothing.
    let (_, effects) = call_on(&*handler, &bodies(["a"]), &Empty).await.unwrap();
    assert_eq!(counted(&effects).as_deref(), Some("1"));
}

#[tokio::test]
async fn a_full_state_is_an_error_that_names_the_limit() {
    let house = house();
    let mut spec = house.spec(&counter());
    spec.grants.state = Some(ByteSize(10));
    let handler = house.load(&spec).await;
    // The guest traps when it is refused.
    let (_, effects) = call_on(&*handler, &bodies(["a"]), &Empty).await.unwrap();
    assert_eq!(effects.dead_letters.len(), 1);
    assert!(counted(&effects).is_none());
}

#[tokio::test]
async fn events_that_the_condition_leaves_out_pass_in_their_places() {
    let house = house();
    let mut spec = house.spec(PUPPET);
    spec.when = Some(When::parse(r#"header("type") == "log""#).unwrap());
    let handler = house.load(&spec).await;
    let mut builder = BatchBuilder::default();
    // `x` is discarded, `j` rejected, `U` a trap; what is no log is not looked at.
    for (kind, body) in [
        ("log", "a"),
        ("", "U1"),
        ("log", "x"),
        ("", "x2"),
        ("log", "U"),
        ("log", "b"),
        ("log", "j"),
        ("", "j3"),
    ] {
        builder.push([("type", kind)], body.as_bytes());
    }
    let (out, effects) = call(&*handler, &builder.finish()).await.unwrap();
    assert_eq!(texts(&out), ["a", "U1", "x2", "b", "j3"]);
    assert_eq!(effects.dead_letters.len(), 2);
    // Nothing at all, and everything.
    let none = bodies(["U", "x"]);
    assert_eq!(texts(&call(&*handler, &none).await.unwrap().0), ["U", "x"]);
    let mut builder = BatchBuilder::default();
    builder.push([("type", "log")], b"x");
    assert!(
        call(&*handler, &builder.finish())
            .await
            .unwrap()
            .0
            .is_empty()
    );
    assert!(house.shows(r#"levada_handler_events_total{part="handlers.test",verdict="pass"} 2"#));
}

/// A guest that asks WASI for the time and for random numbers twice, and traps unless both answers
/// are the same, or unless they are not.
fn asks_twice(import: &str, function: &str, wanted: &str) -> String {
    caller(
        &format!(
            r#"(import "{import}@0.2.6" (instance $it (export "{function}" (func (result u64)))))"#
        ),
        &format!(
            r#"(core func $ask (canon lower (func $it "{function}")))
               (core instance $host (export "ask" (func $ask)))"#
        ),
        r#"(import "host" "ask" (func $ask (result i64)))"#,
        &format!("(if ({wanted} (call $ask) (call $ask)) (then unreachable))"),
    )
}

#[tokio::test]
async fn a_clock_moves_when_it_is_granted() {
    let house = house();
    let clock = "wasi:clocks/monotonic-clock";
    for (granted, wanted) in [(false, "i64.ne"), (true, "i64.eq")] {
        let mut spec = house.spec(&asks_twice(clock, "now", wanted));
        spec.grants.wall_clock = granted;
        let handler = house.load(&spec).await;
        let (_, effects) = call(&*handler, &bodies(["a"])).await.unwrap();
        assert!(effects.dead_letters.is_empty(), "{granted}");
    }
}
