//! `static`: one header with one value on every event.

use std::sync::Arc;

use async_trait::async_trait;
use levada_core::{
    Batch, Effects, InterceptError, Interceptor, PartId, Problems, Table,
    factory::InterceptorFactory, interceptor::Call, params,
};

use crate::set_header::{Existing, SetHeader, check_name, check_value};

params! {
    /// Sets one header to one value. Several headers need several interceptors.
    pub(crate) struct StaticParams {
        /// The header.
        pub(crate) key: String = "key",
        /// Its value.
        pub(crate) value: String = "value",
        /// Whether to leave a value that is there.
        pub(crate) preserve_existing: bool = true,
    }
}

#[derive(Debug)]
struct Static {
    header: SetHeader,
    value: String,
}

#[async_trait]
impl Interceptor for Static {
    async fn intercept(
        &self,
        batch: Batch,
        _call: &Call<'_>,
        _effects: &mut Effects,
    ) -> Result<Batch, InterceptError> {
        Ok(self.header.set(&batch, &self.value))
    }
}

/// Builds `static`.
pub(crate) struct Factory;

impl InterceptorFactory for Factory {
    const NAME: &'static str = "static";
    type Params = StaticParams;

    fn check(&self, params: &StaticParams, table: &Table, problems: &mut Problems) {
        check_name(&params.key, "key", table, problems);
        check_value(&params.value, "value", table, problems);
    }

    fn build(&self, _part: &PartId, params: &StaticParams) -> Arc<dyn Interceptor> {
        let existing = Existing::preserve(params.preserve_existing);
        let header = SetHeader {
            name: params.key.clone(),
            existing,
        };
        Arc::new(Static {
            header,
            value: params.value.clone(),
        })
    }
}
