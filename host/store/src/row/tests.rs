//! Rows as bytes.

use bytes::Bytes;
use levada_core::{
    Batch, BatchBuilder, Origins,
    origin::{Incarnation, OriginId, OriginRun},
};

use super::{StoredRow, link, rows_of};
use crate::keys::{self, LaneId};

const LANE: LaneId = LaneId {
    channel: 3,
    lane: 0,
};

fn batch(events: usize, body: usize) -> Batch {
    let mut builder = BatchBuilder::default();
    for n in 0..events {
        builder.push([("n", n.to_string())], &vec![b'x'; body]);
    }
    let count = u32::try_from(events).unwrap();
    builder.finish().with_origins(ids(&[(5, 0, count, false)]))
}

fn ids(runs: &[(u64, u32, u32, bool)]) -> Origins {
    let run = |&(sequence, child, count, children): &(u64, u32, u32, bool)| OriginRun {
        first: OriginId {
            incarnation: Incarnation([9; 16]),
            sequence,
            child,
        },
        count,
        children,
    };
    Origins::from_runs(runs.iter().map(run))
}

/// Writes all rows of a batch; each with its first position, and the chain after all.
fn written(batch: &Batch) -> (Vec<(u64, Vec<u8>)>, u64) {
    let (mut first, mut chain) = (1, 0);
    let mut out = Vec::new();
    for mut row in rows_of(batch, 0, 77) {
        chain = row.place(&keys::row(LANE, first), first, chain, 0xabcd);
        let mut bytes = vec![0; row.len()];
        row.write_to(&mut bytes);
        out.push((first, bytes));
        first += u64::from(row.positions);
    }
    (out, chain)
}

#[test]
fn rows_read_back_as_they_were() {
    for (events, body) in [
        (1, 0),
        (1, 300_000),
        (7, 10),
        (1000, 250),
        (3, 60_000),
        (5000, 40),
    ] {
        let batch = batch(events, body);
        let (rows, _) = written(&batch);
        let mut read = Vec::new();
        for (first, bytes) in rows {
            let row = StoredRow::read(&keys::row(LANE, first), &bytes.into()).unwrap();
            assert!((0..row.batch.len()).all(|n| row.is_sound(n)));
            assert_eq!(
                row.offsets(),
                (0..u32::try_from(row.batch.len()).unwrap()).collect::<Vec<_>>()
            );
            read.push(row.batch);
        }
        let all = Batch::concat(read);
        assert_eq!(all, batch);
        assert_eq!(all.origins(), batch.origins());
    }
}

#[test]
fn rows_fill_their_power_of_two() {
    let batch = batch(1000, 250);
    let (rows, _) = written(&batch);
    let pages: usize = rows
        .iter()
        .map(|(_, bytes)| (bytes.len() + 24).next_power_of_two())
        .sum();
    assert!(
        pages * 100 < batch.bytes() * 118,
        "{pages} for {}",
        batch.bytes()
    );
    assert!(rows.iter().all(|(_, bytes)| bytes.len() + 24 <= 128 << 10));
}

#[test]
fn the_chain_goes_over_positions_checksums_and_nonce() {
    let batch = batch(2, 5);
    let (_, chain) = written(&batch);
    let crc = |n: usize| crc32c::crc32c(batch.get(n).unwrap().as_bytes());
    assert_eq!(chain, link(link(0, 1, crc(0), 0xabcd), 2, crc(1), 0xabcd));
    assert_ne!(chain, link(link(0, 1, crc(0), 0xabce), 2, crc(1), 0xabce));
    // Pinned: a hop compares chains of different versions.
    assert_eq!(link(0, 1, 2, 3), LINK_OF_0_1_2_3);
}

#[test]
fn children_of_one_event_share_a_position_and_a_row() {
    let mut builder = BatchBuilder::default();
    for n in 0..6_u32 {
        builder.push([("n", n.to_string())], &[0; 60_000]);
    }
    // Two single events, a family of three, a single one.
    let origins = ids(&[(1, 0, 2, false), (3, 1, 3, true), (4, 0, 1, false)]);
    let batch = builder.finish().with_origins(origins);
    let (rows, _) = written(&batch);
    let firsts: Vec<_> = rows.iter().map(|(first, _)| *first).collect();
    assert_eq!(firsts, [1, 3, 4]);
    let (first, bytes) = &rows[1];
    let row = StoredRow::read(&keys::row(LANE, *first), &bytes.clone().into()).unwrap();
    assert_eq!(row.offsets(), [0, 0, 0]);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let batch = batch(4, 20);
    let (rows, _) = written(&batch);
    let (first, bytes) = &rows[0];
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let row = StoredRow::read(&keys::row(LANE, *first), &Bytes::from(bytes));
        let sound = row.is_some_and(|row| (0..4).all(|n| row.is_sound(n)));
        assert!(!sound, "bit {bit}");
    }
}

#[test]
fn a_row_under_another_key_is_none() {
    let (rows, _) = written(&batch(4, 20));
    assert!(StoredRow::read(&keys::row(LANE, 2), &rows[0].1.clone().into()).is_none());
}

#[test]
fn random_bytes_are_no_row() {
    let chance = levada_core::Chance::seeded(3);
    for length in 0..300_usize {
        let bytes: Vec<u8> = (0..length)
            .map(|_| chance.bits().to_le_bytes()[0])
            .collect();
        assert!(StoredRow::read(&keys::row(LANE, 1), &bytes.into()).is_none());
    }
}

#[test]
fn the_format_is_what_it_was() {
    let (rows, _) = written(&batch(2, 1));
    let hex: String = rows[0].1.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, ROW_OF_TWO);
}

const LINK_OF_0_1_2_3: u64 = 468_497_819_531_646_953;
const ROW_OF_TWO: &str = "\
    01000000020000000000000074000000cdab00000000000000000000000000004d000000000000000100000001000000\
    000000000200000000000000090909090909090909090909090909090500000000000000000000000200000000000000\
    080000005b95bede10000000e33ffb030db2154202026e023000027802026e0231000278";
