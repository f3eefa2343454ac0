//! `pontoon version`.

/// Name, version, and the commit if the build knew it (`./x` passes it on).
pub fn version() -> String {
    let commit = option_env!("PONTOON_COMMIT").filter(|commit| !commit.is_empty());
    let commit = commit.map_or_else(String::new, |commit| format!(" ({commit})"));
    format!("pontoon {}{commit}", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_the_version() {
        assert!(super::version().starts_with(concat!("pontoon ", env!("CARGO_PKG_VERSION"))));
    }
}
