//! What is wrong in a configuration, with everything needed to mend it.

use crate::settings::Span;

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    /// Where in which file; `None` for what is missing altogether.
    pub span: Option<Span>,
    /// The key's full path, such as `sources.plant.url`.
    pub key: String,
    /// What is wrong, in one line: lower case, no full stop.
    pub message: String,
    /// What was found, if that helps.
    pub found: Option<String>,
    /// What is allowed.
    pub allowed: Option<String>,
    /// The nearest known name.
    pub nearest: Option<String>,
    /// What to do next.
    pub help: Option<String>,
    /// Another place that matters, with what it is (`first defined here`).
    pub related: Option<(Span, String)>,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration works, and may not do what is wished.
    Warning,
    /// Nothing is started.
    Error,
}

impl Problem {
    /// An error at a place.
    #[must_use]
    pub fn error(span: Option<Span>, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            span,
            key: key.into(),
            message: message.into(),
            found: None,
            allowed: None,
            nearest: None,
            help: None,
            related: None,
        }
    }

    /// A warning at a place.
    #[must_use]
    pub fn warning(span: Option<Span>, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(span, key, message)
        }
    }

    /// Adds what was found.
    #[must_use]
    pub fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    /// Adds what is allowed.
    #[must_use]
    pub fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    /// Adds the nearest known name, if one is near.
    #[must_use]
    pub fn nearest<'a>(mut self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        self.nearest = nearest(word, known).map(str::to_owned);
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds another place that matters.
    #[must_use]
    pub fn related(mut self, span: Span, what: impl Into<String>) -> Self {
        self.related = Some((span, what.into()));
        self
    }
}

/// Problems as they are found.
#[derive(Debug, Clone, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Whether one of them keeps the agent from starting.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.0
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }

    /// All, in the order of the files.
    #[must_use]
    pub fn into_sorted(mut self) -> Vec<Problem> {
        self.0
            .sort_by_key(|problem| problem.span.map(|span| (span.file, span.start)));
        self.0
    }

    /// All, as they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// The number of problems.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The known word that was probably meant, if one is near enough.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = |other: &&'a str| strsim::damerau_levenshtein(word, other);
    let best = known.into_iter().min_by_key(near)?;
    let reach = 1 + word.chars().count().max(best.chars().count()) / 4;
    (best != word && near(&best) <= reach).then_some(best)
}
