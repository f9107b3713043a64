//! Which shared libraries programs need, as their dynamic sections name them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;

use crate::tool;

/// Folders with shared libraries.
#[derive(Debug)]
pub(crate) struct Libraries {
    by_name: BTreeMap<String, PathBuf>,
}

impl Libraries {
    /// Looks into folders; the first that has a name wins.
    ///
    /// # Errors
    /// A folder cannot be read; one that does not exist has no libraries.
    pub(crate) fn find(folders: &[PathBuf]) -> anyhow::Result<Self> {
        let mut by_name = BTreeMap::new();
        for folder in folders.iter().filter(|folder| folder.is_dir()) {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                by_name.entry(entry.file_name().to_string_lossy().into_owned()).or_insert_with(|| entry.path());
            }
        }
        Ok(Libraries { by_name })
    }

    /// All libraries that the files need, and those that these need: name and file.
    ///
    /// # Errors
    /// A file is no program, or a library is in none of the folders.
    pub(crate) fn needed_by(&self, files: &[PathBuf]) -> anyhow::Result<BTreeMap<String, PathBuf>> {
        let mut found = BTreeMap::new();
        let mut open: Vec<PathBuf> = files.to_vec();
        while !open.is_empty() {
            let names = needed(&open)?;
            open.clear();
            for name in names {
                if found.contains_key(&name) {
                    continue;
                }
                let Some(path) = self.by_name.get(&name) else {
                    bail!("the library {name} is in none of the fetched packages");
                };
                found.insert(name, path.clone());
                open.push(path.clone());
            }
        }
        Ok(found)
    }
}

/// The names in the dynamic sections of files; files that are no programs have none.
fn needed(files: &[PathBuf]) -> anyhow::Result<BTreeSet<String>> {
    let programs: Vec<&PathBuf> = files.iter().filter(|path| is_elf(path)).collect();
    if programs.is_empty() {
        return Ok(BTreeSet::new());
    }
    let text = tool::output(Command::new("readelf").args(["--dynamic", "--wide"]).args(programs).env("LC_ALL", "C"))?;
    Ok(names(&text))
}

fn names(text: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let (_, rest) = line.split_once("(NEEDED)")?;
        let (_, rest) = rest.split_once('[')?;
        rest.split_once(']').map(|(name, _)| name.to_owned())
    };
    text.lines().filter_map(name).collect()
}

fn is_elf(path: &Path) -> bool {
    use std::io::Read;
    let mut head = [0; 4];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == *b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needed_libraries_are_read_from_the_dynamic_section() {
        let text = " 0x0000000000000001 (NEEDED)             Shared library: [libmnl.so.0]\n\
                     0x000000000000000e (SONAME)             Library soname: [libx.so.1]\n";
        assert_eq!(names(text), BTreeSet::from(["libmnl.so.0".to_owned()]));
    }
}
