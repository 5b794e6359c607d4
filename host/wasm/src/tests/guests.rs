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
    let handler = house.handlers.load(&part, &spec).await.unwrap();
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
