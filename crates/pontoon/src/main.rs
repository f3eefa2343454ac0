//! The binary: reads the command line and runs one command.
//!
//! Whatever goes wrong is one line on standard error and exit code 1, a wrong flag included.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use pontoon::commands::{self, CommandError, bench, ctl, dev, shell, start};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A distributed, transactional key-value store for the clients of TiKV.
#[derive(Debug, Parser)]
#[command(name = "pontoon", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node.
    Start(start::StartArgs),
    /// Run a cluster of several nodes on this machine, to try things out.
    Dev(dev::DevArgs),
    /// Read and write by hand.
    Shell(shell::ShellArgs),
    /// Look at a cluster and change it by hand.
    Ctl(ctl::CtlArgs),
    /// Load a server and say how it did.
    Bench(bench::BenchArgs),
    /// Show the version.
    Version,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return on_wrong_flags(&error),
    };
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pontoon: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<(), CommandError> {
    match command {
        Command::Start(args) => start::run(args),
        Command::Dev(args) => dev::run(args),
        Command::Shell(args) => shell::run(args),
        Command::Ctl(args) => ctl::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Version => {
            println!("{}", commands::version());
            Ok(())
        }
    }
}

/// Help and version are what was asked for; anything else is one line.
fn on_wrong_flags(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Standard output may be closed: then nobody reads it.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    eprintln!("pontoon: {}", commands::flag_error(error));
    ExitCode::FAILURE
}
