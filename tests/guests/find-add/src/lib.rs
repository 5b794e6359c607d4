//! Finds a text in the body and adds a header where it is found.

pub mod logic;

use levada_sdk::{Event, Patch, Verdict, interceptor};

/// Adds the header where the text is found.
#[interceptor]
pub fn find_add(event: &Event<'_>) -> Verdict {
    if logic::found(event.body()) {
        Patch::new().set(logic::HEADER.0, logic::HEADER.1).into()
    } else {
        Verdict::pass()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use levada_sdk::testing::Input;

    #[test]
    fn the_header_is_added_where_the_text_is() {
        let outcomes = Input::new()
            .event([("host", "a")], format!("12 {} 13", logic::NEEDLE))
            .event([("host", "a")], "temperature_alar")
            .run(find_add)
            .unwrap();
        assert_eq!(outcomes[0].events()[0].header("alarm"), Some("temperature"));
        assert_eq!(outcomes[1].events()[0].header("alarm"), None);
    }
}
