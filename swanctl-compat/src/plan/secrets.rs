//! The `secrets` section: shared secrets to load, and what is wrong with them. Nothing here quotes a secret.

use ike_model::{Secret, SharedSecret};

use zeroize::Zeroizing;

use super::{Password, Plan, PlannedSecret, PlannedToken};
use crate::keys::{SECRET_PREFIXES, Scope, Status};
use crate::settings::{Diagnostic, Entry, FileSource, Settings, Value, View, did_you_mean};
use crate::vici::Message;
use crate::{identity, secret};

/// Names of the kinds of shared secrets.
const KINDS: [&str; 5] = ["ike", "eap", "xauth", "ntlm", "ppk"];

pub(super) fn plan(secrets: &View<'_>, settings: &Settings, source: &dyn FileSource, plan: &mut Plan) {
    for view in secrets.sections() {
        match Scope::of_secret(view.name()) {
            Some(Scope::IkeSecret | Scope::OtherSecret) => shared(&view, settings, plan),
            Some(scope) => {
                plan.findings.push(unused(&view, scope));
                if scope == Scope::Token { token(&view, plan) } else { password(&view, plan) }
            }
            None => plan.findings.push(unknown(&view)),
        }
    }
    world_readable(secrets, settings, source, &mut plan.findings);
}

/// A key on a token: whatever the section says goes to the daemon.
fn token(view: &View<'_>, plan: &mut Plan) {
    let mut message = Message::new();
    for entry in view.entries() {
        message.set(entry.name.as_str(), entry.value.as_ref().map(Value::as_bytes).unwrap_or_default());
    }
    plan.tokens.push(PlannedToken { name: view.name().to_owned(), message });
}

/// The password of a key file. Unlike shared secrets it is taken as it stands.
fn password(view: &View<'_>, plan: &mut Plan) {
    let value = |key: &str| Some(view.get(key)?.value.as_ref()?.as_bytes());
    let (Some(file), Some(secret)) = (value("file"), value("secret")) else { return };
    plan.passwords.push(Password {
        section: view.name().to_owned(),
        file: String::from_utf8_lossy(file).into_owned(),
        secret: Zeroizing::new(secret.to_vec()),
    });
}

fn shared(view: &View<'_>, settings: &Settings, plan: &mut Plan) {
    let name = view.name();
    let Some(scope) = Scope::of_secret(name) else { return };
    let before = plan.findings.len();
    let mut owners = Vec::new();
    for entry in view.entries() {
        match scope.key(&entry.name) {
            Some(key) if key.name == "id*" => owners.push(entry),
            Some(_) => {}
            None => plan.findings.push(unknown_key(entry, view, scope, settings)),
        }
    }
    let Some((entry, octets)) = view.get("secret").and_then(|entry| Some((entry, entry.value.as_ref()?.as_bytes())))
    else {
        let finding =
            Diagnostic::warning("secret-missing", view.span(), format!("secrets.{name} has no secret and is ignored"));
        plan.findings.push(finding.with_help("add `secret = ...`").with_path(format!("secrets.{name}")));
        return;
    };
    let kind = KINDS.iter().copied().find(|kind| name.starts_with(kind)).unwrap_or("ike");
    let octets = match secret::decode(octets) {
        Ok(octets) => octets,
        Err(error) => {
            let message = format!("invalid secret: expected {}", error.expected());
            let unreadable = Some(message.clone());
            let finding = Diagnostic::error("invalid-value", Some(entry.value_span), message);
            plan.findings.push(finding.with_path(format!("secrets.{name}.secret")));
            // It keeps its place, so that what is loaded under its name stays.
            let (name, message) = (name.to_owned(), Message::new());
            plan.secrets.push(PlannedSecret { name, kind, message, secret: None, unreadable, collision: None });
            return;
        }
    };
    let identities = identities(&owners, name, &mut plan.findings);
    let mut message = Message::new().with("id", name).with("type", kind).with("data", octets.as_slice());
    message.list("owners", owners.iter().filter_map(|entry| entry.value.as_ref()).map(|value| value.as_bytes()));
    let usable = plan.findings.get(before..).is_none_or(|new| new.iter().all(|f| f.code != "invalid-value"));
    let secret = (scope == Scope::IkeSecret && usable).then(|| SharedSecret {
        id: name.to_owned(),
        owners: identities,
        secret: Secret::new(&octets),
    });
    if scope == Scope::OtherSecret {
        plan.findings.push(unused(view, scope));
    }
    let name = name.to_owned();
    plan.secrets.push(PlannedSecret { name, kind, message, secret, unreadable: None, collision: None });
}

fn identities(owners: &[&Entry], name: &str, findings: &mut Vec<Diagnostic>) -> Vec<ike_model::Identity> {
    let mut out = Vec::new();
    for entry in owners {
        let text = entry.value.as_ref().and_then(|value| value.as_str());
        match text.map(identity::parse) {
            Some(Ok(identity)) => out.push(identity),
            Some(Err(error)) => {
                let finding =
                    Diagnostic::error("invalid-value", Some(entry.value_span), format!("invalid identity: {error}"));
                findings.push(finding.with_path(format!("secrets.{name}.{}", entry.name)));
            }
            None => {
                let finding =
                    Diagnostic::error("invalid-value", Some(entry.value_span), "invalid identity: expected UTF-8 text");
                findings.push(finding.with_path(format!("secrets.{name}.{}", entry.name)));
            }
        }
    }
    out
}

fn unknown_key(entry: &Entry, view: &View<'_>, scope: Scope, settings: &Settings) -> Diagnostic {
    let hidden = settings.sources().line_mentions_secret(entry.name_span);
    let message = if hidden {
        "unknown key in a secret".to_owned()
    } else {
        format!("unknown key `{}` in secrets.{}", entry.name, view.name())
    };
    let candidates = scope.keys().iter().map(|key| key.name.trim_end_matches('*'));
    let finding = Diagnostic::error("unknown-key", Some(entry.name_span), message);
    match did_you_mean(&entry.name, candidates) {
        Some(key) => finding.with_help(format!("did you mean `{key}`?")),
        None => finding.with_help("a secret has `secret` and any number of `id`, `id-1`, `id-2` ..."),
    }
}

/// A kind of secret that is known but has no effect.
fn unused(view: &View<'_>, scope: Scope) -> Diagnostic {
    let reason = scope.keys().iter().find_map(|key| match key.status {
        Status::NoEffect { reason, .. } => Some(reason),
        Status::Supported | Status::ByDevice | Status::Refused { .. } => None,
    });
    let message = format!("secrets.{} has no effect: {}", view.name(), reason.unwrap_or("it is not used"));
    Diagnostic::warning("no-effect", view.span(), message).with_path(format!("secrets.{}", view.name()))
}

fn unknown(view: &View<'_>) -> Diagnostic {
    let message = format!("secrets.{} is ignored: no kind of secret begins like this", view.name());
    let help = match did_you_mean(view.name().split('-').next().unwrap_or_default(), SECRET_PREFIXES) {
        Some(prefix) => {
            format!("did you mean `{prefix}`? A pre-shared key is `ike`, or `ike` with a suffix such as `ike-site-b`")
        }
        None => "a pre-shared key is `ike`, or `ike` with a suffix such as `ike-site-b`".to_owned(),
    };
    Diagnostic::warning("unknown-secret", view.span(), message).with_help(help)
}

/// Directories beside the configuration where swanctl looks for certificates and keys.
const CREDENTIAL_DIRECTORIES: [&str; 12] = [
    "x509", "x509ca", "x509aa", "x509ocsp", "x509crl", "x509ac", "pubkey", "private", "rsa", "ecdsa", "pkcs8", "pkcs12",
];

/// Certificates and keys that lie there and have no effect.
pub(super) fn unused_files(settings: &Settings, source: &dyn FileSource, findings: &mut Vec<Diagnostic>) {
    let Some(file) = settings.sources().paths().next() else { return };
    let directory = file.rsplit_once('/').map_or(".", |(directory, _)| directory);
    for name in CREDENTIAL_DIRECTORIES {
        let files = source.expand(&format!("{}/{name}/*", crate::settings::escape_pattern(directory)));
        if let Some(first) = files.first() {
            let more = if files.len() > 1 { format!(" and {} more", files.len() - 1) } else { String::new() };
            let message = format!("{first}{more} in {directory}/{name}: not used, authentication is by pre-shared key");
            findings.push(Diagnostic::warning("unused-credentials", None, message));
        }
    }
}

/// Files with secrets in them that everybody on the machine can read.
fn world_readable(secrets: &View<'_>, settings: &Settings, source: &dyn FileSource, findings: &mut Vec<Diagnostic>) {
    let mut seen = Vec::new();
    for view in secrets.sections() {
        for entry in view.entries() {
            let file = entry.value_span.file;
            if !crate::settings::is_secret_key(&entry.name) || seen.contains(&file) {
                continue;
            }
            seen.push(file);
            let path = settings.sources().path(file);
            if source.world_readable(path) {
                let message = format!("{path} holds secrets and can be read by everybody");
                let finding = Diagnostic::warning("world-readable", Some(entry.name_span), message);
                findings.push(finding.with_help(format!("chmod o= {path}")));
            }
        }
    }
}
