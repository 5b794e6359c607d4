//! Exit codes, by name.

use std::{io, process::ExitCode};

use crate::output;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything went well.
    Ok,
    /// Something failed.
    Failed,
    /// The configuration or the command line is wrong; nothing was started.
    Usage,
    /// The agent stopped, and a memory channel lost events; they were counted and logged.
    Lost,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Lost => 3,
        })
    }
}

/// The exit of a verb; an error is shown with all its causes.
pub(crate) fn of(ended: anyhow::Result<Exit>) -> ExitCode {
    match ended {
        Ok(exit) => exit.into(),
        // Who reads our output has seen enough.
        Err(error) if is_broken_pipe(&error) => Exit::Ok.into(),
        Err(error) => {
            output::complain(&format!(
                "error: {}\n",
                output::clean(&format!("{error:#}"))
            ));
            Exit::Failed.into()
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let of_output = error.downcast_ref::<io::Error>();
    of_output.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
