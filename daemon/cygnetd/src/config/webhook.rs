//! `[[webhook]]`: the keys of each webhook.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use event_webhook::signature::Secret;
use event_webhook::{Address, Endpoint, Field, Keys, SCHEDULE, SECRETS_MAX};
use ike_model::EventBody;
use ike_model::history::Subscription;
use swanctl_compat::settings::{Severity, did_you_mean};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::{boolean, duration, number, text, texts};

/// Characters of a name: it stands in the database, in metrics and on the command line.
const NAME_MAX: usize = 64;
/// Attempts of one message.
const RETRIES_MAX: usize = 100;
/// The longest wait before an attempt.
const WAIT_MAX: Duration = Duration::from_secs(30 * 86_400);
/// How long an attempt may take at most.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Messages under way at once, at most.
const CONCURRENCY_MAX: i64 = 64;
/// Header fields that go with each message, at most.
const FIELDS_MAX: usize = 32;

/// One webhook.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Webhook {
    /// Where messages go and how.
    pub(crate) endpoint: Endpoint,
    /// Which events.
    pub(crate) events: Vec<String>,
    /// Of which connections.
    pub(crate) connections: Vec<String>,
}

impl Webhook {
    /// What only the machine shows: files, and connections that are not among `known`.
    pub(crate) fn doubts(&self, known: &[&str]) -> Vec<(Severity, String)> {
        let mut doubts = Vec::new();
        if let Keys::File(path) = &self.endpoint.keys {
            doubts.extend(file(path, "secret_file", event_webhook::read_secrets(path).map(drop)));
            if event_webhook::is_world_readable(path) {
                doubts.push((Severity::Warning, format!("everybody on this machine can read {}", path.display())));
            }
        }
        if let Some(path) = &self.endpoint.ca_file {
            doubts.extend(file(path, "ca_file", event_webhook::check_certificates(path)));
        }
        for name in self.connections.iter().filter(|name| !known.contains(&name.as_str())) {
            doubts.push((Severity::Warning, format!("there is no connection `{name}` in swanctl.conf")));
        }
        let named = |(severity, what)| (severity, format!("webhook {}: {what}", self.endpoint.name));
        doubts.into_iter().map(named).collect()
    }

    /// Files that are read whenever it is served.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let keys = match &self.endpoint.keys {
            Keys::File(path) => Some(path.as_path()),
            Keys::Given(_) => None,
        };
        keys.into_iter().chain(self.endpoint.ca_file.as_deref())
    }

    /// What goes there.
    pub(crate) fn subscription(&self) -> Subscription {
        Subscription {
            endpoint: self.endpoint.name.clone(),
            events: self.events.clone(),
            connections: self.connections.clone(),
        }
    }
}

/// What is wrong with a file; that we may not read it says nothing, since the daemon may.
fn file(path: &Path, key: &str, read: Result<(), String>) -> Option<(Severity, String)> {
    let what = read.err()?;
    let forbidden = File::open(path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
    Some((if forbidden { Severity::Warning } else { Severity::Error }, format!("{key} {what}")))
}

/// What has been read of one.
#[derive(Default)]
struct Draft {
    name: Option<String>,
    url: Option<Address>,
    keys: Option<Keys>,
    events: Vec<String>,
    connections: Vec<String>,
    fields: Vec<Field>,
    timeout: Option<Duration>,
    connect_timeout: Option<Duration>,
    concurrency: Option<u16>,
    retry: Option<Vec<Duration>>,
    longest_pause: Option<Duration>,
    give_up: Option<Duration>,
    allow_link_local: bool,
    ca_file: Option<PathBuf>,
    proxy: Option<Address>,
}

type Set = fn(&mut Draft, &DeValue<'_>) -> Result<(), String>;

/// Every key.
const KEYS: &[(&str, Set)] = &[
    ("name", |d, v| name(v).map(|name| d.name = Some(name))),
    ("url", |d, v| text(v).and_then(Address::parse).map(|url| d.url = Some(url))),
    ("secret", |d, v| d.keys(secret(v).map(|secret| Keys::Given(vec![secret])))),
    ("secrets", |d, v| d.keys(secrets(v).map(Keys::Given))),
    ("secret_file", |d, v| d.keys(path(v).map(Keys::File))),
    ("events", |d, v| events(v).map(|events| d.events = events)),
    ("connections", |d, v| texts(v).map(|names| d.connections = names)),
    ("headers", |d, v| fields(v).map(|fields| d.fields = fields)),
    ("timeout", |d, v| bounded(v, TIMEOUT_MAX).map(|time| d.timeout = Some(time))),
    ("connect_timeout", |d, v| bounded(v, TIMEOUT_MAX).map(|time| d.connect_timeout = Some(time))),
    ("concurrency", |d, v| number(v, 1, CONCURRENCY_MAX).map(|count| d.concurrency = Some(count))),
    ("retry", |d, v| retry(v).map(|waits| d.retry = Some(waits))),
    ("longest_pause", |d, v| bounded(v, WAIT_MAX).map(|time| d.longest_pause = Some(time))),
    ("give_up", |d, v| duration(v).map(|time| d.give_up = Some(time))),
    ("allow_link_local", |d, v| boolean(v).map(|yes| d.allow_link_local = yes)),
    ("ca_file", |d, v| path(v).map(|path| d.ca_file = Some(path))),
    ("proxy", |d, v| text(v).and_then(Address::parse).map(|proxy| d.proxy = Some(proxy))),
];

/// Names of all keys.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(name, _)| *name)
}

impl Draft {
    fn keys(&mut self, keys: Result<Keys, String>) -> Result<(), String> {
        let keys = keys?;
        if self.keys.replace(keys).is_some() {
            return Err("stands beside another one: use one of `secret`, `secrets` and `secret_file`".into());
        }
        Ok(())
    }

    fn finish(self) -> Result<Webhook, String> {
        let missing = |key: &str| format!("[[webhook]] needs `{key}`");
        let name = self.name.ok_or_else(|| missing("name"))?;
        let url = self.url.ok_or_else(|| missing("url"))?;
        let keys = self.keys.ok_or_else(|| {
            missing("secret` or `secret_file") + ": `cygnet webhook secret` makes one, which the receiver needs as well"
        })?;
        url.permitted(self.allow_link_local).map_err(|reason| format!("`webhook.url` leads nowhere: {reason}"))?;
        let mut endpoint = Endpoint::new(name, url, keys);
        endpoint.fields = self.fields;
        endpoint.allow_link_local = self.allow_link_local;
        endpoint.ca_file = self.ca_file;
        if let Some(proxy) = &self.proxy {
            proxy
                .permitted(self.allow_link_local)
                .map_err(|reason| format!("`webhook.proxy` leads nowhere: {reason}"))?;
        }
        endpoint.proxy = self.proxy;
        endpoint.timeout = self.timeout.unwrap_or(endpoint.timeout);
        endpoint.connect_timeout = self.connect_timeout.unwrap_or(endpoint.connect_timeout).min(endpoint.timeout);
        endpoint.concurrency = self.concurrency.unwrap_or(endpoint.concurrency);
        endpoint.retry = self.retry.unwrap_or(endpoint.retry);
        endpoint.longest_pause = self.longest_pause.unwrap_or(endpoint.longest_pause);
        endpoint.give_up = self.give_up.unwrap_or(endpoint.give_up);
        Ok(Webhook { endpoint, events: self.events, connections: self.connections })
    }
}

/// What is wrong, and where.
pub(super) type Wrong = (Range<usize>, String);

/// Reads the webhooks of one file; `known` are those of files before.
pub(super) fn read(known: &mut Vec<Webhook>, at: Range<usize>, value: &Spanned<DeValue<'_>>) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    let tables: Vec<_> = value.get_ref().as_array().into_iter().flatten().collect();
    if value.get_ref().as_array().is_none() {
        return vec![(at, "there may be several webhooks: write [[webhook]]".into())];
    }
    for table in tables {
        match table.get_ref().as_table() {
            Some(keys) => {
                let place = keys.iter().next().map_or(table.span(), |(name, _)| name.span());
                if let Some(webhook) = read_one(keys, place, &mut wrong) {
                    accept(known, webhook, keys, &mut wrong);
                }
            }
            None => wrong.push((table.span(), "webhooks are tables: write [[webhook]]".into())),
        }
    }
    wrong
}

/// Errors that concern no single key are placed at `place`.
fn read_one(table: &DeTable<'_>, place: Range<usize>, wrong: &mut Vec<Wrong>) -> Option<Webhook> {
    let mut draft = Draft::default();
    let before = wrong.len();
    for (key, value) in table {
        let key_name = key.get_ref();
        match KEYS.iter().find(|(known, _)| known == key_name) {
            Some((known, set)) => {
                if let Err(what) = set(&mut draft, value.get_ref()) {
                    wrong.push((value.span(), format!("`webhook.{known}` {what}")));
                }
            }
            None => {
                let hint = did_you_mean(key_name, KEYS.iter().map(|(known, _)| *known));
                let hint = hint.map(|known| format!("; did you mean `{known}`?")).unwrap_or_default();
                wrong.push((key.span(), format!("unknown key `{key_name}` in [[webhook]]{hint}")));
            }
        }
    }
    if wrong.len() > before {
        return None;
    }
    draft.finish().map_err(|what| wrong.push((place, what))).ok()
}

fn accept(known: &mut Vec<Webhook>, webhook: Webhook, table: &DeTable<'_>, wrong: &mut Vec<Wrong>) {
    let name = &webhook.endpoint.name;
    if known.iter().all(|other| other.endpoint.name != *name) {
        return known.push(webhook);
    }
    let at = table.iter().find(|(key, _)| key.get_ref() == "name").map(|(_, value)| value.span());
    wrong.push((at.unwrap_or_default(), format!("`webhook.name` `{name}` is that of another webhook")));
}

fn name(value: &DeValue<'_>) -> Result<String, String> {
    let name = text(value)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > NAME_MAX || name.starts_with('-') || !name.chars().all(fits) {
        return Err(format!("must be 1 to {NAME_MAX} letters, digits, `.`, `_` and `-`"));
    }
    Ok(name.into())
}

fn secret(value: &DeValue<'_>) -> Result<Secret, String> {
    Secret::parse(text(value)?)
}

fn secrets(value: &DeValue<'_>) -> Result<Vec<Secret>, String> {
    let list = value.as_array().ok_or("must be a list of secrets")?;
    if !(1..=SECRETS_MAX).contains(&list.len()) {
        return Err(format!("must hold 1 to {SECRETS_MAX} secrets"));
    }
    let read = |(at, item): (usize, &Spanned<DeValue<'_>>)| {
        secret(item.get_ref()).map_err(|what| format!("holds as number {} one that {what}", at + 1))
    };
    list.iter().enumerate().map(read).collect()
}

/// An absolute path.
fn path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let path = text(value)?;
    if path.starts_with('/') { Ok(path.into()) } else { Err(format!("must be an absolute path, not `{path}`")) }
}

/// Names of events, `*` at the end standing for any rest; each takes some event at least.
fn events(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let patterns = texts(value)?;
    for pattern in &patterns {
        let one = Subscription { endpoint: String::new(), events: vec![pattern.clone()], connections: Vec::new() };
        if !EventBody::NAMES.iter().any(|name| one.takes(name, None)) {
            let hint = near(pattern).map(|name| format!("; did you mean `{name}`?"));
            let hint = hint.unwrap_or_else(|| format!("; there are {}", EventBody::NAMES.join(", ")));
            return Err(format!("holds `{pattern}`, which is the name of no event{hint}"));
        }
    }
    Ok(patterns)
}

fn near(pattern: &str) -> Option<String> {
    let families =
        EventBody::NAMES.iter().filter_map(|name| name.split_once('.')).map(|(family, _)| format!("{family}.*"));
    let all: Vec<String> = EventBody::NAMES.iter().map(|name| (*name).to_owned()).chain(families).collect();
    did_you_mean(pattern, all.iter().map(String::as_str)).map(str::to_owned)
}

fn fields(value: &DeValue<'_>) -> Result<Vec<Field>, String> {
    let table = value.as_table().ok_or("must be a table, such as { X-Token = \"...\" }")?;
    if table.len() > FIELDS_MAX {
        return Err(format!("must not hold more than {FIELDS_MAX} fields"));
    }
    table.iter().map(|(name, value)| Field::parse(name.get_ref(), text(value.get_ref())?)).collect()
}

fn bounded(value: &DeValue<'_>, max: Duration) -> Result<Duration, String> {
    let time = duration(value)?;
    if time.is_zero() || time > max {
        return Err(format!("must be more than 0 and at most {} seconds", max.as_secs()));
    }
    Ok(time)
}

fn retry(value: &DeValue<'_>) -> Result<Vec<Duration>, String> {
    let usual = SCHEDULE.len();
    let list = value.as_array().ok_or("must be a list of times, such as [\"5s\", \"5m\", \"2h\"]")?;
    if list.len() > RETRIES_MAX {
        return Err(format!("must not hold more than {RETRIES_MAX} times; without the key there are {usual}"));
    }
    list.iter().map(|item| bounded(item.get_ref(), WAIT_MAX)).collect()
}

#[cfg(test)]
mod tests;
