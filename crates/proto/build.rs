//! Turns `proto/*.proto` into Rust: messages by prost, servers and clients by tonic.
//!
//! protox reads the files, so that nobody needs a `protoc` on the machine. The descriptors are
//! also written to `descriptors.bin`, which the tests compare with the table of the protocol.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

/// Where our files are, relative to this crate.
const PROTO_DIR: &str = "proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO_DIR}");
    println!("cargo:rerun-if-changed=build.rs");

    let mut descriptors = protox::compile(proto_files()?, [PROTO_DIR])?;
    tonic_prost_build::configure()
        .bytes(".")
        .generate_default_stubs(true) // a call that a server leaves out answers UNIMPLEMENTED
        .compile_fds(descriptors.clone())?;

    // Comments and positions are of no use to a program.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;
    Ok(())
}

/// All `.proto` files in the order of their names, so that each build generates the same text.
fn proto_files() -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(PROTO_DIR)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
