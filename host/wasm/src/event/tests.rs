use proptest::prelude::*;

use super::*;

fn ids(count: usize) -> Origins {
    let id = |n: usize| OriginId {
        incarnation: Incarnation([0xab; 16]),
        sequence: 7 + n as u64,
        child: u32::try_from(n % 3).unwrap(),
    };
    Origins::from_ids((0..count).map(id))
}

fn texts(batch: &Batch) -> Vec<EventText> {
    let text = |(n, event)| EventText::of(event, batch.origins().get(n));
    batch.iter().enumerate().map(text).collect()
}

proptest! {
    #[test]
    fn events_are_the_same_bytes_after_a_way_through_json(
        events in prop::collection::vec(
            (prop::collection::btree_map(".{1,8}", ".{0,8}", 0..5), prop::collection::vec(any::<u8>(), 0..20)),
            0..6,
        ),
        with_ids in any::<bool>(),
    ) {
        let mut builder = BatchBuilder::default();
        for (headers, body) in &events {
            builder.push(headers.iter().rev(), body);
        }
        let mut batch = builder.finish();
        if with_ids {
            batch = batch.with_origins(ids(events.len()));
        }
        let json = serde_json::to_string(&texts(&batch)).unwrap();
        let read: Vec<EventText> = serde_json::from_str(&json).unwrap();
        let again = EventText::batch(&read).unwrap();
        prop_assert_eq!(&again, &batch);
        prop_assert_eq!(again.origins(), batch.origins());
    }
}

#[test]
fn what_is_no_event_is_named() {
    let read = |json: &str| {
        let read: Result<EventText, _> = serde_json::from_str(json);
        let batch = |event| EventText::batch(&[event]).map_err(|error| error.to_string());
        read.map_err(|error| error.to_string()).and_then(batch)
    };
    let empty = read("{}").unwrap();
    assert_eq!((empty.len(), empty.get(0).unwrap().body()), (1, &b""[..]));
    for (json, words) in [
        (r#"{"headers":{"a":"b","a":"c"}}"#, "the header \"a\" twice"),
        (r#"{"headers":{"a":1}}"#, "expected a string"),
        (r#"{"body64":"?"}"#, "`body64` is not base64"),
        (r#"{"id":"7"}"#, "\"7\" is no origin id"),
    ] {
        let error = read(json).unwrap_err();
        assert!(error.contains(words), "{json}: {error}");
    }
}

#[test]
fn bytes_that_are_no_text_are_told_from_text() {
    let coded_value = serde_json::to_value(Blob(vec![0xff, 0])).unwrap();
    assert_eq!(coded(&coded_value), Some(vec![0xff, 0]));
    let text = serde_json::to_value(Blob(b"{\"base64\":\"AA==\"}".to_vec())).unwrap();
    assert_eq!(coded(&text), None);
    for value in [coded_value, text] {
        let blob: Blob = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(blob).unwrap(), value);
    }
}
