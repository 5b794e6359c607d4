//! `levada handler zoo`: hostile components, let loose on this very build beside a harmless one.

mod keeper;
mod long;
mod visit;

use std::io::{self, IsTerminal};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use levada_core::settings::nearest;
use levada_wasm::zoo::{self, Animal};

use self::{
    keeper::Keeper,
    visit::{Found, Visit},
};
use crate::{
    exit::Exit,
    output::{complain, say, say_json, warned},
    run::runtime,
    table::{Table, size},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Each hostile component goes the way of `levada run`: compiled in a child process, loaded, and
called with a batch of three events of which the second is its prey. It is held if it ends at the
limit, trap or refusal that is meant for it, its prey is kept as a dead letter (or delivered as it
was, if nothing happened), the other two events are delivered, and a harmless handler beside it
finishes its events meanwhile.

The limits are the defaults, but for the deadline: wall time says nothing on a busy machine.
LATE is in ticks of 10 ms of CPU time past the limit, the mean of the calls that were ended there;
MEMORY is how much this process's resident memory grew at most.

Examples:
  levada handler zoo                    every one, about half a minute
  levada handler zoo F63 stack          one row of the fault catalogue, and one by its name
  levada handler zoo --profile edge     under the limits of a small device
  levada handler zoo --long             also what takes minutes: residue, compiling, a slow leak

Exit codes: 0 all are held, 1 one got through, 2 no such name.")]
pub(crate) struct ZooArgs {
    /// Names, or rows of the fault catalogue; all, if none is given
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Also the long forms of F75, F76 and F78
    #[arg(long)]
    long: bool,
    /// Whose limits
    #[arg(long, value_enum, default_value_t = Profile::Default)]
    profile: Profile,
    /// Output for programs
    #[arg(long)]
    json: bool,
}

/// Whose limits hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Profile {
    /// The defaults
    Default,
    /// Those of a small device: 16 MiB of memory, 4 MiB copied out of a call
    Edge,
}

/// Rows whose components need what this version does not have.
const ABSENT: [(&str, &str, &str); 4] = [
    (
        "F68",
        "private-address",
        "calls a name that is a private address",
    ),
    (
        "F69",
        "redirect",
        "follows a redirect to where it may not go",
    ),
    (
        "F70",
        "forged-host",
        "forges the host and splits headers of a request",
    ),
    ("F71", "slow-call", "waits for ever in a call of the host"),
];

/// What is done with one name.
#[derive(Debug, Clone, Copy)]
enum Task {
    Animal(&'static Animal),
    Residue,
    SlowLeak,
}

impl Task {
    fn all(long: bool) -> Vec<Self> {
        let mut all: Vec<_> = zoo::animals().map(Self::Animal).collect();
        all.push(Self::Residue);
        if long {
            all.push(Self::SlowLeak);
        }
        all.sort_by_key(|task| task.title());
        all
    }

    /// Row and name.
    fn title(self) -> (&'static str, &'static str) {
        match self {
            Self::Animal(animal) => (animal.row, animal.name),
            Self::Residue => (long::RESIDUE.0, long::RESIDUE.1),
            Self::SlowLeak => (long::SLOW_LEAK.0, long::SLOW_LEAK.1),
        }
    }
}

/// Lets them loose.
pub(super) fn run(args: &ZooArgs) -> Result<Exit> {
    let (tasks, absent) = match chosen(args) {
        Ok(chosen) => chosen,
        Err(error) => {
            complain(&format!("error: {error}\n"));
            return Ok(Exit::Usage);
        }
    };
    let visits = runtime()?.block_on(visit_all(args, &tasks))?;
    let mut visits: Vec<_> = visits.into_iter().chain(absent).collect();
    visits.sort_by_key(|visit| visit.row);
    if args.json {
        say_json(&visits)?;
    } else {
        say(&shown(&visits))?;
    }
    let through = visits.iter().any(|visit| visit.found == Found::GotThrough);
    Ok(if through { Exit::Failed } else { Exit::Ok })
}

/// What the names on the command line mean; those that are not in this build apart.
fn chosen(args: &ZooArgs) -> Result<(Vec<Task>, Vec<Visit>)> {
    let mut tasks = Task::all(args.long);
    let mut absent: Vec<_> = ABSENT.into_iter().map(Visit::absent).collect();
    let is = |(row, name): (&str, &str), wanted: &str| {
        name == wanted || row.eq_ignore_ascii_case(wanted)
    };
    for wanted in &args.names {
        let there = tasks.iter().any(|task| is(task.title(), wanted))
            || absent
                .iter()
                .any(|visit| is((visit.row, visit.name), wanted));
        if !there {
            let names: Vec<_> = tasks.iter().map(|task| task.title().1).collect();
            let near = nearest(wanted, names.iter().copied());
            let near = near.map(|near| format!("did you mean `{near}`? "));
            bail!(
                "there is no `{wanted}` in the zoo\nhelp: {}there are {}",
                near.unwrap_or_default(),
                names.join(", ")
            );
        }
    }
    if !args.names.is_empty() {
        let wanted = |title| args.names.iter().any(|wanted| is(title, wanted));
        tasks.retain(|task| wanted(task.title()));
        absent.retain(|visit| wanted((visit.row, visit.name)));
    }
    Ok((tasks, absent))
}

async fn visit_all(args: &ZooArgs, tasks: &[Task]) -> Result<Vec<Visit>> {
    let keeper = Keeper::open(args.profile, args.long).await?;
    let mut visits = Vec::new();
    for (n, task) in tasks.iter().enumerate() {
        progress(&format!("{}/{} {}", n + 1, tasks.len(), task.title().1));
        visits.push(match task {
            Task::Animal(animal) => visit::animal(&keeper, animal).await?,
            Task::Residue => long::residue(&keeper, args.long).await?,
            Task::SlowLeak => long::slow_leak(&keeper).await?,
        });
    }
    progress("");
    Ok(visits)
}

/// One line that changes, on a terminal.
fn progress(text: &str) {
    if io::stderr().is_terminal() {
        complain(&format!("\r\x1b[K{text}"));
    }
}

fn shown(visits: &[Visit]) -> String {
    let mut table = Table::new(&[
        "ROW",
        "NAME",
        "IT",
        "ENDED",
        "EVENT",
        "NEIGHBOUR",
        "LATE",
        "MEMORY",
        "",
    ]);
    for visit in visits {
        let late = visit.ticks_late.map(|ticks| format!("{ticks:.1}"));
        let growth = visit
            .resident_growth
            .map(|bytes| format!("+{}", size(bytes)));
        table.row([
            visit.row.into(),
            visit.name.into(),
            visit.tries.into(),
            visit.ended.clone(),
            visit.event.map_or("", |event| event.as_str()).into(),
            visit
                .neighbour
                .map_or("", |it| {
                    if it.finished() {
                        "finished"
                    } else {
                        "NOT FINISHED"
                    }
                })
                .into(),
            late.unwrap_or_default(),
            growth.unwrap_or_default(),
            visit.found.as_str().into(),
        ]);
    }
    let mut out = table.to_string();
    for visit in visits {
        for wrong in &visit.wrong {
            out.push_str(&warned(format!("{}: {wrong}", visit.name)));
            out.push('\n');
        }
    }
    let count = |found| visits.iter().filter(|visit| visit.found == found).count();
    out.push_str(&format!(
        "\n{} held, {} got through, {} not in this build\n",
        count(Found::Held),
        count(Found::GotThrough),
        count(Found::NotInThisBuild)
    ));
    out
}
