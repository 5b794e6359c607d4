//! Which events a handler is called for: `header("type") == "log" && !header("test")`.
//!
//! The language is as small as the question. A text is what stands between quotes, `header("x")`
//! the value of a header; both can be compared with `==` and `!=`. `header("x")` alone asks whether
//! there is such a header. `!`, `&&`, `||` and parentheses join what is true or not. A header that
//! is not there equals nothing.

use std::fmt;

use levada_core::{Batch, EventRef, Problems, Value, settings::Setting};

/// A condition on one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct When {
    text: String,
    root: Node,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Has(String),
    Equal(Term, Term),
    Not(Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    Text(String),
    Header(String),
}

/// Why a text is no condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhenError {
    /// The byte at which it was noticed.
    pub at: usize,
    pub what: String,
}

impl When {
    /// Reads a condition.
    ///
    /// # Errors
    /// [`WhenError`]
    pub fn parse(text: &str) -> Result<Self, WhenError> {
        let mut parser = Parser {
            text,
            at: 0,
            depth: 0,
        };
        let root = parser.any()?;
        match parser.peek() {
            None => Ok(Self {
                text: text.to_owned(),
                root,
            }),
            Some(_) => parser.fail("the condition ends before this: join it with `&&` or `||`"),
        }
    }

    /// The places of the events it holds for, in order.
    pub(crate) fn places(&self, batch: &Batch) -> impl Iterator<Item = usize> {
        let events = batch.iter().enumerate();
        events.filter_map(|(place, event)| self.holds(event).then_some(place))
    }

    /// Whether it holds for an event.
    #[must_use]
    pub fn holds(&self, event: EventRef<'_>) -> bool {
        self.root.holds(event)
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Setting for When {
    fn allowed() -> String {
        r#"a condition such as 'header("type") == "log"', with ==, !=, &&, ||, ! and parentheses"#
            .into()
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        let Some(text) = value.text() else {
            let problem = value.problem(key, "not a condition");
            problems.push(problem.allowed(Self::allowed()));
            return None;
        };
        match Self::parse(text) {
            Ok(when) => Some(when),
            Err(WhenError { at, what }) => {
                let message = format!("no condition at character {}: {what}", at + 1);
                problems.push(value.problem(key, message).allowed(Self::allowed()));
                None
            }
        }
    }
}

impl Node {
    fn holds(&self, event: EventRef<'_>) -> bool {
        match self {
            Self::Has(name) => event.header(name).is_some(),
            Self::Equal(left, right) => match (left.of(event), right.of(event)) {
                (Some(left), Some(right)) => left == right,
                _ => false,
            },
            Self::Not(node) => !node.holds(event),
            Self::All(nodes) => nodes.iter().all(|node| node.holds(event)),
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(event)),
        }
    }
}

impl Term {
    fn of<'a>(&'a self, event: EventRef<'a>) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Header(name) => event.header(name),
        }
    }
}

/// Puts what came out of the events at some places back among the others, in the order of the
/// batch. `outs` says how many events came out of each.
pub(crate) fn weave(batch: Batch, places: &[usize], out: Batch, outs: &[u32]) -> Batch {
    let own = batch.len();
    if out.is_empty() {
        let mut gone = places.iter().copied().peekable();
        let stays = |place: &usize| gone.next_if_eq(place).is_none();
        let stay: Vec<_> = (0..own).filter(stays).collect();
        return batch.select(stay);
    }
    let mut order = Vec::with_capacity(own + out.len());
    let mut gone = places.iter().copied().zip(outs).peekable();
    let mut next = own;
    for place in 0..own {
        match gone.next_if(|(gone, _)| *gone == place) {
            Some((_, outs)) => {
                let end = next + *outs as usize;
                order.extend(next..end);
                next = end;
            }
            None => order.push(place),
        }
    }
    Batch::concat(vec![batch, out]).select(order)
}

/// How deep conditions can lie in each other.
const DEEPEST: usize = 32;

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn fail<T>(&self, what: impl Into<String>) -> Result<T, WhenError> {
        let (at, what) = (self.at, what.into());
        Err(WhenError { at, what })
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next character that is no space.
    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        self.rest().chars().next()
    }

    fn take(&mut self, word: &str) -> bool {
        self.peek();
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn expect(&mut self, word: &str) -> Result<(), WhenError> {
        if self.take(word) {
            return Ok(());
        }
        self.fail(format!("expected `{word}`"))
    }

    fn any(&mut self) -> Result<Node, WhenError> {
        let mut nodes = vec![self.all()?];
        while self.take("||") {
            nodes.push(self.all()?);
        }
        Ok(one_or(nodes, Node::Any))
    }

    fn all(&mut self) -> Result<Node, WhenError> {
        let mut nodes = vec![self.not()?];
        while self.take("&&") {
            nodes.push(self.not()?);
        }
        Ok(one_or(nodes, Node::All))
    }

    fn not(&mut self) -> Result<Node, WhenError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return self.fail(format!("more than {DEEPEST} conditions in each other"));
        }
        let node = if self.take("!") {
            self.not().map(|node| Node::Not(Box::new(node)))
        } else if self.take("(") {
            let node = self.any()?;
            self.expect(")").map(|()| node)
        } else {
            self.comparison()
        };
        self.depth -= 1;
        node
    }

    fn comparison(&mut self) -> Result<Node, WhenError> {
        let left = self.term()?;
        if self.take("==") {
            Ok(Node::Equal(left, self.term()?))
        } else if self.take("!=") {
            let right = self.term()?;
            Ok(Node::Not(Box::new(Node::Equal(left, right))))
        } else {
            match left {
                Term::Header(name) => Ok(Node::Has(name)),
                Term::Text(_) => self.fail("expected `==` or `!=` after a text"),
            }
        }
    }

    fn term(&mut self) -> Result<Term, WhenError> {
        if self.peek() == Some('"') {
            return Ok(Term::Text(self.string()?));
        }
        if !self.take("header") {
            return self.fail("expected `header(\"NAME\")`, a text in double quotes, `!` or `(`");
        }
        self.expect("(")?;
        let name = self.string()?;
        self.expect(")")?;
        Ok(Term::Header(name))
    }

    /// A text in double quotes; `\"` and `\\` stand for a quote and a backslash.
    fn string(&mut self) -> Result<String, WhenError> {
        self.expect("\"")?;
        let mut text = String::new();
        let mut characters = self.rest().char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.at += at + 1;
                    return Ok(text);
                }
                '\\' => match characters.next() {
                    Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                    _ => {
                        self.at += at;
                        return self.fail("after a backslash only `\"` or another one");
                    }
                },
                other => text.push(other),
            }
        }
        self.fail("the text has no closing quote")
    }
}

fn one_or(mut nodes: Vec<Node>, join: fn(Vec<Node>) -> Node) -> Node {
    match nodes.len() {
        1 => nodes.remove(0),
        _ => join(nodes),
    }
}

#[cfg(test)]
mod tests;
