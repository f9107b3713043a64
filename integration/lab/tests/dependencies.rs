//! Which crate may depend on which, held against `cargo metadata`: normal and build edges, all features.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{CargoOpt, DependencyKind, Metadata, MetadataCommand, PackageId};

/// Allowed edges between our crates. The integration crates may use anything and are used by each other only.
const ALLOWED: [(&str, &[&str]); 13] = [
    ("ike-wire", &[]),
    ("ike-crypto", &["ike-wire"]),
    ("ipsec", &["ike-wire"]),
    ("ike-model", &["ike-wire", "ipsec"]),
    ("ike-pki", &["ike-crypto", "ike-model"]),
    ("ike-sa", &["ike-wire", "ike-crypto", "ipsec", "ike-model", "ike-pki"]),
    ("swanctl-compat", &["ike-model", "ipsec", "ike-pki"]),
    ("offload-host", &["ipsec"]),
    ("offload-kernel", &["ipsec", "offload-host"]),
    ("offload-userspace", &["ipsec", "ike-crypto", "offload-host"]),
    ("sa-history", &["ike-model"]),
    ("event-webhook", &["ike-model"]),
    ("telemetry", &["ike-model"]),
];
/// The daemon may use everything above.
const DAEMON: &str = "cygnetd";
/// Uses none of ours.
const TASKS: &str = "xtask";
/// No clock, socket or thread of their own: none of [`OUTSIDE`], however deep.
const PURE: [&str; 6] = ["ike-wire", "ike-crypto", "ipsec", "ike-model", "ike-pki", "ike-sa"];
const OUTSIDE: [&str; 4] = ["tokio", "rand", "socket2", "rustix"];
/// Other cryptographic libraries that arrive by accident through default features.
const UNWANTED: [&str; 4] = ["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys"];
/// Two generations of it would be two incompatible sets of netlink types.
const SINGLE: &str = "netlink-packet-core";

fn metadata() -> Metadata {
    MetadataCommand::new().features(CargoOpt::AllFeatures).exec().expect("cargo metadata works in a workspace")
}

/// Normal and build edges of the resolved graph, by package id.
fn edges(metadata: &Metadata) -> BTreeMap<&PackageId, Vec<&PackageId>> {
    let resolve = metadata.resolve.as_ref().expect("a resolved graph");
    let is_shipped = |kind: &DependencyKind| matches!(kind, DependencyKind::Normal | DependencyKind::Build);
    resolve
        .nodes
        .iter()
        .map(|node| {
            let deps = node.deps.iter().filter(|dep| dep.dep_kinds.iter().any(|info| is_shipped(&info.kind)));
            (&node.id, deps.map(|dep| &dep.pkg).collect())
        })
        .collect()
}

fn name<'a>(metadata: &'a Metadata, id: &PackageId) -> &'a str {
    metadata[id].name.as_str()
}

/// Everything reachable from one package, itself left out.
fn closure<'a>(edges: &BTreeMap<&'a PackageId, Vec<&'a PackageId>>, start: &'a PackageId) -> BTreeSet<&'a PackageId> {
    let mut seen = BTreeSet::new();
    let mut open = edges[start].clone();
    while let Some(next) = open.pop() {
        if seen.insert(next) {
            open.extend(&edges[next]);
        }
    }
    seen
}

#[test]
fn our_crates_depend_on_each_other_in_one_direction() {
    let metadata = metadata();
    let edges = edges(&metadata);
    let ours: BTreeMap<&PackageId, &str> =
        metadata.workspace_packages().iter().map(|package| (&package.id, package.name.as_str())).collect();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (id, from) in &ours {
        let manifest = metadata[*id].manifest_path.as_str().to_owned();
        for to in edges[id].iter().filter_map(|dep| ours.get(*dep)) {
            let fits = match ALLOWED.iter().find(|(name, _)| name == from) {
                Some((_, allowed)) => allowed.contains(to),
                None if *from == DAEMON => ALLOWED.iter().any(|(name, _)| name == to),
                None => manifest.contains("/integration/") && *from != TASKS,
            };
            checked += 1;
            if !fits {
                wrong.push(format!("{from} -> {to}"));
            }
        }
    }
    assert!(checked >= 5, "only {checked} edges between our crates were found");
    assert!(wrong.is_empty(), "dependencies against the agreed direction: {wrong:?}");
}

#[test]
fn the_protocol_crates_reach_no_operating_system() {
    let metadata = metadata();
    let edges = edges(&metadata);
    let mut wrong = Vec::new();
    let mut checked = 0;
    for package in metadata.workspace_packages().into_iter().filter(|package| PURE.contains(&package.name.as_str())) {
        checked += 1;
        let reached = closure(&edges, &package.id);
        let outside = reached.iter().map(|id| name(&metadata, id)).filter(|name| OUTSIDE.contains(name));
        wrong.extend(outside.map(|outside| format!("{} reaches {outside}", package.name)));
    }
    assert!(checked >= 5, "the protocol crates are gone or renamed: {checked} found");
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn no_second_library_arrives_by_accident() {
    let metadata = metadata();
    let edges = edges(&metadata);
    let ours = metadata.workspace_packages();
    let shipped: BTreeSet<&PackageId> = ours.iter().flat_map(|package| closure(&edges, &package.id)).collect();
    let found: Vec<&str> =
        shipped.iter().map(|id| name(&metadata, id)).filter(|name| UNWANTED.contains(name)).collect();
    assert!(found.is_empty(), "{found:?}");
    let versions: Vec<String> = shipped
        .iter()
        .map(|id| &metadata[*id])
        .filter(|package| package.name == SINGLE)
        .map(|package| package.version.to_string())
        .collect();
    assert!(versions.len() <= 1, "{SINGLE} in {versions:?}");
}
