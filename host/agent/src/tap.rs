//! The running agent's side of `levada handler tap`.

use std::time::Duration;

use async_trait::async_trait;
use levada_admin::{Lines, TapOrder};
use levada_core::settings::nearest;
use levada_wasm::{Tap, TapParams, When};
use serde_json::json;
use tokio::time::timeout;

use crate::plan::Loaded;

/// An empty line so often when there is nothing to tell: a reader that has gone is noticed.
const PULSE: Duration = Duration::from_secs(1);

/// Opens a tap of a loaded handler.
///
/// # Errors
/// What is wrong with the order, for people.
pub(crate) fn open(loaded: &Loaded, order: &TapOrder) -> Result<Box<dyn Lines>, String> {
    let wanted = order.handler.as_str();
    let mut handlers = loaded.iter();
    let found = handlers.find(|(part, _)| part.name.as_str() == wanted);
    let Some((_, handler)) = found else {
        let known: Vec<_> = loaded.keys().map(|part| part.name.as_str()).collect();
        let near = nearest(wanted, known.iter().copied());
        let near = near.map(|near| format!("; did you mean `{near}`?"));
        let known = match &known[..] {
            [] => "the agent has none".to_owned(),
            known => format!("the agent has {}", known.join(", ")),
        };
        return Err(format!(
            "there is no handler `{wanted}`, {known}{}",
            near.unwrap_or_default()
        ));
    };
    let when = order.filter.as_deref().map(When::parse).transpose();
    let when = when.map_err(|error| {
        let (at, what) = (error.at + 1, error.what);
        format!("the filter is no condition at character {at}: {what}")
    })?;
    let params = TapParams {
        when,
        ..TapParams::default()
    };
    let tap = handler.roles.tap(params);
    tap.map(|tap| Box::new(Shown(tap)) as Box<dyn Lines>)
        .map_err(|error| error.to_string())
}

struct Shown(Tap);

#[async_trait]
impl Lines for Shown {
    async fn next(&mut self) -> Option<String> {
        let missed = self.0.missed();
        if missed > 0 {
            return Some(format!("{}\n", json!({ "missed": missed })));
        }
        let Ok(sight) = timeout(PULSE, self.0.next()).await else {
            return Some("\n".into());
        };
        let mut line = serde_json::to_string(&sight?).expect("our types have text keys only");
        line.push('\n');
        Some(line)
    }
}
