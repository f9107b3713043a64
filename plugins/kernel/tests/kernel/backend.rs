//! The backend on the kernel of this machine, which needs no ESP for any of this: policies, traps, what waits for an SA, and what others do.

use std::net::UdpSocket;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ipsec::conformance::Log;
use ipsec::{
    Answer, DeviceId, Direction, Event, GuardSpec, Installed, Mark, OffloadBackend, OffloadError, OffloadMode, OnStop,
    Op, OuterAddresses, PacketSelectors, PolicyAction, PolicyHandle, PolicySpec, Reports, Reqid, Request, SaMode,
    Scope, SelectorPair, Shard, Tag, Tags, TrafficSelector,
};
use offload_kernel::netlink::Listener;
use offload_kernel::xfrm::KernelEvent;
use offload_kernel::{Kernel, KernelConfig, Told};

use crate::namespace::{address, inside, ip};

const PATIENCE: Duration = Duration::from_secs(60);

struct Backend {
    kernel: Arc<Kernel>,
    log: Arc<Log>,
    tags: u64,
}

impl Backend {
    fn start() -> Self {
        let log = Arc::new(Log::default());
        let reports: Arc<dyn Reports> = Arc::<Log>::clone(&log);
        let config = KernelConfig { journal: None, ..KernelConfig::default() };
        Self { kernel: Kernel::start(config, reports).unwrap(), log, tags: 0 }
    }

    fn ask(&mut self, request: Request) -> Result<Answer, OffloadError> {
        self.tags += 1;
        let tag = Tag::new(Shard(0), self.tags);
        self.kernel.submit(tag, request);
        wait(|| self.log.outcomes(tag).pop())
    }

    fn apply(&mut self, ops: Vec<Op>) {
        self.ask(Request::Apply(ops)).unwrap();
    }

    fn list(&mut self) -> Installed {
        match self.ask(Request::List(Scope::All)) {
            Ok(Answer::Installed(all)) => all,
            other => panic!("{other:?}"),
        }
    }

    fn acquires(&self) -> Vec<(PolicyHandle, PacketSelectors)> {
        let acquire = |event: Event| {
            let Event::Acquire { policy, packet } = event else { return None };
            Some((policy, packet))
        };
        self.log.events().into_iter().filter_map(acquire).collect()
    }
}

/// What comes to be within the patience there is.
fn wait<T>(mut there: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = there() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "it does not come");
        sleep(Duration::from_millis(5));
    }
}

fn host(text: &str) -> TrafficSelector {
    TrafficSelector::all(ipsec::AddressRange::host(address(text)))
}

fn policy(number: u64, direction: Direction, (local, remote): (&str, &str), action: PolicyAction) -> PolicySpec {
    PolicySpec {
        handle: PolicyHandle::new(Shard(0), number),
        device: DeviceId(0),
        direction,
        selectors: SelectorPair { local: host(local), remote: host(remote) },
        priority: 3_000,
        action,
        offload: OffloadMode::No,
        tags: Tags::NONE,
        name: "net/child".into(),
    }
}

fn trap(number: u64, ends: (&str, &str), mode: SaMode) -> PolicySpec {
    policy(number, Direction::Outbound, ends, PolicyAction::Trap { reqid: Reqid(7), mode })
}

/// Waits for the port: a child that another test is forking holds a closed socket for a moment more.
fn send((from, to): (&str, &str), port: u16) {
    let socket = wait(|| UdpSocket::bind((address(from), port)).ok());
    let _ = socket.send_to(b"wakes the trap", (address(to), 4002));
}

/// Hears everything that comes out on the other end of the link.
fn listen_on_right() -> OwnedFd {
    let all = i32::from(u16::to_be(3));
    // SAFETY: socket has no preconditions, and the descriptor is nobody else's.
    unsafe {
        let raw = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, all);
        assert!(raw >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(raw)
    }
}

/// Packets with this payload among what was heard on the right end, as an outgoing one shows on the left end too.
fn heard(socket: &OwnedFd, payload: &[u8]) -> usize {
    let mut octets = [0; 2_048];
    let mut count = 0;
    while let Ok((length, _)) = rustix::net::recv(socket.as_fd(), &mut octets, rustix::net::RecvFlags::empty()) {
        count += usize::from(octets[..length].ends_with(payload));
    }
    count
}

const ENDS: [(&str, &str); 2] = [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")];

#[test]
fn a_trap_asks_once_and_again_when_it_is_touched() {
    for ends in ENDS {
        for mode in [SaMode::Tunnel, SaMode::Transport] {
            inside(move || {
                let mut backend = Backend::start();
                let trap = trap(1, ends, mode);
                backend.apply(vec![Op::InstallPolicy(trap.clone())]);
                (0..5).for_each(|_| send(ends, 4001));
                let (policy, packet) = wait(|| backend.acquires().pop());
                let expected = PacketSelectors {
                    source: address(ends.0),
                    destination: address(ends.1),
                    protocol: 17,
                    ports: Some((4001, 4002)),
                };
                assert_eq!((policy, packet), (trap.handle, expected), "{mode:?}");
                (0..5).for_each(|_| send(ends, 4003));
                backend.list();
                assert_eq!(backend.acquires().len(), 1);
                backend.apply(vec![Op::UpdatePolicy(trap)]);
                send(ends, 4004);
                wait(|| (backend.acquires().len() == 2).then_some(()));
                backend.kernel.shut_down(OnStop::Open);
                assert_eq!(ip("xfrm policy"), "");
            });
        }
    }
}

/// What waits goes with the policy that takes the trap's place.
#[test]
fn what_met_a_trap_waits_and_goes_out_by_what_comes_in_its_place() {
    for ends in ENDS {
        inside(move || {
            let mut backend = Backend::start();
            let right = listen_on_right();
            let trap = trap(1, ends, SaMode::Tunnel);
            backend.apply(vec![Op::InstallPolicy(trap.clone())]);
            (0..3).for_each(|_| send(ends, 4001));
            wait(|| backend.acquires().pop());
            assert_eq!(heard(&right, b"wakes the trap"), 0, "nothing leaves in clear");
            backend.apply(vec![Op::UpdatePolicy(PolicySpec { action: PolicyAction::Bypass, ..trap })]);
            let mut out = 0;
            wait(|| {
                out += heard(&right, b"wakes the trap");
                // Each shows where it goes out and where it comes in.
                (out == 6).then_some(())
            });
            drop(backend);
            let setting = std::fs::read_to_string("/proc/sys/net/core/xfrm_larval_drop").unwrap();
            assert_eq!(setting.trim(), "1", "the setting is put back");
        });
    }
}

#[test]
fn what_protects_without_an_sa_blocks_and_the_guard_stands_behind_it() {
    inside(|| {
        let mut backend = Backend::start();
        let right = listen_on_right();
        let outer = OuterAddresses { local: address("192.0.2.1"), remote: address("192.0.2.9") };
        let protect = |number, direction| {
            let action = PolicyAction::Protect { reqid: Reqid(7), sa: None, mode: SaMode::Tunnel, outer };
            policy(number, direction, ENDS[0], action)
        };
        let guard = GuardSpec {
            name: "net/child".into(),
            selectors: SelectorPair { local: host(ENDS[0].0), remote: host(ENDS[0].1) },
        };
        let policies =
            [protect(1, Direction::Inbound), protect(2, Direction::Forward), protect(3, Direction::Outbound)];
        backend.apply([vec![Op::InstallGuard(guard)], policies.clone().map(Op::InstallPolicy).to_vec()].concat());
        let shown = ip("xfrm policy");
        for line in ["dir in priority 3000", "dir fwd priority 3000", "dir out action block priority 3000"] {
            assert!(shown.contains(line), "no {line} in {shown}");
        }
        send(ENDS[0], 4001);
        backend.apply(vec![Op::Flush]);
        send(ENDS[0], 4001);
        backend.list();
        assert_eq!(heard(&right, b"wakes the trap"), 0);
        assert!(backend.acquires().is_empty());
    });
}

#[test]
fn policies_that_somebody_flushes_or_deletes_are_put_back() {
    inside(|| {
        let mut backend = Backend::start();
        backend.apply(vec![
            Op::InstallPolicy(policy(1, Direction::Outbound, ENDS[0], PolicyAction::Discard)),
            Op::InstallPolicy(policy(2, Direction::Inbound, ENDS[1], PolicyAction::Discard)),
        ]);
        let shown = || ip("xfrm policy").matches("priority 3000").count();
        let resyncs = |backend: &Backend| backend.log.events().iter().filter(|event| **event == Event::Resync).count();
        assert_eq!((shown(), resyncs(&backend)), (2, 0));
        ip("xfrm policy delete src 192.0.2.1/32 dst 192.0.2.2/32 dir out");
        wait(|| (shown() == 2 && resyncs(&backend) > 0).then_some(()));
        ip("xfrm policy flush");
        wait(|| (shown() == 2).then_some(()));
        ip("xfrm policy update src 2001:db8::2/128 dst 2001:db8::1/128 dir in priority 5");
        wait(|| (shown() == 2).then_some(()));
        assert_eq!(backend.list().policies.len(), 2);
        // What is not ours is left alone.
        ip("xfrm policy add src 10.9.0.0/16 dst 10.8.0.0/16 dir out");
        backend.kernel.shut_down(OnStop::Open);
        assert_eq!(ip("xfrm policy").matches("src ").count(), 1);
    });
}

/// The kernel shows what it was given: nothing is taken for changed by somebody else.
#[test]
fn what_the_kernel_shows_is_what_it_was_given() {
    inside(|| {
        let mut backend = Backend::start();
        let v4 = OuterAddresses { local: address("192.0.2.1"), remote: address("192.0.2.9") };
        let v6 = OuterAddresses { local: address("2001:db8::1"), remote: address("2001:db8::9") };
        let mut ops = Vec::new();
        let directions = [Direction::Inbound, Direction::Forward, Direction::Outbound];
        for (count, (ends, outer)) in
            [(ENDS[0], v4), (ENDS[1], v6), (ENDS[0], v6), (ENDS[1], v4)].into_iter().enumerate()
        {
            let action = PolicyAction::Protect { reqid: Reqid(7), sa: None, mode: SaMode::Tunnel, outer };
            let tags = [
                Tags::NONE,
                Tags { mark: Some(Mark::new(5, 0xff)), ..Tags::NONE },
                Tags { mark: Some(Mark::new(0, 0)), if_id: 9, ..Tags::NONE },
            ];
            for (kind, tags) in tags.into_iter().enumerate() {
                for (way, direction) in directions.into_iter().enumerate() {
                    let number = 100 * count + 10 * kind + way;
                    let spec = policy(number as u64, direction, ends, action.clone());
                    ops.push(Op::InstallPolicy(PolicySpec { tags, priority: 3_000 + number as u32, ..spec }));
                }
            }
        }
        for (count, mode) in [SaMode::Tunnel, SaMode::Transport].into_iter().enumerate() {
            let ends = [("192.0.2.1", "192.0.2.7"), ("2001:db8::1", "2001:db8::7")][count];
            ops.push(Op::InstallPolicy(trap(900 + count as u64, ends, mode)));
        }
        let outcome = backend.ask(Request::Apply(ops));
        assert!(outcome.is_ok(), "{outcome:?}");
        backend.list();
        let mut listener = Listener::open().unwrap();
        backend.kernel.teller().unwrap().tell(Told::Kernel(KernelEvent::Lost));
        backend.list();
        let mut changes = Vec::new();
        listener.drain(|event| changes.push(event));
        assert_eq!(changes, []);
        assert_eq!(backend.log.events(), [Event::Resync]);
    });
}

/// A machine with ESP has more to show, in the guest.
#[test]
fn a_kernel_without_esp_says_what_it_lacks() {
    inside(|| {
        let backend = Backend::start();
        let Some(lacks) = backend.kernel.lacks() else { return };
        assert!(lacks.contains("esp4") && lacks.contains("backend.kind = \"userspace\""), "{lacks}");
        assert_eq!(backend.kernel.devices().devices.len(), 1);
    });
}

/// `cargo test --release -p offload-kernel --test kernel -- --ignored --nocapture backend`
#[test]
#[ignore = "a figure, not a check: takes a while"]
fn figures_of_fifty_thousand_policies_through_the_backend() {
    const COUNT: u64 = 50_000;
    inside(|| {
        let mut backend = Backend::start();
        let spec = |number: u64| {
            let [_, _, high, low] = u32::try_from(number).unwrap().to_be_bytes();
            let remote = format!("10.128.{high}.{low}");
            policy(number, Direction::Outbound, ("192.0.2.1", &remote), PolicyAction::Discard)
        };
        for (what, op) in [
            ("installed", (|spec: PolicySpec| Op::InstallPolicy(spec)) as fn(PolicySpec) -> Op),
            ("removed", |spec| Op::RemovePolicy(spec.handle)),
        ] {
            let start = Instant::now();
            (0..COUNT).for_each(|number| backend.apply_only(vec![op(spec(number))]));
            backend.list();
            let took = start.elapsed();
            println!(
                "{what} {COUNT}: {:.2} s, {:.1} us each",
                took.as_secs_f64(),
                took.as_secs_f64() * 1e6 / COUNT as f64
            );
        }
        assert!(!ip("xfrm policy").contains("10.128."));
    });
}

impl Backend {
    /// Asks and waits for nothing.
    fn apply_only(&mut self, ops: Vec<Op>) {
        self.tags += 1;
        self.kernel.submit(Tag::new(Shard(0), self.tags), Request::Apply(ops));
    }
}
