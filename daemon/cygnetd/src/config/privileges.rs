//! `[privileges]`: as whom the daemon runs once it has been started.

use super::keys::Set;
use super::value::text;

/// The user that is looked for unless another one is named.
const USER: &str = "cygnet";

pub(super) const KEYS: &[(&str, Set)] =
    &[("privileges.user", |c, v| text(v).map(|user| c.privileges.user = user.into()))];

/// `[privileges]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Privileges {
    /// Name of the user whose privileges are enough once the daemon has started as root; empty = root's are kept.
    pub(crate) user: String,
}

impl Default for Privileges {
    fn default() -> Self {
        Self { user: USER.into() }
    }
}

impl Privileges {
    /// It is somebody's choice: that there is no such user is an error.
    pub(crate) fn is_chosen(&self) -> bool {
        self.user != USER
    }
}
