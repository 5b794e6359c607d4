//! Files in, one configuration out.

use std::path::PathBuf;

use levada_core::{
    ChannelName, PartKind, Problem, Problems, Table, Value,
    settings::{Setting, Span, parse_params},
};

use crate::{
    agent::AgentSettings,
    channel::{ChannelConfig, ChannelParams},
    files::Files,
    group::{self, GroupConfig},
    merge::merge,
    parse::parse,
    part::{
        HandlerConfig, InterceptorCommon, InterceptorConfig, Section, SinkCommon, SinkConfig,
        SourceCommon, SourceConfig, common, parts,
    },
    references::{Names, part},
    replace::Surroundings,
    selector::SelectorConfig,
};

/// What was loaded, and what is wrong with it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// For showing the places of problems.
    pub files: Files,
    /// What could be read. Complete if `problems` has no errors; `None` if the files are no TOML.
    pub agent: Option<AgentConfig>,
    pub problems: Problems,
}

/// One agent, as configured. Parts with an error in the keys that all parts have are left out;
/// then there is an error among the problems.
#[derive(Debug, Clone, Default)]
pub struct AgentConfig {
    /// `None` only beside an error.
    pub settings: Option<AgentSettings>,
    /// The table `[agent]`, as it was written.
    pub table: Table,
    pub sources: Vec<SourceConfig>,
    pub interceptors: Vec<InterceptorConfig>,
    pub handlers: Vec<HandlerConfig>,
    pub channels: Vec<ChannelConfig>,
    pub sinks: Vec<SinkConfig>,
    pub groups: Vec<GroupConfig>,
    /// Tables of parts that were left out, for who wants to say more about them.
    pub refused: Vec<Table>,
}

/// Loads files and folders, with references taken from the process's environment.
#[must_use]
pub fn load(paths: &[PathBuf]) -> Loaded {
    load_with(paths, &Surroundings::process())
}

/// Loads a configuration that is in no file; `name` stands for it where problems are shown.
#[must_use]
pub fn load_text(name: &str, text: String) -> Loaded {
    load_files(
        Files::text(name, text),
        Problems::new(),
        &Surroundings::process(),
    )
}

/// Loads files and folders, with references taken from `around`.
#[must_use]
pub fn load_with(paths: &[PathBuf], around: &Surroundings) -> Loaded {
    let mut problems = Problems::new();
    let files = Files::read(paths, &mut problems);
    load_files(files, problems, around)
}

fn load_files(mut files: Files, mut problems: Problems, around: &Surroundings) -> Loaded {
    let mut masked = Vec::new();
    let tables: Vec<_> = files
        .iter()
        .map(|(n, file)| parse(n, file, around, &mut problems, &mut masked))
        .collect();
    files.mask(masked);
    // What a broken file would have said is not known: no word about the rest.
    let whole: Option<Vec<_>> = tables.into_iter().collect();
    let whole = whole.filter(|tables| !tables.is_empty());
    let agent = whole.map(|tables| {
        let root = merge(tables, &mut problems);
        read_agent(&root, &mut problems)
    });
    Loaded {
        files,
        agent,
        problems,
    }
}

fn read_agent(root: &Table, problems: &mut Problems) -> AgentConfig {
    unknown_tables(root, problems);
    let mut agent = AgentConfig {
        settings: read_settings(root, problems),
        table: root
            .get("agent")
            .and_then(|(_, value)| value.table().cloned())
            .unwrap_or_default(),
        ..AgentConfig::default()
    };
    let mut names = Names::default();
    read_channels(root, &mut agent, &mut names, problems);
    read_links(root, &mut agent, &mut names, problems);
    read_sources(root, &mut agent, &mut names, problems);
    read_sinks(root, &mut agent, &mut names, problems);
    read_groups(root, &mut agent, problems);
    // Whoever is named by a part that is wrong would be called unused.
    if !problems.has_errors() {
        names.unused(problems);
    }
    let nothing = |section| parts(root, section, &mut Problems::new()).is_empty();
    if nothing(Section::Sources) && nothing(Section::Sinks) {
        let message = "there is nothing to run: no source and no sink";
        let help = "a flow needs at least a [sources.NAME], a [channels.NAME] and a [sinks.NAME]";
        problems.push(Problem::error(Some(Span::default()), "", message).help(help));
    }
    agent
}

fn unknown_tables(root: &Table, problems: &mut Problems) {
    let known = PartKind::ALL.map(PartKind::as_str);
    for (key, value) in &root.entries {
        let name = key.name.as_str();
        if !known.contains(&name) {
            let what = match value.table() {
                Some(_) => "unknown table",
                None => "a key outside of every table",
            };
            let tables = known.map(|name| format!("[{name}]"));
            let problem = Problem::error(Some(key.span), name, what);
            problems.push(problem.allowed(tables.join(", ")).nearest(name, known));
        }
    }
}

fn read_settings(root: &Table, problems: &mut Problems) -> Option<AgentSettings> {
    let Some((key, value)) = root.get("agent") else {
        let problem = Problem::error(
            Some(Span::default()),
            "agent",
            "the table [agent] is missing",
        );
        problems.push(problem.help("add [agent] with name = \"NAME\" and data = \"/a/folder\""));
        return None;
    };
    let Some(table) = value.table() else {
        let problem = Problem::error(Some(key.span), "agent", "not a table");
        problems.push(problem.found(value.describe()));
        return None;
    };
    parse_params(table, &[], problems)
}

fn read_channels(
    root: &Table,
    agent: &mut AgentConfig,
    names: &mut Names,
    problems: &mut Problems,
) {
    for (name, key, table) in parts(root, Section::Channels, problems) {
        names.add_channel(&name, key);
        match parse_params::<ChannelParams>(table, &[], problems) {
            Some(params) => agent.channels.push(ChannelConfig {
                name: ChannelName(name),
                params,
                span: table.span,
            }),
            None => agent.refused.push(table.clone()),
        }
    }
}

fn read_links(root: &Table, agent: &mut AgentConfig, names: &mut Names, problems: &mut Problems) {
    for (name, key, table) in parts(root, Section::Interceptors, problems) {
        let part = part(PartKind::Interceptors, &name);
        names.add_link(&part, key, problems);
        match common::<InterceptorCommon>(table, problems) {
            Some(common) => agent.interceptors.push(InterceptorConfig {
                part,
                common,
                table: table.clone(),
            }),
            None => agent.refused.push(table.clone()),
        }
    }
    for (name, key, table) in parts(root, Section::Handlers, problems) {
        let part = part(PartKind::Handlers, &name);
        names.add_link(&part, key, problems);
        agent.handlers.push(HandlerConfig {
            part,
            table: table.clone(),
        });
    }
}

fn read_sources(root: &Table, agent: &mut AgentConfig, names: &mut Names, problems: &mut Problems) {
    for (name, _, table) in parts(root, Section::Sources, problems) {
        names.written(table, problems);
        let chain = names.chain(table, problems);
        let read = common::<SourceCommon>(table, problems).and_then(|common| {
            let channels = common.channels.clone().unwrap_or_default();
            let selector = SelectorConfig::read(common.selector.as_ref(), &channels, problems)?;
            Some(SourceConfig {
                part: part(PartKind::Sources, &name),
                common,
                selector,
                chain,
                table: table.clone(),
            })
        });
        match read {
            Some(source) => agent.sources.push(source),
            None => agent.refused.push(table.clone()),
        }
    }
}

fn read_sinks(root: &Table, agent: &mut AgentConfig, names: &mut Names, problems: &mut Problems) {
    for (name, _, table) in parts(root, Section::Sinks, problems) {
        names.read(table, problems);
        match sink_common(table, problems) {
            Some(common) => agent.sinks.push(SinkConfig {
                part: part(PartKind::Sinks, &name),
                common,
                table: table.clone(),
            }),
            None => agent.refused.push(table.clone()),
        }
    }
}

fn read_groups(root: &Table, agent: &mut AgentConfig, problems: &mut Problems) {
    let sinks = parts(root, Section::Sinks, &mut Problems::new());
    let sinks: Vec<_> = sinks.into_iter().map(|(name, ..)| name).collect();
    for (name, _, table) in parts(root, Section::Groups, problems) {
        let known = group::Known {
            sinks: &agent.sinks,
            names: sinks.clone(),
            groups: &agent.groups,
        };
        agent
            .groups
            .extend(group::read(&name, table, &known, problems));
    }
}

/// As `common`, with words for the sink that would take from several channels.
fn sink_common(table: &Table, problems: &mut Problems) -> Option<SinkCommon> {
    let listed = |name| table.get(name).filter(|(_, value)| is_list(value));
    let Some((key, value)) = listed("channel").or_else(|| listed("channels")) else {
        return common(table, problems);
    };
    let path = table.path_of(&key.name);
    problems.push(
        value
            .problem(&path, "a sink takes from one channel")
            .allowed(levada_core::Name::allowed())
            .help("write channel = \"NAME\"; for several channels use a sink for each"),
    );
    None
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind, levada_core::settings::ValueKind::Array(_))
}

#[cfg(test)]
mod tests;
