//! The ethtool feature `esp-hw-offload`: whether a link's driver does some ESP. It does not say whether the whole data path: only trying does.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETH_SS_FEATURES: u32 = 4;
const NAME: &[u8] = b"esp-hw-offload";
const NAME_LENGTH: usize = 32;
/// More features than any kernel has.
const MOST: u32 = 1024;

/// Whether the feature is on for the link called `name`, in the network namespace of the calling thread.
///
/// # Errors
/// The system's words; a link without ethtool answers `EOPNOTSUPP`.
pub fn has_esp_offload(name: &str) -> io::Result<bool> {
    let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::1]:0"))?;
    let count = count(&socket, name)?;
    let Some(bit) = position(&names(&socket, name, count)?) else { return Ok(false) };
    features(&socket, name, count, bit)
}

/// `struct ethtool_sset_info` with room for one count.
fn count(socket: &UdpSocket, name: &str) -> io::Result<u32> {
    let mut octets = [0; 24];
    put(&mut octets, 0, ETHTOOL_GSSET_INFO);
    octets.get_mut(8..16).into_iter().for_each(|mask| mask.copy_from_slice(&(1_u64 << ETH_SS_FEATURES).to_ne_bytes()));
    ask(socket, name, &mut octets)?;
    Ok(at(&octets, 16).unwrap_or(0).min(MOST))
}

/// `struct ethtool_gstrings`: all names, 32 octets each.
fn names(socket: &UdpSocket, name: &str, count: u32) -> io::Result<Vec<u8>> {
    let mut octets = vec![0; 12 + count as usize * NAME_LENGTH];
    put(&mut octets, 0, ETHTOOL_GSTRINGS);
    put(&mut octets, 4, ETH_SS_FEATURES);
    put(&mut octets, 8, count);
    ask(socket, name, &mut octets)?;
    Ok(octets.split_off(12))
}

fn position(names: &[u8]) -> Option<u32> {
    let at = names.chunks(NAME_LENGTH).position(|name| name.starts_with(NAME) && name.get(NAME.len()) == Some(&0))?;
    u32::try_from(at).ok()
}

/// `struct ethtool_gfeatures`: four words for each 32 features, the third of which says what is on.
fn features(socket: &UdpSocket, name: &str, count: u32, bit: u32) -> io::Result<bool> {
    let blocks = count.div_ceil(32);
    let mut octets = vec![0; 8 + blocks as usize * 16];
    put(&mut octets, 0, ETHTOOL_GFEATURES);
    put(&mut octets, 4, blocks);
    ask(socket, name, &mut octets)?;
    let active = at(&octets, 8 + (bit / 32) as usize * 16 + 8).unwrap_or(0);
    Ok(active & (1 << (bit % 32)) != 0)
}

fn ask(socket: &UdpSocket, name: &str, octets: &mut [u8]) -> io::Result<()> {
    let mut ifr_name = [0; libc::IFNAMSIZ];
    if name.len() >= ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (slot, octet) in ifr_name.iter_mut().zip(name.as_bytes()) {
        *slot = libc::c_char::from_ne_bytes([*octet]);
    }
    let data = octets.as_mut_ptr().cast();
    let mut request = libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: data } };
    #[allow(unsafe_code)] // no safe interface to this ioctl
    // SAFETY: SIOCETHTOOL reads the request and reads and writes what it points to: `octets`, which holds the structure of the command in
    // its first word with room for as many entries as its count says; both outlive the call, and the descriptor is open.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn put(octets: &mut [u8], at: usize, word: u32) {
    octets.get_mut(at..at + 4).into_iter().for_each(|slot| slot.copy_from_slice(&word.to_ne_bytes()));
}

fn at(octets: &[u8], at: usize) -> Option<u32> {
    octets.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_feature_is_found_by_its_whole_name() {
        let mut names = vec![0; 4 * NAME_LENGTH];
        names[NAME_LENGTH..][..NAME.len() + 3].copy_from_slice(b"esp-hw-offload-gs");
        names[2 * NAME_LENGTH..][..NAME.len()].copy_from_slice(NAME);
        assert_eq!(position(&names), Some(2));
        assert_eq!(position(&names[..2 * NAME_LENGTH]), None);
    }

    #[test]
    fn loopback_has_no_offload_and_nothing_has_no_answer() {
        assert!(has_esp_offload("no-such-link").is_err());
        assert!(!has_esp_offload("lo").unwrap_or(false));
    }
}
