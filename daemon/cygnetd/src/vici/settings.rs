//! `reload-settings`: `cygnetd.toml` read again while the daemon runs.

use ike_model::IkeSettings;
use swanctl_compat::render;
use swanctl_compat::vici::Message;

use crate::config::{self, Config};
use crate::core::Core;
use crate::log;

/// `reload-settings`.
pub(super) async fn reload(core: &Core) -> Message {
    match read_again(core).await {
        Ok(Applied { restart, webhooks }) => render::reloaded(&restart, &webhooks),
        Err(wrong) => render::failed(&wrong),
    }
}

/// What came of it.
pub(crate) struct Applied {
    /// Tables in which something waits for a restart.
    restart: Vec<&'static str>,
    /// What became of webhooks, in words.
    webhooks: Vec<String>,
}

/// Reads the file again and applies what can be while the daemon runs; the tables in which something else has changed are told. A file with an error
/// changes nothing.
pub(crate) async fn read_again(core: &Core) -> Result<Applied, String> {
    let _turn = core.reloading.lock().await;
    let file = core.settings_file.clone();
    // Aside: others are served meanwhile.
    let read = tokio::task::spawn_blocking(move || config::load(file.as_deref()));
    let settings = read
        .await
        .map_err(|error| format!("reading the settings has failed: {error}"))?
        .map_err(|findings| findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    core.webhooks.check(&settings).await?;
    log::set(&core.levels, &settings.log).map_err(|error| format!("{error:#}"))?;
    core.store.change_settings(|ike| adopt(ike, &settings.ike.settings));
    if let Ok(timeline) = core.timeline() {
        // What has happened so far is told to those who were to be told. A database that is away is not waited for.
        let _ = timeline.complete().await;
    }
    let webhooks = core.webhooks.change(&settings).await?;
    for word in &webhooks {
        tracing::info!("webhook {word}");
    }
    let restart = restart_needed(&core.config, &settings);
    if restart.is_empty() {
        tracing::info!("cygnetd.toml was read again");
    } else {
        tracing::warn!("cygnetd.toml has changed ({}): restart cygnetd to apply that", restart.join(", "));
    }
    Ok(Applied { restart, webhooks })
}

/// Takes over what is looked up whenever it is needed. The rest is told to sockets, tables and the backend once, when the daemon starts.
fn adopt(now: &mut IkeSettings, new: &IkeSettings) {
    now.retransmit_timeout = new.retransmit_timeout;
    now.retransmit_base = new.retransmit_base;
    now.retransmit_tries = new.retransmit_tries;
    now.retransmit_jitter = new.retransmit_jitter;
    now.keep_alive = new.keep_alive;
    now.delete_rekeyed_delay = new.delete_rekeyed_delay;
    now.fragment_size = new.fragment_size;
    now.make_before_break = new.make_before_break;
    now.attempts_per_second = new.attempts_per_second;
    now.peer_request_rate = new.peer_request_rate;
    now.peer_request_burst = new.peer_request_burst;
    now.peer_create_rate = new.peer_create_rate;
    now.peer_create_burst = new.peer_create_burst;
}

/// Tables that differ from what the daemon was started with in more than what was applied.
fn restart_needed(started: &Config, new: &Config) -> Vec<&'static str> {
    let mut now = started.clone();
    now.log.clone_from(&new.log);
    adopt(&mut now.ike.settings, &new.ike.settings);
    #[cfg(feature = "webhook")]
    now.webhooks.clone_from(&new.webhooks);
    // What belongs to another table there.
    let debug = new.ike.settings.key_export != now.ike.settings.key_export;
    now.ike.settings.key_export = new.ike.settings.key_export;
    let tables = [
        ("gateway", new.gateway != now.gateway),
        ("privileges", new.privileges != now.privileges),
        ("ike", new.ike != now.ike),
        ("backend", new.backend != now.backend),
        ("swanctl", new.swanctl != now.swanctl),
        ("updown", new.updown != now.updown),
        ("vici", new.vici != now.vici),
        ("history", new.history != now.history),
        ("http", new.http != now.http),
        ("debug", debug),
    ];
    let mut changed: Vec<&str> = tables.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    // A table that this list does not know yet.
    if changed.is_empty() && *new != now {
        changed.push("settings");
    }
    changed
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Log, LogFormat};

    #[test]
    fn what_was_applied_needs_no_restart() {
        let started = Config::default();
        let mut new = started.clone();
        assert!(restart_needed(&started, &new).is_empty());
        new.log = Log { level: "debug".into(), format: LogFormat::Json };
        new.ike.settings.retransmit_tries = 9;
        new.ike.settings.keep_alive = Duration::from_secs(3);
        assert!(restart_needed(&started, &new).is_empty());
        new.ike.settings.port = 501;
        new.gateway.name = "other".into();
        assert_eq!(restart_needed(&started, &new), ["gateway", "ike"]);
    }
}
