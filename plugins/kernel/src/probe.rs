//! What a kernel and its devices carry, found out by trying: nothing else tells.
//!
//! A driver's feature flag says "some ESP offload". Which algorithms, modes, windows and policies, and whether the whole data path, is known when one
//! is installed and read back: an SA or policy that comes back without its device was taken by a kernel that ignores what it was asked (no
//! CONFIG_XFRM_OFFLOAD), or is carried in software after all. So each is tried once with addresses of no host, which match no packet, and taken
//! out again. How many entries a device holds cannot be found out without filling it, so no size is claimed.

use std::net::IpAddr;
use std::time::Duration;

use ipsec::{
    Capabilities, Direction, EspAlgorithm, KeyMaterial, LimitUnits, OffloadMode, ReplayWindows, Reqid, SaMode,
    SelectorSupport, Spi, Tags, UdpEncapsulation,
};
use offload_host::prefix::Prefix;
use offload_host::xfrm::{PolicyKey, PortMask, Verdict, Way};

use crate::netlink::esp::{EspSupport, NOWHERE_V4, every_algorithm};
use crate::xfrm::{DeviceOffload, KernelLimits, NewState, Policy, StateId, Template, Xfrm, XfrmError};

const SOURCE: IpAddr = NOWHERE_V4[0];
const DESTINATION: IpAddr = NOWHERE_V4[1];
/// Group of what is tried.
const REQID: Reqid = Reqid(0x4347_0000);
/// Windows that may be asked for. The kernel's own reach to 4096 packets.
const WINDOWS: [u32; 9] = [0, 32, 64, 128, 256, 512, 1_024, 2_048, LARGEST_WINDOW];
const LARGEST_WINDOW: u32 = 4_096;
/// Protocols that selectors may name: ICMP, TCP, UDP, GRE, ESP, ICMPv6, SCTP.
const PROTOCOLS: [u8; 7] = [1, 6, 17, 47, 50, 58, 132];
/// Any; the addresses are nobody's.
const SPI: Spi = match Spi::new(0x4347_0001) {
    Some(spi) => spi,
    None => panic!("256 or more"),
};
/// A priority that some driver refuses is none of these.
const PRIORITY: u32 = 1_000;

/// What the kernel does in software.
pub(crate) struct Software {
    pub(crate) capabilities: Capabilities,
    /// What it lacks for any SA; the capabilities are those that it would have.
    pub(crate) lacks: Option<String>,
}

/// What the kernel does in software: everything, but for algorithms that it was not built with.
pub(crate) fn software(xfrm: &mut dyn Xfrm) -> Software {
    let support = match EspSupport::ask(xfrm) {
        Ok(support) => support,
        Err(error) => {
            let lacks = Some(format!("this kernel does not say what it has of ESP: {error}"));
            return Software { capabilities: all(every_algorithm()), lacks };
        }
    };
    if support.is_none() {
        return Software { capabilities: all(every_algorithm()), lacks: support.lack() };
    }
    if let Some(lack) = support.lack() {
        tracing::warn!("{lack}");
    }
    Software { capabilities: all(support.algorithms()), lacks: None }
}

fn all(algorithms: Vec<EspAlgorithm>) -> Capabilities {
    Capabilities {
        algorithms,
        tunnel: true,
        transport: true,
        esn: true,
        replay_windows: ReplayWindows::Range(1, LARGEST_WINDOW),
        selectors: SelectorSupport::FULL,
        udp_encapsulation: true,
        limits: LimitUnits::ALL,
        sa_table: None,
        policy_table: None,
        all_policy_kinds: true,
        in_place_move: false,
        separate_activation: true,
        marks: true,
        interface_ids: true,
    }
}

/// What a link's device carries in `mode`, packet or crypto; nothing where it carries no SA.
pub(crate) fn device(xfrm: &mut dyn Xfrm, link: u32, mode: OffloadMode) -> Option<Capabilities> {
    let packet = mode == OffloadMode::Packet;
    let mut trials = Trials { xfrm, offload: Some(DeviceOffload { link, packet }) };
    // The policy first: it is what tells packet offload from everything else.
    if packet && !trials.takes_policy(|policy| policy) {
        return None;
    }
    let taken: Vec<EspAlgorithm> = every_algorithm()
        .into_iter()
        .filter(|algorithm| {
            let key = key(*algorithm);
            trials.takes(&NewState { algorithm: *algorithm, ..base(&key, Direction::Outbound) })
        })
        .collect();
    let first = *taken.first()?;
    let key = key(first);
    let outbound = NewState { algorithm: first, ..base(&key, Direction::Outbound) };
    let inbound = NewState { algorithm: first, ..base(&key, Direction::Inbound) };
    let windows: Vec<u32> = WINDOWS
        .into_iter()
        .filter(|window| trials.takes(&NewState { replay_window: *window, ..inbound.clone() }))
        .collect();
    let udp = UdpEncapsulation { local_port: 4500, remote_port: 4500 };
    let limited = |limits| NewState { limits, ..outbound.clone() };
    let bytes = KernelLimits { soft_bytes: Some(1 << 40), hard_bytes: Some(1 << 41), ..KernelLimits::default() };
    let packets = KernelLimits { soft_packets: Some(1 << 30), hard_packets: Some(1 << 31), ..KernelLimits::default() };
    let capabilities = Capabilities {
        transport: trials.takes(&NewState { mode: SaMode::Transport, ..outbound.clone() }),
        esn: trials.takes(&NewState { esn: true, ..outbound.clone() }),
        replay_windows: if windows == WINDOWS {
            ReplayWindows::Range(1, LARGEST_WINDOW)
        } else {
            ReplayWindows::Only(windows)
        },
        udp_encapsulation: trials.takes(&NewState { encapsulation: Some(udp), ..outbound.clone() }),
        limits: LimitUnits {
            // Driven by our clock.
            time: true,
            bytes: trials.takes(&limited(bytes)),
            packets: trials.takes(&limited(packets)),
        },
        // The kernel's transform is skipped in packet offload, and with it what it does about marks; nor does a device look at any.
        marks: !packet,
        interface_ids: !packet && trials.takes(&NewState { tags: Tags { if_id: 7, ..Tags::NONE }, ..inbound.clone() }),
        ..all(taken)
    };
    Some(if packet { trials.policies(capabilities) } else { capabilities })
}

struct Trials<'x> {
    xfrm: &'x mut dyn Xfrm,
    offload: Option<DeviceOffload>,
}

impl Trials<'_> {
    /// Whether an SA is taken and comes back as it was asked for.
    fn state(&mut self, state: &NewState<'_>) -> Result<bool, XfrmError> {
        let state = NewState { offload: self.offload, ..state.clone() };
        // What a trial that was cut short may have left.
        self.xfrm.delete_state(&state.id)?;
        self.xfrm.add_state(&state)?;
        let found = self.xfrm.state(&state.id);
        self.xfrm.delete_state(&state.id)?;
        Ok(found?.is_some_and(|found| found.offload == self.offload))
    }

    fn takes(&mut self, state: &NewState<'_>) -> bool {
        match self.state(state) {
            Ok(taken) => taken,
            Err(error) => {
                tracing::debug!(offload = ?self.offload, algorithm = %state.algorithm, %error, "a device does not take this");
                false
            }
        }
    }

    fn takes_policy(&mut self, change: impl FnOnce(Policy) -> Policy) -> bool {
        let key = PolicyKey::between(Way::Out, Prefix::host(SOURCE), Prefix::host(DESTINATION));
        let template = Template {
            source: SOURCE,
            destination: DESTINATION,
            spi: None,
            reqid: REQID,
            mode: SaMode::Tunnel,
            optional: false,
        };
        let policy = change(Policy {
            key,
            priority: PRIORITY,
            index: 0,
            verdict: Verdict::Allow,
            template: Some(template),
            device: self.offload.map(|offload| offload.link),
            per_cpu: false,
        });
        match self.policy(&policy) {
            Ok(taken) => taken,
            Err(error) => {
                tracing::debug!(offload = ?self.offload, policy = %policy.key, %error, "a device does not take this");
                false
            }
        }
    }

    fn policy(&mut self, policy: &Policy) -> Result<bool, XfrmError> {
        self.xfrm.put_policy(policy, false)?;
        let found = self.xfrm.policy(&policy.key);
        let index = found.as_ref().ok().and_then(|found| *found).map_or(0, |found| found.index);
        self.xfrm.delete_policy(&policy.key, index)?;
        Ok(found?.is_some_and(|found| found.device == policy.device))
    }

    fn policies(&mut self, capabilities: Capabilities) -> Capabilities {
        let naming =
            |protocol: u8| move |policy: Policy| Policy { key: PolicyKey { protocol, ..policy.key }, ..policy };
        let protocols: Vec<u8> =
            PROTOCOLS.into_iter().filter(|protocol| self.takes_policy(naming(*protocol))).collect();
        let port = PortMask { value: 7, mask: u16::MAX };
        let ports = protocols.contains(&17)
            && self.takes_policy(|policy| Policy {
                key: PolicyKey { protocol: 17, destination_port: port, ..policy.key },
                ..policy
            });
        let bypass = self.takes_policy(|policy| Policy { template: None, ..policy });
        let discard = self.takes_policy(|policy| Policy { template: None, verdict: Verdict::Block, ..policy });
        let inbound = self.takes_policy(|policy| Policy { key: PolicyKey { way: Way::In, ..policy.key }, ..policy });
        Capabilities {
            // Ranges are made of prefixes before they come to a device.
            selectors: SelectorSupport {
                ranges: true,
                ports,
                protocols: (protocols != PROTOCOLS).then_some(protocols),
            },
            all_policy_kinds: bypass && discard && inbound,
            ..capabilities
        }
    }
}

fn key(algorithm: EspAlgorithm) -> KeyMaterial {
    let integrity = algorithm.integrity.map(|integrity| vec![0x5a; integrity.keymat_octets()]);
    KeyMaterial::new(&vec![0x5a; algorithm.encryption.keymat_octets()], integrity.as_deref())
}

fn base(key: &KeyMaterial, direction: Direction) -> NewState<'_> {
    let id = StateId { destination: DESTINATION, spi: SPI, mark: None };
    // A trial that is cut short does not stay.
    let limits = KernelLimits { hard_time: Some(Duration::from_secs(60)), ..KernelLimits::default() };
    NewState { limits, ..NewState::plain(id, SOURCE, direction, REQID, EspAlgorithm::AES_256_GCM, key) }
}
