//! Whether an agent is well, in one word and with reasons.

use levada_core::inspect::{ChannelInfo, StoreInfo};
use levada_flow::{PartStatus, State};
use serde::Serialize;

/// The health of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Health {
    pub status: HealthState,
    /// What is not in order, one line each.
    pub reasons: Vec<String>,
}

/// The health in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// Everything runs.
    Ok,
    /// Something waits or is retried; it gets well by itself.
    Degraded,
    /// The agent is stopping.
    Draining,
    /// Something is broken.
    Failed,
}

impl HealthState {
    /// The word in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
            Self::Failed => "failed",
        }
    }

    /// Whether a load balancer should go elsewhere.
    #[must_use]
    pub fn is_red(self) -> bool {
        self >= Self::Draining
    }
}

impl Health {
    /// Judges the state of the parts, the channels and the store.
    pub(crate) fn of(
        parts: &[PartStatus],
        channels: &[ChannelInfo],
        store: Option<&StoreInfo>,
        is_draining: bool,
    ) -> Self {
        let mut health = Self {
            status: HealthState::Ok,
            reasons: Vec::new(),
        };
        if let Some(store) = store.filter(|store| store.state != "ok") {
            let level = if store.works {
                HealthState::Degraded
            } else {
                HealthState::Failed
            };
            health.add(level, format!("the store: {}", store.state));
        }
        for part in parts {
            let level = match part.state {
                state if state.is_bad() => HealthState::Failed,
                State::Retrying => HealthState::Degraded,
                State::Open
                | State::Running
                | State::Reopening
                | State::Failed
                | State::Finished
                | State::Stopped => continue,
            };
            let error = part.last_error.as_ref();
            let why = error.map(|error| format!(": {}", error.text));
            let state = part.state.as_str();
            health.add(
                level,
                format!("{} is {state}{}", part.part, why.unwrap_or_default()),
            );
        }
        for channel in channels.iter().filter(|channel| channel.waiting_puts > 0) {
            let message = format!(
                "channel {} is full: {} puts wait for room",
                channel.name, channel.waiting_puts
            );
            health.add(HealthState::Degraded, message);
        }
        if is_draining {
            health.add(HealthState::Draining, "the agent is stopping".into());
        }
        health
    }

    /// The clock cannot be right. Data goes on (delivery contract, D6); certificates are judged
    /// wrongly, and the times of logs and headers are wrong.
    pub(crate) fn unsynced(mut self) -> Self {
        let reason =
            "clock-unsynced: the clock of this machine is before the build of this version";
        self.add(HealthState::Degraded, reason.into());
        self
    }

    fn add(&mut self, level: HealthState, reason: String) {
        self.status = self.status.max(level);
        self.reasons.push(reason);
    }
}
