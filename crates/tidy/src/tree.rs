//! The files of the repository.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold what was built, fetched or stored, not what was written.
const SKIPPED_FOLDERS: [&str; 6] =
    ["target", "pontoon-data", "node_modules", "__pycache__", "venv", "testscripts"];

/// Endings of files that people write here. Scripts have none.
const TEXT_ENDINGS: [&str; 9] = ["rs", "md", "sh", "toml", "py", "go", "proto", "txt", ""];

/// A file that was read.
#[derive(Clone, Debug)]
pub struct File {
    /// Path from the root of the repository, with `/`.
    pub path: String,
    /// What it holds.
    pub text: String,
}

impl File {
    /// The crate's folder name when the file lies in `crates/NAME/`.
    pub fn crate_name(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }

    /// Whether the file lies under `src` of one of the crates named.
    pub fn is_source_of(&self, crates: &[&str]) -> bool {
        self.path.contains("/src/") && self.crate_name().is_some_and(|name| crates.contains(&name))
    }

    /// Whether the file is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies in crates/tidy").to_path_buf()
}

/// Every text file of the repository, by path. Panics with the path if one cannot be read: a limit
/// that was not checked must not pass.
pub fn read() -> Vec<File> {
    let root = root();
    let mut files = Vec::new();
    read_folder(&root, &root, &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.iter().any(|file| file.path == "Cargo.toml"), "no workspace in {root:?}");
    files
}

fn read_folder(root: &Path, folder: &Path, files: &mut Vec<File>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.unwrap_or_else(|e| panic!("{}: {e}", folder.display())).path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let hidden = name.starts_with('.') && name != ".ci";
        if hidden || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            if !SKIPPED_FOLDERS.contains(&name) {
                read_folder(root, &path, files);
            }
        } else if is_text(&path) && name != "LICENSE" {
            files.push(read_file(root, &path));
        }
    }
}

fn is_text(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    TEXT_ENDINGS.contains(&ending)
}

fn read_file(root: &Path, path: &Path) -> File {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let inside = path.strip_prefix(root).expect("the walk started at the root");
    File {
        path: inside.to_string_lossy().replace('\\', "/"),
        text: String::from_utf8_lossy(&bytes).into_owned(),
    }
}
