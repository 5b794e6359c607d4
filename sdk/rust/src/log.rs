//! Lines in the agent's log, under the handler's name.
//!
//! A call may write 100 lines and 64 KiB; what is beyond that is dropped and counted. Control
//! characters are escaped by the host. Log what an operator has to know, not each event.

use crate::host;

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Writes one line.
pub fn write(level: Level, message: &str) {
    host::write_log(level as u8, message);
}

/// Writes a line for those who look for a fault in the handler.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// Writes a line about something that was started, changed or ended.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Writes a line about something unexpected that was dealt with.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Writes a line about something that needs a human.
pub fn error(message: &str) {
    write(Level::Error, message);
}
