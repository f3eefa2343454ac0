//! The part of a `Cargo.toml` that the limits ask for: which packages it names, where.
//!
//! Reads the shapes that this workspace uses, one dependency a line, and refuses others by
//! returning them as they stand, so that a rule trips over them instead of missing them.

/// One dependency as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The name on the left.
    pub name: String,
    /// What stands on the right of the first `=`.
    pub value: String,
    /// The line, counted from 1.
    pub line: usize,
}

/// The lines of one section, such as `dependencies` or `workspace.dependencies`.
pub fn section(manifest: &str, wanted: &str) -> Vec<Dependency> {
    let mut found = Vec::new();
    let mut inside = false;
    for (i, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            inside = header.trim_end_matches(']') == wanted;
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            let (name, value) = (name.trim(), value.trim().to_owned());
            found.push(Dependency { name: name.to_owned(), value, line: i + 1 });
        }
    }
    found
}

/// The name without the `.workspace` that follows it where the workspace decides the version.
pub fn workspace_name(dependency: &Dependency) -> Option<&str> {
    let inherits = dependency.value.replace(' ', "").starts_with("{workspace=true");
    match dependency.name.strip_suffix(".workspace") {
        Some(name) if dependency.value == "true" => Some(name),
        None if inherits => Some(&dependency.name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_told_apart() {
        let text =
            "[dependencies]\na.workspace = true\n# no\nb = \"1\"\n\n[lints]\nworkspace = true\n";
        let found = section(text, "dependencies");
        let names: Vec<_> = found.iter().map(|d| (d.line, workspace_name(d))).collect();
        assert_eq!(names, [(2, Some("a")), (4, None)]);
        assert_eq!(section(text, "lints")[0].name, "workspace");
    }
}
