//! The secrets of one endpoint, from its settings or from a file that is watched.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::file;
use crate::signature::Secret;

/// Octets of a file of secrets; some hundred secrets fit.
const FILE_MAX: u64 = 64 * 1024;
/// Secrets that sign at once: each adds to every message's header.
pub const SECRETS_MAX: usize = 8;

/// Where the secrets of an endpoint come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Keys {
    /// The settings themselves.
    Given(Vec<Secret>),
    /// A file with one secret a line; empty lines and those that begin with `#` are skipped. When it changes, it is read again before the next
    /// message.
    File(PathBuf),
}

/// Reads a file of secrets.
///
/// # Errors
/// It cannot be read, or what is wrong in it; never what stands there.
pub fn read(path: &Path) -> Result<Vec<Secret>, String> {
    let octets = file::read(path, FILE_MAX)?;
    let text = str::from_utf8(&octets).map_err(|_| format!("{} holds something other than text", path.display()))?;
    let mut secrets = Vec::new();
    for (at, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let secret = Secret::parse(line);
        secrets.push(secret.map_err(|what| format!("{}:{}: the secret {what}", path.display(), at + 1))?);
    }
    match secrets.len() {
        0 => Err(format!("{} holds no secret", path.display())),
        1..=SECRETS_MAX => Ok(secrets),
        more => Err(format!("{} holds {more} secrets, but at most {SECRETS_MAX} sign at once", path.display())),
    }
}

/// Everybody on the machine can read a file of secrets.
pub fn is_world_readable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.mode() & 0o004 != 0)
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self { inode: file.ino(), length: file.len(), changed: (file.ctime(), file.ctime_nsec()) })
    }
}

/// Secrets at hand.
#[derive(Debug)]
pub(crate) struct Ring {
    keys: Keys,
    read: Mutex<Read>,
}

/// What was read last, and from which state of the file.
#[derive(Debug)]
struct Read {
    stamp: Option<Stamp>,
    secrets: Option<Arc<[Secret]>>,
}

impl Ring {
    pub(crate) fn new(keys: Keys) -> Self {
        let given = match &keys {
            Keys::Given(secrets) => Some(Arc::from(secrets.as_slice())),
            Keys::File(_) => None,
        };
        Self { keys, read: Mutex::new(Read { stamp: None, secrets: given }) }
    }

    /// The secrets that hold now. A file that cannot be read any more leaves those in place that it held, and is told of once.
    ///
    /// # Errors
    /// There are none.
    pub(crate) fn secrets(&self) -> Result<Arc<[Secret]>, String> {
        let Read { stamp, secrets: known } = &mut *self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let path = match (&self.keys, &known) {
            (Keys::Given(_), Some(secrets)) => return Ok(Arc::clone(secrets)),
            (Keys::Given(_), None) => return Err("there is no secret".into()),
            (Keys::File(path), _) => path,
        };
        let now = Stamp::of(path);
        if let Some(secrets) = known.as_ref().filter(|_| *stamp == now) {
            return Ok(Arc::clone(secrets));
        }
        // Taken before: what is written while it is read changes it once more.
        *stamp = now;
        match (read(path), &known) {
            (Ok(secrets), _) => {
                if known.is_some() {
                    tracing::info!(file = %path.display(), secrets = secrets.len(), "changed webhook secrets are used");
                }
                if is_world_readable(path) {
                    tracing::warn!(file = %path.display(), "everybody on this machine can read this file of webhook secrets");
                }
                Ok(Arc::clone(known.insert(secrets.into())))
            }
            (Err(what), Some(secrets)) => {
                tracing::warn!("webhook secrets: {what}; those that it held are used on");
                Ok(Arc::clone(secrets))
            }
            (Err(what), None) => Err(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const A: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    const B: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn file(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("webhook-keys-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    fn of(text: &str) -> Secret {
        Secret::parse(text).unwrap()
    }

    #[test]
    fn a_file_is_read_again_when_it_changes() {
        let path = file("changes");
        let ring = Ring::new(Keys::File(path.clone()));
        assert!(ring.secrets().unwrap_err().contains("cannot be read"));
        fs::write(&path, format!("# of May\n  {A}  \n\n")).unwrap();
        assert_eq!(*ring.secrets().unwrap(), [of(A)]);
        fs::write(&path, format!("{B}\n{A}\n")).unwrap();
        assert_eq!(*ring.secrets().unwrap(), [of(B), of(A)]);
        fs::write(&path, "nonsense\n").unwrap();
        assert_eq!(*ring.secrets().unwrap(), [of(B), of(A)], "what it held holds on");
        fs::remove_file(&path).unwrap();
        assert_eq!(ring.secrets().unwrap().len(), 2);
        fs::write(&path, A).unwrap();
        assert_eq!(*ring.secrets().unwrap(), [of(A)]);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_wrong_in_a_file_is_placed_and_not_repeated() {
        let path = file("wrong");
        let cases = [
            (String::new(), "holds no secret"),
            (format!("{A}\nwhsec_short\n"), ":2: the secret "),
            (format!("{A}\n").repeat(9), "holds 9 secrets, but at most 8"),
            ("x".repeat(70_000), "is longer than 65536 octets"),
        ];
        for (text, expected) in cases {
            fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err();
            assert!(error.contains(expected) && !error.contains("short"), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(!is_world_readable(&path));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(is_world_readable(&path));
        fs::remove_file(&path).unwrap();
        assert!(!is_world_readable(&path));
    }
}
