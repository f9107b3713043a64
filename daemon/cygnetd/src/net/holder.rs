//! Who holds a port: the process to name when ours cannot be had.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// `name (pid)` of the process that holds UDP `port`, as far as we may see.
pub(super) fn udp_port_holder(port: u16) -> Option<String> {
    port_holder(port, ["/proc/net/udp", "/proc/net/udp6"])
}

/// The same for TCP.
pub(crate) fn tcp_port_holder(port: u16) -> Option<String> {
    port_holder(port, ["/proc/net/tcp", "/proc/net/tcp6"])
}

fn port_holder(port: u16, tables: [&str; 2]) -> Option<String> {
    let inodes: BTreeSet<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| inodes_of(&table, port))
        .collect();
    let processes = fs::read_dir("/proc").ok()?;
    // `self` and `thread-self` are no numbers and fall out.
    let mut numbered =
        processes.flatten().filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    numbered.find(|(_, path)| holds(path, &inodes)).map(|(pid, _)| process_name(pid))
}

/// Whether this process holds UDP `port`, and `name (pid)` of all others that do, as far as we may see.
pub(crate) fn udp_port_holders(port: u16) -> (bool, Vec<String>) {
    let inodes: BTreeSet<String> = ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| inodes_of(&table, port))
        .collect();
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered = processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<i32>().ok()?, entry.path())));
    let holders: Vec<i32> = numbered.filter(|(_, path)| holds(path, &inodes)).map(|(pid, _)| pid).collect();
    let others = holders.iter().filter(|pid| **pid != own).map(|pid| process_name(*pid)).collect();
    (holders.contains(&own), others)
}

/// `name (pid)` of a process.
pub(crate) fn process_name(pid: i32) -> String {
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{} (pid {pid})", name.trim_end()),
        Err(_) => format!("pid {pid}"),
    }
}

/// Inodes of the sockets bound to `port` in the kernel's table.
fn inodes_of(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    rows.filter(|fields| fields.get(1).is_some_and(|local| local.ends_with(&suffix)))
        .filter_map(|fields| fields.get(9).map(|inode| (*inode).to_owned()))
        .collect()
}

fn holds(process: &Path, inodes: &BTreeSet<String>) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| {
        let inode = target.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.contains(inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref\n\
             12: 00000000:01F4 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0\n\
             13: 0100007F:1194 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0 0\n";
        assert_eq!(inodes_of(table, 500), ["4711"]);
        assert_eq!(inodes_of(table, 4500), ["4712"]);
        assert!(inodes_of(table, 501).is_empty());
    }

    #[test]
    fn our_own_socket_leads_to_us() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let holder = udp_port_holder(socket.local_addr().unwrap().port()).unwrap();
        assert!(holder.contains(&format!("pid {}", std::process::id())), "{holder}");
    }
}
