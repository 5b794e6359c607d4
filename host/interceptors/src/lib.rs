//! The native interceptors: what needs no sandbox, with Flume's meaning.
//!
//! Each looks at headers only; a batch of which nothing changes is handed on as it is.

mod host;
mod set_header;
mod static_header;
mod timestamp;

use std::sync::Arc;

use levada_core::{Clock, InterceptorKind};

/// What the interceptors of this crate are built with.
#[derive(Debug, Clone)]
pub struct Deps {
    pub clock: Arc<dyn Clock>,
}

/// Every interceptor of this crate.
#[must_use]
pub fn kinds(deps: &Deps) -> Vec<InterceptorKind> {
    vec![
        InterceptorKind::of(host::Factory),
        InterceptorKind::of(static_header::Factory),
        InterceptorKind::of(timestamp::Factory {
            clock: Arc::clone(&deps.clock),
        }),
    ]
}

#[cfg(test)]
mod tests;
