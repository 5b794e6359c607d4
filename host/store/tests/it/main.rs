//! The store at its boundaries: one contract for every kind of channel, and the disk.
#![expect(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod broken;
mod channels;
mod contract;
mod damage;
mod disk;
mod faults;
mod full;
mod golden;
mod grouping;
mod hop;
mod lanes;
mod model;
mod place;
mod reopen;
mod shrink;
mod state;
