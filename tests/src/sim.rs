//! A disk that lies, and a network that does, owned by a seed.
//!
//! [`cuts`] is about one store: the disk keeps what was written and not synced apart from what is on its medium. A cut of the
//! power decides sector by sector what is left. Everything above it is the product: the store's own
//! backend with its space ahead, redb, the writer (stepped by hand), the doors.
//!
//! [`hops`] is about agents that send to each other: whole flows on such disks, over a network that
//! is cut, slow, half-open and replayed, in a time of its own.
//!
//! What a seed does once it does again: every failure is replayed by its number.

pub mod cuts;
pub mod disk;
pub mod flips;
pub mod hops;
pub mod totals;

mod events;
mod life;
mod model;
mod moves;
mod verify;
