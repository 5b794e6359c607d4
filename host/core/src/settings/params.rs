//! One list of keys per part: the single source of names, types, defaults, docs and secrecy.

use crate::settings::{Problem, Problems, Setting, Table, Value};

/// One key of a part.
#[derive(Debug, Clone)]
pub struct Field {
    /// The key, as written in a file.
    pub key: String,
    /// What is allowed, for people.
    pub allowed: String,
    /// The default, as it would be written; `None` for a key without one.
    pub default: Option<String>,
    /// Whether the key must be there.
    pub required: bool,
    /// Whether values are never shown.
    pub secret: bool,
    /// What it is for.
    pub doc: String,
}

/// The settings of a part. Implemented by [`params!`](crate::params).
pub trait Params: Sized {
    /// Every key.
    fn fields() -> Vec<Field>;

    /// Keys that the documents speak of and this version does not have.
    fn later() -> &'static [&'static str];

    /// Reads the known keys of a table; unknown ones are ignored here.
    fn read_fields(table: &Table, problems: &mut Problems) -> Option<Self>;
}

/// Reads a part's settings and refuses unknown keys. `others` are keys that somebody else reads.
///
/// `None` if there was any error; all of them are in `problems` then.
pub fn parse_params<P: Params>(
    table: &Table,
    others: &[&str],
    problems: &mut Problems,
) -> Option<P> {
    let fields = P::fields();
    let mut unknown = false;
    for (key, _) in &table.entries {
        let name = key.name.as_str();
        if others.contains(&name) || fields.iter().any(|field| field.key == name) {
            continue;
        }
        unknown = true;
        let path = table.path_of(name);
        problems.push(if P::later().contains(&name) {
            Problem::error(Some(key.span), path, "not in this version")
                .help("the key is known, but what it is for is not built yet; remove it")
        } else {
            let known = fields
                .iter()
                .map(|field| field.key.as_str())
                .chain(others.iter().copied());
            let mut names: Vec<_> = known.clone().collect();
            names.sort_unstable();
            Problem::error(Some(key.span), path, "unknown key")
                .allowed(names.join(", "))
                .nearest(name, known)
        });
    }
    let read = P::read_fields(table, problems);
    if unknown { None } else { read }
}

/// Reads one key, or its default. Used by [`params!`](crate::params).
#[doc(hidden)]
pub fn read_field<T: Setting>(
    table: &Table,
    key: &str,
    default: Option<Value>,
    problems: &mut Problems,
) -> Option<T> {
    let path = table.path_of(key);
    if let Some((_, value)) = table.get(key) {
        return T::read(value, &path, problems);
    }
    if let Some(value) = default {
        return T::read(&value, &path, problems);
    }
    T::absent().or_else(|| {
        problems.push(
            Problem::error(
                Some(table.span),
                path,
                format!("the key `{key}` is missing"),
            )
            .allowed(T::allowed()),
        );
        None
    })
}

/// The key of a field: underscores become hyphens. Used by [`params!`](crate::params).
#[doc(hidden)]
#[must_use]
pub fn key_of(field: &str) -> String {
    field.trim_start_matches("r#").replace('_', "-")
}

/// How a default would be written. Used by [`params!`](crate::params).
#[doc(hidden)]
#[must_use]
pub fn default_text(written: &str) -> String {
    written.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Declares the settings of a part: a struct whose fields are keys of its table.
///
/// A field's key is its name with hyphens; its documentation is the key's. A field with a default
/// may be left out (the default is written as it would be in a file), an `Option` may be left out,
/// any other must be there. `later` lists keys that are documented but not in this version. The
/// struct is a [`Setting`], too, so it can be the type of another one's field (an inline table).
///
/// ```
/// use std::time::Duration;
/// use levada_core::{ByteSize, params};
///
/// params! {
///     /// Limits of a batch.
///     pub struct BatchParams {
///         /// Most events in a batch.
///         pub events: usize = 1000,
///         /// Most bytes in a batch.
///         pub bytes: ByteSize = "1MiB",
///         /// How long to wait for a full batch.
///         pub wait: Duration = "50ms",
///     }
///     later { "tls" }
/// }
/// ```
#[macro_export]
macro_rules! params {
    (
        $(#[doc = $doc:literal])*
        $vis:vis struct $name:ident {
            $( $(#[doc = $field_doc:literal])+ $field_vis:vis $field:ident: $type:ty $(= $default:expr)? ),* $(,)?
        }
        $(later { $($later:literal),* $(,)? })?
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone)]
        $vis struct $name {
            $( $(#[doc = $field_doc])+ $field_vis $field: $type, )*
        }

        impl $crate::settings::Params for $name {
            fn fields() -> Vec<$crate::settings::Field> {
                vec![$( $crate::settings::Field {
                    key: $crate::params_internals::key_of(stringify!($field)),
                    allowed: <$type as $crate::settings::Setting>::allowed(),
                    default: $crate::params!(@default_text $($default)?),
                    required: $crate::params!(@default_text $($default)?).is_none()
                        && <$type as $crate::settings::Setting>::absent().is_none(),
                    secret: <$type as $crate::settings::Setting>::SECRET,
                    doc: concat!($($field_doc),+).trim().to_owned(),
                }, )*]
            }

            fn later() -> &'static [&'static str] {
                &[$($($later),*)?]
            }

            fn read_fields(
                table: &$crate::settings::Table,
                problems: &mut $crate::settings::Problems,
            ) -> Option<Self> {
                $( let $field = $crate::params_internals::read_field::<$type>(
                    table,
                    &$crate::params_internals::key_of(stringify!($field)),
                    $crate::params!(@default $($default)?),
                    problems,
                ); )*
                Some(Self { $( $field: $field?, )* })
            }
        }

        impl $crate::settings::Setting for $name {
            fn allowed() -> String {
                let keys: Vec<_> = <Self as $crate::settings::Params>::fields()
                    .into_iter().map(|field| field.key).collect();
                format!("a table with {}", keys.join(", "))
            }

            fn read(
                value: &$crate::settings::Value,
                key: &str,
                problems: &mut $crate::settings::Problems,
            ) -> Option<Self> {
                match value.table() {
                    Some(table) => $crate::settings::parse_params::<Self>(table, &[], problems),
                    None => {
                        problems.push(value.problem(key, "not a table").allowed(Self::allowed()));
                        None
                    }
                }
            }
        }
    };
    (@default) => { None };
    (@default $default:expr) => { Some($crate::settings::Value::from($default)) };
    (@default_text) => { None::<String> };
    (@default_text $default:expr) => {
        Some($crate::params_internals::default_text(stringify!($default)))
    };
}

/// Declares a setting that is one of a few words.
///
/// ```
/// levada_core::choice! {
///     /// What happens when a channel is full.
///     pub enum OnFull {
///         /// Wait for room.
///         Block = "block",
///         /// Refuse at once.
///         Reject = "reject",
///     }
/// }
/// ```
#[macro_export]
macro_rules! choice {
    (
        $(#[doc = $doc:literal])*
        $vis:vis enum $name:ident {
            $( $(#[doc = $variant_doc:literal])* $variant:ident = $word:literal ),* $(,)?
        }
        $(later { $($later:literal),* $(,)? })?
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $name { $( $(#[doc = $variant_doc])* $variant, )* }

        impl $name {
            /// The word as it is written.
            #[must_use]
            #[allow(dead_code, reason = "not every choice is shown")]
            $vis fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }

        impl $crate::settings::Setting for $name {
            fn allowed() -> String {
                [$(concat!('"', $word, '"')),*].join(", ")
            }

            fn read(
                value: &$crate::settings::Value,
                key: &str,
                problems: &mut $crate::settings::Problems,
            ) -> Option<Self> {
                match value.text() {
                    $( Some($word) => Some(Self::$variant), )*
                    $($( Some($later) => {
                        problems.push(value.problem(key, "not in this version")
                            .allowed(Self::allowed()));
                        None
                    } )*)?
                    _ => {
                        problems.push($crate::settings::choice_problem(value, key, &[$($word),*]));
                        None
                    }
                }
            }
        }
    };
}
