//! Where the attacks happen: two gateways with an unrelated tunnel between them, and an attacker's address beside gateway B.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::peer::Profile;
use crate::netns::Namespace;
use crate::peer::Daemon;
use crate::peer::conf::{Child, Tunnel};
use crate::peer::cygnet::Cygnet;
use crate::topology::{FAMILIES, Family, Lab, OUTER, Side};
use crate::traffic::ping;

/// The attacker's address on the outer link.
pub const ATTACKER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
/// The attacker's connection at gateway A, and its child.
pub const CONNECTION: &str = "hostile";
/// The table of a daemon that keeps none.
pub const NO_HISTORY: &str = "[history]\nurl = \"\"\n";
/// The unrelated tunnel.
const UNRELATED: &str = "site";
const SECRET: &str = "held-by-the-attacker";
/// What is abandoned must be gone after this long: liveness checks, repetitions and half-open IKE SAs together.
const SETTLING: Duration = Duration::from_secs(120);
/// Timers short enough for what a run abandons to go away within it.
const TIMERS: &str = "[ike]\nretransmit_timeout = 1\nretransmit_tries = 2\nhalf_open_timeout = 10\n\
     cookie_threshold_ip = 0\nblock_threshold = 0\ninit_rate_ip = 0\nerror_rate = 1000000\n\
     peer_request_rate = 0\npeer_create_rate = 0\n";

/// Two daemons with an established tunnel.
pub struct Ground<'lab> {
    lab: &'lab Lab,
    /// The daemon under attack.
    pub a: Daemon<'lab>,
    b: Daemon<'lab>,
}

/// How the attacker's connection looks at gateway A.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The peer's identity as configured.
    pub id: String,
    /// The subnet behind the peer.
    pub subnet: String,
    /// Further keys of the connection.
    pub options: Vec<String>,
    /// The table `[history]` of gateway A; empty = a database of its own.
    pub history: String,
}

impl<'lab> Ground<'lab> {
    /// Starts both daemons, gateway A's with a log of this level, and brings the unrelated tunnel up.
    ///
    /// # Errors
    /// Something of that failed; the error carries the log.
    pub fn new(lab: &'lab Lab, log: &str, opening: &Opening) -> Result<Self> {
        let address = format!("{ATTACKER}/24");
        lab.b.gateway.ip(&["address", "add", &address, "dev", OUTER])?;
        let site = |side| Tunnel::between(lab, side, Family::V4);
        let start = |side: Side, log: &str, tunnels: &[Tunnel]| {
            let history = if side == Side::A { &opening.history } else { "" };
            let peer = Cygnet { extra: format!("{TIMERS}{history}"), log: log.into() };
            Daemon::start(&peer, &lab.site(side).gateway, &lab.directory().join(side.letter()), tunnels)
        };
        let a = start(Side::A, log, &[site(Side::A), hostile(lab, opening)])?;
        let b = start(Side::B, "warn", &[site(Side::B)])?;
        let ground = Ground { lab, a, b };
        for child in ["net4", "net6"] {
            ground.b.swanctl(&["--initiate", "--child", child, "--timeout", "30"])?;
        }
        ground.unrelated_carries().context("before the attack")?;
        Ok(ground)
    }

    /// The attacker's namespace.
    #[must_use]
    pub fn attacker(&self) -> &Namespace {
        &self.lab.b.gateway
    }

    /// A port of the daemon under attack.
    #[must_use]
    pub fn target(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.lab.a.outer_address(Family::V4), port)
    }

    /// Whether the unrelated tunnel carries IPv4 and IPv6 between the LANs.
    ///
    /// # Errors
    /// It does not.
    pub fn unrelated_carries(&self) -> Result<()> {
        for family in FAMILIES {
            let (source, target) = (self.lab.b.host_address(family), self.lab.a.host_address(family));
            let answered = ping::ping(&self.lab.b.host, source, target, 5, ping::PATIENCE)?;
            ensure!(answered == 5, "the unrelated tunnel answered {answered} of 5 pings over {family:?}");
        }
        Ok(())
    }

    /// Rekeys the unrelated tunnel, then sends traffic through it.
    ///
    /// # Errors
    /// One of both failed.
    pub fn unrelated_lives(&self) -> Result<()> {
        self.unrelated_carries()?;
        self.b.swanctl(&["--rekey", "--child", "net4"])?;
        std::thread::sleep(Duration::from_millis(500));
        self.unrelated_carries().context("after a rekey")
    }

    /// Whether the daemon under attack still runs.
    pub fn is_alive(&mut self) -> bool {
        self.a.process().is_running()
    }

    /// Waits until nothing of the attacker's is left at the daemon.
    ///
    /// # Errors
    /// Something stays.
    pub fn settle(&self) -> Result<()> {
        let gone = |sas: &[crate::peer::sas::IkeSa]| sas.iter().all(|sa| sa.name == UNRELATED);
        let started = Instant::now();
        self.a.wait_for("all SAs of the attacker are gone", SETTLING, gone)?;
        // Half-open IKE SAs are in no list of established ones; they live ten seconds.
        std::thread::sleep(Duration::from_secs(11).saturating_sub(started.elapsed()));
        Ok(())
    }

    /// Processor time that the daemon under attack has used.
    ///
    /// # Errors
    /// The daemon is gone.
    pub fn processor_time(&mut self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.a.process().id()))?;
        // Behind the name, which is in brackets and may hold anything, user and system time are the twelfth and thirteenth field.
        let (_, fields) = stat.rsplit_once(") ").context("no name")?;
        let ticks: Vec<u64> =
            fields.split(' ').skip(11).take(2).map(str::parse).collect::<Result<_, _>>().context("no times")?;
        Ok(Duration::from_secs(ticks.iter().sum()) / u32::try_from(rustix::param::clock_ticks_per_second())?)
    }

    /// Resident memory of the daemon under attack in KiB.
    ///
    /// # Errors
    /// The daemon is gone.
    pub fn resident_kib(&mut self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.a.process().id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// Datagrams that gateway A's kernel dropped because nobody read them in time: of UDP, and of raw sockets.
    ///
    /// # Errors
    /// The kernel has no such table.
    pub fn never_read(&self) -> Result<(u64, u64)> {
        let read =
            |name: &str| self.lab.a.gateway.run(|| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")));
        let dropped = |table: String| -> u64 {
            table.lines().skip(1).filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum()
        };
        Ok((dropped(read("udp")??) + dropped(read("udp6")??), dropped(read("raw")??) + dropped(read("raw6")??)))
    }

    /// How often the daemon under attack has logged a panic.
    #[must_use]
    pub fn panics(&self) -> usize {
        self.a.log().matches("panicked at").count()
    }

    /// What the attacker knows.
    #[must_use]
    pub fn profile(&self) -> Profile {
        Profile {
            id: "attacker.example".into(),
            secret: SECRET.into(),
            local: [Ipv4Addr::new(10, 66, 0, 0), Ipv4Addr::new(10, 66, 255, 255)],
            remote: self.lan(),
            nat: false,
        }
    }

    /// First and last address of LAN A.
    #[must_use]
    pub fn lan(&self) -> [Ipv4Addr; 2] {
        [Ipv4Addr::new(10, 1, 0, 0), Ipv4Addr::new(10, 1, 0, 255)]
    }

    /// The host in LAN A.
    #[must_use]
    pub fn host(&self) -> IpAddr {
        self.lab.a.host_address(Family::V4)
    }
}

impl Opening {
    /// For many peers, each with an identity and an address of its own, whose SAs all stay.
    #[must_use]
    pub fn for_many() -> Self {
        let options = vec!["unique = never".into(), "dpd_delay = 0s".into()];
        Self { id: "%any".into(), subnet: "10.64.0.0/10".into(), options, ..Self::default() }
    }
}

impl Default for Opening {
    fn default() -> Self {
        // Several attackers share one identity; what they abandon is found by liveness checks.
        // They send fragments and read none.
        let options = vec!["unique = never".into(), "dpd_delay = 4s".into(), "fragmentation = accept".into()];
        Opening { id: "attacker.example".into(), subnet: "10.66.0.0/16".into(), options, history: String::new() }
    }
}

fn hostile(lab: &Lab, opening: &Opening) -> Tunnel {
    Tunnel {
        name: CONNECTION.into(),
        local: lab.a.outer_address(Family::V4).to_string(),
        remote: ATTACKER.to_string(),
        local_id: "target.example".into(),
        remote_id: opening.id.clone(),
        secret: SECRET.into(),
        proposals: "aes128gcm16-prfsha256-x25519".into(),
        encap: false,
        options: opening.options.clone(),
        children: vec![Child {
            name: CONNECTION.into(),
            local_ts: lab.a.lan(Family::V4),
            remote_ts: opening.subnet.clone(),
            esp_proposals: "aes128gcm16-x25519,aes128gcm16".into(),
            options: Vec::new(),
        }],
    }
}
