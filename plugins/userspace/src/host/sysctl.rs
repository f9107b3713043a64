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

/// Whether the kernel has IPv6.
pub(super) fn has_ipv6() -> bool {
    fs::exists("/proc/sys/net/ipv6").unwrap_or(false)
}
