//! What this kernel's own ESP consists of, found out by asking: no version and no file tells it.
//!
//! Each transform is tried in each family with one throw-away state: random key and SPI, a destination that is on no wire, so no packet finds it. It is
//! taken out at once, and would go by itself after a minute. What is tried loads the kernel modules that it needs, so afterwards they are there.
//! The whole costs two requests for each transform and family (some 50 of them, a few milliseconds; loading modules comes on top), and whoever
//! listens to the kernel's states hears of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipsec::{Direction, EspAlgorithm, EspEncryption, KeyMaterial, Reqid, Spi};
use offload_host::{Family, HostError};
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

use crate::xfrm::{KernelLimits, NewState, StateId, Xfrm, XfrmError};

/// Two addresses of no host, in the reserved block of IPv4 (RFC 1112 §4).
pub const NOWHERE_V4: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(240, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(240, 0, 0, 2))];
/// Two addresses of no host, in the discard prefix of IPv6 (RFC 6666).
pub const NOWHERE_V6: [IpAddr; 2] =
    [IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1)), IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 2))];
/// Group of throw-away states; no policy has it.
const REQID: Reqid = Reqid(0x4347_0000);
/// How often another SPI is chosen when somebody has the one tried.
const SPI_TRIES: usize = 4;

/// The kernel's ESP in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// None.
    Absent,
    /// There, as far as its transforms are.
    Present {
        /// What an SA can be made of.
        algorithms: Vec<EspAlgorithm>,
        /// What the kernel was built without, or has no module for.
        missing: Vec<EspAlgorithm>,
    },
}

/// The kernel's ESP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspSupport {
    /// Outer IPv4.
    pub v4: Support,
    /// Outer IPv6.
    pub v6: Support,
}

/// Every transform there is, best first.
pub fn every_algorithm() -> Vec<EspAlgorithm> {
    let aead = [(20, Some(256)), (28, None), (20, Some(192)), (20, Some(128))];
    let aead = aead.into_iter().filter_map(|(id, bits)| EspAlgorithm::from_ids(id, bits, None));
    let cbc = [256, 192, 128].into_iter().flat_map(|bits| [12, 13, 14].map(|integrity| (bits, integrity)));
    aead.chain(cbc.filter_map(|(bits, integrity)| EspAlgorithm::from_ids(12, Some(bits), Some(integrity)))).collect()
}

impl EspSupport {
    /// Asks the kernel.
    ///
    /// # Errors
    /// Other refusals than that something is missing: no right, no memory.
    pub fn ask(xfrm: &mut dyn Xfrm) -> Result<Self, XfrmError> {
        Ok(Self { v4: family(xfrm, NOWHERE_V4)?, v6: family(xfrm, NOWHERE_V6)? })
    }

    /// The kernel's ESP in a family.
    pub const fn of(&self, family: Family) -> &Support {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// Transforms that work in every family that has ESP.
    pub fn algorithms(&self) -> Vec<EspAlgorithm> {
        let present = || [&self.v4, &self.v6].into_iter().filter_map(Support::algorithms);
        let everywhere = |algorithm: &EspAlgorithm| present().all(|algorithms| algorithms.contains(algorithm));
        present().next().into_iter().flatten().copied().filter(everywhere).collect()
    }

    /// Whether no SA at all can be installed.
    pub fn is_none(&self) -> bool {
        self.algorithms().is_empty()
    }

    /// One sentence on what keeps SAs from being installed in one family or both, if anything does.
    pub fn lack(&self) -> Option<String> {
        let absent: Vec<Family> =
            Family::ALL.into_iter().filter(|family| *self.of(*family) == Support::Absent).collect();
        match absent.as_slice() {
            [] if self.is_none() => Some(sentence(&format!("takes no transform of ESP ({})", Needs::all()))),
            [] => None,
            [family] => Some(absent_in(*family)),
            _ => Some(sentence(&format!("has no ESP ({}; {})", needs(Family::V4), needs(Family::V6)))),
        }
    }
}

/// One sentence on a kernel without ESP in a family.
pub fn absent_in(family: Family) -> String {
    let name = match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    sentence(&format!("has no ESP for {name} ({})", needs(family)))
}

fn sentence(lack: &str) -> String {
    format!("this kernel {lack}; backend.kind = \"userspace\" works without it")
}

impl Support {
    fn algorithms(&self) -> Option<&[EspAlgorithm]> {
        match self {
            Self::Absent => None,
            Self::Present { algorithms, .. } => Some(algorithms),
        }
    }
}

/// What ESP in a family is built with.
const fn needs(family: Family) -> &'static str {
    match family {
        Family::V4 => "option CONFIG_INET_ESP, module esp4",
        Family::V6 => "option CONFIG_INET6_ESP, module esp6",
    }
}

/// What a transform is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs(&'static str);

impl Needs {
    /// Of one transform.
    pub const fn of(algorithm: EspAlgorithm) -> Self {
        match algorithm.encryption {
            EspEncryption::AesGcm16(_) => {
                Self("AES-GCM: options CONFIG_CRYPTO_GCM and CONFIG_CRYPTO_SEQIV, modules gcm and seqiv")
            }
            EspEncryption::ChaCha20Poly1305 => {
                Self("ChaCha20-Poly1305: option CONFIG_CRYPTO_CHACHA20POLY1305, module chacha20poly1305")
            }
            EspEncryption::AesCbc(_) => Self(
                "AES-CBC with HMAC: options CONFIG_CRYPTO_AUTHENC and CONFIG_CRYPTO_ECHAINIV, modules authenc and echainiv",
            ),
        }
    }

    fn all() -> String {
        let kinds = [EspEncryption::AesGcm16(128), EspEncryption::ChaCha20Poly1305, EspEncryption::AesCbc(128)];
        let each = kinds.map(|encryption| Self::of(EspAlgorithm { encryption, integrity: None }).0);
        each.join("; ")
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// What came of one trial.
enum Trial {
    Taken,
    NoTransform,
    NoEsp,
}

fn family(xfrm: &mut dyn Xfrm, ends: [IpAddr; 2]) -> Result<Support, XfrmError> {
    let (mut algorithms, mut missing) = (Vec::new(), Vec::new());
    for algorithm in every_algorithm() {
        match trial(xfrm, ends, algorithm)? {
            Trial::Taken => algorithms.push(algorithm),
            Trial::NoTransform => missing.push(algorithm),
            // A missing transform is told before missing ESP, so this is told by the first transform that is there.
            Trial::NoEsp => return Ok(Support::Absent),
        }
    }
    Ok(Support::Present { algorithms, missing })
}

fn trial(xfrm: &mut dyn Xfrm, ends: [IpAddr; 2], algorithm: EspAlgorithm) -> Result<Trial, XfrmError> {
    let key = random_key(algorithm)?;
    for _ in 0..SPI_TRIES {
        let state = throw_away(ends, algorithm, &key)?;
        match xfrm.add_state(&state) {
            Ok(()) => {
                xfrm.delete_state(&state.id)?;
                return Ok(Trial::Taken);
            }
            Err(XfrmError::Refused(refusal)) => match refusal.errno {
                libc::EEXIST => {}
                libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT => return Ok(Trial::NoEsp),
                // Not registered, or not to be made of what is.
                libc::ENOSYS | libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP => return Ok(Trial::NoTransform),
                _ => return Err(XfrmError::Refused(refusal)),
            },
            Err(error) => return Err(error),
        }
    }
    Ok(Trial::NoTransform)
}

/// A state that no packet finds. It is inbound: no policy looks for those.
fn throw_away(ends: [IpAddr; 2], algorithm: EspAlgorithm, key: &KeyMaterial) -> Result<NewState<'_>, XfrmError> {
    let [source, destination] = ends;
    let id = StateId { destination, spi: random_spi()?, mark: None };
    let limits = KernelLimits { hard_time: Some(Duration::from_secs(60)), ..KernelLimits::default() };
    Ok(NewState { limits, ..NewState::plain(id, source, Direction::Inbound, REQID, algorithm, key) })
}

fn random_spi() -> Result<Spi, XfrmError> {
    let octets = random(4)?;
    let number = octets.first_chunk().copied().map_or(0, u32::from_ne_bytes);
    Spi::new(number | 0x8000_0000).ok_or(XfrmError::Ignored("the SPI"))
}

fn random_key(algorithm: EspAlgorithm) -> Result<KeyMaterial, XfrmError> {
    let encryption = random(algorithm.encryption.keymat_octets())?;
    let integrity = algorithm.integrity.map(|integrity| random(integrity.keymat_octets())).transpose()?;
    Ok(KeyMaterial::new(&encryption, integrity.as_ref().map(|key| key.as_slice())))
}

fn random(octets: usize) -> Result<Zeroizing<Vec<u8>>, XfrmError> {
    let mut out = Zeroizing::new(vec![0; octets]);
    // Up to 256 octets come in one piece.
    match getrandom(&mut **out, GetRandomFlags::empty()) {
        Ok(_) => Ok(out),
        Err(error) => Err(XfrmError::Socket(HostError::Netlink { family: "xfrm", source: error.into() })),
    }
}

#[cfg(test)]
mod tests {
    use offload_host::KernelError;
    use offload_host::xfrm::PolicyKey;

    use super::*;
    use crate::xfrm::{Policy, State};

    /// A kernel that refuses transforms by `answer`: an errno, or 0.
    struct Kernel<F: Fn(&NewState<'_>) -> i32 + Send> {
        answer: F,
        states: Vec<StateId>,
    }

    impl<F: Fn(&NewState<'_>) -> i32 + Send> Xfrm for Kernel<F> {
        fn add_state(&mut self, state: &NewState<'_>) -> Result<(), XfrmError> {
            match (self.answer)(state) {
                0 => {
                    self.states.push(state.id);
                    Ok(())
                }
                errno => Err(XfrmError::Refused(KernelError { errno, text: None })),
            }
        }
        fn delete_state(&mut self, id: &StateId) -> Result<bool, XfrmError> {
            let before = self.states.len();
            self.states.retain(|state| state != id);
            Ok(self.states.len() < before)
        }
        fn state(&mut self, _: &StateId) -> Result<Option<State>, XfrmError> {
            Ok(None)
        }
        fn states(&mut self) -> Result<Vec<State>, XfrmError> {
            Ok(Vec::new())
        }
        fn put_policy(&mut self, _: &Policy, _: bool) -> Result<(), XfrmError> {
            Ok(())
        }
        fn delete_policy(&mut self, _: &PolicyKey, _: u32) -> Result<bool, XfrmError> {
            Ok(false)
        }
        fn policy(&mut self, _: &PolicyKey) -> Result<Option<Policy>, XfrmError> {
            Ok(None)
        }
        fn policies(&mut self) -> Result<Vec<Policy>, XfrmError> {
            Ok(Vec::new())
        }
    }

    fn asked(answer: impl Fn(&NewState<'_>) -> i32 + Send) -> EspSupport {
        let mut kernel = Kernel { answer, states: Vec::new() };
        let support = EspSupport::ask(&mut kernel).unwrap();
        assert_eq!(kernel.states, [], "what was tried is gone");
        support
    }

    #[test]
    fn a_kernel_with_everything_lacks_nothing() {
        let support = asked(|state| {
            assert!(state.key.fits(state.algorithm));
            0
        });
        assert_eq!(support.lack(), None);
        assert_eq!(support.algorithms(), every_algorithm());
        assert_eq!(every_algorithm().len(), 13);
    }

    #[test]
    fn what_is_missing_is_said_in_one_sentence() {
        let no_esp =
            asked(|state| if state.algorithm.integrity.is_none() { libc::ENOSYS } else { libc::EPROTONOSUPPORT });
        let v4_only = asked(|state| if state.source.is_ipv4() { 0 } else { libc::EAFNOSUPPORT });
        let no_transform = asked(|_| libc::ENOSYS);
        let cases = [
            (&no_esp, &["no ESP (", "CONFIG_INET_ESP", "esp4", "CONFIG_INET6_ESP", "esp6"][..]),
            (&v4_only, &["no ESP for IPv6", "CONFIG_INET6_ESP"]),
            (&no_transform, &["no transform", "CONFIG_CRYPTO_GCM", "chacha20poly1305", "authenc"]),
        ];
        for (support, parts) in cases {
            let words = support.lack().unwrap();
            for part in parts.iter().chain(&["backend.kind = \"userspace\" works without it"]) {
                assert!(words.contains(part), "{words}");
            }
        }
        assert_eq!(v4_only.algorithms(), every_algorithm());
    }

    #[test]
    fn a_missing_cipher_costs_only_its_transforms() {
        let support = asked(|state| if state.algorithm.integrity.is_some() { libc::ENOENT } else { 0 });
        assert_eq!(support.lack(), None);
        assert_eq!(support.algorithms().len(), 4);
        let Support::Present { missing, .. } = &support.v6 else { panic!("ESP is there") };
        assert_eq!(missing.len(), 9);
        assert!(missing.iter().all(|algorithm| Needs::of(*algorithm).to_string().contains("authenc")));
    }

    #[test]
    fn other_refusals_are_no_answer() {
        let mut kernel = Kernel { answer: |_| libc::EPERM, states: Vec::new() };
        assert!(EspSupport::ask(&mut kernel).is_err());
    }
}
