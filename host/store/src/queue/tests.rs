//! The bookkeeping of a lane, on numbers alone.

use super::{After, Bits, Entry, Places, Queue, Removed};

/// Rows of so many events of 10 bytes.
fn queue(rows: &[u32]) -> Queue {
    let mut queue = Queue::default();
    let mut first = 1;
    for count in rows {
        queue.push(Entry::new(first, 100 + first, *count, count * 10, false));
        first += u64::from(*count);
    }
    queue
}

fn taken(queue: &mut Queue, events: usize) -> Vec<(u64, Vec<u32>)> {
    let picks = queue.take(events, usize::MAX);
    picks
        .into_iter()
        .map(|pick| (pick.first, pick.places.iter().collect()))
        .collect()
}

#[test]
fn takes_in_order_across_rows_and_gives_back_to_the_old_place() {
    let mut queue = queue(&[3, 2]);
    assert_eq!(taken(&mut queue, 2), [(1, vec![0, 1])]);
    assert_eq!(taken(&mut queue, 2), [(1, vec![2]), (4, vec![0])]);
    queue.give_back(1, &Places::Each(vec![1]), Some(1));
    assert_eq!(taken(&mut queue, 9), [(1, vec![1]), (4, vec![1])]);
    assert_eq!(queue.free(), 0);
    assert_eq!(queue.events(), 5);
}

fn removed(after: After, bytes: u32) -> Option<Removed> {
    Some(Removed { after, bytes })
}

/// A flipped bit set one small event of a row aside with an even share of the row's bytes; the large
/// ones that were settled after it then had more than was left, and the channel counted below zero.
#[test]
fn a_guess_of_what_damaged_events_had_is_made_up_for_by_the_last_of_their_row() {
    let mut queue = queue(&[3, 2]);
    taken(&mut queue, 5);
    let bytes = |removed: Option<Removed>| removed.map(|removed| removed.bytes);
    assert_eq!(bytes(queue.remove(1, &Places::Range(0..1), 10)), Some(10));
    assert_eq!(bytes(queue.remove(1, &Places::Range(1..2), 28)), Some(20));
    assert_eq!(bytes(queue.remove(1, &Places::Range(2..3), 1)), Some(0));
    assert_eq!(bytes(queue.remove(4, &Places::Range(0..1), 1)), Some(1));
    assert_eq!(bytes(queue.remove(4, &Places::Range(1..2), 1)), Some(19));
    assert_eq!((queue.events(), queue.bytes()), (0, 0));
}

#[test]
fn a_row_goes_when_all_its_events_are_gone() {
    let mut queue = queue(&[3, 2]);
    taken(&mut queue, 5);
    let mut gone = Bits::none(3);
    gone.set(1, true);
    let after = queue.remove(1, &Places::Range(1..2), 10);
    assert_eq!(after, removed(After::Some { bytes: 20, gone }, 10));
    queue.give_back(1, &Places::Each(vec![0, 2]), Some(1));
    assert_eq!(taken(&mut queue, 9), [(1, vec![0, 2])]);
    assert_eq!(
        queue.remove(1, &Places::Each(vec![0, 2]), 20),
        removed(After::Gone { partly: true }, 20)
    );
    assert_eq!(
        queue.remove(4, &Places::Range(0..2), 20),
        removed(After::Gone { partly: false }, 20)
    );
    assert_eq!((queue.events(), queue.bytes(), queue.free()), (0, 0, 0));
    assert_eq!(queue.remove(4, &Places::Range(0..2), 20), None);
}

#[test]
fn a_lease_is_limited_by_bytes_but_never_empty() {
    let mut queue = queue(&[10, 10]);
    let picks = queue.take(100, 45);
    assert_eq!(picks[0].places, Places::Range(0..4));
    assert_eq!(queue.take(100, 0)[0].places, Places::Range(4..5));
    assert_eq!(queue.take(100, 100).len(), 2);
}

#[test]
fn rows_of_families_are_taken_whole() {
    let mut queue = Queue::default();
    queue.push(Entry::new(1, 0, 10, 100, true));
    assert_eq!(queue.take(3, 30)[0].places, Places::Range(0..10));
}

#[test]
fn what_was_gone_before_stays_gone() {
    let mut queue = Queue::default();
    let mut gone = Bits::none(70);
    [0, 1, 69].into_iter().for_each(|n| gone.set(n, true));
    assert_eq!(Bits::from_bytes(&gone.to_bytes(), 70), Some(gone.clone()));
    assert_eq!(Bits::from_bytes(&gone.to_bytes(), 200), None);
    let mut entry = Entry::new(1, 0, 70, 700, false);
    entry.restore(gone, 670);
    queue.push(entry);
    assert_eq!((queue.events(), queue.bytes()), (67, 670));
    let picks = taken(&mut queue, 100);
    assert_eq!(picks, [(1, (2..69).collect())]);
    queue.give_back(1, &Places::Range(2..69), None);
    assert_eq!(queue.free(), 67);
    assert_eq!(taken(&mut queue, 100), [(1, (2..69).collect())]);
}

#[test]
fn an_entry_stays_small() {
    assert!(size_of::<Entry>() <= 48, "{}", size_of::<Entry>());
}
