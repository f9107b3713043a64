//! The backend on a kernel in memory.

mod child;
mod contract;
mod devices;
mod memory;
mod orphans;
mod packet;
mod policies;
mod sas;
mod subject;

use std::path::PathBuf;

/// An empty directory of this test process.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("cygnet-kernel-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}
