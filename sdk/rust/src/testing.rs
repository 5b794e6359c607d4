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
//! A sink is given its batch by [`Input::deliver`]; the servers it speaks to are a function:
//!
//! ```
//! use levada_sdk::{Event, Outcome, http, testing};
//!
//! testing::answer_requests(|request| match request.body.as_slice() {
//!     b"bad" => Ok(http::Response::new(400)),
//!     _ => Ok(http::Response::new(201)),
//! });
//! let events = testing::Input::new().event([], "good").event([], "bad");
//! let post = |event: &Event<'_>| match http::post("https://api.example/").body(event.body()).send() {
//!     Ok(answer) => answer.outcome(),
//!     Err(problem) => Outcome::retry(problem.to_string()),
//! };
//! let delivered = events.deliver(post).unwrap();
//! assert_eq!(delivered[0], testing::Delivered::Done);
//! assert_eq!(delivered[1], testing::Delivered::Rejected("status 400".into()));
//! assert_eq!(testing::requests().len(), 2);
//! ```
//!
//! Settings, state, log, metrics and servers belong to the thread, as each test has its own. A call
//! that fails has changed no state, as with a host.

mod answer;
pub(crate) mod host;
mod input;

pub use answer::{BrokenAnswer, Delivered, EventOut, Outcome};
pub use host::{
    answer_requests, clear, log_lines, metric, requests, set_attempt, set_now_ms, set_received_ms,
    set_row, set_secret, set_setting, settings_asked, settings_described,
};
pub use input::{Input, NotHandled, PolledOut, poll, tick};
