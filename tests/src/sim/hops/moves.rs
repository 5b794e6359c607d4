//! What happens to links, connections, machines and disks.

use std::time::Duration;

use bytes::Bytes;
use levada_core::Chance;
use levada_net::Transport;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time,
};
use tracing::info;

use super::{
    Finding, Kind,
    agent::{PORT, Role, index},
    book::EVENT,
    net::{GHOST, Host, Reachable},
    stream::{Socket, address},
    world::{Due, World},
};
use crate::sim::disk::{EIO, ENOSPC, End, Fault, On};

/// How long until the next move: mostly moments, sometimes a day.
pub(super) fn pause(chance: &Chance) -> Duration {
    let most = match chance.below(40) {
        0 => 24 * 3600 * 1000,
        1..=3 => 600_000,
        4..=12 => 30_000,
        _ => 1_500,
    };
    chance.jitter(Duration::from_millis(most))
}

/// How long a machine is gone.
pub(super) fn downtime(chance: &Chance) -> Duration {
    let most = match chance.below(20) {
        0 => 3_600_000,
        1..=6 => 60_000,
        _ => 2_000,
    };
    chance.jitter(Duration::from_millis(most))
}

/// One random move, and events for the edges to make.
pub(super) async fn one(world: &mut World) -> Result<(), Finding> {
    let chance = world.chance.clone();
    for agent in &world.agents {
        if matches!(agent.role, Role::Edge { .. }) {
            world.around.book.allow(agent.host, chance.below(5));
        }
    }
    let (a, b) = link(world, &chance);
    match chance.below(100) {
        0..=29 => return crash(world, &chance).await,
        30..=41 => partition(world, &[(a, b), (b, a)]),
        42..=47 => partition(world, &[(a, b)]),
        48..=53 => partition(world, &[(b, a)]),
        54..=62 => {
            info!(a, b, "reset");
            world.around.net.strike(a, b, false);
        }
        63..=67 => {
            info!(a, b, "hang");
            world.around.net.strike(a, b, true);
        }
        68..=73 => {
            let most = Duration::from_millis([100, 1_000, 15_000][index(&chance, 3)]);
            info!(a, b, ?most, "slow");
            world.around.net.set_slow(a, b, Some(most));
            world.plan(pause(&chance), Due::Hurry(a, b));
        }
        74..=81 => replay(world, b).await,
        82..=84 => jump(world, &chance),
        85..=90 if world.faults => fault(world, &chance),
        _ => {}
    }
    Ok(())
}

/// A link between two tiers, from the sender's side.
fn link(world: &World, chance: &Chance) -> (Host, Host) {
    let links: Vec<_> = world
        .agents
        .iter()
        .flat_map(|agent| match &agent.role {
            Role::Edge { to } => to.iter().map(|to| (agent.host, *to)).collect(),
            Role::Relay { to } => vec![(agent.host, *to)],
            Role::Last => Vec::new(),
        })
        .collect();
    links[index(chance, links.len() as u64)]
}

async fn crash(world: &mut World, chance: &Chance) -> Result<(), Finding> {
    let at = index(chance, world.agents.len() as u64);
    let agent = &world.agents[at];
    if !agent.is_up() {
        return Ok(());
    }
    if chance.below(2) == 0 {
        let after = chance.below(60);
        info!(
            host = agent.host,
            after, "the power will go in an operation of the disk"
        );
        agent.disk.end_after(after);
        return Ok(());
    }
    let (left, end) = match chance.below(3) {
        0 => (Reachable::Off, End::PowerCut),
        1 => (Reachable::Down, End::Kill),
        _ => (Reachable::Off, End::Kill),
    };
    world.crash(at, left, end).await
}

fn partition(world: &mut World, links: &[(Host, Host)]) {
    let lasts = pause(&world.chance) + Duration::from_millis(5);
    match links.len() {
        1 => world.totals.one_way += 1,
        _ => world.totals.partitions += 1,
    }
    for (from, to) in links {
        info!(from, to, ?lasts, "the link carries nothing");
        world.around.net.set_link(*from, *to, false);
        world.plan(lasts, Due::Carry(*from, *to));
    }
}

/// Says again what a connection said, all of it or a part.
async fn replay(world: &mut World, to: Host) {
    // Without marks everything that is said again is stored again, and nobody promises otherwise.
    let Some(said) = world
        .around
        .net
        .recording(to)
        .filter(|_| world.around.kind != Kind::Plaintext)
    else {
        return;
    };
    let most = match world.chance.below(2) {
        0 => said.len(),
        _ => index(&world.chance, said.len() as u64 + 1),
    };
    info!(to, bytes = most, "a connection is replayed");
    world.totals.replays += 1;
    if world.totals.restores > 0 {
        // A store that was put back knows nothing of what came after its copy: to it that is new.
        world.repeatable += events_in(&said[..most], world);
    }
    let socket = Socket {
        net: world.around.net.clone(),
        host: GHOST,
    };
    let within = Duration::from_secs(5);
    // Whatever comes of it: nobody is to be harmed.
    let _over = time::timeout(within, say(socket, to, said.slice(..most)))
        .await
        .is_ok();
}

/// How many events are in what a connection said; where that is packed, as many as there were.
fn events_in(said: &[u8], world: &World) -> u64 {
    if world.around.tuning.compression != "none" {
        return world.around.book.acked_so_far();
    }
    let events = said.windows(EVENT.len()).filter(|bytes| *bytes == EVENT);
    events.count() as u64
}

async fn say(socket: Socket, to: Host, said: Bytes) {
    let to = address(to, PORT).to_string();
    let Ok(stream) = socket.connect(&to, Duration::from_secs(2)).await else {
        return;
    };
    let (mut reading, mut writing) = tokio::io::split(stream);
    let mut answers = Vec::new();
    let telling = async {
        writing.write_all(&said).await?;
        writing.shutdown().await
    };
    let (_told, _heard) = tokio::join!(telling, reading.read_to_end(&mut answers));
}

/// The clocks of all agents jump by up to ten years.
fn jump(world: &mut World, chance: &Chance) {
    const TEN_YEARS_MS: i64 = 10 * 365 * 24 * 3600 * 1000;
    let by = [-TEN_YEARS_MS, -3_600_000, 0, TEN_YEARS_MS][index(chance, 4)];
    info!(by, "the clocks jump");
    world.totals.clock_jumps += 1;
    world.around.clock.set(by);
}

/// An error of a disk: of the device, or a lack of space.
fn fault(world: &mut World, chance: &Chance) {
    let at = index(chance, world.agents.len() as u64);
    let agent = &world.agents[at];
    let on = [On::Write, On::Sync, On::Read, On::Change][index(chance, 4)];
    let fault = Fault {
        after: chance.below(if on == On::Sync { 8 } else { 60 }),
        on,
        errno: [EIO, ENOSPC][index(chance, 2)],
        sticky: chance.below(4) == 0,
    };
    info!(host = agent.host, ?fault, "the disk will give an error");
    world.totals.faults += 1;
    agent.disk.plan(fault);
}
