use super::*;

#[test]
fn a_layout_points_at_the_parts_of_each_event() {
    let events = [
        (
            BTreeMap::from([("host".into(), "a".into())]),
            b"ok".to_vec(),
        ),
        (BTreeMap::new(), b"hi".to_vec()),
    ];
    let batch = build(&events);
    let place = |pairs, headers, body, size| Place {
        pairs,
        headers,
        body,
        size,
    };
    let expected = [place(1, 1, 10, 2), place(12, 0, 14, 2)];
    let layout = batch.layout().unwrap();
    assert_eq!(layout.places().collect::<Vec<_>>(), expected);
    assert_eq!(layout.bytes.len(), 16);
    let second = batch.slice(1..2);
    let layout = second.layout().unwrap();
    assert_eq!(layout.places().collect::<Vec<_>>(), [place(0, 0, 2, 2)]);
    assert_eq!(layout.bytes, b"\x00\x04hi");
    // Events out of order and far apart lie close together after compaction.
    let many = build(&vec![events[0].clone(); 100]);
    let apart = many.select([99, 0]);
    assert_eq!(apart.layout().unwrap().bytes.len(), 1200);
    assert_eq!(apart.clone().into_compact(), apart);
    assert_eq!(apart.into_compact().layout().unwrap().bytes.len(), 24);
}

#[test]
fn an_encoded_patch_does_what_a_patch_does() {
    let headers = [("a", "1"), ("b", "2"), ("c", "3")].map(|(k, v)| (k.into(), v.into()));
    let batch = build(&[(BTreeMap::from(headers), b"body".to_vec())]);
    let mut patch = Patch::new();
    patch.set("b", "new").unwrap();
    patch.remove("c").unwrap();
    let names: [&[u8]; 2] = [b"b", b"c"];
    let set = b"\x02b\x06new";
    let encoded = EncodedPatch {
        set,
        count: 1,
        names: &names,
    };
    for body in [None, Some(&b"other"[..])] {
        let mut one = batch.edit();
        one.patch(&patch, body);
        let mut other = batch.edit();
        let patched = other.patch_encoded(encoded, body);
        let (one, other) = (one.finish(), other.finish());
        assert_eq!(one, other);
        assert_eq!((patched.bytes, patched.headers), (one.bytes(), 2));
    }
    // Nothing dropped: the old pairs are copied in one piece.
    let mut editor = batch.edit();
    let add = EncodedPatch {
        set: b"\x02d\x02\x34",
        count: 1,
        names: &[b"d"],
    };
    editor.patch_encoded(add, None);
    assert_eq!(
        editor.finish().event_bytes(0).unwrap(),
        &b"\x08\x02a\x021\x02b\x022\x02c\x023\x02d\x024\x00\x08body"[..]
    );
}
