//! `pontoon-sim`: runs simulations by seed.

use std::process::ExitCode;

mod cluster_command;
mod command;

/// That of the server's binary. A run takes and gives back small pieces all the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
