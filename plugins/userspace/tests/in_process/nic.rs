//! A simulated NIC: what it refuses and in which words, how full it gets, what becomes of it and of what it holds.

use std::net::IpAddr;
use std::sync::Arc;

use ipsec::conformance::{Wire, udp_v4};
use ipsec::fault::{Fault, Refusal, Refuse, Simulate, Step, Target, Tell, Told};
use ipsec::{
    AddressRange, Answer, Applied, DeviceId, DeviceState, Direction, EspAlgorithm, EspEncryption, EspIntegrity, Event,
    Installed, KeyMaterial, LimitUnit, Limits, OffloadError, OffloadMode, Op, PolicySpec, PortRange, Reqid, Request,
    SaHandle, SaMode, SaSpec, SaStatus, Scope, TrafficSelector, UdpEncapsulation, Volume,
};
use offload_userspace::NoMachine;
use offload_userspace::nic::{NicLimits, Preset, Simulation};

use crate::subject::InProcess;

fn nic(limits: NicLimits) -> InProcess {
    InProcess::posing(Some(Simulation { limits, each_link: false }), NoMachine::default())
}

fn mlx5() -> NicLimits {
    NicLimits { crypto: Some(true), ..NicLimits::like(Preset::Mlx5) }
}

/// Operations of [`InProcess::tunnel`] with this offload.
fn tunnel(subject: &InProcess, offload: OffloadMode) -> (Vec<Op>, SaSpec) {
    let (mut ops, mut sa) = subject.tunnel();
    for op in &mut ops {
        if let Op::InstallSa(spec) = op {
            (spec.offload, spec.replay_window) = (offload, 64);
        } else if let Op::InstallPolicy(spec) = op {
            spec.offload = offload;
        }
    }
    (sa.offload, sa.replay_window) = (offload, 64);
    (ops, sa)
}

fn apply(subject: &InProcess, ops: Vec<Op>) -> Result<Answer, OffloadError> {
    subject.backend.control.execute(&Request::Apply(ops))
}

fn installed(subject: &InProcess) -> Installed {
    match subject.backend.control.execute(&Request::List(Scope::All)) {
        Ok(Answer::Installed(all)) => all,
        other => panic!("a list was answered with {other:?}"),
    }
}

fn modes(subject: &InProcess) -> Vec<(OffloadMode, Option<Arc<str>>, bool)> {
    installed(subject).sas.into_iter().map(|sa| (sa.mode.mode, sa.mode.device, sa.mode.simulated)).collect()
}

fn order(subject: &InProcess, fault: Fault) -> Result<u32, String> {
    subject.backend.control.simulate(&Simulate { fault, target: Target::default() })
}

fn in_use(subject: &InProcess) -> Option<DeviceId> {
    subject.backend.control.device_for(IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]))
}

fn packet() -> Vec<u8> {
    udp_v4([10, 1, 0, 1].into(), [10, 2, 0, 1].into(), (40_000, 9), 3, false)
}

/// Each limit, in the words that end in logs and answers.
#[test]
fn what_goes_beyond_a_limit_is_refused_by_name() {
    type Change = fn(&mut SaSpec);
    let sas: [(&str, Change, OffloadMode, &str); 8] = [
        (
            "cipher",
            |sa| {
                sa.algorithm = EspAlgorithm {
                    encryption: EspEncryption::AesCbc(128),
                    integrity: Some(EspIntegrity::HmacSha2_256_128),
                };
                sa.key = KeyMaterial::new(&[1; 16], Some(&[2; 32]));
            },
            OffloadMode::Packet,
            "an SA with aes128-sha256: its packet offload takes aes256gcm16, aes128gcm16 only",
        ),
        (
            "sequence numbers",
            |sa| sa.esn = true,
            OffloadMode::Packet,
            "an SA with extended sequence numbers: its packet offload counts 32-bit sequence numbers only",
        ),
        (
            "window",
            |sa| sa.replay_window = 1024,
            OffloadMode::Packet,
            "a replay window of 1024: its packet offload has windows of 32, 64, 128, 256 packets only",
        ),
        (
            "no window",
            |sa| sa.replay_window = 0,
            OffloadMode::Packet,
            "a replay window of 0: its packet offload has windows of 32, 64, 128, 256 packets only",
        ),
        (
            "encapsulation",
            |sa| sa.encapsulation = Some(UdpEncapsulation { local_port: 4500, remote_port: 4500 }),
            OffloadMode::Packet,
            "ESP in UDP: its packet offload takes ESP without UDP only, and there is NAT on the way or `encap = yes`",
        ),
        (
            "encapsulation of crypto offload",
            |sa| sa.encapsulation = Some(UdpEncapsulation { local_port: 4500, remote_port: 4500 }),
            OffloadMode::Crypto,
            "ESP in UDP: its crypto offload takes ESP without UDP only, and there is NAT on the way or `encap = yes`",
        ),
        (
            "reqid",
            |sa| sa.reqid = Reqid(0),
            OffloadMode::Packet,
            "an SA without reqid: its packet offload finds the SAs of a policy by it",
        ),
        ("mode", |sa| sa.mode = SaMode::Transport, OffloadMode::Packet, "transport mode: its packet offload has none"),
    ];
    for (name, change, offload, words) in sas {
        let subject = nic(NicLimits { esn: Some(false), transport: Some(false), ..mlx5() });
        let (ops, _) = tunnel(&subject, offload);
        let mut inbound =
            ops.iter().find_map(|op| if let Op::InstallSa(sa) = op { Some(sa.clone()) } else { None }).unwrap();
        change(&mut inbound);
        if inbound.mode == SaMode::Transport {
            let host = |address| TrafficSelector::all(AddressRange::host(address));
            let pair = ipsec::SelectorPair { local: host(inbound.outer.local), remote: host(inbound.outer.remote) };
            inbound.selectors = Arc::new([pair]);
        }
        let error = apply(&subject, vec![Op::InstallSa(inbound.clone())]).unwrap_err();
        assert!(matches!(error, OffloadError::Unsupported { .. }), "{name}: {error:?}");
        assert_eq!(error.to_string(), format!("device cygnet0 (simulated) cannot carry {words}"), "{name}");
        assert_eq!(installed(&subject), Installed::default(), "{name}");
        // The datapath itself carries all of it.
        inbound.offload = OffloadMode::No;
        apply(&subject, vec![Op::InstallSa(inbound)]).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn policies_beyond_a_limit_are_refused_by_name() {
    type Change = fn(&mut PolicySpec);
    let cases: [(&str, Change, &str); 4] = [
        (
            "protocol",
            |p| p.selectors.remote.protocol = 47,
            "its packet offload cannot match protocol 47; besides any it matches 6, 17",
        ),
        (
            "ports",
            |p| {
                p.selectors.remote.protocol = 17;
                p.selectors.remote.ports = PortRange { start: 53, end: 53 };
            },
            "its packet offload matches no ports",
        ),
        (
            "range",
            |p| {
                let range = AddressRange::new(IpAddr::from([10, 2, 0, 1]), IpAddr::from([10, 2, 0, 6])).unwrap();
                p.selectors.remote = TrafficSelector::all(range);
            },
            "its packet offload takes prefixes and no address ranges",
        ),
        ("kind", |p| p.action = ipsec::PolicyAction::Bypass, "its packet offload takes protecting policies only"),
    ];
    for (name, change, reason) in cases {
        let subject = nic(NicLimits { ports: Some(false), shunts: Some(false), ..mlx5() });
        let (ops, _) = tunnel(&subject, OffloadMode::Packet);
        let policy = ops.iter().find_map(|op| if let Op::InstallPolicy(p) = op { Some(p.clone()) } else { None });
        let mut policy = policy.unwrap();
        change(&mut policy);
        let error = apply(&subject, vec![Op::InstallPolicy(policy.clone())]).unwrap_err();
        assert!(matches!(error, OffloadError::Unsupported { .. }), "{name}: {error:?}");
        assert!(error.to_string().ends_with(reason), "{name}: {error}");
        // With crypto offload and without any, policies are the host's business.
        for (count, offload) in [(1, OffloadMode::Crypto), (2, OffloadMode::No)] {
            let handle = ipsec::PolicyHandle::new(ipsec::Shard(0), 50 + count);
            let policy = PolicySpec { offload, handle, ..policy.clone() };
            apply(&subject, vec![Op::InstallPolicy(policy)]).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert!(installed(&subject).policies.iter().all(|policy| policy.mode.mode == OffloadMode::No));
    }
}

/// The mode is what holds the SA, and packets flow on every rung.
#[test]
fn packets_flow_on_every_rung() {
    for (offload, device) in [(OffloadMode::Packet, true), (OffloadMode::Crypto, true), (OffloadMode::No, false)] {
        let mut subject = nic(mlx5());
        let (ops, _) = tunnel(&subject, offload);
        apply(&subject, ops).unwrap();
        let expected = (offload, device.then(|| "cygnet0".into()), device);
        assert_eq!(modes(&subject), [expected.clone(), expected]);
        assert_eq!(subject.seal(&[packet()]).len(), 1);
    }
    let subject = nic(NicLimits::default());
    let (ops, _) = tunnel(&subject, OffloadMode::Crypto);
    let error = apply(&subject, ops).unwrap_err().to_string();
    assert_eq!(error, "device cygnet0 (simulated) cannot carry crypto offload: it does packet offload, or nothing");
}

/// Each rung has tables of its own; the software's has no bound here.
#[test]
fn a_full_table_refuses_and_a_removal_makes_room() {
    let subject = nic(NicLimits { sa_table: Some(2), policy_table: Some(1), crypto_sa_table: Some(1), ..mlx5() });
    let (ops, outbound) = tunnel(&subject, OffloadMode::Packet);
    let policy = ops.iter().find_map(|op| if let Op::InstallPolicy(p) = op { Some(p.clone()) } else { None }).unwrap();
    apply(&subject, ops).unwrap();
    let another = |count: u64, offload| SaSpec {
        handle: SaHandle::new(ipsec::Shard(0), 100 + count),
        spi: ipsec::Spi::new(4_000 + count as u32).unwrap(),
        offload,
        ..outbound.clone()
    };
    let third = another(1, OffloadMode::Packet);
    let full = |table, size| OffloadError::Full { device: "cygnet0 (simulated)".into(), table, size };
    assert_eq!(apply(&subject, vec![Op::InstallSa(Box::new(third.clone()))]), Err(full("SAD", 2)));
    let second = PolicySpec { handle: ipsec::PolicyHandle::new(ipsec::Shard(0), 9), ..policy.clone() };
    assert_eq!(apply(&subject, vec![Op::InstallPolicy(second.clone())]), Err(full("SPD", 1)));
    // In its own place there is room, and so is in the other rungs.
    apply(&subject, vec![Op::UpdatePolicy(policy)]).unwrap();
    apply(&subject, vec![Op::InstallPolicy(PolicySpec { offload: OffloadMode::No, ..second })]).unwrap();
    apply(&subject, vec![Op::InstallSa(Box::new(another(2, OffloadMode::Crypto)))]).unwrap();
    assert_eq!(apply(&subject, vec![Op::InstallSa(Box::new(another(3, OffloadMode::Crypto)))]), Err(full("SAD", 1)));
    for count in 10..20 {
        apply(&subject, vec![Op::InstallSa(Box::new(another(count, OffloadMode::No)))]).unwrap();
    }
    // What a refused request took out is counted again; what is removed for good makes room.
    let swap = vec![
        Op::RemoveSa(outbound.handle),
        Op::InstallSa(Box::new(third.clone())),
        Op::InstallSa(Box::new(another(4, OffloadMode::Packet))),
    ];
    assert_eq!(apply(&subject, swap), Err(full("SAD", 2)));
    assert_eq!(apply(&subject, vec![Op::InstallSa(Box::new(third.clone()))]), Err(full("SAD", 2)));
    apply(&subject, vec![Op::RemoveSa(outbound.handle), Op::InstallSa(Box::new(third))]).unwrap();
}

/// A policy in the device finds no SA in software, nor the other way round.
#[test]
fn policy_and_sa_are_in_one_place() {
    for (policy_in, sa_in) in [(OffloadMode::Packet, OffloadMode::No), (OffloadMode::No, OffloadMode::Packet)] {
        let subject = nic(mlx5());
        let (mut ops, _) = tunnel(&subject, sa_in);
        for op in &mut ops {
            if let Op::InstallPolicy(policy) = op {
                policy.offload = policy_in;
            }
        }
        let error = apply(&subject, ops).unwrap_err();
        assert!(matches!(&error, OffloadError::Invalid(text) if text.contains("finds no such SA")), "{error:?}");
        assert_eq!(installed(&subject), Installed::default());
    }
    let subject = nic(mlx5());
    let (mut ops, _) = tunnel(&subject, OffloadMode::Crypto);
    for op in &mut ops {
        if let Op::InstallPolicy(policy) = op {
            policy.offload = OffloadMode::No;
        }
    }
    apply(&subject, ops).unwrap();
}

#[test]
fn an_sa_that_cannot_move_stays_where_it_is() {
    let subject = nic(mlx5());
    let (ops, outbound) = tunnel(&subject, OffloadMode::Packet);
    apply(&subject, ops).unwrap();
    let there = ipsec::OuterAddresses { remote: IpAddr::from([192, 0, 2, 9]), ..outbound.outer };
    let update = |outer| Op::UpdateSa { sa: outbound.handle, outer, encapsulation: None };
    assert_eq!(apply(&subject, vec![update(outbound.outer)]), Ok(Answer::Applied(Applied::default())));
    let error = apply(&subject, vec![update(there)]).unwrap_err();
    assert!(error.to_string().ends_with("its packet offload keeps an SA as it was installed"), "{error}");
}

/// Units that the device does not count are left to whoever asks for its counters.
#[test]
fn a_limit_of_another_unit_is_not_raised_by_the_device() {
    for (offload, told) in [(OffloadMode::Packet, 0), (OffloadMode::Crypto, 2)] {
        let mut subject = nic(mlx5());
        let (mut ops, sa) = tunnel(&subject, offload);
        let volume = |bytes| Volume { bytes: Some(bytes), ..Volume::default() };
        for op in &mut ops {
            if let Op::InstallSa(spec) = op
                && spec.direction == Direction::Outbound
            {
                spec.limits = Limits { soft: volume(40), hard: volume(90) };
            }
        }
        apply(&subject, ops).unwrap();
        let sent = subject.seal(&vec![packet(); 10]).len();
        let of_sa = |event: &&Event| matches!(event, Event::SoftExpire { sa: of, .. } | Event::HardExpire { sa: of, .. } if *of == sa.handle);
        assert_eq!(subject.log.events().iter().filter(of_sa).count(), told, "{offload:?}");
        assert_eq!(sent == 10, told == 0, "{offload:?}: {sent} of 10 packets left");
    }
}

/// Down takes everything along that was offloaded, and tells of the device only.
#[test]
fn a_link_that_goes_down_takes_its_entries_along() {
    let mut subject = nic(mlx5());
    let (ops, outbound) = tunnel(&subject, OffloadMode::Packet);
    apply(&subject, ops).unwrap();
    let software = SaSpec {
        handle: SaHandle::new(ipsec::Shard(0), 77),
        spi: ipsec::Spi::new(7_000).unwrap(),
        offload: OffloadMode::No,
        ..outbound.clone()
    };
    apply(&subject, vec![Op::InstallSa(Box::new(software.clone()))]).unwrap();
    assert_eq!(order(&subject, Fault::DeviceDown), Ok(1));
    assert_eq!(order(&subject, Fault::DeviceDown), Ok(0), "it is down already");
    let left = installed(&subject);
    assert_eq!((left.sas.len(), left.policies.len()), (1, 0));
    assert_eq!(left.sas[0].sa, software.handle);
    assert_eq!(subject.log.events(), [Event::DeviceDown(DeviceId(0))]);
    let table = subject.backend.control.devices();
    assert_eq!(table.devices[0].state, DeviceState::Down);
    subject.inject_inner(&[packet()]);
    assert!(subject.captured_outer().is_empty(), "nothing leaves without a policy");
    let (ops, _) = tunnel(&subject, OffloadMode::Packet);
    let again: Vec<Op> = ops.into_iter().filter(|op| matches!(op, Op::InstallSa(_))).collect();
    assert_eq!(apply(&subject, again), Err(OffloadError::Unavailable("cygnet0 (simulated)".into())));
    assert_eq!(order(&subject, Fault::DeviceUp), Ok(1));
    let (ops, _) = tunnel(&subject, OffloadMode::Packet);
    apply(&subject, ops).unwrap();
    assert_eq!(subject.seal(&[packet()]).len(), 1);
}

/// What appears after a device was removed is another one.
#[test]
fn a_device_that_is_gone_stays_gone() {
    let subject = nic(mlx5());
    let (ops, _) = tunnel(&subject, OffloadMode::Packet);
    apply(&subject, ops).unwrap();
    assert_eq!(order(&subject, Fault::DeviceGone), Ok(1));
    assert_eq!(installed(&subject), Installed::default());
    assert_eq!(in_use(&subject), None);
    assert_eq!(order(&subject, Fault::DeviceUp), Ok(1));
    assert_eq!(subject.log.events(), [Event::DeviceGone(DeviceId(0)), Event::DeviceUp(DeviceId(1))]);
    assert_eq!(in_use(&subject), Some(DeviceId(1)));
    let states: Vec<_> = subject.backend.control.devices().devices.iter().map(|device| device.state).collect();
    assert_eq!(states, [DeviceState::Gone, DeviceState::Up]);
}

#[test]
fn the_operation_that_is_named_is_refused_and_undone() {
    let cases = [
        (Step::InboundSa, 0, Refusal::Full),
        (Step::OutboundSa, 0, Refusal::Unsupported),
        (Step::OutboundPolicy, 0, Refusal::System),
        (Step::Activate, 0, Refusal::Unavailable),
        (Step::Activate, 1, Refusal::Unavailable),
    ];
    for (step, skip, error) in cases {
        let subject = nic(mlx5());
        let refuse = Refuse { step: Some(step), mode: None, error, skip, count: 1 };
        order(&subject, Fault::Refuse(refuse)).unwrap();
        let (ops, _) = tunnel(&subject, OffloadMode::Packet);
        let outcome = apply(&subject, ops);
        assert_eq!(outcome.is_err(), skip == 0, "{step:?}: {outcome:?}");
        if skip == 0 {
            assert_eq!(installed(&subject), Installed::default(), "{step:?}");
            let (ops, _) = tunnel(&subject, OffloadMode::Packet);
            apply(&subject, ops).unwrap();
        }
    }
    // Only what asks for packet offload.
    let subject = nic(mlx5());
    let refuse = Refuse { step: None, mode: Some(OffloadMode::Packet), error: Refusal::Full, skip: 0, count: 5 };
    order(&subject, Fault::Refuse(refuse)).unwrap();
    let (ops, _) = tunnel(&subject, OffloadMode::Crypto);
    apply(&subject, ops).unwrap();
    order(&subject, Fault::Clear).unwrap();
}

#[test]
fn entries_vanish_with_and_without_a_word() {
    let gone = |sa| Event::StateLost { sa };
    for (tell, events) in [(Tell::Lost, 1), (Tell::Resync, 1), (Tell::Nothing, 0)] {
        let subject = nic(mlx5());
        let (ops, outbound) = tunnel(&subject, OffloadMode::Packet);
        apply(&subject, ops).unwrap();
        let target = Target { child: Some("child".into()), direction: Some(Direction::Outbound), ..Target::default() };
        let lost = subject.backend.control.simulate(&Simulate { fault: Fault::LoseSas(tell), target });
        assert_eq!(lost, Ok(1));
        let left = installed(&subject);
        assert_eq!((left.sas.len(), left.policies[0].sa), (1, None), "the policy has no SA any more");
        assert_eq!(subject.log.events().len(), events);
        if tell == Tell::Lost {
            assert_eq!(subject.log.events(), [gone(outbound.handle)]);
        }
        assert_eq!(order(&subject, Fault::LoseAll(Tell::Nothing)), Ok(2));
        assert_eq!(installed(&subject), Installed::default());
        assert!(order(&subject, Fault::LoseAll(Tell::Nothing)).is_err());
    }
}

fn status(subject: &InProcess, sa: SaHandle) -> SaStatus {
    match subject.backend.control.execute(&Request::Query(sa)) {
        Ok(Answer::Status(status)) => status,
        other => panic!("a query was answered with {other:?}"),
    }
}

/// Whoever misses the event finds the limit in the list, in its unit.
#[test]
fn reports_go_astray_and_lists_tell_the_truth() {
    let mut subject = nic(mlx5());
    let (mut ops, outbound) = tunnel(&subject, OffloadMode::Packet);
    let volume = |packets| Volume { packets: Some(packets), ..Volume::default() };
    for op in &mut ops {
        if let Op::InstallSa(spec) = op
            && spec.direction == Direction::Outbound
        {
            spec.limits = Limits { soft: volume(2), hard: volume(4) };
        }
    }
    apply(&subject, ops).unwrap();
    order(&subject, Fault::Swallow(Told::Soft, 1)).unwrap();
    order(&subject, Fault::Duplicate(Told::Hard, 1)).unwrap();
    subject.seal(&vec![packet(); 2]);
    assert_eq!(subject.log.events(), []);
    let sa = outbound.handle;
    assert_eq!(status(&subject, sa).soft_expired, Some(LimitUnit::Packets));
    assert_eq!(order(&subject, Fault::FreezeCounters), Ok(2));
    assert_eq!(subject.seal(&vec![packet(); 4]).len(), 2);
    let hard = Event::HardExpire { sa, unit: LimitUnit::Packets };
    assert_eq!(subject.log.events()[..2], [hard.clone(), hard]);
    let frozen = status(&subject, sa);
    assert_eq!((frozen.packets, frozen.sequence, frozen.hard_expired), (2, 2, Some(LimitUnit::Packets)));
    assert_eq!(order(&subject, Fault::ThawCounters), Ok(2));
    assert_eq!(status(&subject, sa).packets, 4);
}

#[test]
fn limits_are_reached_on_request() {
    let mut subject = nic(mlx5());
    let (ops, outbound) = tunnel(&subject, OffloadMode::Packet);
    apply(&subject, ops).unwrap();
    let sa = outbound.handle;
    let target = Target { direction: Some(Direction::Outbound), ..Target::default() };
    let now =
        |subject: &InProcess, fault| subject.backend.control.simulate(&Simulate { fault, target: target.clone() });
    assert_eq!(now(&subject, Fault::SoftExpire(LimitUnit::Time)), Ok(1));
    assert_eq!(now(&subject, Fault::SoftExpire(LimitUnit::Time)), Ok(1));
    assert_eq!(now(&subject, Fault::HardExpire(LimitUnit::Bytes)), Ok(1));
    assert_eq!(
        subject.log.events(),
        [Event::SoftExpire { sa, unit: LimitUnit::Time }, Event::HardExpire { sa, unit: LimitUnit::Bytes }]
    );
    let told = status(&subject, sa);
    assert_eq!((told.soft_expired, told.hard_expired), (Some(LimitUnit::Time), Some(LimitUnit::Bytes)));
    assert!(subject.seal(&[packet()]).is_empty(), "nothing passes after a hard limit");
}

#[test]
fn a_datapath_that_poses_as_nothing_takes_no_orders() {
    let subject = InProcess::new(false);
    assert!(order(&subject, Fault::LoseAll(Tell::Nothing)).unwrap_err().contains("simulate_packet_device"));
    let (ops, _) = tunnel(&subject, OffloadMode::Packet);
    assert_eq!(
        apply(&subject, ops).unwrap_err().to_string(),
        "device cygnet0 cannot carry packet offload: it is no NIC: the datapath does everything in software"
    );
}
