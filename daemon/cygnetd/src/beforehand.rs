//! What is done with root's privileges before they are given up, where they are: see [`crate::privileges`].

use std::path::Path;

use anyhow::bail;

use crate::config::{self, Config};
use crate::load::{self, Files};
use crate::net;
use crate::privileges::reach::{self, Unreachable};
use crate::privileges::{self, Standing, state};
use crate::updown::Successor;
use crate::updown::helper::Helper;
use crate::users::Account;
use crate::vici::Places;

/// What was done, and as whom the daemon goes on.
#[derive(Default)]
pub(crate) struct Beforehand {
    /// Socket files of VICI, which are where other users may make none.
    pub(crate) places: Option<Places>,
    /// swanctl.conf, which others may not be able to read.
    pub(crate) connections: Option<Files>,
    /// The user as whom the daemon goes on; nothing where it goes on as it was started.
    pub(crate) account: Option<Account>,
    unreachable: Vec<Unreachable>,
}

impl Beforehand {
    /// Does it, and gives up root's privileges if somebody else's are to be enough. Before there is another thread.
    ///
    /// # Errors
    /// One sentence naming the user, the file or the directory.
    pub(crate) fn with_privileges(config: &Config, settings: Option<&Path>, helper: &Helper) -> anyhow::Result<Self> {
        let account = match privileges::standing(&config.privileges).map_err(anyhow::Error::msg)? {
            Standing::AsStarted => return Ok(Self::default()),
            Standing::User(account) => account,
        };
        let places = Some(Places::reserve(&config.vici, helper, account.uid)?);
        state::prepare(config, &account)?;
        let connections = config.swanctl.load.then(|| load::read(&config.swanctl.directory));
        remember_port_holders(config);
        privileges::give_up(&account)?;
        let paths = connections.as_ref().map(Files::paths).unwrap_or_default();
        let mut unreachable = reach::files(config, &config::files(settings), &paths, &account);
        unreachable.extend(reach::places(config, &account, false));
        if let Some(needed) = unreachable.iter().find(|found| found.needed) {
            bail!("{needed}, or set user = \"root\" in [privileges]");
        }
        Ok(Self { places, connections, account: Some(account), unreachable })
    }

    /// What becomes of updown scripts without their helper.
    pub(crate) fn successor(&self) -> Successor {
        if self.account.is_some() { Successor::Unprivileged } else { Successor::Possible }
    }

    /// Says in the log how the daemon goes on, and what it cannot reach.
    pub(crate) fn tell(&self) {
        let seen = privileges::seen();
        let held: Vec<&str> = seen.needed.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
        let held = held.join(", ");
        match &self.account {
            Some(Account { name, uid, gid, .. }) => {
                tracing::info!(uid, gid, "running as user `{name}` with {held} alone; updown scripts run as root");
            }
            None => tracing::debug!("running as user `{}` as it was started, with {held}", seen.user),
        }
        for found in &self.unreachable {
            tracing::warn!("{found}");
        }
    }
}

/// Who is in the way of our ports is found among files of processes, which only root sees.
fn remember_port_holders(config: &Config) {
    let settings = &config.ike.settings;
    let port = |place: &String| place.rsplit_once(':')?.1.parse().ok();
    let http: Vec<u16> =
        config.http.listen.iter().filter(|place| !place.starts_with("unix:")).filter_map(port).collect();
    net::remember_port_holders(&[settings.port, settings.nat_port], &http);
}
