//! `levada channel`.

use anyhow::Result;
use serde_json::Value;

use crate::{
    ask::Place,
    cli::{ChannelArgs, ChannelVerb},
    exit::Exit,
    output::{say, say_json},
    run::runtime,
    salvage,
    table::{Table, number, seconds, size},
};

/// Shows channels.
pub(crate) fn channel(args: &ChannelArgs) -> Result<Exit> {
    let args = match &args.verb {
        ChannelVerb::Ls(args) => args,
        ChannelVerb::Salvage(args) => return salvage::run(args),
    };
    let channels = runtime()?.block_on(async {
        match Place::find(args).await? {
            Ok(place) => place.channels().await.map(Ok),
            Err(exit) => Ok(Err(exit)),
        }
    });
    let channels = match channels? {
        Ok(channels) => channels,
        Err(exit) => return Ok(exit),
    };
    if args.json {
        say_json(&channels)?;
    } else {
        say(&table(
            &channels,
            levada_core::Clock::wall_ms(&levada_core::SystemClock),
        ))?;
    }
    Ok(Exit::Ok)
}

/// Channels in columns; ages are as of `now_ms`.
pub(crate) fn table(channels: &Value, now_ms: u64) -> String {
    let heads = [
        "CHANNEL", "KIND", "EVENTS", "IN HAND", "BYTES", "CAPACITY", "FULL", "OLDEST", "WAITING",
    ];
    let mut table = Table::new(&heads);
    for channel in channels.as_array().into_iter().flatten() {
        let count = |key: &str| channel[key].as_u64().unwrap_or_default();
        let text = |key: &str| channel[key].as_str().unwrap_or_default().to_owned();
        let (bytes, capacity) = (count("bytes"), count("capacity-bytes"));
        let oldest = channel["oldest-ms"].as_u64();
        let age = oldest.map(|oldest| seconds(now_ms.saturating_sub(oldest) / 1000));
        table.row([
            text("name"),
            text("kind"),
            number(count("events")),
            number(count("leased")),
            size(bytes),
            if capacity == 0 {
                "-".into()
            } else {
                size(capacity)
            },
            full(channel),
            age.unwrap_or_else(|| "-".into()),
            match count("waiting-puts") {
                0 => "-".into(),
                1 => "1 put".into(),
                n => format!("{} puts", number(n)),
            },
        ]);
    }
    table.to_string()
}

/// How full a channel is, by whichever limit is nearer.
fn full(channel: &Value) -> String {
    let count = |key: &str| channel[key].as_u64().unwrap_or_default();
    let percent = |used: u64, limit: u64| (limit > 0).then(|| used.saturating_mul(100) / limit);
    let by_bytes = percent(count("bytes"), count("capacity-bytes"));
    let by_events = percent(count("events"), count("capacity-events"));
    match by_bytes.max(by_events) {
        Some(percent) => format!("{percent} %"),
        None => "-".into(),
    }
}
