//! Typed factories: a part's name, its settings, and how it is built.
//!
//! A part lists itself with [`SourceKind::of`] (or the like) in its crate's `lib.rs`; everything
//! else follows from its `Params`. Building does no I/O; opening does. The supervisor keeps what
//! builds, and builds a part again after a failure.

use std::{fmt, sync::Arc};

use crate::{
    Interceptor, Params, PartId, Problems, Sink, Source, Table,
    settings::{Field, parse_params},
};

/// Builds sources of one type.
pub trait SourceFactory: Send + Sync + 'static {
    /// The word under `type`.
    const NAME: &'static str;
    type Params: Params + Send + Sync + 'static;

    /// Finds what is wrong beyond single keys. `table` has the places.
    fn check(&self, _params: &Self::Params, _table: &Table, _problems: &mut Problems) {}

    /// Makes a source that is not open yet.
    fn build(&self, part: &PartId, params: &Self::Params) -> Box<dyn Source>;
}

/// Builds sinks of one type.
pub trait SinkFactory: Send + Sync + 'static {
    /// The word under `type`.
    const NAME: &'static str;
    type Params: Params + Send + Sync + 'static;

    /// Finds what is wrong beyond single keys. `table` has the places.
    fn check(&self, _params: &Self::Params, _table: &Table, _problems: &mut Problems) {}

    /// Makes a sink that is not open yet.
    fn build(&self, part: &PartId, params: &Self::Params) -> Box<dyn Sink>;
}

/// Builds native interceptors of one type.
pub trait InterceptorFactory: Send + Sync + 'static {
    /// The word under `type`.
    const NAME: &'static str;
    type Params: Params + Send + Sync + 'static;

    /// Finds what is wrong beyond single keys. `table` has the places.
    fn check(&self, _params: &Self::Params, _table: &Table, _problems: &mut Problems) {}

    /// Makes the interceptor.
    fn build(&self, part: &PartId, params: &Self::Params) -> Arc<dyn Interceptor>;
}

/// Makes a part anew each time it is called.
pub type Build<T> = Arc<dyn Fn() -> T + Send + Sync>;

type Check<T> =
    Arc<dyn Fn(&PartId, &Table, &[&str], &mut Problems) -> Option<Build<T>> + Send + Sync>;

macro_rules! kind {
    ($(#[doc = $doc:literal])* $kind:ident, $factory:ident, $product:ty) => {
        $(#[doc = $doc])*
        #[derive(Clone)]
        pub struct $kind {
            /// The word under `type`.
            pub name: &'static str,
            /// Its keys, beside those that every part of the kind has.
            pub fields: fn() -> Vec<Field>,
            /// Keys that are documented and not in this version.
            pub later: &'static [&'static str],
            check: Check<$product>,
        }

        impl $kind {
            /// The kind that a factory builds.
            #[must_use]
            pub fn of<F: $factory>(factory: F) -> Self {
                let factory = Arc::new(factory);
                Self {
                    name: F::NAME,
                    fields: F::Params::fields,
                    later: F::Params::later(),
                    check: Arc::new(move |part, table, others, problems| {
                        let before = problems.iter().count();
                        let params = parse_params::<F::Params>(table, others, problems)?;
                        factory.check(&params, table, problems);
                        let errors = |p: &crate::Problem| p.severity == crate::settings::Severity::Error;
                        if problems.iter().skip(before).any(errors) {
                            return None;
                        }
                        let (factory, part) = (Arc::clone(&factory), part.clone());
                        Some(Arc::new(move || factory.build(&part, &params)) as Build<$product>)
                    }),
                }
            }

            /// Checks a part's table; what builds the part, if nothing was wrong. `others` are the
            /// keys that somebody else reads (`type`, `channels`, ...).
            pub fn check(
                &self,
                part: &PartId,
                table: &Table,
                others: &[&str],
                problems: &mut Problems,
            ) -> Option<Build<$product>> {
                (self.check)(part, table, others, problems)
            }
        }

        impl fmt::Debug for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($kind)).field("name", &self.name).finish_non_exhaustive()
            }
        }
    };
}

kind!(
    /// One type of source.
    SourceKind, SourceFactory, Box<dyn Source>
);
kind!(
    /// One type of sink.
    SinkKind, SinkFactory, Box<dyn Sink>
);
kind!(
    /// One type of native interceptor.
    InterceptorKind, InterceptorFactory, Arc<dyn Interceptor>
);
