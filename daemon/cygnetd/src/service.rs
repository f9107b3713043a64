//! What the service manager is told: that we are ready, how we are, and, as long as it is so, that we live.
//!
//! The watchdog is fed by the reactor, and only while every shard takes from its inbox: a daemon one of whose threads is stuck is restarted.

use std::sync::Arc;
use std::time::Duration;

use ike_model::ConfiguredChildStatus;
use ike_model::snapshot::ConfiguredState;
use sd_notify::NotifyState;

use crate::core::Core;
use crate::router::Router;

/// How often the status is brought up to date.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// How long shards may take until the status goes without them.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

/// Everything is loaded and served.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// We are going to end.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// The configuration is being loaded anew, as a manager of `Type=notify-reload` wants to hear it.
pub(crate) fn reloading() {
    let states: Vec<_> = [NotifyState::Reloading].into_iter().chain(NotifyState::monotonic_usec_now().ok()).collect();
    notify(&states);
}

/// Without a service manager there is nobody to tell.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// Keeps the manager informed, where there is one.
pub(crate) async fn keep_informed(core: Arc<Core>) {
    let watchdog = async {
        match sd_notify::watchdog_enabled() {
            Some(limit) => feed(&core.shared.router, limit, || notify(&[NotifyState::Watchdog])).await,
            None => std::future::pending().await,
        }
    };
    let status = async {
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(_) => tell_status(&core).await,
            None => std::future::pending().await,
        }
    };
    tokio::join!(watchdog, status);
}

/// Says well before `limit` is over that we live, each time that all shards have shown it.
async fn feed(router: &Router, limit: Duration, alive: impl Fn()) {
    let mut stuck = false;
    loop {
        match router.alive(limit / 4).await {
            Ok(()) => {
                if std::mem::take(&mut stuck) {
                    tracing::warn!("all shards answer again");
                }
                alive();
            }
            Err(who) if !stuck => {
                stuck = true;
                tracing::error!("{who}: the watchdog is not fed");
            }
            Err(_) => {}
        }
        tokio::time::sleep(limit / 4).await;
    }
}

async fn tell_status(core: &Core) {
    let mut told = String::new();
    loop {
        let (configured, complete) = core.configured_within(STATUS_PATIENCE).await;
        let now = if complete { status(&configured) } else { "a shard does not answer".into() };
        if now != told {
            notify(&[NotifyState::Status(&now)]);
            told = now;
        }
        tokio::time::sleep(STATUS_EVERY).await;
    }
}

fn status(configured: &[ConfiguredChildStatus]) -> String {
    let count = |state: fn(&ConfiguredState) -> bool| configured.iter().filter(|status| state(&status.state)).count();
    let up = count(|state| matches!(state, ConfiguredState::Up));
    let shunts = count(|state| matches!(state, ConfiguredState::Shunt));
    let waiting = count(|state| matches!(state, ConfiguredState::Trapped));
    let refused = count(|state| matches!(state, ConfiguredState::Refused(_)));
    let mut text = format!("{up} of {} tunnels up", configured.len() - shunts);
    if waiting > 0 {
        text += &format!(", {waiting} waiting for traffic");
    }
    if refused > 0 {
        text += &format!(", {refused} refused");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use ipsec::Shard;

    use super::*;
    use crate::router::{Message, Question};

    /// How a shard fares.
    #[derive(Default)]
    struct Fate {
        stuck: AtomicBool,
        /// It was asked and does not answer.
        silent: AtomicBool,
    }

    /// A thread that answers as a shard does, unless it is stuck.
    fn shard(router: &Arc<Router>, number: u8, fate: &Arc<Fate>) {
        let (inbox, fate) = (Arc::clone(router.inbox(Shard(number)).unwrap()), Arc::clone(fate));
        std::thread::spawn(move || {
            loop {
                for message in inbox.turn(None, true).control {
                    let Message::Ask(Question::Counts(to)) = message else { return };
                    while fate.stuck.load(Ordering::SeqCst) {
                        fate.silent.store(true, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    fate.silent.store(false, Ordering::SeqCst);
                    to.send(ike_sa::Counts::default()).unwrap_or_default();
                }
            }
        });
    }

    async fn until(what: &str, holds: impl Fn() -> bool) {
        let patience = std::time::Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(std::time::Instant::now() < patience, "in vain: {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn one_stuck_shard_stops_the_watchdog() {
        let router = Arc::new(Router::new(2).unwrap());
        let fate = Arc::<Fate>::default();
        shard(&router, 0, &Arc::default());
        shard(&router, 1, &fate);
        let fed = Arc::new(AtomicUsize::new(0));
        let (feeding, count) = (Arc::clone(&router), Arc::clone(&fed));
        let limit = Duration::from_millis(200);
        let count_up = move || {
            count.fetch_add(1, Ordering::SeqCst);
        };
        tokio::spawn(async move { feed(&feeding, limit, count_up).await });
        let fed = || fed.load(Ordering::SeqCst);
        until("it is fed", || fed() >= 3).await;
        fate.stuck.store(true, Ordering::SeqCst);
        until("one does not answer", || fate.silent.load(Ordering::SeqCst)).await;
        let before = fed();
        tokio::time::sleep(limit * 3).await;
        assert_eq!(fed(), before);
        fate.stuck.store(false, Ordering::SeqCst);
        until("what was only slow goes on", || fed() >= before + 3).await;
        router.tell_all(|| Message::Stop);
    }

    #[test]
    fn the_status_counts_tunnels() {
        let of = |state| ConfiguredChildStatus {
            connection: "a".into(),
            child: "net".into(),
            state,
            offload: None,
            failures: 0,
            last_cause: None,
        };
        assert_eq!(status(&[]), "0 of 0 tunnels up");
        let states =
            [ConfiguredState::Up, ConfiguredState::RetryIn(1), ConfiguredState::Shunt, ConfiguredState::Trapped];
        assert_eq!(status(&states.map(of)), "1 of 3 tunnels up, 1 waiting for traffic");
        assert_eq!(status(&[of(ConfiguredState::Refused("no".into()))]), "0 of 1 tunnels up, 1 refused");
    }
}
