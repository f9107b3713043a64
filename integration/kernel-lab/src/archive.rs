//! The archive format of an initramfs: `newc` cpio, written without being root.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

const FOLDER: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const DEVICE: u32 = 0o020_600;

/// An archive that is being written; everything in it belongs to root.
#[derive(Debug)]
pub(crate) struct Archive {
    out: BufWriter<File>,
    number: u32,
    written: u64,
    known: BTreeSet<String>,
}

impl Archive {
    /// Begins a file.
    ///
    /// # Errors
    /// As for any file.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Archive { out: BufWriter::new(File::create(path)?), number: 0, written: 0, known: BTreeSet::new() })
    }

    /// Adds a folder and those above it, once.
    ///
    /// # Errors
    /// The file could not be written; as for all that follow.
    pub(crate) fn folder(&mut self, path: &str) -> io::Result<()> {
        if path.is_empty() || !self.known.insert(path.to_owned()) {
            return Ok(());
        }
        self.folder_of(path)?;
        self.entry(path, FOLDER, (0, 0), &[])
    }

    /// Adds a file, executable or not. The first of a path stays.
    pub(crate) fn file(&mut self, path: &str, executable: bool, octets: &[u8]) -> io::Result<()> {
        if !self.known.insert(path.to_owned()) {
            return Ok(());
        }
        self.folder_of(path)?;
        self.entry(path, if executable { 0o100_755 } else { 0o100_644 }, (0, 0), octets)
    }

    /// Adds a symbolic link. The first of a path stays.
    pub(crate) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        if !self.known.insert(path.to_owned()) {
            return Ok(());
        }
        self.folder_of(path)?;
        self.entry(path, LINK, (0, 0), target.as_bytes())
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, path: &str, number: (u32, u32)) -> io::Result<()> {
        self.folder_of(path)?;
        self.entry(path, DEVICE, number, &[])
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()
    }

    fn folder_of(&mut self, path: &str) -> io::Result<()> {
        path.rsplit_once('/').map_or(Ok(()), |(folder, _)| self.folder(folder))
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), octets: &[u8]) -> io::Result<()> {
        self.number += 1;
        let size = u32::try_from(octets.len()).map_err(|_| io::Error::other("a file of 4 GiB or more"))?;
        let name = u32::try_from(path.len() + 1).map_err(|_| io::Error::other("a path of 4 GiB or more"))?;
        // Number, mode, owner, group, links, time, size, device of the file, device number, length of the name, no checksum.
        let fields = [self.number, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name, 0];
        let mut head = String::from("070701");
        for field in fields {
            head += &format!("{field:08x}");
        }
        self.write(head.as_bytes())?;
        self.write(path.as_bytes())?;
        self.write(&[0])?;
        self.pad()?;
        self.write(octets)?;
        self.pad()
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.written += octets.len() as u64;
        self.out.write_all(octets)
    }

    fn pad(&mut self) -> io::Result<()> {
        while !self.written.is_multiple_of(4) {
            self.write(&[0])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_begin_at_multiples_of_four() {
        let path = std::env::temp_dir().join(format!("kernel-lab-archive-{}", std::process::id()));
        let mut archive = Archive::create(&path).unwrap();
        archive.file("a/bc", true, b"hello").unwrap();
        archive.link("d", "a/bc").unwrap();
        archive.finish().unwrap();
        let octets = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let places: Vec<usize> =
            octets.windows(6).enumerate().filter(|(_, w)| w == b"070701").map(|(i, _)| i).collect();
        assert_eq!(places.len(), 4, "folder, file, link, trailer");
        assert!(places.iter().all(|place| place % 4 == 0) && octets.len().is_multiple_of(4));
    }
}
