//! Memory per established IKE SA with one CHILD SA: 10,000 of them in one endpoint, octets counted by the allocator.
//!
//! The endpoint is dropped while the count is watched: what it gives back is what it held. At most 16 KiB each, 8 KiB is the goal.
#![allow(unsafe_code, reason = "an allocator can only be watched from inside one; it passes everything on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ike_crypto::InsecureRandom;
use ike_model::{Command, CommandId, ConfigSnapshot, Connection, EventBody, HostSpec, Identity, SharedSecret};
use ike_sa::{Context, Endpoint, Input, Job, Output, SpiSource, WorkId};
use ipsec::recording::RecordingBackend;
use ipsec::{
    Answer, Applied, DeviceId, DeviceTable, Instant, ModeInUse, OffloadBackend, Op, Path, Request, Shard, Spi,
    TableFull, Tag,
};
use scenarios::gateway::provider;
use scenarios::{A, B, config};

/// Pairs of SAs.
pub(super) const COUNT: usize = 10_000;
/// Octets per pair that are a defect.
const LIMIT: usize = 16 * 1024;
/// Octets per pair that are aimed at.
const GOAL: usize = 8 * 1024;

/// The system's allocator, counting the octets that each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(octets: isize) {
    // A thread that ends has nothing to count any more.
    let _ = HELD.try_with(|held| held.set(held.get().wrapping_add(octets)));
}

// SAFETY: every call is passed on unchanged; counting touches no memory but one cell of the thread and cannot allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.cast_signed() - layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A backend that says yes and keeps nothing.
struct Yes(AtomicU32);

impl SpiSource for Yes {
    fn device_for(&self, _local: IpAddr, _remote: IpAddr) -> Option<DeviceId> {
        Some(DeviceId(0))
    }

    fn reserve_spi(&self, _device: DeviceId) -> Result<Spi, TableFull> {
        Spi::new(self.0.fetch_add(1, Ordering::Relaxed)).ok_or(TableFull)
    }

    fn release_spi(&self, _device: DeviceId, _spi: Spi) {}
}

/// A gateway without history, whose backend says yes and counts nothing.
pub(super) struct End {
    pub(super) endpoint: Endpoint,
    pub(super) config: ConfigSnapshot,
    /// Its clock.
    pub(super) now: Instant,
    /// Events with their instant, of those kinds that are asked for.
    pub(super) told: Vec<(Instant, EventBody)>,
    /// Which events are kept.
    pub(super) keeps: fn(&EventBody) -> bool,
    random: InsecureRandom,
    spis: Yes,
    devices: Arc<DeviceTable>,
}

enum Next {
    Work(WorkId, Job),
    Report(Tag, Answer),
}

impl End {
    fn new(seed: u64, config: ConfigSnapshot) -> Self {
        struct Nowhere;
        impl ipsec::Reports for Nowhere {
            fn done(&self, _tag: Tag, _outcome: Result<Answer, ipsec::OffloadError>) {}
            fn event(&self, _event: ipsec::Event) {}
            fn ike_datagram(&self, _path: Path, _octets: &[u8]) {}
        }
        Self {
            endpoint: Endpoint::new(Shard(0), 1),
            config,
            now: Instant::new(Duration::from_secs(1)),
            told: Vec::new(),
            keeps: |_| false,
            random: InsecureRandom::new(seed),
            spis: Yes(AtomicU32::new(0x1000)),
            devices: RecordingBackend::new(Arc::new(Nowhere), 256).devices(),
        }
    }

    /// Hands in one input and everything that follows from it; datagrams go to `out`.
    pub(super) fn handle(&mut self, input: Input<'_>, out: &mut VecDeque<(Path, Vec<u8>)>) {
        let context = Context {
            now: self.now,
            wall: 0,
            rng: &self.random,
            provider: provider(),
            spis: &self.spis,
            devices: &self.devices,
            config: &self.config,
        };
        self.endpoint.handle(&context, input);
        loop {
            let mut next = Vec::new();
            while let Some(output) = self.endpoint.poll_output() {
                match output {
                    Output::Transmit(sent) => out.push_back((sent.path, sent.octets)),
                    Output::Offload(tag, Request::Apply(ops)) => next.push(Next::Report(tag, applied(&ops))),
                    Output::Work(id, job) => next.push(Next::Work(id, job)),
                    Output::Event(body) => self.told.extend((self.keeps)(&body).then_some((self.now, body))),
                    Output::Offload(_, Request::Query(_) | Request::List(_))
                    | Output::Keepalive(_)
                    | Output::CancelWork(_)
                    | Output::Reply(..)
                    | Output::Directory(..) => {}
                }
            }
            if next.is_empty() {
                return;
            }
            for item in next {
                match item {
                    Next::Report(tag, answer) => self.endpoint.handle(&context, Input::Report(tag, Ok(answer))),
                    Next::Work(id, Job::Compute(job)) => {
                        self.endpoint.handle(&context, Input::Work(id, job.run(&self.random)));
                    }
                    Next::Work(_, Job::Resolve(_) | Job::SourceFor(_) | Job::Routes { .. }) => {}
                }
            }
        }
    }
}

fn applied(ops: &[Op]) -> Answer {
    let mut modes = Vec::new();
    for op in ops {
        if let Op::InstallSa(sa) = op {
            modes.push((sa.handle, ModeInUse::SOFTWARE));
        }
    }
    Answer::Applied(Applied { modes, removed: Vec::new() })
}

/// One connection for each peer at A, with an identity of its own; one for all at B.
pub(super) fn ends(at_a: fn(Connection) -> Connection) -> [End; 2] {
    let shared = Arc::new(SharedSecret { owners: Vec::new(), ..config::secret(A, B) });
    let (mut a, mut b) = (ConfigSnapshot::default(), ConfigSnapshot::default());
    for config in [&mut a, &mut b] {
        config.secrets = vec![shared.clone()];
        (config.settings.cookie_threshold, config.settings.cookie_threshold_ip) = (0, 0);
        (config.settings.block_threshold, config.settings.init_rate_ip) = (0, 0);
    }
    for number in 0..COUNT {
        let mut connection = config::connection(&format!("peer-{number}"), A, B);
        connection.local[0].id = Identity::Fqdn(format!("gateway-{number}.example.org"));
        let connection = at_a(connection);
        a.connections.insert(connection.name.clone(), Arc::new(connection));
    }
    let mut any = config::connection("any", B, A);
    any.remote_addrs = vec![HostSpec::Any];
    any.remote[0].id = Identity::Any;
    b.connections.insert(any.name.clone(), Arc::new(any));
    [End::new(1, a), End::new(2, b)]
}

/// Lets all connections come up, in one instant.
pub(super) fn establish([a, b]: [&mut End; 2]) {
    let mut to_b = VecDeque::new();
    let names: Vec<_> = a.config.connections.keys().cloned().collect();
    a.handle(Input::Command(CommandId(0), Command::Reload { changed: names.clone(), removed: Vec::new() }), &mut to_b);
    for (number, connection) in (1..).zip(names) {
        let command = Command::Initiate { connection, child: Some("net".into()) };
        a.handle(Input::Command(CommandId(number), command), &mut to_b);
        exchange([a, b], &mut to_b);
    }
}

/// Delivers datagrams to B, and everything that follows, until nothing is on its way.
pub(super) fn exchange([a, b]: [&mut End; 2], to_b: &mut VecDeque<(Path, Vec<u8>)>) {
    let mut to_a = VecDeque::new();
    while let Some((path, octets)) = to_b.pop_front() {
        let turned = Path { local: path.remote, remote: path.local };
        b.handle(Input::Datagram { path: turned, octets: &octets }, &mut to_a);
        while let Some((path, octets)) = to_a.pop_front() {
            let turned = Path { local: path.remote, remote: path.local };
            a.handle(Input::Datagram { path: turned, octets: &octets }, to_b);
        }
    }
}

#[test]
fn ten_thousand_pairs() {
    let [mut a, mut b] =
        ends(|with| config::with_child(with, |child| child.lifetime = config::time_limits(3_600, 4_000)));
    establish([&mut a, &mut b]);
    for (end, name) in [(a, "initiator"), (b, "responder")] {
        let counts = end.endpoint.counts();
        assert_eq!((counts.established, counts.children), (COUNT, COUNT), "{name}");
        let endpoint = end.endpoint;
        let before = HELD.get();
        drop(endpoint);
        let each = usize::try_from(before - HELD.get()).unwrap() / COUNT;
        println!("{name}: {each} octets for each of {COUNT} IKE SAs with one CHILD SA (goal {GOAL}, limit {LIMIT})");
        assert!(each <= LIMIT, "{name}: {each} octets");
        assert!(each > 500, "{name}: {each} octets is no measurement");
    }
}
