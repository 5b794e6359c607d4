//! What an agent can need at worst: memory, disk, and for how long its channels last.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use levada_config::{ChannelConfig, ChannelType};
use levada_core::ByteSize;
use rustix::fs::statvfs;
use serde::Serialize;

use crate::{
    blueprint::Blueprint,
    table::{Table, seconds, size},
};

/// What a memory channel holds if nothing is said.
pub(crate) const MEMORY_CHANNEL: u64 = 64 << 20;
/// What is never given to channels: a full disk harms more than the agent.
const LEFT_FREE: u64 = 64 << 20;
/// The store's file, as the store names it.
const STORE_FILE: &str = "store.redb";

/// What an agent can need at worst.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Figures {
    pub(crate) memory: Vec<Amount>,
    pub(crate) memory_bytes: u64,
    pub(crate) disk: Vec<Amount>,
    pub(crate) disk_bytes: u64,
    /// Free space where the data folder is or will be, with what the store has already.
    pub(crate) disk_available_bytes: u64,
    pub(crate) rate_bytes: u64,
    pub(crate) lasts: Vec<Lasts>,
}

/// What one thing needs at worst.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Amount {
    pub(crate) what: String,
    pub(crate) bytes: u64,
}

/// For how long a channel takes what comes while nothing goes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Lasts {
    pub(crate) channel: String,
    pub(crate) capacity_bytes: u64,
    pub(crate) seconds: u64,
}

/// Works the figures out.
pub(crate) fn figures(blueprint: &Blueprint, rate: ByteSize) -> Result<Figures> {
    let settings = &blueprint.settings;
    let share = durable_share(&settings.data, &blueprint.channels)?;
    let capacity = |channel: &ChannelConfig| match channel.params.r#type {
        ChannelType::Durable => channel.params.capacity.map_or(share, |size| size.0),
        ChannelType::Memory => channel
            .params
            .capacity
            .map_or(MEMORY_CHANNEL, |size| size.0),
    };
    let mut memory = vec![amount("the store's cache", settings.cache.0)];
    let letters = settings.dead_letters.clone().unwrap_or_default().capacity.0;
    let mut disk = vec![amount("dead letters", letters)];
    let mut lasts = Vec::new();
    for channel in &blueprint.channels {
        let bytes = capacity(channel);
        let of_kind = match channel.params.r#type {
            ChannelType::Durable => &mut disk,
            ChannelType::Memory => &mut memory,
        };
        of_kind.push(amount(&format!("channels.{}", channel.name), bytes));
        lasts.push(Lasts {
            channel: channel.name.to_string(),
            capacity_bytes: bytes,
            seconds: bytes / rate.0.max(1),
        });
    }
    for handler in &blueprint.handlers {
        let each = handler.spec.limits.memory as u64;
        let bytes = each.saturating_mul(handler.spec.instances as u64);
        let what = format!("{} ({} instances)", handler.part, handler.spec.instances);
        memory.push(amount(&what, bytes));
    }
    let total = |amounts: &[Amount]| {
        amounts
            .iter()
            .fold(0_u64, |sum, amount| sum.saturating_add(amount.bytes))
    };
    Ok(Figures {
        memory_bytes: total(&memory),
        disk_bytes: total(&disk),
        memory,
        disk,
        disk_available_bytes: available(&settings.data)?,
        rate_bytes: rate.0,
        lasts,
    })
}

fn amount(what: &str, bytes: u64) -> Amount {
    Amount {
        what: what.to_owned(),
        bytes,
    }
}

/// The capacity of a durable channel that has none: an equal share of what the store may use (80 %
/// of the free space and of what it uses already, and never all but 64 MiB of it), less what the
/// other channels ask for (delivery contract, D5.3).
pub(crate) fn durable_share(data: &Path, channels: &[ChannelConfig]) -> Result<u64> {
    let durable = || {
        channels
            .iter()
            .filter(|c| c.params.r#type == ChannelType::Durable)
    };
    let without = durable()
        .filter(|channel| channel.params.capacity.is_none())
        .count();
    if without == 0 {
        return Ok(0);
    }
    let available = available(data)?;
    let cap = (available / 5 * 4).min(available.saturating_sub(LEFT_FREE));
    let asked = durable().filter_map(|channel| channel.params.capacity);
    let asked = asked.fold(0_u64, |sum, size| sum.saturating_add(size.0));
    let share = cap.saturating_sub(asked) / without as u64;
    anyhow::ensure!(
        share > 0,
        "no space is left on the disk of `{}` for channels without a `capacity`",
        data.display()
    );
    Ok(share)
}

/// Free space for the data folder, and what the store uses of the disk already.
fn available(data: &Path) -> Result<u64> {
    let there = nearest_folder(data);
    let disk = statvfs(&there)
        .with_context(|| format!("cannot ask for the free space of `{}`", there.display()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let used = std::fs::metadata(data.join(STORE_FILE)).map_or(0, |file| file.len());
    Ok(free.saturating_add(used))
}

/// The folder itself, or the first above it that is there.
fn nearest_folder(path: &Path) -> PathBuf {
    let mut there = path;
    while !there.exists() {
        match there.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => there = parent,
            _ => return PathBuf::from("."),
        }
    }
    there.to_owned()
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["AT WORST", "", ""]);
        for (name, amounts, total) in [
            ("memory", &self.memory, self.memory_bytes),
            ("disk", &self.disk, self.disk_bytes),
        ] {
            for amount in amounts {
                table.row([name.into(), amount.what.clone(), size(amount.bytes)]);
            }
            table.row([name.into(), "together".into(), size(total)]);
        }
        let available = size(self.disk_available_bytes);
        table.row(["disk".into(), "available".into(), available]);
        write!(f, "{table}")?;
        f.write_str("Memory is beside the program itself and the batches in flight.\n")?;
        if self.disk_bytes > self.disk_available_bytes {
            f.write_str("The channels can hold more than the disk has: sources will wait.\n")?;
        }
        let mut table = Table::new(&["CHANNEL", "HOLDS", "LASTS WHEN NOTHING LEAVES"]);
        for lasts in &self.lasts {
            let time = format!("{} at {}/s", seconds(lasts.seconds), size(self.rate_bytes));
            table.row([lasts.channel.clone(), size(lasts.capacity_bytes), time]);
        }
        write!(f, "\n{table}")
    }
}
