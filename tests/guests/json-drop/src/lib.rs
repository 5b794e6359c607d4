//! Parses JSON bodies and drops what nobody wants.

pub mod logic;

use levada_sdk::{Event, Verdict, interceptor};

use logic::Fate;

/// Drops events of the unwanted level.
#[interceptor]
pub fn json_drop(event: &Event<'_>) -> Verdict {
    match logic::fate(event.body()) {
        Fate::Keep => Verdict::pass(),
        Fate::Drop => Verdict::discard(logic::UNWANTED),
        Fate::Malformed => Verdict::reject("not JSON"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use levada_sdk::testing::Input;

    #[test]
    fn the_unwanted_level_is_dropped() {
        let outcomes = Input::new()
            .event([], r#"{"level":"info","n":1}"#)
            .event([], r#"{"n":1,"level":"debug"}"#)
            .event([], r#"{"n":"#)
            .run(json_drop)
            .unwrap();
        assert_eq!(outcomes[0].events().len(), 1);
        assert_eq!(outcomes[1].discarded(), Some("debug"));
        assert_eq!(outcomes[2].rejected(), Some("not JSON"));
    }
}
