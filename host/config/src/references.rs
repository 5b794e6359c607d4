//! Who names whom: channels, interceptors and handlers that are named and are not there, or are
//! there and are not named.

use std::collections::BTreeMap;

use levada_core::{
    Name, PartId, PartKind, Problem, Problems, Table, Value,
    settings::{Key, Span, ValueKind},
};

/// The names that can be named, with the places where they are defined.
#[derive(Debug, Default)]
pub(crate) struct Names {
    channels: BTreeMap<Name, Use>,
    /// Interceptors and handlers: one namespace.
    chain: BTreeMap<Name, (PartId, Use)>,
}

#[derive(Debug, Default)]
struct Use {
    place: Span,
    written: bool,
    read: bool,
}

impl Names {
    pub(crate) fn add_channel(&mut self, name: &Name, key: &Key) {
        let channel = self.channels.entry(name.clone()).or_default();
        channel.place = key.span;
    }

    /// Adds an interceptor or a handler; the two share their names.
    pub(crate) fn add_link(&mut self, part: &PartId, key: &Key, problems: &mut Problems) {
        if let Some((other, first)) = self.chain.get(&part.name) {
            let message = format!("`{}` is also the name of `{other}`", part.name);
            problems.push(
                Problem::error(Some(key.span), part.to_string(), message)
                    .help("a source names both in one list: rename one")
                    .related(first.place, "first defined here"),
            );
            return;
        }
        let place = key.span;
        let link = Use {
            place,
            ..Use::default()
        };
        self.chain.insert(part.name.clone(), (part.clone(), link));
    }

    /// The parts behind the names under `interceptors`.
    pub(crate) fn chain(&mut self, table: &Table, problems: &mut Problems) -> Vec<PartId> {
        let mut found = Vec::new();
        let path = table.path_of("interceptors");
        for (text, value) in texts(table.get("interceptors").map(|(_, value)| value)) {
            let Some(name) = Name::new(text) else {
                // Who reads the list as names says so.
                continue;
            };
            if let Some((part, used)) = self.chain.get_mut(&name) {
                used.read = true;
                found.push(part.clone());
                continue;
            }
            let known: Vec<_> = self.chain.keys().map(Name::as_str).collect();
            let message = format!("there is no interceptor or handler `{text}`");
            let problem = Problem::error(Some(value.span), path.as_str(), message);
            problems.push(allowed(problem, text, &known, "[handlers.NAME]"));
        }
        found
    }

    /// Notes the handler that a source or a sink is.
    fn is_handler(&mut self, table: &Table) {
        let handler = table.get("handler").and_then(|(_, value)| value.text());
        if let Some(name) = handler.and_then(Name::new)
            && let Some((_, used)) = self.chain.get_mut(&name)
        {
            used.read = true;
        }
    }

    /// Checks the channels a source puts into, and notes the handler that it is. `selector` is its
    /// selector's table.
    pub(crate) fn written(&mut self, table: &Table, problems: &mut Problems) {
        self.is_handler(table);
        let listed: Vec<_> = texts(table.get("channels").map(|(_, value)| value)).collect();
        let selector = table.get("selector").and_then(|(_, value)| value.table());
        let is_multiplexing = selector
            .and_then(|selector| selector.get("type")?.1.text())
            .is_some_and(|text| text == "multiplexing");
        let mut routed = Vec::new();
        for key in ["mapping", "default", "optional"] {
            let value = selector.and_then(|selector| selector.get(key));
            routed.extend(texts(value.map(|(_, value)| value)));
        }
        if listed.is_empty() && routed.is_empty() {
            let place = table
                .get("channels")
                .map_or(table.span, |(key, _)| key.span);
            problems.push(
                Problem::error(
                    Some(place),
                    table.path_of("channels"),
                    "no channel is named",
                )
                .help("a source puts its events into channels: channels = [\"NAME\"]"),
            );
        }
        let path = table.path_of("channels");
        for (n, (text, value)) in listed.iter().enumerate() {
            if listed[..n].iter().any(|(other, _)| other == text) {
                let message = format!("channel `{text}` is named twice");
                problems.push(Problem::error(Some(value.span), path.as_str(), message));
            }
            let is_routed = !is_multiplexing || routed.iter().any(|(other, _)| other == text);
            if !is_routed {
                let message = format!("no route of the selector leads to channel `{text}`");
                problems.push(Problem::warning(Some(value.span), path.as_str(), message));
            }
            self.channel(text, value, &path, problems, |used| used.written = true);
        }
        let path = table.path_of("selector");
        for (text, value) in routed {
            let is_listed = listed.is_empty() || listed.iter().any(|(other, _)| *other == text);
            if is_multiplexing && !is_listed {
                let message = format!("channel `{text}` is not among the source's channels");
                problems.push(
                    Problem::error(Some(value.span), path.as_str(), message)
                        .help("add it to `channels`, or leave `channels` out"),
                );
            }
            self.channel(text, value, &path, problems, |used| used.written = true);
        }
    }

    /// Checks the channel a sink takes from, and notes the handler that it is.
    pub(crate) fn read(&mut self, table: &Table, problems: &mut Problems) {
        self.is_handler(table);
        let path = table.path_of("channel");
        if let Some((_, value)) = table.get("channel")
            && let Some(text) = value.text()
        {
            self.channel(text, value, &path, problems, |used| used.read = true);
        }
    }

    /// Warns of what nobody names.
    pub(crate) fn unused(&self, problems: &mut Problems) {
        for (name, used) in &self.channels {
            let path = format!("channels.{name}");
            let place = Some(used.place);
            match (used.written, used.read) {
                (true, true) => {}
                (false, false) => problems.push(
                    Problem::warning(
                        place,
                        path,
                        "no source writes this channel, no sink reads it",
                    )
                    .help("remove it, or name it in a source and a sink"),
                ),
                (true, false) => problems.push(
                    Problem::warning(place, path, "no sink reads this channel")
                        .help("it fills up, and then holds up the sources that write to it"),
                ),
                (false, true) => problems.push(
                    Problem::warning(place, path, "no source writes this channel")
                        .help("its sinks have nothing to do"),
                ),
            }
        }
        for (part, used) in self.chain.values() {
            if !used.read {
                let message = match part.kind {
                    PartKind::Handlers => {
                        "no source names it under `interceptors`, no source or sink under `handler`"
                    }
                    _ => "no source names it under `interceptors`",
                };
                problems.push(Problem::warning(
                    Some(used.place),
                    part.to_string(),
                    message,
                ));
            }
        }
    }

    fn channel(
        &mut self,
        text: &str,
        value: &Value,
        path: &str,
        problems: &mut Problems,
        note: impl Fn(&mut Use),
    ) {
        let Some(name) = Name::new(text) else {
            // Who reads the key as a name says so.
            return;
        };
        if let Some(used) = self.channels.get_mut(&name) {
            note(used);
            return;
        }
        let known: Vec<_> = self.channels.keys().map(Name::as_str).collect();
        let message = format!("there is no channel `{text}`");
        let problem = Problem::error(Some(value.span), path, message);
        problems.push(allowed(problem, text, &known, "[channels.NAME]"));
    }
}

/// The part's id in its section.
pub(crate) fn part(kind: PartKind, name: &Name) -> PartId {
    PartId::new(kind, name.clone())
}

fn allowed(problem: Problem, text: &str, known: &[&str], table: &str) -> Problem {
    if known.is_empty() {
        return problem.help(format!("none is defined: add a table {table}"));
    }
    problem
        .allowed(known.join(", "))
        .nearest(text, known.iter().copied())
}

/// Every text in a value, however deep, with its place.
fn texts(value: Option<&Value>) -> Box<dyn Iterator<Item = (&str, &Value)> + '_> {
    let Some(value) = value else {
        return Box::new(std::iter::empty());
    };
    match &value.kind {
        ValueKind::Text { text, .. } => Box::new(std::iter::once((text.as_str(), value))),
        ValueKind::Array(values) => Box::new(values.iter().flat_map(|value| texts(Some(value)))),
        ValueKind::Table(table) => {
            let values = table.entries.iter().map(|(_, value)| value);
            Box::new(values.flat_map(|value| texts(Some(value))))
        }
        ValueKind::Bool(_) | ValueKind::Integer(_) | ValueKind::Float(_) | ValueKind::Date(_) => {
            Box::new(std::iter::empty())
        }
    }
}
