//! Limits on manifests: which crate may know which, and how many of other people's crates there
//! are.

use std::collections::BTreeSet;

use crate::Finding;
use crate::manifest::{self, Dependency};
use crate::tree::File;

/// Which of our crates each one may use. Down only: see docs/ARCHITECTURE.md.
const MAY_USE: [(&str, &[&str]); 12] = [
    ("base", &[]),
    ("proto", &["base"]),
    ("tidy", &[]),
    ("raft", &["base"]),
    ("storage", &["base"]),
    ("txn", &["base", "proto", "storage"]),
    // Speaks the protocol and nothing else, so that it is the same client over any link.
    ("client", &["base", "proto"]),
    ("placement", &["base", "proto"]),
    ("store", &["base", "proto", "raft", "storage"]),
    ("server", &["base", "proto", "raft", "storage", "txn", "placement", "store"]),
    ("sim", &["base", "proto", "raft", "storage", "txn", "placement", "store", "client"]),
    ("pontoon", &["base", "proto", "server", "client"]),
];

/// Other people's crates that one core crate may name.
const CORE_DEPENDENCIES_MAX: usize = 5;

/// Other people's crates that the workspace may name.
const DEPENDENCIES_MAX: usize = 40;

/// The crates that [`CORE_DEPENDENCIES_MAX`] is for.
const CORE: [&str; 6] = ["base", "raft", "storage", "store", "placement", "txn"];

const LIST: &str = "docs/dependencies.md";

/// Crates that use one of ours which lies beside or above them, or that decide a version
/// themselves.
pub fn layers(files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in manifests(files) {
        let name = file.crate_name().expect("a manifest of a crate lies in its folder");
        let Some((_, allowed)) = MAY_USE.iter().find(|(known, _)| *known == name) else {
            found.push(finding(file, 0, "crate-layers", format!("`{name}` has no row in MAY_USE")));
            continue;
        };
        for dependency in all_sections(&file.text) {
            let why = match manifest::workspace_name(&dependency) {
                None => format!("`{}`: take the version from the workspace", dependency.name),
                Some(used) if is_ours(used) && !allowed.contains(&used) => {
                    format!("`{name}` must not know `{used}`: dependencies point down only")
                }
                Some(_) => continue,
            };
            found.push(finding(file, dependency.line, "crate-layers", why));
        }
    }
    found
}

/// Crates without the workspace's lints.
pub fn lints(files: &[File]) -> Vec<Finding> {
    let inherits = |file: &File| {
        let section = manifest::section(&file.text, "lints");
        section.iter().any(|line| line.name == "workspace" && line.value == "true")
    };
    let without = manifests(files).filter(|file| !inherits(file));
    without
        .map(|file| finding(file, 0, "lints", "add [lints] workspace = true".to_owned()))
        .collect()
}

/// Too many of other people's crates in a core crate or in all.
pub fn dependency_counts(files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in manifests(files).filter(|file| file.is_manifest_of(&CORE)) {
        let names = manifest::section(&file.text, "dependencies");
        let names = names.iter().filter_map(manifest::workspace_name);
        let count = names.filter(|name| !is_ours(name)).count();
        if count > CORE_DEPENDENCIES_MAX {
            let why = format!(
                "{count} crates of others, at most {CORE_DEPENDENCIES_MAX} in a core crate"
            );
            found.push(finding(file, 0, "dependency-count", why));
        }
    }
    let root = root_manifest(files);
    let count = foreign(root).len();
    if count > DEPENDENCIES_MAX {
        let why = format!("{count} crates of others, at most {DEPENDENCIES_MAX} in the workspace");
        found.push(finding(root, 0, "dependency-count", why));
    }
    found
}

/// Dependencies without a reason in docs/dependencies.md, reasons without a dependency, and
/// dependencies that no crate uses.
pub fn dependency_reasons(files: &[File]) -> Vec<Finding> {
    let root = root_manifest(files);
    let list = files.iter().find(|file| file.path == LIST);
    let list = list.unwrap_or_else(|| panic!("{LIST} is missing"));
    let listed = listed_names(&list.text);
    let used: BTreeSet<String> = manifests(files)
        .flat_map(|file| all_sections(&file.text))
        .filter_map(|dependency| manifest::workspace_name(&dependency).map(str::to_owned))
        .collect();
    let mut found = Vec::new();
    for dependency in foreign(root) {
        let name = &dependency.name;
        if !listed.iter().any(|(_, listed)| listed == name) {
            let why = format!("`{name}` has no row in {LIST}");
            found.push(finding(root, dependency.line, "dependency-reason", why));
        }
        if !used.contains(name) {
            let why = format!("`{name}` is used by no crate: take it out");
            found.push(finding(root, dependency.line, "dependency-reason", why));
        }
    }
    for (line, name) in listed {
        if !foreign(root).iter().any(|dependency| dependency.name == name) {
            let why = format!("`{name}` is not a dependency: take its row out");
            found.push(finding(list, line, "dependency-reason", why));
        }
    }
    found
}

/// The names in the first column of the tables: rows that begin with a name in backquotes.
fn listed_names(list: &str) -> Vec<(usize, String)> {
    let rows = list.lines().enumerate();
    rows.filter_map(|(i, row)| {
        let (name, _) = row.strip_prefix("| `")?.split_once('`')?;
        Some((i + 1, name.to_owned()))
    })
    .collect()
}

fn is_ours(name: &str) -> bool {
    MAY_USE.iter().any(|(known, _)| *known == name)
}

fn foreign(root: &File) -> Vec<Dependency> {
    let all = manifest::section(&root.text, "workspace.dependencies");
    all.into_iter().filter(|dependency| !is_ours(&dependency.name)).collect()
}

fn all_sections(manifest: &str) -> Vec<Dependency> {
    let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
    sections.iter().flat_map(|section| manifest::section(manifest, section)).collect()
}

fn root_manifest(files: &[File]) -> &File {
    files.iter().find(|file| file.path == "Cargo.toml").expect("the workspace has a manifest")
}

fn manifests(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|file| file.crate_name().is_some_and(|name| is_manifest(file, name)))
}

fn is_manifest(file: &File, name: &str) -> bool {
    file.path == format!("crates/{name}/Cargo.toml")
}

impl File {
    fn is_manifest_of(&self, crates: &[&str]) -> bool {
        crates.iter().any(|name| is_manifest(self, name))
    }
}

fn finding(file: &File, line: usize, rule: &'static str, why: String) -> Finding {
    Finding { path: file.path.clone(), line, rule, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn dependencies_point_down() {
        let text = "[dependencies]\nbase.workspace = true\nbytes = \"1\"\n[dev-dependencies]\n\
                    store.workspace = true\n";
        let found = layers(&[file("crates/raft/Cargo.toml", text)]);
        assert_eq!(found.iter().map(|f| f.line).collect::<Vec<_>>(), [3, 5]);
        assert_eq!(layers(&[file("crates/new/Cargo.toml", "")]).len(), 1);
        assert_eq!(lints(&[file("crates/raft/Cargo.toml", text)]).len(), 1);
    }

    #[test]
    fn every_dependency_has_its_reason() {
        let root =
            "[workspace.dependencies]\nbase = { path = \"x\" }\nbytes = \"1\"\nrand = \"1\"\n";
        let files = [
            file("Cargo.toml", root),
            file("docs/dependencies.md", "| `bytes` | why |\n| `serde` | why |\n"),
            file("crates/raft/Cargo.toml", "[dependencies]\nbytes.workspace = true\n"),
        ];
        let found: Vec<_> = dependency_reasons(&files).iter().map(Finding::to_string).collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("`rand` has no row") && found[1].contains("used by no crate"));
        assert!(found[2].contains("`serde` is not a dependency"));
    }
}
