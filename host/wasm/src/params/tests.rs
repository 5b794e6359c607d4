use levada_core::{
    Value,
    settings::{Key, Span, ValueKind},
};

use super::*;

fn span(start: usize) -> Span {
    Span {
        file: 0,
        start,
        end: start + 1,
    }
}

fn table(path: &str, entries: Vec<(&str, Value)>) -> Table {
    let entry = |(n, (name, value)): (usize, (&str, Value))| {
        let key = Key {
            name: name.into(),
            span: span(n),
        };
        (
            key,
            Value {
                span: span(n),
                ..value
            },
        )
    };
    Table {
        path: path.into(),
        span: span(0),
        entries: entries.into_iter().enumerate().map(entry).collect(),
    }
}

fn inline(entries: Vec<(&str, Value)>) -> Value {
    Value {
        kind: ValueKind::Table(table("handlers.x.inner", entries)),
        span: span(0),
    }
}

fn read(entries: Vec<(&str, Value)>) -> Result<HandlerSpec, Vec<Problem>> {
    let part = PartId::parse("handlers.x").unwrap();
    let mut problems = Problems::new();
    let spec = check(&part, &table("handlers.x", entries), &mut problems);
    spec.ok_or_else(|| problems.into_sorted())
}

#[test]
fn a_component_is_enough() {
    let spec = read(vec![("component", "redact.wasm".into())]).unwrap();
    assert_eq!(spec.limits, Limits::default());
    assert_eq!(
        (spec.on_reject, spec.on_trap),
        (OnReject::DeadLetter, OnTrap::DeadLetter)
    );
    assert_eq!((spec.reuse, spec.config.0.as_str()), (Reuse::Reuse, "{}"));
}

#[test]
fn every_setting_is_read() {
    let spec = read(vec![
        ("component", "redact.wasm".into()),
        (
            "config",
            inline(vec![("fields", ["email", "phone"].into())]),
        ),
        (
            "limits",
            inline(vec![("memory", "16MiB".into()), ("cpu", "100ms".into())]),
        ),
        ("batch", inline(vec![("events", 10.into())])),
        ("instances", 3.into()),
        ("instance", "fresh".into()),
        ("on-trap", "stop".into()),
    ])
    .unwrap();
    assert_eq!(spec.config.0, r#"{"fields":["email","phone"]}"#);
    assert_eq!(
        (spec.limits.memory, spec.limits.batch_events),
        (16 << 20, 10)
    );
    assert_eq!(spec.limits.cpu, Duration::from_millis(100));
    assert_eq!(
        (spec.instances, spec.reuse, spec.on_trap),
        (3, Reuse::Fresh, OnTrap::Stop)
    );
    assert!(!format!("{spec:?}").contains("email"));
}

#[test]
fn what_cannot_work_is_told_with_its_place() {
    let problems = read(vec![
        ("component", "oci://registry/redact".into()),
        (
            "limits",
            inline(vec![("memory", "1KiB".into()), ("cpu", "0s".into())]),
        ),
        (
            "batch",
            inline(vec![("events", 0.into()), ("bytes", "2MiB".into())]),
        ),
        ("instances", 0.into()),
    ])
    .unwrap_err();
    let mut keys: Vec<_> = problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    keys.sort_unstable();
    let expected = [
        "batch.bytes",
        "batch.events",
        "component",
        "instances",
        "limits.cpu",
        "limits.memory",
    ];
    assert_eq!(keys, expected.map(|key| format!("handlers.x.{key}")));
    let later = read(vec![
        ("component", "x.wasm".into()),
        ("on-breaker", inline(vec![])),
    ]);
    assert_eq!(later.unwrap_err()[0].message, "not in this version");
}
