//! What operators ask: of the running agent, or of its store when no agent runs.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result, bail};
use levada_admin::{AskError, Audit, letter, letters, settled_audit};
use levada_config::{AgentConfig, ChannelType, load};
use levada_core::{inspect::Inspect, tasks::blocking};
use levada_store::Offline;
use serde_json::{Value, json};

use crate::{check::show_problems, cli::PlaceArgs, exit::Exit};

/// One agent, running or not.
#[derive(Debug)]
pub(crate) struct Place {
    data: PathBuf,
    /// What its configuration says, if it was given.
    config: Option<AgentConfig>,
    /// The store, if no agent has it.
    offline: Option<Arc<Offline>>,
}

impl Place {
    /// Finds the agent; `None` after the reason was shown.
    pub(crate) async fn find(args: &PlaceArgs) -> Result<Result<Self, Exit>> {
        let (data, config) = match data_of(args) {
            Ok(found) => found,
            Err(exit) => return Ok(Err(exit)),
        };
        let mut place = Self {
            data,
            config,
            offline: None,
        };
        match levada_admin::ask(&place.data, "/healthz").await {
            Ok(_) => {}
            Err(AskError::NotRunning { .. }) => {
                let data = place.data.clone();
                let opened = blocking(move || Offline::open(&data)).await;
                let offline = opened.with_context(|| {
                    format!(
                        "no agent runs on `{}`, and its store cannot be read",
                        place.data.display()
                    )
                })?;
                place.offline = Some(Arc::new(offline));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Ok(place))
    }

    /// The JSON of `/status`; of a store alone it has no parts, and `running` is false.
    pub(crate) async fn status(&self) -> Result<Value> {
        let Some(store) = &self.offline else {
            let mut status = self.ask("/status").await?;
            status["running"] = true.into();
            return Ok(status);
        };
        Ok(json!({
            "running": false,
            "agent": self.config.as_ref().and_then(|c| Some(c.settings.as_ref()?.name.as_str())),
            "parts": [],
            "channels": self.offline_channels(store),
            "store": store.store(),
        }))
    }

    /// The JSON of `/channels`.
    pub(crate) async fn channels(&self) -> Result<Value> {
        match &self.offline {
            None => self.ask("/channels").await,
            Some(store) => Ok(self.offline_channels(store)),
        }
    }

    /// The JSON of `/audit`.
    pub(crate) async fn audit(&self) -> Result<Value> {
        match &self.offline {
            None => self.ask("/audit").await,
            Some(store) => {
                let inspect: Arc<dyn Inspect> = Arc::clone(store) as _;
                let audit: Audit = settled_audit(&inspect).await.map_err(anyhow::Error::msg)?;
                Ok(serde_json::to_value(audit)?)
            }
        }
    }

    /// The JSON of `/dead-letters`.
    pub(crate) async fn letters(&self, after: Option<u64>, limit: u64) -> Result<Value> {
        let Some(store) = &self.offline else {
            let after = after.map(|id| format!("&after={id}")).unwrap_or_default();
            return self
                .ask(&format!("/dead-letters?limit={limit}{after}"))
                .await;
        };
        let limit = usize::try_from(limit)?;
        let found = letters(&**store, after, limit).map_err(anyhow::Error::msg)?;
        Ok(serde_json::to_value(found)?)
    }

    /// The JSON of `/dead-letters/<id>`; `None` if there is no such letter.
    pub(crate) async fn letter(&self, id: u64) -> Result<Option<Value>> {
        let Some(store) = &self.offline else {
            return self.ask_for(&format!("/dead-letters/{id}")).await;
        };
        let found = letter(&**store, id).map_err(anyhow::Error::msg)?;
        Ok(found.map(serde_json::to_value).transpose()?)
    }

    /// A store alone does not know how large its channels may become; the configuration does.
    fn offline_channels(&self, store: &Offline) -> Value {
        let mut channels = store.channels();
        for channel in &mut channels {
            let config = self.config.iter().flat_map(|config| &config.channels);
            let mut same = config.filter(|c| c.name == channel.name);
            if let Some(found) = same.find(|c| c.params.r#type == ChannelType::Durable) {
                channel.capacity_bytes = found.params.capacity.map_or(0, |size| size.0);
                channel.capacity_events = found.params.events.map(std::num::NonZeroU64::get);
            }
        }
        serde_json::to_value(channels).expect("our types have text keys only")
    }

    async fn ask(&self, path: &str) -> Result<Value> {
        self.ask_for(path)
            .await?
            .with_context(|| format!("the agent does not know `{path}`"))
    }

    async fn ask_for(&self, path: &str) -> Result<Option<Value>> {
        let (status, body) = levada_admin::ask(&self.data, path).await?;
        let answer: Value =
            serde_json::from_slice(&body).context("the agent's answer is no JSON")?;
        match status {
            200 => Ok(Some(answer)),
            404 => Ok(None),
            _ => bail!(
                "the agent says: {}",
                answer["error"].as_str().unwrap_or("nothing")
            ),
        }
    }
}

/// An agent's data folder, and its configuration if that was given; or the reason is shown.
pub(crate) fn data_of(
    args: &PlaceArgs,
) -> std::result::Result<(PathBuf, Option<AgentConfig>), Exit> {
    if let Some(data) = &args.data {
        return Ok((data.clone(), None));
    }
    let loaded = load(&args.conf);
    let config = loaded.agent.unwrap_or_default();
    // A mistake elsewhere in the file is no reason not to look at the agent.
    match &config.settings {
        Some(settings) => Ok((settings.data.clone(), Some(config))),
        None => {
            show_problems(loaded.problems, &loaded.files, args.json);
            Err(Exit::Usage)
        }
    }
}
