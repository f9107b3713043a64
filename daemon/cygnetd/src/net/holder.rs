//! Who holds a port: the process to name when ours cannot be had.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const UDP: [&str; 2] = ["/proc/net/udp", "/proc/net/udp6"];
const TCP: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// Who was seen to hold a port while everybody's files could be seen: by the kernel's table and the port.
static REMEMBERED: OnceLock<BTreeMap<(&str, u16), String>> = OnceLock::new();

/// `name (pid)` of the process that holds UDP `port`, as far as we may see.
pub(super) fn udp_port_holder(port: u16) -> Option<String> {
    port_holder(port, UDP).or_else(|| remembered(port, UDP))
}

/// The same for TCP.
pub(crate) fn tcp_port_holder(port: u16) -> Option<String> {
    port_holder(port, TCP).or_else(|| remembered(port, TCP))
}

/// Looks now who holds these ports, for when that cannot be seen any more.
pub(crate) fn remember_port_holders(udp: &[u16], tcp: &[u16]) {
    let udp = udp.iter().filter_map(|port| Some(((UDP[0], *port), port_holder(*port, UDP)?)));
    let tcp = tcp.iter().filter_map(|port| Some(((TCP[0], *port), port_holder(*port, TCP)?)));
    // There is one moment at which privileges are given up.
    let _ = REMEMBERED.set(udp.chain(tcp).collect());
}

fn remembered(port: u16, tables: [&'static str; 2]) -> Option<String> {
    REMEMBERED.get()?.get(&(tables[0], port)).cloned()
}

fn port_holder(port: u16, tables: [&str; 2]) -> Option<String> {
    let inodes = inodes(port, tables);
    if inodes.is_empty() {
        return None;
    }
    processes().find(|(_, path)| !held(path, &inodes).is_empty()).map(|(pid, _)| process_name(pid))
}

/// Whether this process holds UDP `port`, and `name (pid)` of all others that do, as far as we may see.
pub(crate) fn udp_port_holders(port: u16) -> (bool, Vec<String>) {
    let mut unseen = inodes(port, UDP);
    let all = unseen.clone();
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let (mut ours, mut others) = (false, Vec::new());
    for (pid, path) in processes() {
        let held = held(&path, &all);
        if held.is_empty() {
            continue;
        }
        unseen.retain(|inode| !held.contains(inode));
        match pid == own {
            true => ours = true,
            false => others.push(process_name(pid)),
        }
    }
    if !unseen.is_empty() {
        others.push("a process whose files only root can see".into());
    }
    (ours, others)
}

/// All processes, with their directories.
fn processes() -> impl Iterator<Item = (i32, PathBuf)> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    // `self` and `thread-self` are no numbers and fall out.
    all.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

/// `name (pid)` of a process.
pub(crate) fn process_name(pid: i32) -> String {
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{} (pid {pid})", name.trim_end()),
        Err(_) => format!("pid {pid}"),
    }
}

/// Inodes of the sockets bound to `port`.
fn inodes(port: u16, tables: [&str; 2]) -> BTreeSet<String> {
    let tables = tables.iter().filter_map(|table| fs::read_to_string(table).ok());
    tables.flat_map(|table| inodes_of(&table, port)).collect()
}

/// The same in one of the kernel's tables. Sockets of the kernel itself have none.
fn inodes_of(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    rows.filter(|fields| fields.get(1).is_some_and(|local| local.ends_with(&suffix)))
        .filter_map(|fields| fields.get(9).map(|inode| (*inode).to_owned()))
        .filter(|inode| inode != "0")
        .collect()
}

/// Which of these sockets a process has.
fn held(process: &Path, inodes: &BTreeSet<String>) -> BTreeSet<String> {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    let sockets = targets.filter_map(|target| {
        let name = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        inodes.get(name).cloned()
    });
    sockets.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref\n\
             12: 00000000:01F4 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0\n\
             13: 0100007F:1194 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0 0\n\
             14: 0100007F:0007 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 0 2 0 0\n";
        assert_eq!(inodes_of(table, 500), ["4711"]);
        assert_eq!(inodes_of(table, 4500), ["4712"]);
        assert!(inodes_of(table, 501).is_empty());
        assert!(inodes_of(table, 7).is_empty(), "the kernel's own");
    }

    #[test]
    fn our_own_socket_leads_to_us() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let holder = udp_port_holder(socket.local_addr().unwrap().port()).unwrap();
        assert!(holder.contains(&format!("pid {}", std::process::id())), "{holder}");
        assert!(udp_port_holders(socket.local_addr().unwrap().port()).0);
    }
}
