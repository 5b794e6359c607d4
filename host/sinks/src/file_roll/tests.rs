mod crashes;
mod world;

use jiff::tz::TimeZone;
use levada_core::{
    Batch, BatchBuilder, Chance, Incarnation, Name, OriginId, PartKind, Peer, Stopper, SystemClock,
    Value,
    batch::EventRef,
    settings::{Key, ValueKind},
};
use tempfile::TempDir;

use super::*;
use crate::fake_hop::FakeHop;

fn event(headers: &[(&str, &str)], body: &[u8]) -> Batch {
    let mut builder = BatchBuilder::default();
    builder.push(headers.iter().copied(), body);
    builder.finish()
}

fn expand(pattern: &str, headers: &[(&str, &str)], clock: EventTime) -> String {
    let pattern = Pattern::parse(pattern, TimeZone::UTC, clock).unwrap();
    pattern.expand(event(headers, b"").get(0).unwrap(), 1_000)
}

#[test]
fn names_come_from_time_and_headers() {
    let check = |pattern, headers: &[(&str, &str)], expected: &str| {
        assert_eq!(
            expand(pattern, headers, EventTime::Event),
            expected,
            "{pattern} {headers:?}"
        );
    };
    check(
        "%Y/%m-%d/x",
        &[("timestamp", "1763737200000")],
        "2025/11-21/x",
    );
    check("%H%M%S", &[], "000001");
    check("%H%M%S", &[("timestamp", "soon")], "000001");
    check("%Y", &[("timestamp", "99999999999999999")], "1970");
    check("%{host}-%Y", &[("host", "gw 17")], "gw 17-1970");
    check("a%%{b}", &[("b", "x")], "a%{b}");
    assert_eq!(
        expand("%S", &[("timestamp", "5000")], EventTime::Wall),
        "01"
    );
}

#[test]
fn a_header_cannot_lead_out_of_the_folder() {
    let check = |value: &str, expected: &str| {
        assert_eq!(
            expand("d/%{h}", &[("h", value)], EventTime::Event),
            expected,
            "{value:?}"
        );
    };
    check("../../etc/passwd", "d/_._.._etc_passwd");
    check("..", "d/_.");
    check("/abs\\x", "d/_abs_x");
    check("a\0b\nc", "d/a_b_c");
    check(".hidden", "d/_hidden");
    check("", "d/_");
    check(&"\u{e9}".repeat(200), &format!("d/{}", "\u{e9}".repeat(40)));
    // Two harmless pieces that are not when joined.
    let joined = expand("%{a}%{b}", &[("a", "."), ("b", ".")], EventTime::Event);
    assert_eq!(joined, "_.");
}

#[test]
fn patterns_that_cannot_be_files_are_refused() {
    for pattern in [
        "", "/abs", "a/", "a//b", "../x", "a/./b", "%{", "%{}", "%i", "a\nb",
    ] {
        let parsed = Pattern::parse(pattern, TimeZone::UTC, EventTime::Event);
        assert!(parsed.is_err(), "{pattern:?}");
    }
    // Names of the tz database need one on the machine; these do not.
    assert!(pattern::zone("UTC").is_ok() && pattern::zone("local").is_ok());
    assert!(pattern::zone("Middle/Earth").is_err());
}

#[test]
fn lines_keep_what_the_event_says() {
    let check = |format: Format, headers: &[(&str, &str)], body: &[u8], expected: &str| {
        let mut out = Vec::new();
        format.write(event(headers, body).get(0).unwrap(), None, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    };
    check(Format::Text, &[("a", "b")], b"hi", "hi\n");
    let quoted = "{\"headers\":{\"a\":\"q\\\"\"},\"body\":\"x\\ny\"}\n";
    check(Format::Json, &[("a", "q\"")], b"x\ny", quoted);
    check(
        Format::Json,
        &[],
        b"\xff\x00",
        "{\"headers\":{},\"body64\":\"/wA=\"}\n",
    );
    let twice: &[u8] = &[4, 2, b'k', 2, b'1', 2, b'k', 2, b'2', 0, 0];
    let mut out = Vec::new();
    Format::Json.write(EventRef::from_stored(twice), None, &mut out);
    assert_eq!(out, b"{\"headers\":{\"k\":\"2\"},\"body\":\"\"}\n");
    out.clear();
    let id = OriginId {
        incarnation: Incarnation([0xab; 16]),
        sequence: 7,
        child: 0,
    };
    Format::Json.write(event(&[], b"x").get(0).unwrap(), Some(id), &mut out);
    let line = format!(
        "{{\"id\":\"{}-7.0\",\"headers\":{{}},\"body\":\"x\"}}\n",
        "ab".repeat(16)
    );
    assert_eq!(String::from_utf8(out).unwrap(), line);
}

fn table(pairs: &[(&str, Value)]) -> Table {
    let key = |name: &str| Key {
        name: name.into(),
        span: Default::default(),
    };
    let entries = pairs
        .iter()
        .map(|(name, value)| (key(name), value.clone()))
        .collect();
    Table {
        path: "sinks.files".into(),
        entries,
        ..Table::default()
    }
}

fn part() -> PartId {
    PartId::new(PartKind::Sinks, Name::new("files").unwrap())
}

fn context() -> RunContext {
    let (_, stop) = Stopper::new();
    RunContext {
        part: part(),
        stop,
        clock: Arc::new(SystemClock),
        chance: Chance::seeded(1),
        peer: Peer::default(),
    }
}

/// A sink on a real folder.
fn sink(folder: &TempDir, more: &[(&str, Value)]) -> Box<dyn Sink> {
    let path = folder.path().to_str().unwrap();
    let mut pairs = more.to_vec();
    // The first of two counts.
    pairs.extend([("directory", Value::from(path)), ("file", Value::from("x"))]);
    let mut problems = Problems::new();
    let factory = Factory {
        registry: Registry::new(),
        clock: Arc::new(SystemClock),
    };
    let kind = levada_core::SinkKind::of(factory);
    let build = kind.check(&part(), &table(&pairs), &[], &mut problems);
    build.unwrap_or_else(|| panic!("{problems:?}"))()
}

/// Applies marks as the store would.
fn apply(marks: &Marks, writes: Vec<MarkWrite>) -> Marks {
    let mut pairs: std::collections::BTreeMap<_, _> = marks
        .iter()
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .collect();
    for write in writes {
        match write.value {
            Some(value) => pairs.insert(write.key, value),
            None => pairs.remove(&write.key),
        };
    }
    Marks::new(pairs)
}

fn roll(pairs: &[(&str, Value)]) -> (&'static str, Value) {
    (
        "roll",
        Value {
            kind: ValueKind::Table(table(pairs)),
            span: Default::default(),
        },
    )
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with(".levada")).collect();
    names.sort();
    names
}

fn numbered(range: std::ops::Range<u32>) -> Batch {
    let mut builder = BatchBuilder::default();
    for n in range {
        builder.push::<&str, &str>([], n.to_string().as_bytes());
    }
    builder.finish()
}

#[tokio::test]
async fn files_get_their_names_when_the_settlement_is_on_disk() {
    let folder = TempDir::new().unwrap();
    let mut sink = sink(&folder, &[roll(&[("events", 3.into())])]);
    let cx = context();
    sink.open(&Marks::default(), &FakeHop::any()).await.unwrap();
    let delivery = sink
        .deliver(&Lease::loose(numbered(0..7)), &cx)
        .await
        .unwrap();
    assert!(delivery.confirm);
    let tmp = |n| format!("x-00000{n}.log.files.tmp");
    assert_eq!(names(&folder), [tmp(1), tmp(2), tmp(3)]);
    let marks = apply(&Marks::default(), delivery.marks);
    sink.settled().await.unwrap();
    assert_eq!(
        names(&folder),
        ["x-000001.log".into(), "x-000002.log".into(), tmp(3)]
    );
    let first = std::fs::read_to_string(folder.path().join("x-000001.log")).unwrap();
    assert_eq!(first, "0\n1\n2\n");
    // The marks of named files go with the next delivery.
    let delivery = sink
        .deliver(&Lease::loose(numbered(7..8)), &cx)
        .await
        .unwrap();
    let marks = apply(&marks, delivery.marks);
    sink.settled().await.unwrap();
    assert_eq!(marks.iter().count(), 2, "{marks:?}");
    sink.close().await;
    let third = std::fs::read_to_string(folder.path().join("x-000003.log")).unwrap();
    assert_eq!(third, "6\n7\n");
}

#[tokio::test]
async fn what_was_not_settled_is_cut_off_at_the_next_start() {
    let folder = TempDir::new().unwrap();
    let cx = context();
    let mut first = sink(&folder, &[]);
    first
        .open(&Marks::default(), &FakeHop::any())
        .await
        .unwrap();
    let delivery = first
        .deliver(&Lease::loose(numbered(0..2)), &cx)
        .await
        .unwrap();
    let marks = apply(&Marks::default(), delivery.marks);
    first.settled().await.unwrap();
    first
        .deliver(&Lease::loose(numbered(2..4)), &cx)
        .await
        .unwrap();
    // The process is gone: nothing is closed, and the marks are the old ones.
    drop(first);
    let mut second = sink(&folder, &[]);
    second.open(&marks, &FakeHop::any()).await.unwrap();
    let delivery = second
        .deliver(&Lease::loose(numbered(2..5)), &cx)
        .await
        .unwrap();
    let _marks = apply(&marks, delivery.marks);
    second.settled().await.unwrap();
    second.close().await;
    assert_eq!(names(&folder), ["x-000001.log"]);
    let text = std::fs::read_to_string(folder.path().join("x-000001.log")).unwrap();
    assert_eq!(text, "0\n1\n2\n3\n4\n");
}

#[tokio::test(start_paused = true)]
async fn old_and_idle_files_end_by_themselves() {
    let folder = TempDir::new().unwrap();
    let cx = context();
    let times = [("every", "1h".into()), ("idle", "1m".into())];
    let mut sink = sink(&folder, &[roll(&times), ("file", "%{h}".into())]);
    sink.open(&Marks::default(), &FakeHop::any()).await.unwrap();
    assert_eq!(sink.tick_after(), None);
    sink.deliver(&Lease::loose(event(&[("h", "a")], b"1")), &cx)
        .await
        .unwrap();
    sink.settled().await.unwrap();
    tokio::time::advance(Duration::from_secs(30)).await;
    sink.deliver(&Lease::loose(event(&[("h", "b")], b"2")), &cx)
        .await
        .unwrap();
    sink.settled().await.unwrap();
    assert_eq!(sink.tick_after(), Some(Duration::from_secs(30)));
    tokio::time::advance(Duration::from_secs(30)).await;
    assert!(!sink.tick().await.unwrap().is_empty());
    sink.settled().await.unwrap();
    assert_eq!(names(&folder), ["a-000001.log", "b-000002.log.files.tmp"]);
    sink.close().await;
}

#[tokio::test]
async fn only_so_many_files_are_open() {
    let folder = TempDir::new().unwrap();
    let cx = context();
    let mut sink = sink(&folder, &[("file", "%{h}".into()), ("max-open", 2.into())]);
    sink.open(&Marks::default(), &FakeHop::any()).await.unwrap();
    let mut builder = BatchBuilder::default();
    for (host, body) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("b", "5")] {
        builder.push([("h", host)], body.as_bytes());
    }
    sink.deliver(&Lease::loose(builder.finish()), &cx)
        .await
        .unwrap();
    sink.settled().await.unwrap();
    sink.close().await;
    let expected = [
        "a-000001.log",
        "b-000002.log",
        "b-000004.log",
        "c-000003.log",
    ];
    assert_eq!(names(&folder), expected);
    let read = |name| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(
        (read("a-000001.log"), read("b-000004.log")),
        ("1\n3\n".into(), "5\n".into())
    );
}

#[tokio::test]
async fn two_agents_do_not_share_a_sink() {
    let folder = TempDir::new().unwrap();
    let mut first = sink(&folder, &[]);
    first
        .open(&Marks::default(), &FakeHop::any())
        .await
        .unwrap();
    let error = sink(&folder, &[])
        .open(&Marks::default(), &FakeHop::any())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("held by another agent"),
        "{error}"
    );
    first.close().await;
    sink(&folder, &[])
        .open(&Marks::default(), &FakeHop::any())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_name_that_is_taken_is_not_overwritten() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("x-000001.log"), "mine").unwrap();
    let mut sink = sink(&folder, &[]);
    sink.open(&Marks::default(), &FakeHop::any()).await.unwrap();
    sink.deliver(&Lease::loose(numbered(0..1)), &context())
        .await
        .unwrap();
    sink.settled().await.unwrap();
    sink.close().await;
    assert_eq!(names(&folder), ["x-000001.log", "x-000002.log"]);
    let text = std::fs::read_to_string(folder.path().join("x-000001.log")).unwrap();
    assert_eq!(text, "mine");
}

#[tokio::test]
async fn files_are_kept_when_the_store_has_forgotten_them() {
    let folder = TempDir::new().unwrap();
    let cx = context();
    let mut first = sink(&folder, &[]);
    first
        .open(&Marks::default(), &FakeHop::any())
        .await
        .unwrap();
    first
        .deliver(&Lease::loose(numbered(0..2)), &cx)
        .await
        .unwrap();
    first.settled().await.unwrap();
    drop(first);
    let mut second = sink(&folder, &[]);
    second
        .open(&Marks::default(), &FakeHop::any())
        .await
        .unwrap();
    second.close().await;
    assert_eq!(names(&folder), ["x-000001.log.recovered"]);
    let text = std::fs::read_to_string(folder.path().join("x-000001.log.recovered")).unwrap();
    assert_eq!(text, "0\n1\n");
}

#[test]
fn mistakes_in_the_settings_are_all_found() {
    let factory = Factory {
        registry: Registry::new(),
        clock: Arc::new(SystemClock),
    };
    let kind = levada_core::SinkKind::of(factory);
    let table = table(&[
        ("directory", "/tmp/x".into()),
        ("file", "../%Y".into()),
        ("extension", "a/b".into()),
    ]);
    let mut problems = Problems::new();
    assert!(kind.check(&part(), &table, &[], &mut problems).is_none());
    let mut keys: Vec<_> = problems.iter().map(|problem| problem.key.clone()).collect();
    keys.sort();
    assert_eq!(keys, ["sinks.files.extension", "sinks.files.file"]);
}
