//! The commands of the binary, one module each.

pub mod bench;
pub mod ctl;
pub mod dev;
mod flags;
pub mod shell;
pub mod start;
mod table;
mod version;

pub use flags::flag_error;
pub use version::version;

use std::fmt;

/// A command that failed, told in one line.
#[derive(Debug)]
pub struct CommandError(String);

impl CommandError {
    /// The line to print.
    pub fn new(line: impl fmt::Display) -> CommandError {
        CommandError(line.to_string())
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CommandError {}

impl From<client::ClientError> for CommandError {
    fn from(error: client::ClientError) -> CommandError {
        CommandError::new(error)
    }
}
