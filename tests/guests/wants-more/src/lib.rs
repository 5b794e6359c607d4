//! Imports something that no host grants: loading it must fail, and say what is missing.

#![expect(unsafe_code, reason = "the bindings are generated")]

wit_bindgen::generate!({
    inline: r#"
        package example:more@0.1.0;

        interface secrets-of-others {
          get: func(name: string) -> string;
        }

        world wants-more {
          import secrets-of-others;
          include levada:handler/interceptor-handler@0.1.0;
        }
    "#,
    path: "../../../wit",
    world: "example:more/wants-more",
    generate_all,
});

use example::more::secrets_of_others;
use exports::levada::handler::interceptor::{Event, Failure, Guest, Verdict};

struct WantsMore;

impl Guest for WantsMore {
    fn intercept(batch: Vec<Event>) -> Result<Vec<Verdict>, Failure> {
        let secret = secrets_of_others::get("token");
        Ok(batch
            .iter()
            .map(|_| Verdict::Reject(secret.clone()))
            .collect())
    }
}

export!(WantsMore);
