//! The plug for interceptors, native and sandboxed.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use thiserror::Error;

use crate::{Batch, Effects, PartId, States};

/// Looks at a batch and gives back what goes on.
#[async_trait]
pub trait Interceptor: Send + Sync + fmt::Debug {
    /// Handles one batch. What must be committed with it goes into `effects`: dead letters, and
    /// counts by reason for what was discarded. The flow counts what goes in and out.
    ///
    /// # Errors
    /// [`InterceptError`]: the batch stays with the caller, `effects` are void.
    async fn intercept(
        &self,
        batch: Batch,
        call: &Call<'_>,
        effects: &mut Effects,
    ) -> Result<Batch, InterceptError>;

    /// How often [`tick`](Self::tick) wants to be called although no event came.
    fn every(&self) -> Option<Duration> {
        None
    }

    /// Work that time asks for, such as closing a window. The events go on behind this
    /// interceptor, and are committed with what is in `effects`.
    ///
    /// # Errors
    /// [`InterceptError`]: `effects` are void.
    async fn tick(
        &self,
        _call: &Call<'_>,
        _effects: &mut Effects,
    ) -> Result<Batch, InterceptError> {
        Ok(Batch::default())
    }
}

/// Facts about a call.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The source or sink the interceptor runs on.
    pub part: &'a PartId,
    /// 1 for the first time.
    pub attempt: u32,
    /// Wall time of reception, in milliseconds since 1970.
    pub received_ms: u64,
    /// Where a handler finds its state.
    pub states: &'a dyn States,
}

/// Why a batch could not be handled as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InterceptError {
    /// Try the same batch again later.
    #[error("{reason}")]
    Later {
        reason: String,
        after: Option<Duration>,
    },
    /// It fails too often and is not asked for now: the flow waits, and its health is red until a
    /// batch goes through again.
    #[error("{reason}")]
    Broken {
        reason: String,
        after: Option<Duration>,
    },
    /// The flow must stop until a human looks.
    #[error("{reason}")]
    Fatal { reason: String },
}
