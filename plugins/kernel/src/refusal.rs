//! The kernel's refusals in the words of the contract.

use std::sync::Arc;

use ipsec::{OffloadError, OffloadMode};
use offload_host::Family;

use crate::netlink::esp::absent_in;
use crate::xfrm::XfrmError;

/// What was asked of the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Name of the device.
    pub(crate) device: Arc<str>,
    /// For example `an SA with aes256gcm16`.
    pub(crate) what: String,
    /// `SAD` or `SPD`.
    pub(crate) table: &'static str,
    /// Entries of ours that the rung holds: all that is known of its size when it says that it is full.
    pub(crate) held: u32,
    /// The rung.
    pub(crate) rung: OffloadMode,
    /// IPv4 outside.
    pub(crate) v4: bool,
}

/// Words by which drivers say that a table is full; not all of them say ENOSPC.
const FULL: [&str; 6] = ["full", "no space", "no room", "too many", "exhausted", "out of entries"];

impl Asked {
    /// Why it was refused.
    pub(crate) fn refused(self, error: XfrmError) -> OffloadError {
        let refusal = match error {
            XfrmError::Refused(refusal) => refusal,
            XfrmError::Socket(error) => return error.into(),
            XfrmError::Ignored(what) => return self.unsupported(format!("the kernel ignored {what}")),
        };
        let offloaded = self.rung != OffloadMode::No;
        let text = refusal.text.as_deref().unwrap_or_default().to_lowercase();
        let full = offloaded && FULL.iter().any(|word| text.contains(word));
        match refusal.errno {
            libc::ENOSPC | libc::EDQUOT => self.full(),
            _ if full => self.full(),
            libc::EEXIST => OffloadError::Exists(format!("{} in the kernel, by somebody else,", self.what)),
            libc::EPROTONOSUPPORT if self.table == "SAD" => {
                let reason = absent_in(if self.v4 { Family::V4 } else { Family::V6 });
                self.unsupported(reason)
            }
            libc::ENODEV | libc::ENETDOWN if offloaded => OffloadError::Unavailable(self.device),
            libc::EINVAL | libc::EBUSY if offloaded => self.unsupported(refusal.to_string()),
            libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOENT => self.unsupported(refusal.to_string()),
            _ => OffloadError::System { action: format!("add {}", self.what), reason: refusal.to_string() },
        }
    }

    /// The kernel took it, and not as it was asked to.
    pub(crate) fn unsupported(self, reason: String) -> OffloadError {
        OffloadError::Unsupported { device: self.device, what: self.what, reason }
    }

    fn full(self) -> OffloadError {
        OffloadError::Full { device: self.device, table: self.table, size: self.held }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offload_host::KernelError;

    fn refused(rung: OffloadMode, errno: i32, text: &str) -> OffloadError {
        let text = (!text.is_empty()).then(|| text.to_owned());
        asked(rung).refused(XfrmError::Refused(KernelError { errno, text }))
    }

    fn asked(rung: OffloadMode) -> Asked {
        Asked { device: "eth0".into(), what: "an SA with aes256gcm16".into(), table: "SAD", held: 3, rung, v4: true }
    }

    #[test]
    fn refusals_say_what_another_rung_may_do_better() {
        use OffloadMode::{No, Packet};
        let full = |error: OffloadError| matches!(error, OffloadError::Full { size: 3, table: "SAD", .. });
        assert!(full(refused(Packet, libc::ENOSPC, "")));
        assert!(full(refused(Packet, libc::EINVAL, "Device: SA table is full")));
        assert!(!full(refused(No, libc::EINVAL, "the moon is full")));
        let OffloadError::Unsupported { reason, .. } = refused(Packet, libc::EINVAL, "Cannot offload ESN") else {
            panic!("not a refusal")
        };
        assert!(reason.contains("Cannot offload ESN"), "{reason}");
        assert!(matches!(refused(No, libc::EINVAL, ""), OffloadError::System { .. }));
        assert!(matches!(refused(Packet, libc::ENODEV, ""), OffloadError::Unavailable(_)));
        assert!(matches!(refused(No, libc::EEXIST, ""), OffloadError::Exists(_)));
        assert!(asked(Packet).refused(XfrmError::Ignored("the device")).is_refusal());
    }

    #[test]
    fn a_kernel_without_esp_is_told_in_one_sentence() {
        let words = refused(OffloadMode::No, libc::EPROTONOSUPPORT, "Requested type not found").to_string();
        for part in ["CONFIG_INET_ESP", "module esp4", "backend.kind = \"userspace\""] {
            assert!(words.contains(part), "{words}");
        }
    }
}
