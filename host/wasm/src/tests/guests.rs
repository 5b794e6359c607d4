//! Real guests, made by the tools of their languages. Runs where `LEVADA_GUESTS` names the folder
//! that holds `wasm32-wasip2/release` and `foreign`; their behaviour is told in `tests/guests`.

use super::*;

const BODIES: [&str; 6] = [
    r#"{"level":"debug"}"#,
    r#"{"level":"split"}"#,
    r#"{"level":"mask"}"#,
    r#"{"level":"error","text":"grüß"}"#,
    "no JSON",
    r#"{"other":1}"#,
];

async fn check_typed(house: &House, name: &str, path: PathBuf) {
    let mut spec = HandlerSpec::new(path);
    spec.limits.deadline = Duration::from_secs(60);
    let part = part(&format!("handlers.{name}"));
    let handler = house
        .handlers
        .load(&part, &spec)
        .await
        .unwrap()
        .interceptor
        .unwrap();
    let mut builder = BatchBuilder::default();
    for body in BODIES {
        builder.push([("tmp", "x"), ("host", "a")], body.as_bytes());
    }
    let batch = builder.finish();
    for _ in 0..20 {
        let (out, effects) = call(&*handler, &batch).await.unwrap();
        let expected = [BODIES[1], BODIES[1], BODIES[2], BODIES[3], BODIES[5]];
        assert_eq!(texts(&out), expected, "{name}");
        let headers: Vec<Vec<_>> = out.iter().map(|event| event.headers().collect()).collect();
        assert_eq!(headers[0], [("part", "1")], "{name}");
        assert_eq!(headers[1], [("part", "2")], "{name}");
        assert_eq!(headers[3], [("host", "a"), ("severity", "error")], "{name}");
        assert_eq!(
            effects.dead_letters[0].reason, "not a JSON object",
            "{name}"
        );
    }
    let retry = call(&*handler, &bodies(["retry"])).await.unwrap_err();
    let after = Some(Duration::from_millis(250));
    let reason = "asked to".to_owned();
    assert_eq!(retry, InterceptError::Later { reason, after }, "{name}");
    let handled = format!("levada_guest_sum_total{{part=\"{part}\",name=\"handled\"}} 120");
    assert!(house.shows(&handled), "{}", house.registry.render());
    // Whatever its run-time library asks for, a call of it runs again bit for bit.
    let recorded = rerun::record(house, &spec, &batch).await;
    let recording = recorded.recording.unwrap();
    assert!(recording.questions() > 0, "{name}");
    for _ in 0..3 {
        let replayed = house.handlers.replay(&spec, &recording).await.unwrap();
        assert!(
            replayed.differences.is_empty(),
            "{name}: {:?}",
            replayed.differences
        );
        assert_eq!(replayed.sights, recorded.sights, "{name}");
    }
}

#[tokio::test]
async fn guests_of_other_tool_chains_say_the_same() {
    let Some(dir) = std::env::var_os("LEVADA_GUESTS").map(PathBuf::from) else {
        return;
    };
    let house = house();
    for name in [
        "wasm32-wasip2/release/typed",
        "foreign/js",
        "foreign/python",
    ] {
        let path = dir.join(format!("{name}.wasm"));
        if path.exists() {
            let name = name.rsplit('/').next().unwrap_or(name);
            check_typed(&house, name, path).await;
            println!("{name} ran");
        }
    }
}

/// What the misbehaving guest does, and the limit or the words that name it.
const MISDEEDS: [(&str, &str); 38] = [
    ("loop", "`cpu`"),
    ("grow", "`memory`"),
    ("overflow", "`wasm-stack`"),
    ("panic", "unreachable"),
    ("divide", "unreachable"),
    ("index", "unreachable"),
    ("unreachable", "unreachable"),
    ("out-of-bounds", "out of bounds"),
    ("exit", "leave the process"),
    ("log-flood", "`host-calls`"),
    ("print-flood", "`host-calls`"),
    ("call-flood", "`host-calls`"),
    ("empty", "an empty answer"),
    ("version", "version 2 is not known"),
    ("reserved", "reserved bytes"),
    ("none", "not covered"),
    ("long", "events covered where"),
    ("zero", "covers no event"),
    ("unknown-op", "operation 7 is not one"),
    ("sink-op", "operation 6 is not one"),
    ("past-end", "past the end"),
    ("left-over", "ends inside its head"),
    ("pass-with-payload", "bytes left over"),
    ("reason-utf8", "a reason that is not UTF-8"),
    ("header-utf8", "a header that is not UTF-8"),
    ("varint", "shortest form"),
    ("twice", "a name twice"),
    ("set-and-remove", "a name twice"),
    ("no-name", "a name of no bytes"),
    ("long-name", "more than the 1024 allowed"),
    ("long-value", "more than the 65536 allowed"),
    ("no-events", "a replacement by no event"),
    ("event-cut", "ends inside a value"),
    ("many", "are allowed"),
    ("large-event", "allowed"),
    ("large-body", "are allowed"),
    ("huge", "`memory`"),
    ("far", "out of bounds"),
];

#[tokio::test]
async fn a_guest_that_misbehaves_hurts_only_the_event_it_misbehaves_on() {
    let Some(dir) = std::env::var_os("LEVADA_GUESTS").map(PathBuf::from) else {
        return;
    };
    let house = house();
    let path = dir.join("wasm32-wasip2/release/hostile.wasm");
    let batch = bodies(["a", "b", "P", "c"]);
    for (mode, words) in MISDEEDS {
        let config = format!(r#"{{"mode":"{mode}","poison":"P"}}"#);
        let mut spec = HandlerSpec::new(&path).with_config(config);
        spec.limits.deadline = Duration::from_secs(60);
        let handler = house.load(&spec).await;
        let (out, effects) = call(&*handler, &batch).await.unwrap();
        assert_eq!(texts(&out), ["a", "b", "c"], "{mode}");
        let reason = &effects.dead_letters[0].reason;
        assert!(reason.contains(words), "{mode}: {reason}");
    }
    for mode in [
        "log-line",
        "metric-flood",
        "metric-names",
        "look-around",
        "forged",
        "forged-event",
    ] {
        let config = format!(r#"{{"mode":"{mode}"}}"#);
        let handler = house
            .load(&HandlerSpec::new(&path).with_config(config))
            .await;
        let (out, effects) = call(&*handler, &batch).await.unwrap();
        assert_eq!(out.len() + effects.dead_letters.len(), 4, "{mode}");
        assert!(
            effects.dead_letters.is_empty(),
            "{mode}: {:?}",
            effects.dead_letters
        );
        assert!(
            !out.iter()
                .any(|e| e.headers().any(|(name, _)| name.starts_with("levada.")))
        );
    }
}
