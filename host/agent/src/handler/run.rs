//! `levada handler run`: a handler by itself, fed from standard input; and calls that are recorded
//! and replayed.

mod feed;
mod wanted;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use levada_core::{Chance, PartId, SystemClock, interceptor::Call, state::Stateless};
use levada_telemetry::{LogFormat, LogSetup, Registry, init_logs};
use levada_wasm::{
    CompileBounds, Compiler, EventText, Handlers, HandlersConfig, LoadError, MemoryReservation,
    Recording, Replayed, Sight,
};

use self::{feed::Feed, wanted::Wanted};
use crate::{
    exit::Exit,
    output::{clean, complain, say},
    run::runtime,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Reads events from standard input, one JSON object a line: {\"headers\":{\"a\":\"b\"},\"body\":\"text\"}, or
`body64` for bytes that are no text. Writes one line for each event: the verdict, its reason, the
event before and what goes on instead. The handler's log goes to standard error.

The handler is one of an agent's configuration, with its settings, limits and grants, or a component
alone with what --set and --grant give it. State lives as long as the command; the store of an agent
is not touched. Requests over HTTP that are granted are sent.

A recording holds the events of one call, everything the handler asked and what it was answered: it
runs again bit for bit, on another machine, too, and asks nothing outside. It is JSON, one object a
line, with a checksum. Secrets that are granted or configured, and headers of requests that carry
credentials, are not in it: asterisks of the same length stand in their place. Events and what
servers answered are in it as they were. An agent records calls that fail by itself with
`record-failures` in the handler's table; the dead letter says where.

Examples:
  levada handler run redact.wasm --set 'fields=[\"email\"]' < events.jsonl
  levada handler run --conf edge.toml --handler redact < events.jsonl
  levada handler run dedupe.wasm --grant state=1MiB --record call.jsonl < events.jsonl
  levada handler run --replay call.jsonl
  levada handler run --replay call.jsonl --other-component fixed.wasm

Exit codes: 0 all events were handled, or the replayed call was the same; 1 not so; 2 bad usage.")]
pub(crate) struct RunArgs {
    /// A component's file
    #[arg(value_name = "COMPONENT", conflicts_with = "conf")]
    component: Option<PathBuf>,
    /// An agent's configuration: files, or folders of them
    #[arg(
        long,
        visible_alias = "config",
        value_name = "PATH",
        requires = "handler"
    )]
    conf: Vec<PathBuf>,
    /// Which handler of that configuration
    #[arg(long, value_name = "NAME", requires = "conf")]
    handler: Option<String>,
    /// A setting of the handler; values as in a configuration, and plain words
    #[arg(long, value_name = "KEY=VALUE", conflicts_with_all = ["conf", "replay"])]
    set: Vec<String>,
    /// A grant of the handler, such as state=1MiB or 'http=["https://host:443"]'
    #[arg(long, value_name = "KEY=VALUE", conflicts_with_all = ["conf", "replay"])]
    grant: Vec<String>,
    /// Most events of one call
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: u16,
    /// Makes one call with all events, on a fresh instance, and writes its recording here
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    record: Option<PathBuf>,
    /// Runs a recorded call again and compares: standard input is not read
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Replays with a component that is not the recorded one
    #[arg(long, requires = "replay")]
    other_component: bool,
}

/// Runs it.
pub(super) fn run(args: &RunArgs) -> Result<Exit> {
    let setup = LogSetup {
        format: LogFormat::Human,
        filter: "info".into(),
    };
    init_logs(&setup).map_err(anyhow::Error::msg)?;
    if let Some(path) = &args.replay {
        return replay(args, path);
    }
    let Some(wanted) = Wanted::find(args)? else {
        return Ok(Exit::Usage);
    };
    let feed = Feed::stdin(args.batch.into());
    match &args.record {
        Some(path) => runtime()?.block_on(record(&wanted, feed, path)),
        None => runtime()?.block_on(feed::all(&wanted, feed)),
    }
}

/// The sandbox that an agent has, without one.
fn sandbox(wanted: Option<&Wanted>) -> Result<Handlers> {
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let config = HandlersConfig {
        cache_dir: wanted.and_then(|wanted| wanted.cache.clone()),
        compiler: Compiler::Child {
            program,
            args: ["handler", "compile-child"].map(Into::into).to_vec(),
            bounds: CompileBounds::default(),
        },
        memory_reservation: MemoryReservation::Full,
        recordings: None,
        registry: Registry::new(),
        clock: std::sync::Arc::new(SystemClock),
        chance: Chance::system(),
    };
    Ok(Handlers::open(config)?)
}

/// What a handler stands on here.
fn stdin_part() -> PartId {
    PartId::parse("sources.stdin").expect("a kind and a name")
}

async fn record(wanted: &Wanted, mut feed: Feed, path: &Path) -> Result<Exit> {
    let events = feed.next()?.unwrap_or_default();
    if feed.next()?.is_some() {
        bail!(
            "a recorded call has {} events at most, and there are more: give the ones that matter, \
             or more with --batch, of which 1000 is the most",
            events.len()
        );
    }
    let batch = EventText::batch(&events)?;
    let part = stdin_part();
    let call = Call {
        part: &part,
        attempt: 1,
        received_ms: levada_core::Clock::wall_ms(&SystemClock),
        states: &Stateless,
    };
    let handlers = sandbox(Some(wanted))?;
    let recorded = handlers.record(&wanted.part, &wanted.spec, &batch, &call);
    let recorded = recorded.await.map_err(helped)?;
    let well = show(&recorded.sights)?;
    let Some(recording) = recorded.recording else {
        bail!("the handler asked for more than a recording holds: give fewer events");
    };
    recording.write(path)?;
    let (questions, masked) = (recording.questions(), recording.masked().join(", "));
    complain(&format!(
        "recorded in {}: {} events, {questions} questions\n",
        path.display(),
        recording.events()
    ));
    if !masked.is_empty() {
        complain(&format!("asterisks stand for: {}\n", clean(&masked)));
    }
    Ok(if well { Exit::Ok } else { Exit::Failed })
}

fn replay(args: &RunArgs, path: &Path) -> Result<Exit> {
    let recording = Recording::read(path)?;
    let spec = match (&args.component, args.conf.is_empty()) {
        (Some(component), _) => levada_wasm::HandlerSpec::new(component),
        (None, true) => levada_wasm::HandlerSpec::new(recording.component()),
        (None, false) => match Wanted::find(args)? {
            Some(wanted) => wanted.spec,
            None => return Ok(Exit::Usage),
        },
    };
    let shown = spec.component.display();
    let bytes = fs::read(&spec.component).with_context(|| {
        format!("cannot read the component `{shown}`: name the file it is in now")
    })?;
    let digest = levada_wasm::inspect(&bytes)
        .with_context(|| format!("`{shown}` cannot be a handler"))?
        .digest;
    if digest != recording.digest() {
        let other = format!(
            "`{shown}` is not the component that was recorded: it is {digest}, and {} was",
            recording.digest()
        );
        if !args.other_component {
            bail!("{other}; name that one, or replay with --other-component");
        }
        complain(&format!("{other}\n"));
    }
    let handlers = sandbox(None)?;
    let replayed = runtime()?.block_on(handlers.replay(&spec, &recording));
    let Replayed {
        differences,
        sights,
        ..
    } = replayed.map_err(helped)?;
    show(&sights)?;
    let masked = recording.masked().join(", ");
    for difference in &differences {
        complain(&format!("differs: {}\n", clean(difference)));
    }
    if differences.is_empty() {
        complain(&format!(
            "the call ended as it was recorded: {} events, {} questions\n",
            recording.events(),
            recording.questions()
        ));
        return Ok(Exit::Ok);
    }
    if !masked.is_empty() {
        complain(&format!(
            "asterisks stand for {}: what the handler works out from them differs\n",
            clean(&masked)
        ));
    }
    Ok(Exit::Failed)
}

/// Writes what became of events; whether all were handled.
fn show(sights: &[Sight]) -> Result<bool> {
    let mut well = true;
    for sight in sights {
        well &= match sight {
            Sight::Event(event) => event.verdict != "failed",
            Sight::Batch(_) => false,
        };
        say(&format!("{}\n", serde_json::to_string(sight)?))?;
    }
    Ok(well)
}

fn helped(error: LoadError) -> anyhow::Error {
    match error.help() {
        Some(help) => anyhow::anyhow!("{:#}; {help}", anyhow::Error::from(error)),
        None => error.into(),
    }
}
