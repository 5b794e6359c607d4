//! `lookup` and `secrets`: what the operator lets a handler read.

use wasmtime::component::{ComponentType, Linker, Lower};

use super::{Cx, VERSION, enter};
use crate::guest::Guest;

/// `types.header`
#[derive(Debug, Clone, ComponentType, Lower)]
#[component(record)]
struct Column {
    #[component(name = "name")]
    name: String,
    #[component(name = "value")]
    value: String,
}

/// Adds both to a linker.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut lookup = linker.instance(&format!("levada:handler/lookup@{VERSION}"))?;
    lookup.func_wrap("find", |mut cx: Cx<'_>, (table, key): (String, String)| {
        let row = enter(&mut cx)?.shared.tables.find(&table, &key);
        let column = |(name, value): (std::sync::Arc<str>, Box<str>)| Column {
            name: name.to_string(),
            value: value.into(),
        };
        let row: Option<Vec<_>> = row.map(|row| row.into_iter().map(column).collect());
        Ok((row,))
    })?;
    let mut secrets = linker.instance(&format!("levada:handler/secrets@{VERSION}"))?;
    secrets.func_wrap("get", |mut cx: Cx<'_>, (name,): (String,)| {
        let secrets = &enter(&mut cx)?.shared.grants.secrets;
        Ok((secrets.get(&name).map(|secret| secret.reveal().to_owned()),))
    })
}
