use super::*;
use crate::testing::Input;

#[test]
fn a_batch_reads_as_it_was_made() {
    let long_name = "n".repeat(70);
    let long_value = "v".repeat(9000);
    let pairs: Vec<(String, String)> = (0..70).map(|n| (n.to_string(), n.to_string())).collect();
    let input = Input::new()
        .event([("host", "a"), ("level", "info")], "ok")
        .event([], [0xff, 0x00])
        .event([(long_name.as_str(), long_value.as_str())], "x".repeat(100))
        .event(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())), "");
    let (index, events) = input.packed();
    let batch = Batch::parse(&index, &events).unwrap();

    assert_eq!(
        (batch.len(), batch.is_empty(), batch.iter().len()),
        (4, false, 4)
    );
    let first = batch.get(0).unwrap();
    assert_eq!(first.header("host"), Some("a"));
    assert_eq!(first.header("level"), Some("info"));
    assert_eq!(first.header("hos"), None);
    assert_eq!(
        first.headers().collect::<Vec<_>>(),
        [("host", "a"), ("level", "info")]
    );
    assert_eq!(first.text(), Some("ok"));
    let second = batch.get(1).unwrap();
    assert_eq!(
        (second.headers().count(), second.body(), second.text()),
        (0, &[0xff, 0][..], None)
    );
    assert_eq!(
        batch.get(2).unwrap().header(&long_name),
        Some(long_value.as_str())
    );
    let many: Vec<_> = batch.get(3).unwrap().headers().collect();
    assert_eq!(many.len(), 70);
    assert_eq!(many[69], ("69", "69"));
    assert!(batch.get(4).is_none());
}

#[test]
fn records_that_grew_are_stepped_over() {
    let (index, events) = Input::new().event([], "1").event([], "2").packed();
    let mut wide = vec![1, 0, 20, 0];
    wide.extend_from_slice(&index[4..8]);
    for record in index[8..].chunks(16) {
        wide.extend_from_slice(record);
        wide.extend_from_slice(&[0xee; 4]);
    }
    let batch = Batch::parse(&wide, &events).unwrap();
    let bodies: Vec<_> = batch.iter().map(|event| event.body()).collect();
    assert_eq!(bodies, [b"1", b"2"]);
}

#[test]
fn another_form_is_a_failure_and_no_trap() {
    let (index, events) = Input::new().event([], "1").packed();
    let mut other = index.clone();
    other[0] = 2;
    for wrong in [
        &[][..],
        &index[..7],
        &index[..20],
        &other,
        &[1, 0, 8, 0, 0, 0, 0, 0],
    ] {
        assert!(
            matches!(Batch::parse(wrong, &events), Err(Failure::Fatal(_))),
            "{wrong:?}"
        );
    }
    for at in 8..index.len() {
        let mut bent = index.clone();
        bent[at] = 0xff;
        let batch = Batch::parse(&bent, &events).unwrap();
        for event in &batch {
            let _ = (
                event.header("a"),
                event.headers().count(),
                event.body().len(),
            );
        }
    }
}
