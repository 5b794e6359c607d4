//! Reservations on numbers alone.

use super::{Need, Reserve, Room, Rooms};
use crate::params::OnFull;

fn room(capacity: u64, on_full: OnFull) -> Room {
    Room {
        capacity_bytes: capacity,
        capacity_events: u64::MAX,
        on_full,
        elastic: false,
        on_disk: true,
        bytes: 0,
        events: 0,
    }
}

fn rooms<const N: usize>(rooms: [Room; N]) -> Rooms {
    Rooms::new(rooms.into(), room(0, OnFull::Block))
}

fn need(room: usize, bytes: u64) -> Need {
    Need {
        room,
        bytes,
        events: 1,
    }
}

#[test]
fn a_waiting_reservation_holds_nothing_of_the_other_rooms() {
    let mut rooms = rooms([room(10, OnFull::Block), room(10, OnFull::Block)]);
    assert!(matches!(rooms.reserve(vec![need(0, 8)]), Reserve::Granted));
    let Reserve::Waits { mut rx, .. } = rooms.reserve(vec![need(0, 5), need(1, 5)]) else {
        panic!("there is no room in the first");
    };
    // The second room is free for others meanwhile, the first is kept for who came first.
    assert!(matches!(rooms.reserve(vec![need(1, 10)]), Reserve::Granted));
    assert!(matches!(
        rooms.reserve(vec![need(0, 1)]),
        Reserve::Waits { .. }
    ));
    rooms.release(&[need(0, 8)]);
    assert!(rx.try_recv().is_err());
    rooms.release(&[need(1, 10)]);
    assert_eq!(rx.try_recv(), Ok(Ok(())));
    // The last one has gone meanwhile.
    assert_eq!((rooms.get(0).bytes, rooms.get(1).bytes), (5, 5));
}

#[test]
fn a_granted_reservation_that_nobody_takes_is_given_back() {
    let mut rooms = rooms([room(10, OnFull::Block)]);
    assert!(matches!(rooms.reserve(vec![need(0, 8)]), Reserve::Granted));
    let Reserve::Waits { rx, .. } = rooms.reserve(vec![need(0, 8)]) else {
        panic!("it is full");
    };
    drop(rx);
    rooms.release(&[need(0, 8)]);
    assert_eq!(rooms.get(0).bytes, 0);
}

#[test]
fn a_rejecting_room_refuses_while_another_would_wait() {
    let mut rooms = rooms([room(10, OnFull::Block), room(10, OnFull::Reject)]);
    assert!(matches!(
        rooms.reserve(vec![need(0, 10), need(1, 10)]),
        Reserve::Granted
    ));
    assert!(matches!(
        rooms.reserve(vec![need(0, 1), need(1, 1)]),
        Reserve::Refused(1)
    ));
    assert!(!rooms.anybody_waits());
}

#[test]
fn an_elastic_room_takes_one_that_is_too_large_when_empty() {
    let mut rooms = rooms([Room {
        elastic: true,
        on_disk: true,
        ..room(10, OnFull::Block)
    }]);
    assert_eq!(rooms.too_small(&[need(0, 50)]), None);
    assert!(matches!(rooms.reserve(vec![need(0, 50)]), Reserve::Granted));
    assert!(matches!(
        rooms.reserve(vec![need(0, 1)]),
        Reserve::Waits { .. }
    ));
}
