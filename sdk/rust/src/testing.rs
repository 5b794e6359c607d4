//! A stand-in for the host, for unit tests: only on targets other than WebAssembly.
//!
//! ```
//! use levada_sdk::{Event, Verdict, testing};
//!
//! fn keep_warnings(event: &Event<'_>) -> Verdict {
//!     match event.header("level") {
//!         Some("warn") => Verdict::pass(),
//!         _ => Verdict::discard(levada_sdk::settings::get("as").unwrap_or_default()),
//!     }
//! }
//!
//! testing::set_setting("as", "not a warning");
//! let events = testing::Input::new()
//!     .event([("level", "warn")], "hot")
//!     .event([("level", "info")], "fine");
//! let results = events.run(keep_warnings).unwrap();
//! assert_eq!(results[0].events()[0].body, b"hot");
//! assert_eq!(results[1].discarded(), Some("not a warning"));
//! ```
//!
//! Settings, state, log and metrics belong to the thread, as each test has its own. A call that
//! fails has changed no state, as with a host.

mod answer;
pub(crate) mod host;
mod input;

pub use answer::{BrokenAnswer, EventOut, Outcome};
pub use host::{
    clear, log_lines, metric, set_attempt, set_now_ms, set_received_ms, set_row, set_secret,
    set_setting,
};
pub use input::{Input, NotHandled, tick};
