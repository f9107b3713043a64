//! What an established IKE SA with one CHILD SA takes, by counting allocations.
#![allow(unsafe_code, reason = "an allocator cannot be written without; it only counts and passes on")]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

#[path = "core/common.rs"]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use ike_crypto::ring_provider;
use ike_model::{Command, CommandId, ConfigSnapshot, ConfiguredSelector, HostSpec};
use ike_sa::{Context, Endpoint, Input, Job, Outcome, Output, SpiSource};
use ipsec::recording::RecordingBackend;
use ipsec::{Answer, DeviceId, Instant, ModeInUse, OffloadBackend, Op, Path, Request, Shard, Spi, TableFull};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Names SPIs and says yes, and keeps nothing.
struct Yes(AtomicU32);

impl SpiSource for Yes {
    fn device_for(&self, _: IpAddr, _: IpAddr) -> Option<DeviceId> {
        Some(DeviceId(0))
    }
    fn reserve_spi(&self, _: DeviceId) -> Result<Spi, TableFull> {
        Spi::new(self.0.fetch_add(1, Ordering::Relaxed)).ok_or(TableFull)
    }
    fn release_spi(&self, _: DeviceId, _: Spi) {}
}

struct End {
    endpoint: Endpoint,
    config: ConfigSnapshot,
    numbers: Numbers,
    spis: Yes,
    devices: Arc<ipsec::DeviceTable>,
}

fn step(ends: &mut [End; 2], link: &mut VecDeque<(usize, Path, Vec<u8>)>, who: usize, input: Input<'_>) {
    let end = &mut ends[who];
    let context = Context {
        now: Instant::new(Duration::from_secs(1)),
        wall: 0,
        rng: &end.numbers,
        provider: ring_provider(),
        spis: &end.spis,
        devices: &end.devices,
        config: &end.config,
    };
    end.endpoint.handle(&context, input);
    let mut next = Vec::new();
    while let Some(output) = end.endpoint.poll_output() {
        match output {
            Output::Transmit(sent) => {
                let path = Path { local: sent.path.remote, remote: sent.path.local };
                link.push_back((1 - who, path, sent.octets));
            }
            Output::Offload(tag, Request::Apply(ops)) => {
                let installed = ops.iter().filter_map(|op| match op {
                    Op::InstallSa(sa) => Some((sa.handle, ModeInUse::SOFTWARE)),
                    _ => None,
                });
                next.push(Input::Report(tag, Ok(Answer::Applied(installed.collect()))));
            }
            Output::Work(id, Job::Compute(computation)) => {
                let outcome: Outcome = computation.run(&end.numbers);
                next.push(Input::Work(id, outcome));
            }
            _ => {}
        }
    }
    for input in next {
        step(ends, link, who, input);
    }
}

#[test]
fn an_established_pair_fits_into_eight_kilobytes() {
    const COUNT: usize = 500;
    let [mut a, mut b] = configs(|who, connection, child| {
        if who == B {
            connection.remote_addrs = vec![HostSpec::Any];
            connection.remote[0].id = ike_model::Identity::Any;
            child.remote_ts = vec![ConfiguredSelector::Fixed(ts("10.0.0.0", 8))];
        }
    });
    b.secrets = vec![psk(&["b.example"], "shared by all")];
    b.settings.cookie_threshold = 0;
    a.secrets = vec![psk(&["b.example"], "shared by all")];
    let first = a.connections.remove("gw").unwrap();
    for index in 0..COUNT {
        let mut connection = (*first).clone();
        connection.name = format!("gw{index}");
        connection.local[0].id = ike_model::Identity::Fqdn(format!("a{index}.example"));
        a.connections.insert(connection.name.clone(), Arc::new(connection));
    }
    let reports: Arc<dyn ipsec::Reports> = Arc::new(Queue::default());
    let devices = RecordingBackend::new(reports, 256).devices();
    let end = |config, seed| End {
        endpoint: Endpoint::new(Shard(0), 1),
        config,
        numbers: Numbers::new(seed),
        spis: Yes(AtomicU32::new(0x1000)),
        devices: devices.clone(),
    };
    let mut ends = [end(a, 1), end(b, 2)];
    let mut link = VecDeque::new();
    let before = LIVE.load(Ordering::Relaxed);
    for index in 0..COUNT {
        let command = Command::Initiate { connection: format!("gw{index}"), child: Some("net".into()) };
        step(&mut ends, &mut link, A, Input::Command(CommandId(1), command));
        while let Some((to, path, octets)) = link.pop_front() {
            step(&mut ends, &mut link, to, Input::Datagram { path, octets: &octets });
        }
    }
    let used = LIVE.load(Ordering::Relaxed).saturating_sub(before);
    for end in &ends {
        assert_eq!((end.endpoint.counts().established, end.endpoint.counts().children), (COUNT, COUNT));
    }
    let each = used / COUNT / 2;
    println!("{each} octets for each IKE SA with its CHILD SA, over {COUNT} pairs at each end");
    assert!(each <= 8 * 1024, "{each} octets");
}
