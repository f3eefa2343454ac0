//! The members' addresses as they were last heard, in a file: where a restarted node asks when it
//! holds no replica of the system region.
//!
//! The file is a hint. One that cannot be read counts as empty, and one that cannot be written is
//! written at the next change.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Addresses, `host:port`. Cheap to clone.
#[derive(Clone)]
pub(crate) struct KnownMembers(Arc<Shared>);

struct Shared {
    /// None if nothing shall be kept.
    file: Option<PathBuf>,
    addresses: Mutex<Vec<String>>,
    /// From the configuration: asked too, and never written.
    join: Vec<String>,
}

impl KnownMembers {
    /// What the file says, and what the configuration does.
    pub(crate) fn open(file: Option<PathBuf>, join: &[String]) -> Self {
        let read = |file: &PathBuf| {
            fs::read_to_string(file).unwrap_or_else(|error| {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(file = %file.display(), %error, "known members not read");
                }
                String::new()
            })
        };
        let text = file.as_ref().map_or_else(String::new, read);
        let addresses = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        Self(Arc::new(Shared { file, addresses: Mutex::new(addresses), join: join.to_vec() }))
    }

    /// All of them, the latest heard first.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let mut addresses = self.lock().clone();
        for address in &self.0.join {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    /// Takes down the members as they are now, durably.
    pub(crate) fn remember(&self, addresses: Vec<String>) {
        if addresses.is_empty() || *self.lock() == addresses {
            return;
        }
        let text = addresses.join("\n") + "\n";
        match self.write(&text) {
            Ok(()) => *self.lock() = addresses,
            Err(error) => tracing::warn!(file = ?self.0.file, %error, "members not remembered"),
        }
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let Some(path) = &self.0.file else { return Ok(()) };
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        let folder = path.parent().expect("it lies in the data folder");
        File::open(folder)?.sync_all()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
