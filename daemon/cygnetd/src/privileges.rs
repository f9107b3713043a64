//! As whom the daemon runs: root's privileges are given up for those of a user of its own, where there is one.
//!
//! ```text
//!  as root:  helper for updown scripts ─► socket files, state directories, swanctl.conf ─► [give_up]
//!  as user:  everything else, with CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE (capabilities(7)) and nothing more
//! ```
//!
//! That is for ever: neither these capabilities nor root's number come back by running another program. It is done while the process has one
//! thread, because to the kernel each thread has privileges of its own, which those that it starts inherit. Sysctls below `/proc/sys/net` need
//! no more than CAP_NET_ADMIN. What a user cannot reach when it is wanted again, such as a file that root alone can read, is said at the start:
//! [`reach`].

pub(crate) mod reach;
pub(crate) mod state;

use anyhow::{Context as _, bail, ensure};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::config::Privileges;
use crate::users::{self, Account};

/// What the daemon does needs these as long as it runs: XFRM, routes, rules, TUN devices, marks and sysctls; raw ESP and capturing; IKE's ports.
const NEEDED: [(&str, CapabilitySet); 3] = [
    ("NET_ADMIN", CapabilitySet::NET_ADMIN),
    ("NET_RAW", CapabilitySet::NET_RAW),
    ("NET_BIND_SERVICE", CapabilitySet::NET_BIND_SERVICE),
];
/// Numbers of capabilities that a kernel may have.
const NUMBERS: u32 = 64;

/// As whom to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// As the daemon was started.
    AsStarted,
    /// As this user.
    User(Account),
}

/// As whom to go on with these settings.
///
/// # Errors
/// The user that they name is not there, or it takes root to become that user.
pub(crate) fn standing(settings: &Privileges) -> Result<Standing, String> {
    decide(settings, geteuid().as_raw(), Account::look_up(&settings.user))
}

/// The same, when the daemon is started as root.
///
/// # Errors
/// There is no such user.
pub(crate) fn standing_of_root(settings: &Privileges) -> Result<Standing, String> {
    decide(settings, 0, Account::look_up(&settings.user))
}

/// The same, for a process of user `uid`, where `found` is the user that the settings name.
fn decide(settings: &Privileges, uid: u32, found: Option<Account>) -> Result<Standing, String> {
    let user = &settings.user;
    if user.is_empty() || user == "root" {
        return Ok(Standing::AsStarted);
    }
    let missing = || format!("privileges.user: there is no user `{user}`: make it, or set user = \"root\"");
    match found {
        None if settings.is_chosen() => Err(missing()),
        None => Ok(Standing::AsStarted),
        Some(account) if account.uid == uid || account.uid == 0 => Ok(Standing::AsStarted),
        Some(account) if uid == 0 => Ok(Standing::User(account)),
        // Whoever started us as another user has decided.
        Some(_) if !settings.is_chosen() => Ok(Standing::AsStarted),
        Some(_) => Err(format!(
            "privileges.user: it takes root to become `{user}`, and this is user {uid}: start cygnetd as one of these two"
        )),
    }
}

/// Goes on as `account`. Done before there is another thread.
///
/// # Errors
/// The system does not allow it; then the process must not go on.
pub(crate) fn give_up(account: &Account) -> anyhow::Result<()> {
    let action = || {
        format!(
            "cannot go on as user `{}`; to keep root's privileges, set user = \"root\" in [privileges]",
            account.name
        )
    };
    become_user(account).with_context(action)?;
    verify(account).with_context(action)
}

fn become_user(account: &Account) -> anyhow::Result<()> {
    use rustix::thread;

    let threads = std::fs::read_dir("/proc/self/task").context("cannot count threads")?.count();
    ensure!(threads == 1, "there are {threads} threads already");
    let held = thread::capabilities(None).context("capget")?.permitted;
    let kept = NEEDED.iter().fold(CapabilitySet::empty(), |all, (_, one)| all | *one) & held;
    let groups: Vec<Gid> = account.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    forget_bounds()?;
    // So that what is permitted survives the change of user.
    thread::set_keep_capabilities(true).context("PR_SET_KEEPCAPS")?;
    thread::set_thread_groups(&groups).context("setgroups, for which CAP_SETGID is needed")?;
    thread::set_thread_res_gid(gid, gid, gid).context("setresgid, for which CAP_SETGID is needed")?;
    thread::set_thread_res_uid(uid, uid, uid).context("setresuid, for which CAP_SETUID is needed")?;
    thread::clear_ambient_capability_set().context("PR_CAP_AMBIENT_CLEAR_ALL")?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    thread::set_capabilities(None, sets).context("capset")?;
    thread::set_keep_capabilities(false).context("PR_SET_KEEPCAPS")?;
    thread::set_no_new_privs(true).context("PR_SET_NO_NEW_PRIVS")
}

/// Empties the set beyond which no program can get. Without CAP_SETPCAP it stays, which gives nothing: no program gets more than it was given
/// by then.
fn forget_bounds() -> anyhow::Result<()> {
    for number in 0..NUMBERS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The kernel has no more, or we may not.
            Err(Errno::INVAL | Errno::PERM) => break,
            Err(error) => return Err(error).context("PR_CAPBSET_DROP"),
        }
    }
    Ok(())
}

/// That it is so is looked at, not believed.
fn verify(account: &Account) -> anyhow::Result<()> {
    let held = rustix::thread::capabilities(None).context("capget")?;
    let beyond = NEEDED.iter().fold(held.permitted | held.effective | held.inheritable, |all, (_, one)| all - *one);
    ensure!(beyond.is_empty(), "capabilities are left: {:#x}", beyond.bits());
    ensure!(geteuid().as_raw() == account.uid, "the user is {} still", geteuid().as_raw());
    let root = Uid::from_raw(0);
    if rustix::thread::set_thread_res_uid(root, root, root).is_ok() {
        bail!("root can be had again");
    }
    Ok(())
}

/// As whom this thread runs, and with which capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Name of the user, or its number.
    pub(crate) user: String,
    /// Those that the daemon needs, and whether it has them.
    pub(crate) needed: Vec<(&'static str, bool)>,
    /// How many others it has.
    pub(crate) others: u32,
}

/// Looks.
pub(crate) fn seen() -> Seen {
    let sets = rustix::thread::capabilities(None);
    let held = sets.map_or(CapabilitySet::empty(), |sets| sets.effective);
    let others = NEEDED.iter().fold(held, |all, (_, one)| all - *one).bits().count_ones();
    let needed = NEEDED.map(|(name, one)| (name, held.contains(one))).into();
    Seen { user: users::name_of(geteuid().as_raw()), needed, others }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(uid: u32) -> Option<Account> {
        Some(Account { name: "x".into(), uid, gid: uid, group: "x".into(), groups: vec![uid] })
    }

    fn named(user: &str) -> Privileges {
        Privileges { user: user.into() }
    }

    #[test]
    fn root_becomes_the_user_that_is_there() {
        let usual = Privileges::default();
        assert_eq!(decide(&usual, 0, account(998)), Ok(Standing::User(account(998).unwrap())));
        assert_eq!(decide(&named("x"), 0, account(998)), Ok(Standing::User(account(998).unwrap())));
    }

    #[test]
    fn nothing_changes_where_nothing_is_to_be_changed() {
        let usual = Privileges::default();
        // No such user; a daemon that was started as somebody else; as the very one; a second name of root.
        for (settings, uid, found) in [
            (&usual, 0, None),
            (&usual, 1000, None),
            (&usual, 1000, account(998)),
            (&usual, 998, account(998)),
            (&named("x"), 998, account(998)),
            (&named("toor"), 0, account(0)),
            (&named(""), 0, None),
            (&named("root"), 0, account(0)),
            (&named("root"), 1000, account(0)),
        ] {
            assert_eq!(decide(settings, uid, found), Ok(Standing::AsStarted), "{settings:?} {uid}");
        }
    }

    #[test]
    fn a_user_that_was_named_and_cannot_be_had_is_an_error() {
        let error = decide(&named("x"), 0, None).unwrap_err();
        assert!(error.contains("there is no user `x`"), "{error}");
        assert!(decide(&named("x"), 1000, None).is_err());
        let error = decide(&named("x"), 1000, account(998)).unwrap_err();
        assert!(error.contains("takes root to become `x`"), "{error}");
    }

    #[test]
    fn what_a_thread_may_do_is_seen() {
        let Seen { user, needed, .. } = seen();
        assert!(!user.is_empty());
        assert_eq!(
            needed.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"]
        );
    }
}
