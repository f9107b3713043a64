//! `swanctl.conf` as a user would write it, for a tunnel between two sites.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use crate::topology::{FAMILIES, Family, Lab, Side};

/// The pre-shared key of every lab.
pub const SECRET: &str = "a-secret-for-the-lab-only";

/// A connection with its children and its pre-shared key.
#[derive(Clone, Debug, PartialEq)]
pub struct Tunnel {
    /// The connection's name.
    pub name: String,
    /// Our outer address.
    pub local: String,
    /// The peer's outer address, or `%any`.
    pub remote: String,
    /// Our identity.
    pub local_id: String,
    /// The peer's identity.
    pub remote_id: String,
    /// The pre-shared key of the pair.
    pub secret: String,
    /// IKE proposals.
    pub proposals: String,
    /// UDP encapsulation also without a NAT.
    pub encap: bool,
    /// Further keys of the connection, one `key = value` each.
    pub options: Vec<String>,
    /// Its children.
    pub children: Vec<Child>,
}

/// A child of a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Its name.
    pub name: String,
    /// Our subnets.
    pub local_ts: String,
    /// The peer's subnets.
    pub remote_ts: String,
    /// ESP proposals.
    pub esp_proposals: String,
    /// Further keys of the child, one `key = value` each.
    pub options: Vec<String>,
}

impl Tunnel {
    /// Site to site, seen from one side: an IPv4 and an IPv6 child, outer addresses of the given family, nothing started by itself.
    #[must_use]
    pub fn between(lab: &Lab, side: Side, outer: Family) -> Self {
        let (here, there) = (lab.site(side), lab.site(side.other()));
        let child = |family| Child {
            name: if matches!(family, Family::V4) { "net4".into() } else { "net6".into() },
            local_ts: here.lan(family),
            remote_ts: there.lan(family),
            esp_proposals: "aes128gcm16-x25519".into(),
            options: Vec::new(),
        };
        Tunnel {
            name: "site".into(),
            local: here.outer_address(outer).to_string(),
            remote: there.outer_address(outer).to_string(),
            local_id: format!("gw-{}.example", side.letter()),
            remote_id: format!("gw-{}.example", side.other().letter()),
            secret: SECRET.into(),
            proposals: "aes128gcm16-prfsha256-x25519".into(),
            encap: false,
            options: Vec::new(),
            children: FAMILIES.map(child).into(),
        }
    }

    /// The same tunnel with an option for every child.
    #[must_use]
    pub fn with_child_option(mut self, option: &str) -> Self {
        for child in &mut self.children {
            child.options.push(option.to_owned());
        }
        self
    }

    /// The same tunnel towards another address.
    #[must_use]
    pub fn towards(mut self, remote: IpAddr) -> Self {
        self.remote = remote.to_string();
        self
    }
}

/// Writes a complete `swanctl.conf`.
///
/// # Errors
/// The file could not be written.
pub fn write(path: &Path, tunnels: &[Tunnel]) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, render(tunnels))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// The text of a `swanctl.conf`.
#[must_use]
pub fn render(tunnels: &[Tunnel]) -> String {
    let mut text = String::from("connections {\n");
    for tunnel in tunnels {
        connection(&mut text, tunnel);
    }
    text.push_str("}\nsecrets {\n");
    for tunnel in tunnels {
        let Tunnel { name, local_id, remote_id, secret, .. } = tunnel;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  ike-{name} {{\n    id-1 = {local_id}\n    id-2 = {remote_id}\n    secret = \"{secret}\"\n  }}"
        );
    }
    text.push_str("}\n");
    text
}

fn connection(text: &mut String, tunnel: &Tunnel) {
    let mut line = |indent: usize, words: &str| {
        let _ = writeln!(text, "{:indent$}{words}", "");
    };
    line(2, &format!("{} {{", tunnel.name));
    line(4, "version = 2");
    line(4, &format!("local_addrs = {}", tunnel.local));
    line(4, &format!("remote_addrs = {}", tunnel.remote));
    line(4, &format!("proposals = {}", tunnel.proposals));
    if tunnel.encap {
        line(4, "encap = yes");
    }
    for option in &tunnel.options {
        line(4, option);
    }
    for (section, id) in [("local", &tunnel.local_id), ("remote", &tunnel.remote_id)] {
        line(4, &format!("{section} {{"));
        line(6, "auth = psk");
        line(6, &format!("id = {id}"));
        line(4, "}");
    }
    line(4, "children {");
    for child in &tunnel.children {
        line(6, &format!("{} {{", child.name));
        line(8, &format!("local_ts = {}", child.local_ts));
        line(8, &format!("remote_ts = {}", child.remote_ts));
        line(8, &format!("esp_proposals = {}", child.esp_proposals));
        for option in &child.options {
            line(8, option);
        }
        line(6, "}");
    }
    line(4, "}");
    line(2, "}");
}
