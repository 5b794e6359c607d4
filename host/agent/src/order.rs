//! What operators order of a running agent: `levada reload`, `levada dlq replay`.

use anyhow::{Context, Result};
use levada_admin::Reload;
use serde_json::Value;

use crate::{
    ask::data_of,
    cli::{DlqReplayArgs, PlaceArgs, ReloadArgs},
    exit::Exit,
    output::{clean, complain, say, say_json},
    run::runtime,
};

/// Has the running agent read its configuration again.
pub(crate) fn reload(args: &ReloadArgs) -> Result<Exit> {
    let order = Reload {
        dry_run: args.dry_run,
        drain: args.drain.iter().map(ToString::to_string).collect(),
        discard: args.discard.iter().map(ToString::to_string).collect(),
    };
    let (status, answer) = match give(&args.place, &order.path())? {
        Ok(answered) => answered,
        Err(exit) => return Ok(exit),
    };
    if args.place.json {
        say_json(&answer)?;
    } else {
        complain(answer["text"].as_str().unwrap_or_default());
        if let Some(error) = answer["error"].as_str() {
            complain(&format!("error: {}\n", clean(error)));
        }
        if status == 200 {
            say(&changes(&answer, args.dry_run))?;
        } else {
            complain("nothing has changed: the agent runs as before\n");
        }
    }
    Ok(match status {
        200 => Exit::Ok,
        400 | 422 => Exit::Usage,
        _ => Exit::Failed,
    })
}

/// What a reload changed, or would.
pub(crate) fn changes(answer: &Value, dry_run: bool) -> String {
    let mut out = String::new();
    for change in answer["changes"].as_array().into_iter().flatten() {
        let text = |key: &str| clean(change[key].as_str().unwrap_or_default());
        out += &format!("{:<9} {}\n", text("change"), text("part"));
    }
    if out.is_empty() {
        return "nothing changes\n".into();
    }
    let tense = if dry_run { "would change" } else { "changed" };
    format!("{tense}:\n{out}")
}

/// Puts dead letters back where they were rejected.
pub(crate) fn replay(args: &DlqReplayArgs) -> Result<Exit> {
    let mut worst = Exit::Ok;
    let mut answers = Vec::new();
    for id in &args.ids {
        let path = format!("/dead-letters/{id}/replay");
        let (status, answer) = match give(&args.place, &path)? {
            Ok(answered) => answered,
            Err(exit) => return Ok(exit),
        };
        if status != 200 {
            worst = Exit::Failed;
        }
        if args.place.json {
            answers.push(answer);
        } else if let Some(error) = answer["error"].as_str() {
            complain(&format!("error: {}\n", clean(error)));
        } else {
            say(&format!("dead letter {id} is back where it was rejected\n"))?;
        }
    }
    if args.place.json {
        say_json(&answers)?;
    }
    Ok(worst)
}

/// Posts to the agent; its status code and its answer.
fn give(place: &PlaceArgs, path: &str) -> Result<Result<(u16, Value), Exit>> {
    let data = match data_of(place) {
        Ok((data, _)) => data,
        Err(exit) => return Ok(Err(exit)),
    };
    let (status, body) = runtime()?.block_on(levada_admin::order(&data, path))?;
    let answer = serde_json::from_slice(&body).context("the agent's answer is no JSON")?;
    Ok(Ok((status, answer)))
}
