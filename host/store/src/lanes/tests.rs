use levada_core::{BatchBuilder, Incarnation, OriginId, Origins};

use super::*;

fn spec(count: u32) -> LaneSpec {
    LaneSpec {
        count,
        key: "k".into(),
    }
}

fn batch(keys: &[&str]) -> Batch {
    let mut builder = BatchBuilder::default();
    for (n, key) in keys.iter().enumerate() {
        builder.push([("k", *key)], n.to_string().as_bytes());
    }
    builder.finish()
}

fn bodies(divided: &[(u32, Batch)]) -> Vec<String> {
    let body = |event: EventRef<'_>| String::from_utf8_lossy(event.body()).into_owned();
    let of = |(_, batch): &(u32, Batch)| batch.iter().map(body).collect::<Vec<_>>().join(" ");
    divided.iter().map(of).collect()
}

/// The lane of a key is part of the format: an upgrade must not change it.
#[test]
fn the_lane_of_a_key_is_the_same_in_every_version() {
    let lane = |key: &str, count| divide(Some(&spec(count)), batch(&[key]))[0].0;
    let lanes: Vec<_> = ["", "a", "edge-17", "\u{fc}"]
        .map(|key| lane(key, 64))
        .into();
    assert_eq!(lanes, LANES_OF_64);
    for key in ["", "a", "edge-17"] {
        assert_eq!(lane(key, 4), lane(key, 64) % 4);
        assert_eq!(lane(key, 1), 0);
    }
}

/// CRC32C of the four keys, each modulo 64.
const LANES_OF_64: [u32; 4] = [0, 48, 35, 47];

#[test]
fn a_batch_is_cut_by_key_in_order() {
    let all = batch(&["a", "b", "a", "c", "b", "a"]);
    assert_eq!(bodies(&divide(None, all.clone())), ["0 1 2 3 4 5"]);
    let cut = divide(Some(&spec(1000)), all);
    let mut parts = bodies(&cut);
    parts.sort();
    assert_eq!(parts, ["0 2 5", "1 4", "3"]);
    assert!(cut.windows(2).all(|pair| pair[0].0 < pair[1].0));
}

#[test]
fn children_are_not_parted() {
    let id = |sequence, child| OriginId {
        incarnation: Incarnation([1; 16]),
        sequence,
        child,
    };
    let ids = [id(1, 1), id(1, 2), id(2, 0), id(3, 1), id(3, 2), id(3, 3)];
    let all = batch(&["a", "b", "b", "c", "a", "b"]).with_origins(Origins::from_ids(ids));
    let cut = divide(Some(&spec(1000)), all);
    let mut parts = bodies(&cut);
    parts.sort();
    assert_eq!(parts, ["0 1", "2", "3 4 5"]);
    for (_, batch) in &cut {
        assert_eq!(batch.origins().iter().count(), batch.len());
    }
}
