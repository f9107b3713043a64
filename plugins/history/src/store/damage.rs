//! A file of SQLite that is damaged: it is kept, under another name, and a new one begun.
//!
//! Events would otherwise wait in the spool until that is full, and then no new IKE SA would be let in. A file that is no database at all is left
//! alone: the name may have been a mistake, and the file somebody else's.

use std::io;
use std::path::PathBuf;

use super::Location;

/// SQLITE_CORRUPT.
const CORRUPT: u32 = 11;

/// The database is SQLite's and its file is damaged.
pub(crate) fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()).filter(|code| code.len() < 5);
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xFF == CORRUPT)
}

impl Location {
    /// Renames the file and what belongs to it; gives the new name. Nobody may have it open.
    pub(crate) fn set_aside(&self, now_ms: u64) -> io::Result<Option<PathBuf>> {
        let Some(file) = &self.file else { return Ok(None) };
        let named = |suffix: &str| {
            let mut name = file.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let aside = named(&format!(".damaged-{}", now_ms / 1000));
        for suffix in ["", "-wal", "-shm"] {
            let mut to = aside.clone().into_os_string();
            to.push(suffix);
            match std::fs::rename(named(suffix), to) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !suffix.is_empty() => {}
                outcome => outcome?,
            }
        }
        Ok(Some(aside))
    }
}
