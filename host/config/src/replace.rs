//! `${env:NAME}`, `${file:/path}` and `${cred:name}` in texts.

use std::{
    env, fmt,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use levada_core::settings::nearest;

/// A secret is a line or a key, not a file system.
const LARGEST_VALUE: u64 = 64 << 10;

/// Where replaced values come from.
#[derive(Clone)]
pub struct Surroundings {
    variable: Arc<Variable>,
}

/// The value of an environment variable.
type Variable = dyn Fn(&str) -> Option<String> + Send + Sync;

impl Surroundings {
    /// The process's environment.
    #[must_use]
    pub fn process() -> Self {
        Self::of(|name| env::var(name).ok())
    }

    /// Another environment, for tests and tools.
    #[must_use]
    pub fn of(variable: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self {
            variable: Arc::new(variable),
        }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

/// A text after replacement.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replaced {
    pub(crate) text: String,
    /// Whether part of it came from a file or a credential.
    pub(crate) secret: bool,
}

/// What is wrong with a reference.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) help: String,
}

/// Replaces every reference in a text; `$${` stands for a plain `${`.
pub(crate) fn replace(text: &str, around: &Surroundings) -> Result<Replaced, Wrong> {
    let mut done = Replaced {
        text: String::new(),
        secret: false,
    };
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(escaped) = before.strip_suffix('$') {
            done.text.push_str(escaped);
            done.text.push_str("${");
            rest = &from[2..];
            continue;
        }
        done.text.push_str(before);
        let Some(end) = from.find('}') else {
            return Err(wrong(
                "`${` without `}`",
                "close the reference, or write `$${` for a plain `${`",
            ));
        };
        let (value, secret) = look_up(&from[2..end], around)?;
        done.text.push_str(&value);
        done.secret |= secret;
        rest = &from[end + 1..];
    }
    done.text.push_str(rest);
    Ok(done)
}

fn look_up(reference: &str, around: &Surroundings) -> Result<(String, bool), Wrong> {
    const KINDS: [&str; 3] = ["env", "file", "cred"];
    let (kind, name) = reference.split_once(':').unwrap_or((reference, ""));
    match kind {
        "env" => match (around.variable)(name) {
            Some(value) => Ok((value, false)),
            None => Err(wrong(
                format!("the environment variable `{name}` is not set"),
                "set it for the process that runs levada, or write the value here",
            )),
        },
        "file" => Ok((read_value(Path::new(name))?, true)),
        "cred" => Ok((read_value(&credential(name, around)?)?, true)),
        _ => {
            let known = "known are `${env:NAME}`, `${file:/path}` and `${cred:name}`";
            let near = nearest(kind, KINDS).map(|near| format!("; did you mean `{near}`?"));
            let message = format!("unknown reference `${{{reference}}}`");
            Err(wrong(
                message,
                format!("{known}{}", near.unwrap_or_default()),
            ))
        }
    }
}

/// The file of a credential, as systemd passes it with `LoadCredential=`.
fn credential(name: &str, around: &Surroundings) -> Result<PathBuf, Wrong> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(wrong(
            format!("`{name}` is not the name of a credential"),
            "a credential's name has no `/` and does not start with `.`",
        ));
    }
    match (around.variable)("CREDENTIALS_DIRECTORY") {
        Some(folder) => Ok(Path::new(&folder).join(name)),
        None => Err(wrong(
            format!("the credential `{name}` is not there: no credentials were passed"),
            format!("start with `LoadCredential={name}:/path` in the systemd unit"),
        )),
    }
}

fn read_value(path: &Path) -> Result<String, Wrong> {
    let failed = |what: String| {
        wrong(
            format!("cannot read `{}`: {what}", path.display()),
            "the file must be there, readable for levada's user, and hold text",
        )
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_VALUE + 1).read_to_end(&mut bytes))
        .map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > LARGEST_VALUE {
        return Err(failed("it is larger than 64 KiB".into()));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8 text".into()))?;
    // Editors and `echo` end a file with a line feed that is no part of the value.
    let kept = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(kept);
    Ok(text)
}

fn wrong(message: impl Into<String>, help: impl Into<String>) -> Wrong {
    Wrong {
        message: message.into(),
        help: help.into(),
    }
}

#[cfg(test)]
mod tests;
