use std::{future::Future, pin::pin, sync::Arc, task};

use levada_core::{
    Batch, BatchBuilder, Clock, Effects, Interceptor, PartId, Problems, Table, Value,
    interceptor::Call,
    settings::{Key, Span},
    state::Stateless,
};

use crate::{Deps, kinds};

#[derive(Debug)]
struct At(u64);

impl Clock for At {
    fn wall_ms(&self) -> u64 {
        self.0
    }
}

fn table(entries: &[(&str, Value)]) -> Table {
    let entry = |(name, value): &(&str, Value)| {
        (
            Key {
                name: (*name).into(),
                span: Span::default(),
            },
            value.clone(),
        )
    };
    Table {
        path: "interceptors.x".into(),
        entries: entries.iter().map(entry).collect(),
        ..Table::default()
    }
}

/// Builds an interceptor as the configuration would, or says which keys are wrong.
fn build(kind: &str, entries: &[(&str, Value)]) -> Result<Arc<dyn Interceptor>, Vec<String>> {
    let part = PartId::parse("interceptors.x").unwrap();
    let mut problems = Problems::default();
    let kinds = kinds(&Deps {
        clock: Arc::new(At(1_700_000_000_123)),
    });
    let kind = kinds.iter().find(|known| known.name == kind).unwrap();
    match kind.check(&part, &table(entries), &["type"], &mut problems) {
        Some(build) => Ok(build()),
        None => Err(problems.iter().map(|problem| problem.key.clone()).collect()),
    }
}

/// None of these interceptors ever waits.
fn run(interceptor: &dyn Interceptor, batch: &Batch) -> Batch {
    let part = PartId::parse("sources.s").unwrap();
    let call = Call {
        part: &part,
        attempt: 1,
        received_ms: 0,
        states: &Stateless,
    };
    let mut effects = Effects::default();
    let batch = {
        let mut future = pin!(interceptor.intercept(batch.clone(), &call, &mut effects));
        let mut cx = task::Context::from_waker(task::Waker::noop());
        match future.as_mut().poll(&mut cx) {
            task::Poll::Ready(result) => result.unwrap(),
            task::Poll::Pending => panic!("a native interceptor waited"),
        }
    };
    assert!(effects.is_empty());
    batch
}

fn batch(events: &[&[(&str, &str)]]) -> Batch {
    let mut builder = BatchBuilder::default();
    for (n, headers) in events.iter().enumerate() {
        builder.push(headers.iter().copied(), format!("body {n}").as_bytes());
    }
    builder.finish()
}

fn check(
    kind: &str,
    entries: &[(&str, Value)],
    before: &[&[(&str, &str)]],
    after: &[&[(&str, &str)]],
) {
    let interceptor = build(kind, entries).unwrap();
    assert_eq!(
        run(&*interceptor, &batch(before)),
        batch(after),
        "{kind} {entries:?}"
    );
}

#[test]
fn timestamp_is_the_wall_time_in_milliseconds() {
    let now = "1700000000123";
    check(
        "timestamp",
        &[],
        &[&[], &[("k", "v")]],
        &[&[("timestamp", now)], &[("k", "v"), ("timestamp", now)]],
    );
    check(
        "timestamp",
        &[],
        &[&[("timestamp", "1")]],
        &[&[("timestamp", now)]],
    );
    let custom = [
        ("header-name", Value::from("when")),
        ("preserve-existing", true.into()),
    ];
    check(
        "timestamp",
        &custom,
        &[&[("when", "1")], &[]],
        &[&[("when", "1")], &[("when", now)]],
    );
}

#[test]
fn static_keeps_what_is_there_unless_told_otherwise() {
    check("static", &[], &[&[]], &[&[("key", "value")]]);
    let dc = [("key", Value::from("dc")), ("value", "eu".into())];
    check(
        "static",
        &dc,
        &[&[("dc", "us")], &[("a", "b")]],
        &[&[("dc", "us")], &[("a", "b"), ("dc", "eu")]],
    );
    let over = [
        ("key", Value::from("dc")),
        ("value", "eu".into()),
        ("preserve-existing", false.into()),
    ];
    check("static", &over, &[&[("dc", "us")]], &[&[("dc", "eu")]]);
}

#[test]
fn host_is_the_name_or_an_address_of_this_machine() {
    let name = crate::host::own_name().unwrap();
    check(
        "host",
        &[("use-ip", false.into())],
        &[&[("host", "old")]],
        &[&[("host", &name)]],
    );
    let interceptor = build("host", &[]).unwrap();
    let seen = run(&*interceptor, &batch(&[&[]]));
    let address = seen.get(0).unwrap().header("host").unwrap().to_owned();
    assert!(address.parse::<std::net::IpAddr>().is_ok(), "{address}");
    let keep = [
        ("host-header", Value::from("h")),
        ("preserve-existing", true.into()),
    ];
    check("host", &keep, &[&[("h", "edge-1")]], &[&[("h", "edge-1")]]);
}

#[test]
fn a_batch_that_stays_the_same_is_not_copied() {
    let dc = [("key", Value::from("dc"))];
    let interceptor = build("static", &dc).unwrap();
    let before = batch(&[&[("dc", "us")], &[("dc", "eu")]]);
    let after = run(&*interceptor, &before);
    let start = |batch: &Batch| batch.runs().next().unwrap().as_ptr();
    assert_eq!(start(&before), start(&after));
    assert_eq!(run(&*interceptor, &Batch::default()).len(), 0);
}

#[test]
fn settings_that_no_event_may_have_are_refused() {
    let long = "x".repeat(2000);
    for (kind, key) in [
        ("timestamp", "header-name"),
        ("host", "host-header"),
        ("static", "key"),
    ] {
        let path = vec![format!("interceptors.x.{key}")];
        assert_eq!(build(kind, &[(key, "".into())]).unwrap_err(), path);
        assert_eq!(
            build(kind, &[(key, long.as_str().into())]).unwrap_err(),
            path
        );
    }
    let huge = "x".repeat(70_000);
    let wrong = build(
        "static",
        &[("value", huge.as_str().into()), ("valu", "x".into())],
    );
    assert_eq!(wrong.unwrap_err(), ["interceptors.x.valu"]);
    let wrong = build("static", &[("value", huge.as_str().into())]);
    assert_eq!(wrong.unwrap_err(), ["interceptors.x.value"]);
}
