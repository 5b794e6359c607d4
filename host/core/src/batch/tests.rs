mod parts;

use std::collections::BTreeMap;

use apache_avro::{Schema, types::Value};
use bytes::Bytes;
use proptest::{collection, prelude::*, sample};

use super::*;
use crate::{
    Incarnation, OriginId,
    avro::{self, AvroError},
};

type Event = (BTreeMap<String, String>, Vec<u8>);

const SCHEMA: &str = r#"{"type":"array","items":{"type":"record","name":"AvroFlumeEvent","fields":[
    {"name":"headers","type":{"type":"map","values":"string"}},{"name":"body","type":"bytes"}]}}"#;

/// Events with few names, so that patches hit, and with text of all kinds.
fn events() -> impl Strategy<Value = Vec<Event>> {
    let name = prop_oneof![
        sample::select(vec!["host", "k", "ünï", "sev"]).prop_map(str::to_owned),
        "[a-z]{1,70}"
    ];
    let headers = collection::btree_map(name, "\\PC{0,80}", 0..6);
    let body = collection::vec(any::<u8>(), 0..200);
    collection::vec((headers, body), 0..20)
}

fn build(events: &[Event]) -> Batch {
    let mut builder = BatchBuilder::default();
    for (headers, body) in events {
        builder.push(headers, body);
    }
    builder.finish()
}

fn read(batch: &Batch) -> Vec<Event> {
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    batch
        .iter()
        .map(|e| (e.headers().map(owned).collect(), e.body().to_vec()))
        .collect()
}

/// One positive block, as Java writes it.
fn array(batch: &Batch) -> Vec<u8> {
    let mut out = Vec::new();
    if !batch.is_empty() {
        avro::write_length(&mut out, batch.len());
        batch.runs().for_each(|run| out.extend_from_slice(run));
    }
    out.push(0);
    out
}

fn parse(bytes: &[u8]) -> Result<Checked, Malformed> {
    Batch::from_array(Bytes::copy_from_slice(bytes), 0, 10_000, &Limits::default())
}

fn to_avro(events: &[Event]) -> Value {
    let event = |(headers, body): &Event| {
        let headers = headers
            .iter()
            .map(|(k, v)| (k.clone(), Value::String(v.clone())));
        Value::Record(vec![
            ("headers".into(), Value::Map(headers.collect())),
            ("body".into(), Value::Bytes(body.clone())),
        ])
    };
    Value::Array(events.iter().map(event).collect())
}

fn from_avro(value: Value) -> Vec<Event> {
    let Value::Array(items) = value else {
        panic!("not an array")
    };
    let event = |item| {
        let Value::Record(fields) = item else {
            panic!("not a record")
        };
        let [(_, Value::Map(headers)), (_, Value::Bytes(body))] = &fields[..] else {
            panic!("not an event")
        };
        let text = |(k, v): (&String, &Value)| match v {
            Value::String(v) => (k.clone(), v.clone()),
            other => panic!("not a text: {other:?}"),
        };
        (headers.iter().map(text).collect(), body.clone())
    };
    items.into_iter().map(event).collect()
}

proptest! {
    #[test]
    fn what_is_built_is_read_by_another_avro(events in events()) {
        let schema = Schema::parse_str(SCHEMA).unwrap();
        let bytes = array(&build(&events));
        let reader = apache_avro::reader::datum::GenericDatumReader::builder(&schema).build().unwrap();
        let value = reader.read_value(&mut &bytes[..]).unwrap();
        prop_assert_eq!(from_avro(value), events);
    }

    #[test]
    fn what_another_avro_writes_is_read(events in events()) {
        let schema = Schema::parse_str(SCHEMA).unwrap();
        let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&schema).build().unwrap();
        let bytes = writer.write_value_to_vec(to_avro(&events)).unwrap();
        let checked = parse(&bytes).unwrap();
        prop_assert_eq!(checked.end, bytes.len());
        prop_assert_eq!(read(&checked.batch), events);
        // Validated bytes are kept as they are, and known to be canonical.
        prop_assert!(checked.batch.is_canonical());
        prop_assert_eq!(checked.batch.clone().into_canonical(), checked.batch);
    }

    #[test]
    fn random_bytes_are_read_or_refused(bytes in collection::vec(any::<u8>(), 0..300)) {
        if let Ok(checked) = parse(&bytes) {
            let events = read(&checked.batch);
            prop_assert_eq!(events.len(), checked.batch.len());
            prop_assert_eq!(read(&checked.batch.into_canonical()), events);
        }
    }

    #[test]
    fn a_broken_copy_is_read_or_refused(
        events in events(), at in any::<sample::Index>(), bit in 0_u8..8
    ) {
        let mut bytes = array(&build(&events));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(checked) = parse(&bytes) {
            read(&checked.batch);
        }
    }

    #[test]
    fn stored_bytes_read_the_same(events in events()) {
        let batch = build(&events);
        let mut bytes = Vec::new();
        batch.runs().for_each(|run| bytes.extend_from_slice(run));
        let ends = batch.lengths().scan(0, |end, length| { *end += length; Some(*end) });
        let stored = Batch::from_stored(bytes.into(), ends).unwrap();
        prop_assert_eq!(read(&stored), events);
        prop_assert_eq!(&stored, &batch);
        prop_assert_eq!(stored.bytes(), batch.bytes());
    }

    #[test]
    fn an_edit_does_what_its_verdicts_say(events in events(), seed in any::<u64>()) {
        let batch = build(&events);
        let chance = crate::Chance::seeded(seed);
        let mut editor = batch.edit();
        let mut expected = Vec::new();
        for (headers, body) in events {
            let (mut headers, mut body) = (headers, body);
            match chance.below(4) {
                0 => editor.keep(1),
                1 => {
                    editor.skip(1);
                    continue;
                }
                2 => {
                    let mut patch = Patch::new();
                    patch.set("host", "new").unwrap();
                    patch.remove("k").unwrap();
                    headers.insert("host".into(), "new".into());
                    headers.remove("k");
                    let other = (chance.below(2) == 0).then_some(&b"other"[..]);
                    editor.patch(&patch, other);
                    body = other.map_or(body, <[u8]>::to_vec);
                }
                _ => {
                    let children = build(&[(headers.clone(), b"first".to_vec())]);
                    editor.replace(&Batch::concat(vec![children.clone(), children]));
                    expected.push((headers.clone(), b"first".to_vec()));
                    body = b"first".to_vec();
                }
            }
            expected.push((headers, body));
        }
        let edited = editor.finish();
        prop_assert_eq!(read(&edited), expected);
        prop_assert!(edited.is_canonical());
        prop_assert_eq!(parse(&array(&edited)).unwrap().batch, edited);
    }
}

#[test]
fn several_blocks_negative_counts_and_repeated_names_are_legal() {
    // Array of two blocks: [-1, 12 bytes: one event], [1: one event]. The first event's map is a
    // negative block with its size, then another block that repeats the name.
    let event: &[u8] = b"\x01\x08\x02k\x02a\x02\x02k\x02b\x00\x02x";
    let mut bytes = vec![0x01];
    avro::write_length(&mut bytes, event.len());
    bytes.extend_from_slice(event);
    bytes.extend_from_slice(b"\x02\x00\x04hi\x00");
    let batch = parse(&bytes).unwrap().batch;
    assert_eq!(batch.len(), 2);
    assert_eq!(
        batch.get(0).unwrap().header("k"),
        Some("b"),
        "the last one wins"
    );
    assert!(!batch.get(0).unwrap().is_canonical());
    assert!(batch.get(1).unwrap().is_canonical());
    let canonical = batch.clone().into_canonical();
    assert_eq!(
        canonical.get(0).unwrap().as_bytes(),
        b"\x02\x02k\x02b\x00\x02x"
    );
    assert_eq!(canonical.get(1).unwrap().body(), b"hi");
}

#[test]
fn a_patch_leaves_no_old_value_behind_even_where_a_name_came_twice() {
    let mut bytes = vec![0x02];
    bytes.extend_from_slice(b"\x04\x02k\x06one\x02k\x06two\x00\x00\x00");
    let batch = parse(&bytes).unwrap().batch;
    let mut patch = Patch::new();
    patch.set("k", "***").unwrap();
    let mut editor = batch.edit();
    editor.patch(&patch, None);
    let edited = editor.finish();
    assert_eq!(
        edited.get(0).unwrap().as_bytes(),
        b"\x02\x02k\x06***\x00\x00"
    );
    // An unrelated patch keeps only the value that counted.
    let mut patch = Patch::new();
    patch.set("a", "b").unwrap();
    let mut editor = batch.edit();
    editor.patch(&patch, None);
    let edited = editor.finish();
    assert_eq!(
        edited.get(0).unwrap().as_bytes(),
        b"\x04\x02k\x06two\x02a\x02b\x00\x00"
    );
}

#[test]
fn claimed_lengths_reserve_no_memory() {
    let max = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let min = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for prefix in [
        &b""[..],
        b"\x02",
        b"\x02\x02",
        b"\x02\x02\x02k",
        b"\x02\x00",
    ] {
        for number in [
            &max[..],
            &min[..],
            b"\x01",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            let bytes = [prefix, number].concat();
            assert!(parse(&bytes).is_err(), "{bytes:02x?}");
        }
    }
    // A count that is allowed but not there.
    let checked = Batch::from_array(
        Bytes::from_static(b"\x80\x80\x80\x80\x08"),
        0,
        usize::MAX,
        &Limits::default(),
    );
    assert!(matches!(
        checked,
        Err(Malformed::Avro(AvroError::Truncated { .. }))
    ));
}

#[test]
fn events_beyond_a_limit_are_set_aside_and_their_neighbours_stay() {
    let limits = Limits {
        event: 64,
        headers: 2,
        name: 4,
        value: 8,
    };
    let good: Event = ([("k".to_owned(), "v".to_owned())].into(), b"good".to_vec());
    let big: Event = (BTreeMap::new(), vec![b'x'; 100]);
    let name: Event = ([("name5".to_owned(), String::new())].into(), Vec::new());
    let value: Event = (
        [("k".to_owned(), "123456789".to_owned())].into(),
        Vec::new(),
    );
    let many: Event = (
        ["a", "b", "c"]
            .map(|k| (k.to_owned(), String::new()))
            .into(),
        Vec::new(),
    );
    let batch = build(&[good.clone(), big, name, value, many, good.clone()]);
    let mut bytes = array(&batch);
    // An event whose header is not text, as a second block.
    bytes.pop();
    bytes.extend_from_slice(b"\x02\x02\x02k\x02\xff\x00\x00\x00");
    let checked = Batch::from_array(bytes.into(), 0, 100, &limits).unwrap();
    assert_eq!(read(&checked.batch), [good.clone(), good]);
    let kinds: Vec<_> = checked
        .faults
        .iter()
        .map(|fault| (fault.index, fault.kind))
        .collect();
    assert_eq!(
        kinds,
        [
            (
                1,
                FaultKind::EventSize {
                    bytes: 103,
                    allowed: 64
                }
            ),
            (
                2,
                FaultKind::Name {
                    bytes: 5,
                    allowed: 4
                }
            ),
            (
                3,
                FaultKind::Value {
                    bytes: 9,
                    allowed: 8
                }
            ),
            (4, FaultKind::Headers { allowed: 2 }),
            (6, FaultKind::NotText),
        ]
    );
    assert_eq!(checked.faults[0].event, batch.event_bytes(1).unwrap());
}

#[test]
fn more_events_than_allowed_are_refused() {
    let events = vec![(BTreeMap::new(), Vec::new()); 11];
    let bytes = array(&build(&events));
    let refused = Batch::from_array(bytes.into(), 0, 10, &Limits::default());
    assert_eq!(
        refused.unwrap_err(),
        Malformed::TooManyEvents { allowed: 10 }
    );
}

#[test]
fn a_header_set_twice_while_building_counts_once() {
    let mut builder = BatchBuilder::default();
    let event = builder
        .event()
        .header("a", "1")
        .header("b", "2")
        .header("a", "3")
        .header("c", "4");
    event.header("b", "5").body(b"x");
    let _without_a_body = builder.event().header("lost", "");
    let batch = builder.finish();
    assert_eq!(batch.len(), 1);
    let headers: Vec<_> = batch.get(0).unwrap().headers().collect();
    assert_eq!(headers, [("a", "3"), ("c", "4"), ("b", "5")]);
}

#[test]
fn children_are_numbered_and_the_rest_keep_their_ids() {
    let id = |sequence, child| OriginId {
        incarnation: Incarnation([7; 16]),
        sequence,
        child,
    };
    let events = vec![(BTreeMap::new(), b"x".to_vec()); 4];
    let batch = build(&events);
    let batch = batch.with_origins(Origins::from_ids([id(1, 0), id(2, 0), id(3, 0), id(4, 0)]));
    assert_eq!(batch.origins().runs().len(), 1);
    let mut editor = batch.edit();
    editor.keep(1);
    editor.replace(&build(&events[..2]));
    editor.skip(1);
    editor.replace(&build(&events[..1]));
    let edited = editor.finish();
    let ids: Vec<_> = edited.origins().iter().collect();
    assert_eq!(ids, [id(1, 0), id(2, 1), id(2, 2), id(4, 0)]);
    // A second split numbers the whole family anew: no two events share an id.
    let mut editor = edited.edit();
    editor.keep(1);
    editor.replace(&build(&events[..2]));
    editor.keep(2);
    let ids: Vec<_> = editor.finish().origins().iter().collect();
    assert_eq!(ids, [id(1, 0), id(2, 1), id(2, 2), id(2, 3), id(4, 0)]);
}

#[test]
fn slices_and_selections_keep_bytes_and_ids() {
    let id = |sequence| OriginId {
        incarnation: Incarnation([1; 16]),
        sequence,
        child: 0,
    };
    let events: Vec<Event> = (0..5).map(|n| (BTreeMap::new(), vec![n])).collect();
    let batch = build(&events).with_origins(Origins::from_ids((10..15).map(id)));
    let slice = batch.slice(1..3);
    assert_eq!(read(&slice), events[1..3]);
    assert_eq!(slice.origins().iter().collect::<Vec<_>>(), [id(11), id(12)]);
    let picked = batch.select([4, 0]);
    assert_eq!(
        picked.origins().iter().collect::<Vec<_>>(),
        [id(14), id(10)]
    );
    assert_eq!(picked.runs().count(), 2);
    let joined = Batch::concat(vec![slice, picked]);
    assert_eq!(
        read(&joined),
        [&events[1..3], &events[4..], &events[..1]].concat()
    );
    assert_eq!(joined.runs().count(), 1);
    assert_eq!(joined.origins().iter().count(), 4);
}

#[test]
fn an_index_that_does_not_fit_is_refused() {
    let data = Bytes::from_static(b"\x00\x00\x00\x00");
    assert!(Batch::from_stored(data.clone(), [2, 4]).is_ok());
    assert_eq!(
        Batch::from_stored(data.clone(), [2, 2]),
        Err(BadIndex { event: 1, bytes: 4 })
    );
    assert_eq!(
        Batch::from_stored(data, [2, 5]),
        Err(BadIndex { event: 1, bytes: 4 })
    );
}
