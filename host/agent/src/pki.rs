//! `levada pki`: a private authority in a folder, and the certificates of agents.

mod authority;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use levada_core::{Clock, Name, SystemClock, context::is_unsynced};
use levada_net::Certificate;
use rustls::pki_types::ServerName;
use serde::Serialize;

use self::authority::{Authority, Wanted};
use crate::{
    exit::Exit,
    output::{say, say_json},
    table::Table,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  levada pki init                                  makes the folder pki with an authority in it
  levada pki issue aggregator --host 10.0.0.7      a certificate for an agent, and what to set
  levada pki issue edge-1                          again: renews it; running agents notice
  levada pki revoke edge-1                         puts it on the list of those not believed any more
  levada pki list                                  until when which certificate is good")]
pub(crate) struct PkiArgs {
    #[command(subcommand)]
    pub(crate) verb: PkiVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PkiVerb {
    /// Makes a private authority: whoever has a certificate of it is believed
    Init(InitArgs),
    /// Makes the certificate and the key of an agent, or renews them
    Issue(IssueArgs),
    /// Puts an agent's certificate on the list of those that are not believed any more
    Revoke(RevokeArgs),
    /// Lists the certificates, and until when they are good
    List(FolderArgs),
}

#[derive(Debug, Args)]
pub(crate) struct FolderArgs {
    /// The folder of the authority
    #[arg(long, value_name = "FOLDER", default_value = "pki")]
    dir: PathBuf,
    /// Output for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    folder: FolderArgs,
    /// For how long the authority is good
    #[arg(long, value_name = "NUMBER", default_value_t = 3650,
          value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
}

#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    /// The agent's name: who it is to others, and a DNS name it may be reached by
    name: String,
    /// Another DNS name or address it is reached by; may be given several times
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    #[command(flatten)]
    folder: FolderArgs,
    /// For how long the certificate is good
    #[arg(long, value_name = "NUMBER", default_value_t = 90,
          value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The agent's name
    name: String,
    #[command(flatten)]
    folder: FolderArgs,
}

/// A certificate, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown {
    name: String,
    certificate: PathBuf,
    key: PathBuf,
    authority: bool,
    names: Vec<String>,
    serial: String,
    revoked: bool,
    until: String,
    until_ms: u64,
}

/// A certificate that ends within these days is worth a word.
const SOON: u64 = 30;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// Makes an authority and certificates.
pub(crate) fn pki(args: &PkiArgs) -> Result<Exit> {
    match &args.verb {
        PkiVerb::Init(args) => init(args)?,
        PkiVerb::Issue(args) => issue(args)?,
        PkiVerb::Revoke(args) => revoke(args)?,
        PkiVerb::List(args) => list(args)?,
    }
    Ok(Exit::Ok)
}

fn init(args: &InitArgs) -> Result<()> {
    let now = now()?;
    let authority = Authority::make(&args.folder.dir, now, args.days)?;
    let shown = shown(&authority.certificate(), &authority.key())?;
    if args.folder.json {
        return say_json(&shown);
    }
    let dir = args.folder.dir.display();
    say(&format!(
        "{}  the authority, good until {}; every agent gets a copy\n\
         {}  its key; whoever has it can make certificates, so keep it here and nowhere else\n\n\
         Next, once for each agent: levada pki issue NAME --dir {dir}\n",
        shown.certificate.display(),
        shown.until,
        shown.key.display(),
    ))
}

fn issue(args: &IssueArgs) -> Result<()> {
    let now = now()?;
    let name = Name::new(&args.name).filter(|name| name.as_str() != authority::FILE);
    let name = name.with_context(|| {
        format!(
            "`{}` is no name for an agent: letters, digits, `-`, `_` and `.`, at most 64, and not \
             `{}`",
            args.name,
            authority::FILE
        )
    })?;
    for host in &args.host {
        let is_host = ServerName::try_from(host.as_str()).is_ok();
        ensure!(is_host, "`{host}` is neither a DNS name nor an address");
    }
    let authority = Authority::open(&args.folder.dir)?;
    let wanted = Wanted {
        name: name.as_str(),
        hosts: &args.host,
        days: args.days,
    };
    let (certificate, key) = authority.issue(&wanted, now)?;
    let shown = shown(&certificate, &key)?;
    if args.folder.json {
        return say_json(&shown);
    }
    let file = |path: &Path| path.file_name().unwrap_or_default().display().to_string();
    let (cert_file, key_file) = (file(&shown.certificate), file(&shown.key));
    say(&format!(
        "{certificate}  good until {until}, for {names}\n\
         {key}  its key\n\n\
         Copy both, and {ca}, to the machine of `{name}`. In its configuration, for every source \
         that listens\nand for every sink that sends to another agent:\n\n    \
         tls = {{ cert = \"{cert_file}\", key = \"{key_file}\", ca = \"{ca_file}\" }}\n\n\
         with the paths of the copies. Who sends to `{name}` reaches it by one of these names, or \
         adds\nserver-name = \"{name}\". Before the certificate ends, issue it again and copy it: \
         a running agent\ntakes the new one by itself.\n",
        certificate = shown.certificate.display(),
        until = shown.until,
        names = shown.names.join(", "),
        key = shown.key.display(),
        ca = authority.certificate().display(),
        ca_file = file(&authority.certificate()),
        name = shown.name,
    ))
}

fn revoke(args: &RevokeArgs) -> Result<()> {
    let dir = &args.folder.dir;
    ensure!(
        args.name != authority::FILE,
        "the authority cannot revoke itself; make another in another folder, and issue every \
         certificate again"
    );
    let authority = Authority::open(dir)?;
    let is_new = authority.revoke(&args.name, now()?)?;
    let list = authority.list();
    if args.folder.json {
        let lines = authority::revoked(dir)?.len();
        return say_json(&serde_json::json!({ "list": list, "revoked": lines, "new": is_new }));
    }
    let name = &args.name;
    let what = match is_new {
        true => format!("the certificate of `{name}` is revoked"),
        false => format!("the certificate of `{name}` was revoked before"),
    };
    say(&format!(
        "{what}\n{list}  the list\n\n\
         Copy the list to every machine that `{name}` spoke to, and name it there, once:\n\n    \
         tls = {{ ..., crl = \"{file}\" }}\n\n\
         A running agent takes a newer list by itself, for new connections; restart it to end those \
         that are\nthere. `levada pki issue {name}` makes a certificate that is believed again.\n",
        list = list.display(),
        file = list.file_name().unwrap_or_default().display(),
    ))
}

fn list(args: &FolderArgs) -> Result<()> {
    let all = authority::all(&args.dir)?;
    let all = all.iter().map(|(certificate, key)| shown(certificate, key));
    let mut all: Vec<_> = all.collect::<Result<_>>()?;
    let revoked: Vec<_> = authority::revoked(&args.dir)?
        .iter()
        .map(|line| hex(&line.serial))
        .collect();
    for shown in &mut all {
        shown.revoked = revoked.contains(&shown.serial);
    }
    if args.json {
        return say_json(&all);
    }
    let now_ms = SystemClock.wall_ms();
    let mut table = Table::new(&["NAME", "UNTIL", "", "FOR", "FILE"]);
    for shown in &all {
        let left = shown.until_ms.saturating_sub(now_ms) / DAY_MS;
        let state = match left {
            _ if shown.revoked => "REVOKED".into(),
            _ if shown.until_ms <= now_ms => "EXPIRED".into(),
            left if left < SOON => format!("{left} days left"),
            _ => String::new(),
        };
        let names = match shown.authority {
            true => "the authority".into(),
            false => shown.names.join(", "),
        };
        let file = shown.certificate.display().to_string();
        table.row([shown.name.clone(), shown.until.clone(), state, names, file]);
    }
    say(&table.to_string())
}

fn shown(certificate: &Path, key: &Path) -> Result<Shown> {
    let facts = Certificate::read(certificate)?;
    Ok(Shown {
        until: facts.until(),
        name: facts.name,
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        authority: facts.is_authority,
        names: facts.names,
        serial: hex(&facts.serial),
        revoked: false,
        until_ms: facts.not_after_ms,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The wall time, in milliseconds; certificates of a wrong clock would be good at the wrong time.
fn now() -> Result<u64> {
    ensure!(
        !is_unsynced(&SystemClock),
        "the clock of this machine is not set: it is before the build of this program"
    );
    Ok(SystemClock.wall_ms())
}
