//! A disk that lies, owned by a seed.
//!
//! The disk keeps what was written and not synced apart from what is on its medium. A cut of the
//! power decides sector by sector what is left. Everything above it is the product: the store's own
//! backend with its space ahead, redb, the writer (stepped by hand), the doors.
//!
//! What a seed does once it does again: every failure is replayed by its number.

pub mod cuts;
pub mod disk;
pub mod totals;

mod events;
mod life;
mod model;
mod moves;
mod verify;
