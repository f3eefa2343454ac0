//! `pontoon-sim`: runs simulations by seed.

use std::process::ExitCode;

mod cluster_command;
mod command;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match command::run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(wrong) => {
            eprintln!("pontoon-sim: {wrong}\n\n{}", command::USAGE);
            ExitCode::from(2)
        }
    }
}
