//! A daemon that is started as root and goes on as a user of its own.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use lab::life;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::peer::{Peer, Recipe, binary};
use lab::process::wait_until;
use lab::topology::{Lab, Middle, Side};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Pair, SOON, trial, with_pair};

const USER: u32 = 998;
const GROUP: u32 = 997;
/// NET_BIND_SERVICE, NET_ADMIN and NET_RAW (capabilities(7)).
const KEPT: u64 = 1 << 10 | 1 << 12 | 1 << 13;

pub(crate) fn trials() -> Vec<Trial> {
    let whole = trial("privileges::a_daemon_with_a_user_of_its_own_does_everything", whole_life);
    let missing = trial("privileges::a_user_that_is_named_and_missing_is_an_error", missing_user);
    // Where the run has a single user, there is nobody to become.
    vec![whole.with_ignored_flag(!has_users()), missing]
}

/// Whether users of these numbers exist in our user namespace: user_namespaces(7).
fn has_users() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let row: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        matches!(row[..], [first, _, count] if (first..first + count).contains(&u64::from(USER)))
    })
}

/// Cygnet on a machine that has a user `cygnet`, nothing below /var/lib yet, and a tunnel device for everybody, as udev makes it.
#[derive(Debug)]
struct WithUser;

impl Peer for WithUser {
    fn name(&self) -> &'static str {
        "cygnet"
    }

    fn prepare(&self, directory: &Path) -> Result<Recipe> {
        const START: &str = "mount --bind \"$1/passwd\" /etc/passwd && mount --bind \"$1/group\" /etc/group && \
                             mount -t tmpfs -o mode=755 tmpfs /var/lib && mknod -m 666 /run/tun c 10 200 && \
                             mount --bind /run/tun /dev/net/tun && shift && exec \"$@\"";
        let extra = "[privileges]\nuser = \"cygnet\"\n[history]\nurl = \"sqlite:///var/lib/cygnet/history.db\"\n\
                     [http]\nlisten = \"127.0.0.1:9470\"\n";
        let recipe = Cygnet { extra: extra.into(), log: "info,cygnetd=debug".into() }.prepare(directory)?;
        let passwd = format!("root:x:0:0:root:/root:/bin/sh\ncygnet:x:{USER}:{GROUP}::/:/usr/sbin/nologin\n");
        std::fs::write(directory.join("passwd"), passwd)?;
        std::fs::write(directory.join("group"), format!("root:x:0:\ncygnet:x:{GROUP}:\n"))?;
        std::fs::set_permissions(directory.join("swanctl/swanctl.conf"), Permissions::from_mode(0o600))?;
        let mut arguments: Vec<std::ffi::OsString> = ["-c", START, "sh"].map(Into::into).into();
        arguments.extend([directory.into(), recipe.program.into()]);
        arguments.extend(recipe.arguments);
        Ok(Recipe { program: "/bin/sh".into(), arguments, ..recipe })
    }
}

fn whole_life() -> Result<()> {
    // Only root can write into a directory of root's, and only root has all capabilities.
    let script = "{ id -u; grep CapEff /proc/self/status; } >> /run/who";
    let change = |side, tunnel: Tunnel| match side {
        Side::A => tunnel.with_child_option(&format!("updown = \"{script}\"")),
        Side::B => tunnel,
    };
    with_pair(&Middle::Direct, [&WithUser, &Cygnet::default()], change, |lab, pair| {
        is_unprivileged(pair)?;
        life::establish(pair, Side::A)?;
        life::rekey_child(pair, Side::A, "net4")?;
        life::rekey_ike(pair, Side::A)?;
        scripts_run_as_root(pair)?;
        history_is_written(pair)?;
        doctor_says_so(pair)?;
        reload(lab, pair)?;
        without_helper(pair)?;
        again(pair)
    })
}

/// Every thread of the daemon, and its socket.
fn is_unprivileged(pair: &mut Pair<'_>) -> Result<()> {
    let pid = pair.a.process().id();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default()
        };
        let four = |number: u32| [number; 4].map(|number| number.to_string()).join(" ");
        ensure!(field("Uid") == four(USER) && field("Gid") == four(GROUP), "{status}");
        ensure!(field("Groups") == GROUP.to_string() && field("NoNewPrivs") == "1", "{status}");
        for (set, wanted) in [("CapPrm", KEPT), ("CapEff", KEPT), ("CapInh", 0), ("CapBnd", 0), ("CapAmb", 0)] {
            ensure!(u64::from_str_radix(&field(set), 16)? == wanted, "{set} in {status}");
        }
    }
    let socket = std::fs::symlink_metadata(pair.a.socket())?;
    ensure!((socket.uid(), socket.gid(), socket.mode() & 0o777) == (USER, 0, 0o660), "{socket:?}");
    let log = pair.a.log();
    ensure!(log.contains("running as user `cygnet` with NET_ADMIN, NET_RAW, NET_BIND_SERVICE alone"), "{log}");
    Ok(())
}

/// A path as the daemon sees it.
fn inside(pair: &mut Pair<'_>, path: &str) -> String {
    format!("/proc/{}/root{path}", pair.a.process().id())
}

fn scripts_run_as_root(pair: &mut Pair<'_>) -> Result<()> {
    let path = inside(pair, "/run/who");
    let text = || std::fs::read_to_string(&path).unwrap_or_default();
    wait_until(SOON, || text().lines().count() >= 2);
    let text = text();
    let mut lines = text.lines();
    let all = std::fs::read_to_string("/proc/self/status")?;
    let all = all.lines().find(|line| line.starts_with("CapEff")).context("our own capabilities")?;
    ensure!(lines.next() == Some("0") && lines.next() == Some(all), "{text} instead of root with {all}");
    Ok(())
}

fn history_is_written(pair: &mut Pair<'_>) -> Result<()> {
    let ended = || {
        let output = pair.a.cygnet(&["history", "--child", "net4", "--json"]);
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    };
    ensure!(wait_until(SOON, || ended().contains("\"rekeyed\"")), "{}", ended());
    for path in ["/var/lib/cygnet", "/var/lib/cygnet/history.db", "/var/lib/cygnet/spool"] {
        let found = std::fs::metadata(inside(pair, path)).with_context(|| path.to_owned())?;
        ensure!((found.uid(), found.gid()) == (USER, GROUP), "{path} is of {}:{}", found.uid(), found.gid());
    }
    Ok(())
}

fn doctor(pair: &Pair<'_>) -> Result<String> {
    Ok(String::from_utf8_lossy(&pair.a.cygnet(&["doctor"])?.stdout).into_owned())
}

fn doctor_says_so(pair: &Pair<'_>) -> Result<()> {
    let text = doctor(pair)?;
    for words in [
        "runs as user cygnet with NET_ADMIN, NET_RAW, NET_BIND_SERVICE and no other capability",
        "user `cygnet` cannot read",
        "UDP port 500 is ours alone",
    ] {
        ensure!(text.contains(words), "no `{words}` in {text}");
    }
    Ok(())
}

/// A file that root alone can read was read at the start, and is not at a reload; then nothing changes.
fn reload(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let path = pair.a.directory().join("swanctl/swanctl.conf");
    let warned = format!("user `cygnet` cannot read {}", path.display());
    ensure!(pair.a.log().contains(&warned), "the log does not say `{warned}`");
    let names = |pair: &Pair<'_>| pair.a.swanctl(&["--list-conns"]);
    pair.a.process().signal(Signal::HUP)?;
    life::settle("the reload is refused", || Ok(pair.a.log().contains("nothing was loaded")))?;
    ensure!(names(pair)?.contains("site:"), "{}", names(pair)?);
    let mut other = Tunnel::between(lab, Side::A, lab::topology::Family::V4);
    other.name = "other".into();
    pair.a.write_tunnels(&[Tunnel::between(lab, Side::A, lab::topology::Family::V4), other])?;
    chown(&path, None, Some(GROUP))?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o640))?;
    pair.a.process().signal(Signal::HUP)?;
    life::settle("the reload adds a connection", || Ok(names(pair)?.contains("other:")))?;
    ensure!(!doctor(pair)?.contains(&warned), "it is readable by now");
    let answer = pair.a.swanctl(&["--reload-settings", "--raw"])?;
    ensure!(answer.contains("success=yes"), "{answer}");
    Ok(())
}

/// Nobody can give the privileges of the helper to another one.
fn without_helper(pair: &mut Pair<'_>) -> Result<()> {
    let daemon = pair.a.process().id();
    let mut children = String::new();
    for task in std::fs::read_dir(format!("/proc/{daemon}/task"))? {
        children += &std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
    }
    let helper = children.trim().parse().ok().and_then(Pid::from_raw).with_context(|| format!("{children:?}"))?;
    kill_process(helper, Signal::KILL)?;
    let told = |words: &str| -> Result<()> {
        ensure!(wait_until(SOON, || pair.a.log().contains(words)), "the log does not say `{words}`");
        Ok(())
    };
    told("with it the privileges to run them: restart cygnetd")?;
    life::delete_ike(pair, Side::A)?;
    told("the helper that could run it is gone: restart cygnetd")
}

/// It ends well and leaves nothing that is in the way of the next start, and neither does one that is killed. With a helper it takes its socket away.
fn again(pair: &mut Pair<'_>) -> Result<()> {
    ensure!(pair.a.process().terminate()?.success(), "it ends badly");
    pair.a.restart()?;
    is_unprivileged(pair)?;
    pair.a.process().kill()?;
    ensure!(pair.a.socket().exists(), "nobody could take the socket away");
    pair.a.restart()?;
    life::establish(pair, Side::A)?;
    ensure!(pair.a.process().terminate()?.success(), "it ends badly");
    ensure!(!pair.a.socket().exists(), "it leaves its socket");
    Ok(())
}

fn missing_user() -> Result<()> {
    let directory = lab::enter::directory().join("missing-user");
    std::fs::create_dir_all(&directory)?;
    let settings = directory.join("cygnetd.toml");
    std::fs::write(&settings, "[privileges]\nuser = \"no-such-user\"\n[swanctl]\nload = false\n")?;
    let words = "privileges.user: there is no user `no-such-user`";
    for (check, code) in [(false, 1), (true, 2)] {
        let mut cygnetd = Command::new(binary("cygnetd")?);
        cygnetd.arg("--config").arg(&settings).args(check.then_some("--check"));
        let output = cygnetd.output()?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.code() == Some(code) && text.contains(words), "{}: {text}", output.status);
    }
    Ok(())
}
