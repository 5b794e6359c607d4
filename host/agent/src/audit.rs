//! `levada audit`: what came in is what went out, or is still there.

use anyhow::Result;
use serde_json::Value;

use crate::{
    ask::Place,
    cli::PlaceArgs,
    exit::Exit,
    output::{say, say_json},
    run::runtime,
    table::{Table, number},
};

/// Shows the accounting identities; exit code 1 if one does not hold.
pub(crate) fn audit(args: &PlaceArgs) -> Result<Exit> {
    let audit = runtime()?.block_on(async {
        match Place::find(args).await? {
            Ok(place) => place.audit().await.map(Ok),
            Err(exit) => Ok(Err(exit)),
        }
    });
    let audit = match audit? {
        Ok(audit) => audit,
        Err(exit) => return Ok(exit),
    };
    if args.json {
        say_json(&audit)?;
    } else {
        say(&shown(&audit))?;
    }
    let holds = audit["holds"].as_bool().unwrap_or_default();
    Ok(if holds { Exit::Ok } else { Exit::Failed })
}

fn shown(audit: &Value) -> String {
    let mut table = Table::new(&["PART", "CAME", "ACCOUNTED", "", "COUNTERS"]);
    for row in audit["rows"].as_array().into_iter().flatten() {
        let mut counters = Vec::new();
        for (name, amount) in row["counters"].as_object().into_iter().flatten() {
            counters.push(format!(
                "{name} {}",
                number(amount.as_u64().unwrap_or_default())
            ));
        }
        if let Some(queued) = row["queued"].as_u64() {
            counters.push(format!("queued {}", number(queued)));
        }
        let holds = row["holds"].as_bool().unwrap_or_default();
        table.row([
            row["part"].as_str().unwrap_or_default().to_owned(),
            number(row["came"].as_u64().unwrap_or_default()),
            number(row["accounted"].as_u64().unwrap_or_default()),
            if holds { "even" } else { "DIFFERS" }.to_owned(),
            counters.join(", "),
        ]);
    }
    let verdict = if audit["holds"].as_bool().unwrap_or_default() {
        "Everything that came in went out, or is still there."
    } else {
        "The counters do not come out even: events are missing or counted twice."
    };
    format!("{table}\n{verdict}\n")
}
