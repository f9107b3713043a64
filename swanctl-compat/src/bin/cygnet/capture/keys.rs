//! Wireshark's tables of keys, in a directory of its configuration.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use swanctl_compat::capture::keys::Keys;
use swanctl_compat::vici::Message;
use zeroize::Zeroizing;

/// A directory for keys.
pub(super) struct Tables {
    directory: PathBuf,
    written: usize,
    /// SAs with algorithms that Wireshark cannot decrypt.
    unknown: Vec<String>,
}

impl Tables {
    /// Makes the directory if need be; one that everybody may write to is refused.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let about = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", directory.display()));
        match fs::metadata(directory) {
            Ok(found) if !found.is_dir() => {
                return Err(io::Error::new(
                    io::ErrorKind::NotADirectory,
                    format!("{} is no directory", directory.display()),
                ));
            }
            Ok(found) if found.permissions().mode() & 0o002 != 0 => {
                let text = format!("{} is writable by everybody: no place for keys", directory.display());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().mode(0o700).create(directory).map_err(about)?;
            }
            Err(error) => return Err(about(error)),
        }
        Ok(Self { directory: directory.to_owned(), written: 0, unknown: Vec::new() })
    }

    /// Adds the keys of an event to the tables, which only their owner may read.
    pub(super) fn add(&mut self, message: &Message) -> io::Result<()> {
        for keys in message.sections().filter_map(|(_, section)| Keys::read(section)) {
            let Some(line) = keys.line() else {
                self.unknown.push(format!("{keys:?}"));
                continue;
            };
            let path = self.directory.join(keys.table());
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            if file.metadata()?.permissions().mode() & 0o077 != 0 {
                file.set_permissions(Permissions::from_mode(0o600))?;
            }
            // In one piece, so that no other capture writes in between.
            let mut whole = Zeroizing::new(String::with_capacity(line.len() + 1));
            whole.push_str(&line);
            whole.push('\n');
            file.write_all(whole.as_bytes())?;
            self.written += 1;
        }
        Ok(())
    }

    /// SAs whose keys are in the tables.
    pub(super) fn written(&self) -> usize {
        self.written
    }

    /// What there is to say of them.
    pub(super) fn in_words(&self, capture: &Path) -> Vec<String> {
        let directory = self.directory.display();
        let mut lines = vec![format!(
            "keys of {} SAs in {directory}: WIRESHARK_CONFIG_DIR={directory} tshark -o esp.enable_encryption_decode:TRUE -r {}",
            self.written,
            capture.display()
        )];
        if !self.unknown.is_empty() {
            lines.push(format!(
                "Wireshark 4.0 cannot decrypt the algorithms of {}: no keys written",
                self.unknown.join(", ")
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use swanctl_compat::capture::keys;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("cygnet-keys-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    fn ike(encryption: u16) -> Keys {
        let key = || Zeroizing::new(vec![7; 20]);
        let none = || Zeroizing::new(Vec::new());
        Keys::Ike {
            initiator: "01".into(),
            responder: "02".into(),
            transforms: keys::Transforms { encryption, key_bits: Some(128), integrity: None },
            encryption: [key(), key()],
            integrity: [none(), none()],
        }
    }

    #[test]
    fn tables_are_for_their_owner_and_grow() {
        let directory = scratch("grow");
        let mut tables = Tables::open(&directory).unwrap();
        let table = directory.join("ikev2_decryption_table");
        fs::write(&table, "already,there\n").unwrap();
        fs::set_permissions(&table, Permissions::from_mode(0o644)).unwrap();
        tables.add(&keys::message(&[ike(20), ike(28)])).unwrap();
        let text = fs::read_to_string(&table).unwrap();
        assert!(text.starts_with("already,there\n01,02,0707") && text.lines().count() == 2, "{text}");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&table), mode(&directory)), (0o600, 0o700));
        let words = tables.in_words(Path::new("x.pcapng"));
        assert_eq!((tables.written(), words.len()), (1, 2));
        assert!(words[1].contains("IKE 01_i 02_r") && !words[1].contains("0707"), "{words:?}");
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_directory_that_everybody_writes_to_is_refused() {
        let directory = scratch("open");
        fs::create_dir(&directory).unwrap();
        for mode in [0o777, 0o1777, 0o703] {
            fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
            let error = Tables::open(&directory).err().unwrap().to_string();
            assert!(error.contains("writable by everybody"), "{mode:o}: {error}");
        }
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        assert!(Tables::open(&directory).is_ok());
        fs::remove_dir_all(&directory).unwrap();
        fs::write(&directory, "").unwrap();
        assert!(Tables::open(&directory).is_err(), "a file");
        fs::remove_file(&directory).unwrap();
    }
}
