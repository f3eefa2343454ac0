//! What is wrong with a command line, in one line.

use clap::error::{ContextKind, ErrorKind};
use client::ApiVersion;

/// The error as one line that names the flag and, where there is a likely one, the flag that was
/// meant.
pub fn flag_error(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing: pontoon --help lists them".to_owned();
    }
    let text = error.to_string();
    let message = text.split("\n\n").next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let meant = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand]
        .iter()
        .find_map(|kind| error.get(*kind))
        .map_or_else(String::new, |name| format!(" (did you mean {name}?)"));
    format!("{message}{meant}")
}

/// The version of the API that a server was started with, as flags have it.
pub(super) fn api_version(text: &str) -> Result<ApiVersion, String> {
    match text {
        "1" => Ok(ApiVersion::V1),
        "1ttl" => Ok(ApiVersion::V1Ttl),
        "2" => Ok(ApiVersion::V2),
        _ => Err("1, 1ttl or 2".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::commands::{bench, shell};

    #[derive(Debug, Parser)]
    #[command(name = "pontoon", disable_help_subcommand = true)]
    enum Cli {
        Shell(shell::ShellArgs),
        Bench(bench::BenchArgs),
    }

    fn line(args: &str) -> String {
        let words = std::iter::once("pontoon").chain(args.split(' ').filter(|arg| !arg.is_empty()));
        let error = Cli::try_parse_from(words).expect_err(args);
        let line = flag_error(&error);
        assert!(!line.contains('\n') && !line.is_empty(), "{line}");
        line
    }

    #[test]
    fn the_flag_is_named() {
        assert_eq!(line(""), "a command is missing: pontoon --help lists them");
        assert!(line("frob").contains("'frob'"));
        assert_eq!(line("shel"), "unrecognized subcommand 'shel' (did you mean shell?)");
        assert!(line("shell --adr x").contains("'--adr'"));
        assert!(line("bench raw").contains("<WORKLOAD>"));
        assert!(line("bench raw put --clients 0").contains("at least 1 is needed"));
        assert!(line("bench raw put --ops 5 --duration 1s").contains("cannot be used with"));
        assert!(line("shell --api-version 3").contains("1, 1ttl or 2"));
    }
}
