//! What can be typed.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum, error::ErrorKind};
use levada_core::{ByteSize, ChannelName};

use crate::{exit::Exit, handler::HandlerArgs, pki::PkiArgs};

/// Collects events at the edge and in the tiers above it.
#[derive(Debug, Parser)]
#[command(name = "levada", version, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  levada check --conf edge.toml        is the configuration right, and what will it need
  levada run --conf edge.toml          run an agent in the foreground; SIGTERM drains it
  levada reload --conf edge.toml       change the running agent, part by part
  levada status --conf edge.toml       who waits for what, how full the channels are
  levada dlq ls --conf edge.toml       events that nobody could handle, and why
  levada explain --type mqtt           every key of a part

Exit codes: 0 ok, 1 failed, 2 bad configuration or usage (nothing was started),
3 stopped with counted loss from a memory channel.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Runs an agent until it is asked to stop
    Run(RunArgs),
    /// Reports every problem of a configuration at once; starts nothing
    Check(CheckArgs),
    /// Shows the parts of an agent, its channels and what waits for what
    Status(PlaceArgs),
    /// Has a running agent read its configuration again, and become what it says
    Reload(ReloadArgs),
    /// Checks that what came in is what went out or is still there
    Audit(PlaceArgs),
    /// Shows dead letters: events that nobody could handle
    Dlq(DlqArgs),
    /// Shows channels
    Channel(ChannelArgs),
    /// Shows which keys a part has, with their defaults
    Explain(ExplainArgs),
    /// Makes, builds and inspects handlers
    Handler(HandlerArgs),
    /// Makes a private authority, and certificates for agents
    Pki(PkiArgs),
}

/// Files and folders of a configuration.
#[derive(Debug, Args)]
pub(crate) struct ConfArgs {
    /// A configuration file, or a folder of them; may be given several times
    #[arg(long, required = true, value_name = "PATH")]
    pub(crate) conf: Vec<PathBuf>,
    /// Output for programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  levada run --conf /etc/levada/edge.toml
  levada run --conf base.toml --conf site.toml     several files make one configuration

SIGTERM or SIGINT: stop in order, within `shutdown-deadline`. A second one: stop now.
SIGHUP: read the configuration again, as `levada reload` does.
--json writes the problems of a configuration, and log lines, as JSON.")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) conf: ConfArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  levada check --conf edge.toml
  levada check --conf edge.toml --rate 64KiB     for how long do the channels last at 64 KiB/s")]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) conf: ConfArgs,
    /// Bytes a second for which to work out how long channels last
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = size)]
    pub(crate) rate: ByteSize,
}

/// Which agent: by its configuration, or by its data folder.
#[derive(Debug, Args)]
#[command(after_help = "\
Asks the running agent through admin.sock in its data folder; opens the store for reading when no
agent runs.

Examples:
  levada status --conf edge.toml
  levada status --data /var/lib/levada --json")]
pub(crate) struct PlaceArgs {
    /// A configuration file, or a folder of them; may be given several times
    #[arg(
        long,
        value_name = "PATH",
        required_unless_present = "data",
        conflicts_with = "data"
    )]
    pub(crate) conf: Vec<PathBuf>,
    /// The agent's data folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,
    /// Output for programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DlqArgs {
    #[command(subcommand)]
    pub(crate) verb: DlqVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DlqVerb {
    /// Lists dead letters, oldest first
    Ls(DlqLsArgs),
    /// Shows one dead letter with everything that is known about it
    Show(DlqShowArgs),
    /// Puts dead letters back at the part that rejected them
    Replay(DlqReplayArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DlqLsArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Only letters after this one
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<u64>,
    /// At most so many
    #[arg(long, value_name = "NUMBER", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) limit: u64,
}

#[derive(Debug, Args)]
pub(crate) struct DlqShowArgs {
    /// The letter's id, as `levada dlq ls` shows it
    pub(crate) id: u64,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The agent must run: a dead letter goes through what comes after the part that rejected it, and
leaves the dead letters in the same transaction. What is rejected again is a new dead letter.

Examples:
  levada dlq replay 7 --conf edge.toml
  levada dlq replay 7 8 9 --data /var/lib/levada")]
pub(crate) struct DlqReplayArgs {
    /// Ids of letters, as `levada dlq ls` shows them
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<u64>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// The running agent reads the files that it was started with.
#[derive(Debug, Args)]
#[command(after_help = "\
The running agent reads the files again that it was started with; --conf or --data only say which
agent. All or nothing: if anything is wrong, it runs on as before. Parts whose settings are the same
are not touched. A channel that is configured no more must be empty, unless it is named here.

Examples:
  levada reload --conf edge.toml --dry-run       what would change
  levada reload --conf edge.toml
  levada reload --conf edge.toml --drain old     `old` goes when its sinks have emptied it
  levada reload --conf edge.toml --discard old   `old` goes, and the events in it are lost

Exit codes: 0 reloaded, 1 a part could not be opened, 2 the configuration is wrong; with 1 and 2
nothing has changed.")]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Only says what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// A channel that is configured no more: its sinks empty it, then it goes
    #[arg(long, value_name = "CHANNEL", value_parser = channel_name)]
    pub(crate) drain: Vec<ChannelName>,
    /// A channel that is configured no more: it goes with its events, counted
    #[arg(long, value_name = "CHANNEL", value_parser = channel_name)]
    pub(crate) discard: Vec<ChannelName>,
}

#[derive(Debug, Args)]
pub(crate) struct ChannelArgs {
    #[command(subcommand)]
    pub(crate) verb: ChannelVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ChannelVerb {
    /// Lists channels: how full they are, and how old their oldest event is
    Ls(PlaceArgs),
    /// Reads what can be read of a damaged store file; changes nothing of it
    Salvage(SalvageArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Writes one JSON object a line for every event, and what was found to standard error.

Examples:
  levada channel salvage /var/lib/levada/store.redb.corrupt-1 > events.jsonl
  levada channel salvage store.redb.corrupt-1 --to salvaged    one file for each channel")]
pub(crate) struct SalvageArgs {
    /// The file of a store that no agent has open
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// A folder for one file for each channel, instead of standard output
    #[arg(long, value_name = "FOLDER")]
    pub(crate) to: Option<PathBuf>,
    /// The report for programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  levada explain                                every type there is
  levada explain --type mqtt                    the keys of an mqtt source
  levada explain --type avro --kind sink        only the sink of that type")]
pub(crate) struct ExplainArgs {
    /// The word under `type`, or `agent`, `handler`, `durable`
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) name: Option<String>,
    /// Only parts of this kind
    #[arg(long)]
    pub(crate) kind: Option<Kind>,
    /// Output for programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Source,
    Interceptor,
    Handler,
    Channel,
    Sink,
    Group,
    Agent,
}

/// Reads the command line; what is wrong with it, or its help, is shown here.
pub(crate) fn read(line: impl IntoIterator<Item = OsString>) -> Result<Cli, Exit> {
    Cli::try_parse_from(line).map_err(|error| {
        // If the output is closed there is nobody left to tell.
        let _shown = error.print();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok,
            _ => Exit::Usage,
        }
    })
}

fn channel_name(text: &str) -> Result<ChannelName, String> {
    ChannelName::new(text).ok_or_else(|| "not the name of a channel".into())
}

fn size(text: &str) -> Result<ByteSize, String> {
    let size = ByteSize::parse(text).filter(|size| size.0 > 0);
    size.ok_or_else(|| "write a size with a unit, such as \"64KiB\"".into())
}
