//! The store at its boundaries: one contract for every kind of channel, and the disk.

mod contract;
mod disk;
mod grouping;
mod helpers;
mod model;
