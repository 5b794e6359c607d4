//! What a configuration says: the first step of every verb that needs more than a place.

use std::path::PathBuf;

use levada_config::{Files, Loaded};
use levada_core::Problems;

use crate::{
    around::Around,
    blueprint::{Blueprint, blueprint},
    kinds::Kinds,
};

/// A configuration, read and checked as far as that goes without opening anything.
pub(crate) struct Reading {
    pub(crate) files: Files,
    pub(crate) around: Around,
    /// The agent, unless a problem keeps it from being understood.
    pub(crate) found: Option<Blueprint>,
    pub(crate) problems: Problems,
}

impl Reading {
    /// Reads files and folders of files.
    pub(crate) fn of(paths: &[PathBuf]) -> Self {
        let Loaded {
            files,
            agent,
            mut problems,
        } = levada_config::load(paths);
        let settings = agent.as_ref().and_then(|agent| agent.settings.as_ref());
        let around = Around::machine(settings.map_or("", |settings| settings.name.as_str()));
        let kinds = Kinds::new(&around);
        let found = agent.and_then(|agent| blueprint(agent, &kinds, &mut problems));
        Self {
            files,
            around,
            found,
            problems,
        }
    }
}
