//! `timestamp`: the time of day on every event.

use std::sync::Arc;

use async_trait::async_trait;
use levada_core::{
    Batch, Clock, Effects, InterceptError, Interceptor, PartId, Problems, Table,
    factory::InterceptorFactory, interceptor::Call, params,
};

use crate::set_header::{Existing, SetHeader, check_name};

params! {
    /// Sets a header to the milliseconds since 1970, as decimal text; the same for a whole batch.
    pub(crate) struct TimestampParams {
        /// The header.
        pub(crate) header_name: String = "timestamp",
        /// Whether to leave a value that is there.
        pub(crate) preserve_existing: bool = false,
    }
}

#[derive(Debug)]
struct Timestamp {
    header: SetHeader,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Interceptor for Timestamp {
    async fn intercept(
        &self,
        batch: Batch,
        _call: &Call<'_>,
        _effects: &mut Effects,
    ) -> Result<Batch, InterceptError> {
        Ok(self.header.set(&batch, &self.clock.wall_ms().to_string()))
    }
}

/// Builds `timestamp`.
pub(crate) struct Factory {
    pub(crate) clock: Arc<dyn Clock>,
}

impl InterceptorFactory for Factory {
    const NAME: &'static str = "timestamp";
    type Params = TimestampParams;

    fn check(&self, params: &TimestampParams, table: &Table, problems: &mut Problems) {
        check_name(&params.header_name, "header-name", table, problems);
    }

    fn build(&self, _part: &PartId, params: &TimestampParams) -> Arc<dyn Interceptor> {
        let existing = Existing::preserve(params.preserve_existing);
        let header = SetHeader {
            name: params.header_name.clone(),
            existing,
        };
        Arc::new(Timestamp {
            header,
            clock: Arc::clone(&self.clock),
        })
    }
}
