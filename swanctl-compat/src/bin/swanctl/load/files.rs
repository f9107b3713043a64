//! Credential files beside `swanctl.conf`: certificates and keys in a directory for each kind.
//!
//! What is not encrypted goes to the daemon as it is, PEM or DER. Encrypted keys and PKCS#12 containers are opened here, with a password from the
//! section of `secrets` that names the file or from the terminal. A file that cannot be loaded is told of, and the rest goes on; like strongSwan's,
//! the load counts as good then.

use std::path::{Path, PathBuf};

use swanctl_compat::plan::Plan;
use swanctl_compat::private_key::{self, KeyError, PrivateKey};
use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;
use zeroize::Zeroizing;

use super::report::Step;
use super::{Prepared, Session, reason, succeeded};
use crate::prompt;

/// Directories of certificates, and what `load-cert` says of what is in them.
const CERTIFICATES: [(&str, &str, Option<&str>); 7] = [
    ("x509", "X509", Some("NONE")),
    ("x509ca", "X509", Some("CA")),
    ("x509ocsp", "X509", Some("OCSP")),
    ("x509aa", "X509", Some("AA")),
    ("x509ac", "X509_AC", None),
    ("x509crl", "X509_CRL", None),
    ("pubkey", "PUBKEY", None),
];

/// Directories of private keys, and the type that `load-key` gets for a plain one.
const KEYS: [(&str, &str); 4] = [("private", "any"), ("rsa", "rsa"), ("ecdsa", "ecdsa"), ("pkcs8", "any")];

/// Directory of PKCS#12 containers.
const CONTAINERS: &str = "pkcs12";

/// How often a password is asked for.
const TRIES: usize = 3;

/// A file and what the directory says about it.
struct Found {
    path: PathBuf,
    directory: &'static str,
}

impl Found {
    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Session<'_> {
    /// Loads all files. Gives the ids of the keys that the daemon has of them.
    pub(super) fn files(&mut self, prepared: &Prepared) -> Result<Vec<String>, ClientError> {
        let base = prepared.directory();
        let mut ids = Vec::new();
        for (directory, kind, flag) in CERTIFICATES {
            for found in files(&base, directory) {
                if let Some(octets) = self.octets(&found, "load-cert") {
                    self.certificate(&found, kind, flag, &octets)?;
                }
            }
        }
        for (directory, kind) in KEYS {
            for found in files(&base, directory) {
                let Some(octets) = self.octets(&found, "load-key") else { continue };
                if private_key::is_encrypted(&octets) {
                    if let Some(key) =
                        self.opened(&found, &prepared.plan, |password| private_key::decrypt(&octets, password))?
                    {
                        ids.extend(self.key(&found, &key)?);
                    }
                } else {
                    let words = if kind == "any" && directory == "private" { "private" } else { directory };
                    ids.extend(self.load_key(&found, kind, &octets, words)?);
                }
            }
        }
        for found in files(&base, CONTAINERS) {
            let Some(octets) = self.octets(&found, "load-cert") else { continue };
            let open = |password: &[u8]| private_key::open(&octets, &String::from_utf8_lossy(password));
            let Some(container) = self.opened(&found, &prepared.plan, open)? else { continue };
            for certificate in &container.certificates {
                self.certificate(&found, "X509", Some("NONE"), certificate)?;
            }
            for key in &container.keys {
                ids.extend(self.key(&found, key)?);
            }
        }
        Ok(ids)
    }

    fn octets(&mut self, found: &Found, command: &str) -> Option<Zeroizing<Vec<u8>>> {
        match std::fs::read(&found.path) {
            Ok(octets) => Some(Zeroizing::new(octets)),
            Err(error) => {
                self.failed_file(found, command, &error.to_string());
                None
            }
        }
    }

    fn failed_file(&mut self, found: &Found, command: &str, why: &str) {
        let path = found.shown();
        self.report.failed(&Step { command, name: &path }, why, &format!("loading '{path}' failed: {why}"));
    }

    fn certificate(&mut self, found: &Found, kind: &str, flag: Option<&str>, octets: &[u8]) -> Result<(), ClientError> {
        let mut message = Message::new().with("type", kind);
        if let Some(flag) = flag {
            message.set("flag", flag);
        }
        message.set("data", octets);
        let answer = self.command("load-cert", message)?;
        if !succeeded(&answer) {
            self.failed_file(found, "load-cert", reason(&answer));
            return Ok(());
        }
        let path = found.shown();
        self.report.done(&Step { command: "load-cert", name: &path }, &format!("loaded certificate from '{path}'"))
    }

    fn key(&mut self, found: &Found, key: &PrivateKey) -> Result<Option<String>, ClientError> {
        self.load_key(found, key.kind, &key.der, key.kind)
    }

    fn load_key(
        &mut self,
        found: &Found,
        kind: &str,
        octets: &[u8],
        words: &str,
    ) -> Result<Option<String>, ClientError> {
        let answer = self.command("load-key", Message::new().with("type", kind).with("data", octets))?;
        if !succeeded(&answer) {
            self.failed_file(found, "load-key", reason(&answer));
            return Ok(None);
        }
        let path = found.shown();
        self.report.done(&Step { command: "load-key", name: &path }, &format!("loaded {words} key from '{path}'"))?;
        Ok(answer.get_str("id").map(str::to_owned))
    }

    /// What `open` makes of a file with the configured password, or with one that is asked for.
    fn opened<T>(
        &mut self,
        found: &Found,
        plan: &Plan,
        open: impl Fn(&[u8]) -> Result<T, KeyError>,
    ) -> Result<Option<T>, ClientError> {
        let command = if found.directory == CONTAINERS { "load-cert" } else { "load-key" };
        let name = found.name();
        let fits = |file: &str| file == name || Path::new(file) == found.path;
        let mut configured = plan.passwords.iter().filter(|p| p.section.starts_with(found.directory) && fits(&p.file));
        if let Some(password) = configured.next() {
            return match open(&password.secret) {
                Ok(opened) => Ok(Some(opened)),
                Err(error) => {
                    self.failed_file(found, command, &format!("secrets.{}: {error}", password.section));
                    Ok(None)
                }
            };
        }
        if !self.may_ask() {
            let why = format!(
                "it is encrypted, and nobody can be asked for the password: configure secrets.{}-NAME {{ file = {name} }}",
                found.directory
            );
            self.failed_file(found, command, &why);
            return Ok(None);
        }
        let mut last = KeyError::Password;
        for _ in 0..TRIES {
            let question = format!("Password for {} file '{}': ", found.directory, text::printable(&name));
            let Some(password) = prompt::password(&question)? else { break };
            match open(password.as_bytes()) {
                Ok(opened) => return Ok(Some(opened)),
                Err(error @ (KeyError::Unsupported(_) | KeyError::Malformed)) => {
                    last = error;
                    break;
                }
                Err(KeyError::Password) => last = KeyError::Password,
            }
        }
        self.failed_file(found, command, &last.to_string());
        Ok(None)
    }

    /// Keys on tokens. Gives the ids of those that the daemon has.
    pub(super) fn tokens(&mut self, prepared: &Prepared) -> Result<Vec<String>, ClientError> {
        let mut ids = Vec::new();
        for token in &prepared.plan.tokens {
            let mut message = token.message.clone();
            if message.get("pin").is_none()
                && self.may_ask()
                && let Some(pin) = prompt::password(&format!("PIN for '{}': ", text::printable(&token.name)))?
            {
                message.set("pin", pin.as_bytes());
            }
            let answer = self.command("load-token", message)?;
            let step = Step { command: "load-token", name: &token.name };
            if succeeded(&answer) {
                let id = answer.get_str("id").unwrap_or_default();
                let words = format!("loaded key {} from token [keyid: {id}]", token.name);
                self.report.done(&step, &words)?;
                ids.push(id.to_owned());
            } else {
                let why = reason(&answer);
                self.report.failed(&step, why, &format!("loading '{}' failed: {why}", token.name));
            }
        }
        Ok(ids)
    }

    fn may_ask(&self) -> bool {
        self.prompts && prompt::has_terminal()
    }
}

/// The files of a directory, by name. Most of the directories are not there, which is no fault.
fn files(base: &Path, directory: &'static str) -> Vec<Found> {
    let Ok(entries) = std::fs::read_dir(base.join(directory)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    paths.into_iter().map(|path| Found { path, directory }).collect()
}
