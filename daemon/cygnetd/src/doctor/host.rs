//! What the host shows of itself. Blocks.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use ike_model::doctor::{Facts, KernelFacts, Port, Privileges, Socket};
use ipsec::{AddressRange, OuterAddresses, SelectorPair};
use offload_host::devices::{self, Link};
use offload_host::probe::{self, KernelPolicy, KernelVerdict, Lookup, Probe, SeenRule, Way};
use offload_host::{Family, HostError};
use swanctl_compat::plan::Plan;
use swanctl_compat::settings::{OsFiles, Settings, Severity};

use crate::backend::Nature;
use crate::clock;
use crate::config::Config;
use crate::load::{self, FILE};
use crate::net::udp_port_holders;
use crate::privileges::{self, reach};
use crate::users::Account;
use crate::why::host::link_of;

/// What is asked.
pub(super) struct Question {
    pub(super) config: Config,
    /// The user as whom the daemon runs, where it was started with more privileges than that one has.
    pub(super) account: Option<Account>,
    /// The files of the settings.
    pub(super) settings: Vec<PathBuf>,
    /// What the backend is.
    pub(super) nature: Nature,
    /// Names of its devices.
    pub(super) devices: Vec<String>,
    /// Selectors of everything that is configured or guarded.
    pub(super) pairs: Vec<SelectorPair>,
    /// Connections with their outer addresses.
    pub(super) peers: Vec<(String, OuterAddresses)>,
}

/// What was seen: facts but for children, devices and paths; what the paths of connections carry.
pub(super) struct Seen {
    pub(super) facts: Facts,
    pub(super) mtus: Vec<(String, u32)>,
}

/// Looks.
pub(super) fn look(question: &Question) -> Result<Seen, HostError> {
    let Question { config, nature, pairs, peers, .. } = question;
    let mut probe = Probe::open()?;
    let links = probe.links()?;
    let held = probe.policies()?;
    let (foreign_policies, unclaimed_guards) = policies(&held, nature, pairs);
    let is_tunnel = |link: &Link| nature.tunnel.as_ref().is_some_and(|tunnel| *tunnel == *link.name);
    let others: Vec<&Link> = links.iter().filter(|link| &*link.name != "lo" && !is_tunnel(link)).collect();
    let routes = probe.routes(nature.table)?;
    let foreign_routes = routes.iter().filter(|route| !route.ours).map(|route| route.text.clone()).collect();
    let (beside, before) = rules(&probe.rules()?, nature.rule_priority);
    let shown = |name: &String| links.by_name(name).map(|link| link_of(&links, link, Family::V4));
    let facts = Facts {
        tunnel: nature.tunnel.as_ref().map(|name| (name.clone(), shown(name))),
        kernel: kernel(question, &held, &others),
        tun_usable: OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_ok(),
        ports: [config.ike.settings.port, config.ike.settings.nat_port].map(port).into(),
        privileges: privileges(),
        unreachable: unreachable(question),
        links: others.iter().map(|link| link_of(&links, link, Family::V4)).collect(),
        reverse_path_drops: probe::reverse_path_drops().unwrap_or_default(),
        forwards: (forwards(Family::V4), forwards(Family::V6)),
        needs_forwarding: (needs_forwarding(pairs, true), needs_forwarding(pairs, false)),
        xfrm: probe::has_xfrm(),
        foreign_policies,
        unclaimed_guards,
        table: (nature.table, foreign_routes),
        rules: (nature.rule_priority, beside, before),
        install_routes: nature.install_routes,
        vici: socket(config),
        files: files(config, nature),
        exports_keys: config.ike.settings.key_export.is_some(),
        clock: (clock::wall().as_secs(), clock::asleep().as_secs()),
        ..Facts::default()
    };
    let mut mtus = Vec::new();
    for (connection, OuterAddresses { local, remote }) in
        peers.iter().filter(|(_, outer)| !outer.remote.is_unspecified())
    {
        let source = Some(*local).filter(|local| !local.is_unspecified());
        let lookup = Lookup { source, mark: nature.mark, ..Lookup::to(*remote) };
        if let Way::Out { link, mtu, .. } = probe.way(&lookup)? {
            mtus.extend(mtu.or(links.get(link).map(|link| link.mtu)).map(|mtu| (connection.clone(), mtu)));
        }
    }
    Ok(Seen { facts, mtus })
}

/// Those of others, and blocks of ours that nothing of what is loaded explains.
fn policies(all: &[KernelPolicy], nature: &Nature, pairs: &[SelectorPair]) -> (Vec<String>, Vec<String>) {
    let ours = |policy: &KernelPolicy| policy.ours || (policy.backend && nature.is_kernel());
    let claimed = |policy: &KernelPolicy| pairs.iter().any(|pair| policy.concerns(pair));
    let foreign = all.iter().filter(|policy| !ours(policy)).map(ToString::to_string).collect();
    let blocks = all.iter().filter(|policy| policy.ours && policy.verdict == KernelVerdict::Block);
    (foreign, blocks.filter(|policy| !claimed(policy)).map(ToString::to_string).collect())
}

/// The kernel as the data path.
fn kernel(question: &Question, policies: &[KernelPolicy], links: &[&Link]) -> Option<KernelFacts> {
    if !question.nature.is_kernel() {
        return None;
    }
    let links: Vec<&str> = links.iter().map(|link| &*link.name).collect();
    let mut switched_off: Vec<String> = links.iter().flat_map(|link| probe::ipsec_switched_off(link)).collect();
    switched_off.sort();
    switched_off.dedup();
    let is_device = |link: &&str| question.devices.iter().any(|device| device == link);
    let idle = links.iter().filter(|link| devices::has_esp_offload(link).unwrap_or(false) && !is_device(link));
    let settings = ["xfrm_larval_drop", "xfrm_acq_expires"];
    let settings = settings.iter().filter_map(|name| Some((format!("net.core.{name}"), probe::core_setting(name)?)));
    Some(KernelFacts {
        lacks: question.nature.lacks.clone(),
        switched_off,
        settings: settings.collect(),
        idle: idle.map(|link| (*link).to_owned()).collect(),
        held: held(policies),
        drops: probe::ipsec_drops(),
    })
}

/// Devices with policies in them: how many of the backend, and how many that let IKE pass.
fn held(policies: &[KernelPolicy]) -> Vec<(String, usize, usize)> {
    let mut held: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for policy in policies {
        let Some(device) = &policy.device else { continue };
        let (of_backend, ike) = held.entry(device).or_default();
        *of_backend += usize::from(policy.backend);
        *ike += usize::from(policy.is_about_ike());
    }
    held.into_iter().map(|(device, (of_backend, ike))| (device.to_owned(), of_backend, ike)).collect()
}

/// Rules of others at our priorities, and those before them that leave nothing for ours.
fn rules(all: &[SeenRule], priority: u32) -> (Vec<String>, Vec<String>) {
    let text = |rule: &SeenRule| rule.text.clone();
    let near = priority.saturating_sub(1)..=priority.saturating_add(1);
    let foreign = all.iter().filter(|rule| !rule.ours);
    let beside = foreign.clone().filter(|rule| near.contains(&rule.priority)).map(text).collect();
    // The table of local addresses comes before everything on every host.
    const LOCAL: u32 = 255;
    let greedy = |rule: &&SeenRule| {
        rule.priority < *near.start()
            && rule.table.is_some_and(|table| table != LOCAL)
            && rule.text.contains("rule add from all to all lookup")
    };
    (beside, foreign.filter(greedy).map(text).collect())
}

fn forwards(family: Family) -> bool {
    probe::forwarding("all", family).unwrap_or_default()
}

/// Whether some child is for more than single hosts on our side.
fn needs_forwarding(pairs: &[SelectorPair], v4: bool) -> bool {
    let wide = |pair: &SelectorPair| pair.local.addresses != AddressRange::host(pair.local.addresses.start());
    pairs.iter().any(|pair| pair.local.addresses.is_ipv4() == v4 && wide(pair))
}

fn port(number: u16) -> Port {
    let (ours, others) = if number == 0 { (false, Vec::new()) } else { udp_port_holders(number) };
    Port { number, ours, others }
}

fn privileges() -> Privileges {
    let privileges::Seen { user, needed, others } = privileges::seen();
    Privileges { user, needed, others }
}

/// What whoever the daemon runs as cannot reach, where it has given up what it was started with.
fn unreachable(question: &Question) -> Vec<(String, String)> {
    let Question { config, account: Some(account), settings, .. } = question else { return Vec::new() };
    let connections = if config.swanctl.load { load::read(&config.swanctl.directory).paths() } else { Vec::new() };
    let mut all = reach::files(config, settings, &connections, account);
    all.extend(reach::places(config, account, false));
    all.into_iter().map(|found| (found.text, found.fix)).collect()
}

fn socket(config: &Config) -> Option<Socket> {
    let path = config.vici.files().next()?;
    let metadata = fs::metadata(path).ok()?;
    Some(Socket { path: path.display().to_string(), mode: metadata.mode(), group: metadata.gid() })
}

/// What `cygnetd --check` would say of the connections' files.
fn files(config: &Config, nature: &Nature) -> Vec<(bool, String, String)> {
    let path = config.swanctl.directory.join(FILE);
    if !config.swanctl.load || !path.exists() {
        return Vec::new();
    }
    let settings = Settings::load(&OsFiles, &path.to_string_lossy());
    let mut plan = Plan::make(&settings, &OsFiles);
    plan.check_devices(&settings, &crate::backend::expected_devices(Some(nature.kind), config));
    let findings = plan.findings.iter().map(|finding| {
        let fix = finding.help.clone().unwrap_or_else(|| "correct the file, then swanctl --load-all".to_owned());
        (finding.severity == Severity::Error, load::placed(&settings, finding), fix)
    });
    findings.collect()
}
