//! Who may send.

use std::hint::black_box;

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::header::{AUTHORIZATION, HeaderMap};
use levada_core::{Secret, params};

params! {
    /// What a client must show.
    pub(crate) struct AuthParams {
        /// The token of `Authorization: Bearer`.
        pub token: Option<Secret>,
        /// User and password of `Authorization: Basic`.
        pub basic: Option<BasicParams>,
    }
}

params! {
    /// A user and a password.
    pub(crate) struct BasicParams {
        /// The user's name.
        pub user: String,
        /// The password.
        pub password: Secret,
    }
}

impl AuthParams {
    /// Whether it is not one way and one way only.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.token.is_some() == self.basic.is_some()
    }
}

/// What the value of `Authorization` must be.
pub(crate) enum Auth {
    Token(Secret),
    /// `user:password`.
    Basic(Secret),
}

impl Auth {
    /// The check for these settings; `None` if they name no way.
    pub(crate) fn new(params: &AuthParams) -> Option<Self> {
        if let Some(token) = &params.token {
            return Some(Self::Token(token.clone()));
        }
        let basic = params.basic.as_ref()?;
        let pair = format!("{}:{}", basic.user, basic.password.reveal());
        Some(Self::Basic(Secret::new(pair)))
    }

    /// Whether a request may go on. The time it takes does not depend on where a guess is wrong.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(given) = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
        else {
            return false;
        };
        let Some((scheme, credentials)) = given.split_once(' ') else {
            return false;
        };
        let credentials = credentials.trim();
        match self {
            Self::Token(token) => {
                scheme.eq_ignore_ascii_case("bearer")
                    && same(credentials.as_bytes(), token.reveal().as_bytes())
            }
            Self::Basic(pair) => {
                scheme.eq_ignore_ascii_case("basic")
                    && STANDARD
                        .decode(credentials)
                        .is_ok_and(|given| same(&given, pair.reveal().as_bytes()))
            }
        }
    }

    /// The value of `WWW-Authenticate`.
    pub(crate) fn challenge(&self) -> &'static str {
        match self {
            Self::Token(_) => "Bearer",
            Self::Basic(_) => "Basic realm=\"levada\", charset=\"UTF-8\"",
        }
    }
}

/// Compares without stopping at the first difference; only the length shows in the time.
fn same(given: &[u8], wanted: &[u8]) -> bool {
    let pairs = given.iter().zip(wanted);
    let different = pairs.fold(0, |different, (a, b)| black_box(different | (a ^ b)));
    given.len() == wanted.len() && black_box(different) == 0
}
