//! What a service manager hears: readiness, status and the watchdog; and what the journal gets.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::peer::conf::{self, Tunnel};
use lab::peer::cygnet::Cygnet;
use lab::peer::{Peer as _, binary};
use lab::process::Process;
use lab::topology::{Family, Lab, Middle, Side};
use libtest_mimic::Trial;

use crate::harness::trial;
use crate::life;

/// Makes standard error what the manager says it is, and puts a journal where the daemon looks for it.
const START: &str = "mkdir -p /run/systemd/journal && ln -s \"$JOURNAL\" /run/systemd/journal/socket && \
                     JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) && export JOURNAL_STREAM && exec \"$@\"";

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("service::manager_and_journal_are_told", told)]
}

fn told() -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let directory = lab.directory().join("a");
    std::fs::create_dir_all(directory.join("swanctl"))?;
    conf::write(&directory.join("swanctl/swanctl.conf"), &[Tunnel::between(&lab, Side::A, Family::V4)])?;
    let recipe = Cygnet::default().prepare(&directory)?;
    let (manager, journal) = (listener(&directory.join("notify"))?, listener(&directory.join("journal"))?);
    let arguments: Vec<&std::ffi::OsStr> = ["-c", START, "sh"].into_iter().map(AsRef::as_ref).collect();
    let program = binary("cygnetd")?;
    let arguments: Vec<_> =
        arguments.into_iter().chain([program.as_ref()]).chain(recipe.arguments.iter().map(AsRef::as_ref)).collect();
    let environment = [
        ("NOTIFY_SOCKET", directory.join("notify")),
        ("JOURNAL", directory.join("journal")),
        ("WATCHDOG_USEC", "400000".into()),
    ];
    let environment: Vec<(&str, &Path)> = environment.iter().map(|(key, value)| (*key, value.as_path())).collect();
    let output = directory.join("output.log");
    let mut process = Process::start(&lab.a.gateway, Path::new("/bin/sh"), &arguments, &environment, &output)?;
    let mut heard = String::new();
    let outcome = life::settle("readiness, status and five signs of life are told", || {
        heard += &received(&manager);
        let alive = heard.matches("WATCHDOG=1").count();
        Ok(heard.contains("READY=1") && heard.contains("STATUS=0 of 2 tunnels up") && alive >= 5)
    });
    outcome.map_err(|error| error.context(format!("heard {heard:?}, log: {}", process.output())))?;
    ensure!(process.terminate()?.success(), "it ends well");
    heard = received(&manager);
    ensure!(heard.contains("STOPPING=1"), "{heard}");
    let entries: Vec<Entry> = datagrams(&journal).iter().filter_map(|entry| fields(entry)).collect();
    let ready = entries.iter().find(|entry| entry.get("MESSAGE").is_some_and(|text| text == "cygnetd is ready"));
    let loaded = entries.iter().find(|entry| entry.get("CYGNET_EVENT").is_some_and(|event| event == "config.loaded"));
    let (ready, loaded) = ready.zip(loaded).with_context(|| format!("entries are missing in {entries:?}"))?;
    for (entry, field, value) in [
        (ready, "SYSLOG_IDENTIFIER", "cygnetd"),
        (ready, "PRIORITY", "6"),
        (ready, "CYGNET_BACKEND", "userspace"),
        (loaded, "CYGNET_CONN", "site"),
    ] {
        ensure!(entry.get(field).is_some_and(|found| found == value), "{field} is not {value} in {entry:?}");
    }
    let text = std::fs::read_to_string(&output)?;
    ensure!(!text.contains("is ready"), "nothing is written twice: {text}");
    Ok(())
}

fn listener(path: &Path) -> Result<UnixDatagram> {
    let socket = UnixDatagram::bind(path)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    Ok(socket)
}

/// Everything that has come so far.
fn datagrams(socket: &UnixDatagram) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length) = socket.recv(&mut buffer) {
        all.extend(buffer.get(..length).map(<[u8]>::to_vec));
    }
    all
}

/// The same as text.
fn received(socket: &UnixDatagram) -> String {
    datagrams(socket).iter().map(|datagram| format!("{}\n", String::from_utf8_lossy(datagram))).collect()
}

type Entry = BTreeMap<String, String>;

/// Fields of an entry of the journal, as systemd's native protocol has them: `NAME=VALUE`, or the name alone, then eight octets of length and the value.
fn fields(mut entry: &[u8]) -> Option<Entry> {
    let mut fields = Entry::new();
    while !entry.is_empty() {
        let end = entry.iter().position(|octet| *octet == b'\n')?;
        let (line, rest) = (entry.get(..end)?, entry.get(end + 1..)?);
        let line = String::from_utf8_lossy(line);
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => {
                entry = rest;
                (name.to_owned(), value.to_owned())
            }
            None => {
                let (length, rest) = rest.split_first_chunk()?;
                let (value, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
                entry = rest.strip_prefix(b"\n")?;
                (line.into_owned(), String::from_utf8_lossy(value).into_owned())
            }
        };
        fields.insert(name, value.trim().to_owned());
    }
    Some(fields)
}
