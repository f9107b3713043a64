//! Settings under /proc/sys/net of the calling thread's network namespace.

use std::fs;

use super::error::HostError;

/// Path of an IPv4 setting of a device.
pub(super) fn ipv4(device: &str, name: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{device}/{name}")
}

/// Path of an IPv6 setting of a device.
pub(super) fn ipv6(device: &str, name: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{device}/{name}")
}

/// Writes a setting, unless it has the value already.
pub(super) fn write(path: &str, value: &'static str) -> Result<(), HostError> {
    if fs::read_to_string(path).is_ok_and(|current| current.trim() == value) {
        return Ok(());
    }
    fs::write(path, value).map_err(|source| HostError::Sysctl { path: path.to_owned(), value, source })
}

/// The setting by which some link other than `device` has a strict reverse path filter (RFC 3704), if any has.
///
/// Such a filter looks for the way back of ARP requests too, and for a host whose traffic is all led into the TUN device that is not the link.
pub(super) fn strict_filter(device: &str) -> Option<String> {
    let value =
        |link: &str| fs::read_to_string(ipv4(link, "rp_filter")).map(|text| text.trim().to_owned()).unwrap_or_default();
    let mut links = match value("all").as_str() {
        // The larger of the two counts.
        "2" => return None,
        "1" => return Some("net.ipv4.conf.all.rp_filter".to_owned()),
        _ => fs::read_dir("/proc/sys/net/ipv4/conf").ok()?,
    };
    links.find_map(|link| {
        let name = link.ok()?.file_name().into_string().ok()?;
        let counts = !["all", "default", "lo", device].contains(&name.as_str());
        (counts && value(&name) == "1").then(|| format!("net.ipv4.conf.{name}.rp_filter"))
    })
}

/// Whether the kernel has IPv6.
pub(super) fn has_ipv6() -> bool {
    fs::exists("/proc/sys/net/ipv6").unwrap_or(false)
}
