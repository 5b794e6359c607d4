//! Lets every event pass: what a call costs.

use levada_sdk::{Event, Verdict, interceptor};

#[interceptor]
fn noop(_: &Event<'_>) -> Verdict {
    Verdict::pass()
}
