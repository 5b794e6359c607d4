//! `levada explain`: the keys of a part, from the same list that reads them.

use anyhow::Result;
use levada_config::{
    AgentSettings, BackOffParams, BatchParams, ChannelParams, DeadLetterSettings, GroupParams,
    InterceptorCommon, LogSettings, SinkCommon, SourceCommon,
};
use levada_core::{
    Params,
    settings::{Field, nearest},
};
use levada_wasm::{
    BatchParams as CallParams, CredentialParams, GrantParams, HandlerParams, LimitParams,
    LookupParams,
};
use serde::Serialize;

use crate::{
    around::Around,
    cli::{ExplainArgs, Kind},
    exit::Exit,
    kinds::Kinds,
    output::{complain, say, say_json},
    table::Table,
};

/// One type of part and its keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Explained {
    kind: &'static str,
    #[serde(rename = "type")]
    name: &'static str,
    table: &'static str,
    keys: Vec<Key>,
    /// Keys that are documented and not in this version.
    later: Vec<&'static str>,
}

/// One key.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Key {
    key: String,
    allowed: String,
    default: Option<String>,
    required: bool,
    secret: bool,
    doc: String,
}

/// Shows the keys of a type, or every type.
pub(crate) fn explain(args: &ExplainArgs) -> Result<Exit> {
    let mut all = everything();
    if let Some(kind) = args.kind {
        all.retain(|explained| explained.kind == kind_name(kind));
    }
    let Some(name) = &args.name else {
        if args.json {
            say_json(&all)?;
        } else {
            say(&list(&all))?;
        }
        return Ok(Exit::Ok);
    };
    let names: Vec<_> = all.iter().map(|explained| explained.name).collect();
    all.retain(|explained| explained.name == name);
    if all.is_empty() {
        let near = nearest(name, names).map(|near| format!("; did you mean `{near}`?"));
        let near = near.unwrap_or_default();
        complain(&format!(
            "error: there is no type `{name}`{near}\nlevada explain lists them\n"
        ));
        return Ok(Exit::Usage);
    }
    if args.json {
        say_json(&all)?;
    } else {
        let texts: Vec<_> = all.iter().map(explained).collect();
        say(&texts.join("\n"))?;
    }
    Ok(Exit::Ok)
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Source => "source",
        Kind::Interceptor => "interceptor",
        Kind::Handler => "handler",
        Kind::Channel => "channel",
        Kind::Sink => "sink",
        Kind::Group => "group",
        Kind::Agent => "agent",
    }
}

fn everything() -> Vec<Explained> {
    let kinds = Kinds::new(&Around::machine(""));
    let mut all = vec![of::<AgentSettings>("agent", "agent", "[agent]", vec![])];
    all[0]
        .keys
        .extend(nested("dead-letters", DeadLetterSettings::fields()));
    all[0].keys.extend(nested("log", LogSettings::fields()));
    for kind in &kinds.sources {
        let table = "[sources.NAME]";
        let mut one = of::<SourceCommon>("source", kind.name, table, (kind.fields)());
        one.later.extend(kind.later);
        all.push(one);
    }
    for kind in &kinds.interceptors {
        let table = "[interceptors.NAME]";
        let mut one = of::<InterceptorCommon>("interceptor", kind.name, table, (kind.fields)());
        one.later.extend(kind.later);
        all.push(one);
    }
    let mut handler = of::<HandlerParams>("handler", "handler", "[handlers.NAME]", vec![]);
    handler.keys.extend(nested("limits", LimitParams::fields()));
    handler.keys.extend(nested("batch", CallParams::fields()));
    handler.keys.extend(nested("grants", GrantParams::fields()));
    let table = LookupParams::fields();
    handler.keys.extend(nested("grants.lookup.TABLE", table));
    let credential = CredentialParams::fields();
    handler.keys.extend(nested("credentials.URL", credential));
    all.push(handler);
    for name in ["durable", "memory"] {
        all.push(of::<ChannelParams>(
            "channel",
            name,
            "[channels.NAME]",
            vec![],
        ));
    }
    for kind in &kinds.sinks {
        let mut one = of::<SinkCommon>("sink", kind.name, "[sinks.NAME]", (kind.fields)());
        one.keys.extend(nested("batch", BatchParams::fields()));
        one.keys.extend(nested("back-off", BackOffParams::fields()));
        one.later.extend(kind.later);
        all.push(one);
    }
    all.push(of::<GroupParams>("group", "group", "[groups.NAME]", vec![]));
    all
}

/// A type whose keys are those that all of its kind have, and its own; where both name one, its own
/// says more.
fn of<P: Params>(
    kind: &'static str,
    name: &'static str,
    table: &'static str,
    own: Vec<Field>,
) -> Explained {
    let is_own = |field: &Field| own.iter().any(|other| other.key == field.key);
    let common: Vec<_> = P::fields()
        .into_iter()
        .filter(|field| !is_own(field))
        .collect();
    Explained {
        kind,
        name,
        table,
        keys: common
            .into_iter()
            .chain(own)
            .map(|field| key(field, ""))
            .collect(),
        later: P::later().to_vec(),
    }
}

fn nested(of: &str, fields: Vec<Field>) -> Vec<Key> {
    let prefix = format!("{of}.");
    fields
        .into_iter()
        .map(|field| key(field, &prefix))
        .collect()
}

fn key(field: Field, prefix: &str) -> Key {
    let Field {
        key,
        allowed,
        default,
        required,
        secret,
        doc,
    } = field;
    let key = format!("{prefix}{key}");
    Key {
        key,
        allowed,
        default,
        required,
        secret,
        doc,
    }
}

fn list(all: &[Explained]) -> String {
    let mut table = Table::new(&["TABLE", "TYPE", "KEYS"]);
    for explained in all {
        let keys: Vec<_> = explained
            .keys
            .iter()
            .map(|key| key.key.as_str())
            .filter(|key| !key.contains('.') && *key != "type")
            .collect();
        table.row([
            explained.table.into(),
            explained.name.into(),
            keys.join(", "),
        ]);
    }
    format!("{table}\nevery key of one: levada explain --type TYPE\n")
}

fn explained(explained: &Explained) -> String {
    let mut out = format!(
        "{} {}, {}\n",
        explained.kind, explained.name, explained.table
    );
    for key in &explained.keys {
        let default = match (&key.default, key.required) {
            (Some(default), _) => format!("default {default}"),
            (None, true) => "must be there".into(),
            (None, false) => "may be left out".into(),
        };
        let secret = if key.secret { "; never shown" } else { "" };
        out.push_str(&format!("\n  {}\n      {}\n", key.key, key.doc));
        out.push_str(&format!("      {}; {default}{secret}\n", key.allowed));
    }
    if !explained.later.is_empty() {
        out.push_str(&format!(
            "\n  not in this version: {}\n",
            explained.later.join(", ")
        ));
    }
    out
}
