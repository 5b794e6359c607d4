//! `lookup` and `secrets`: what the operator lets a handler read.

use std::sync::Arc;

use wasmtime::component::Linker;

use super::{Cx, VERSION, answer};
use crate::{guest::Guest, http::Header};

/// Adds both to a linker.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut lookup = linker.instance(&format!("levada:handler/lookup@{VERSION}"))?;
    lookup.func_wrap("find", |mut cx: Cx<'_>, with: (String, String)| {
        let find = |guest: &mut Guest, (table, key): (String, String)| {
            let row = guest.shared.tables.find(&table, &key);
            let column = |(name, value): (Arc<str>, Box<str>)| Header {
                name: name.to_string(),
                value: value.into(),
            };
            Ok(row.map(|row| row.into_iter().map(column).collect::<Vec<_>>()))
        };
        Ok((answer(&mut cx, "lookup.find", with, find)?,))
    })?;
    let mut secrets = linker.instance(&format!("levada:handler/secrets@{VERSION}"))?;
    secrets.func_wrap("get", |mut cx: Cx<'_>, name: (String,)| {
        let get = |guest: &mut Guest, (name,): (String,)| {
            let secret = guest.shared.grants.secrets.get(&name);
            Ok(secret.map(|secret| secret.reveal().to_owned()))
        };
        Ok((answer(&mut cx, "secrets.get", name, get)?,))
    })
}
