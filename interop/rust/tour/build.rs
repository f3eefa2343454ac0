//! Takes the Rust program out of the README, so that it is compiled and run as it is written there.

use std::path::Path;

/// The one thing that differs: where the server is, which is the program's argument here.
const ADDRESS: &str = "\"127.0.0.1:2379\"";
const ARGUMENT: &str = "std::env::args().nth(1).expect(\"an address\")";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../README.md");
    println!("cargo::rerun-if-changed={}", readme.display());
    let text = std::fs::read_to_string(readme)?;
    let begun = text.split_once("```rust\n").ok_or("the README has a Rust program")?.1;
    let program = begun.split_once("```").ok_or("it ends")?.0;
    if !program.contains(ADDRESS) {
        return Err("it does not connect to the address of the tour".into());
    }
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("tour.rs"), program.replace(ADDRESS, ARGUMENT))?;
    Ok(())
}
