//! Every key that is called supported changes what is loaded: a row that the table of keys has and this one lacks fails, and so does a value
//! without effect.

use super::*;
use crate::keys::{Scope, Status};
use crate::vici::Message;

/// A key with a value that is not its default, and what must stand beside it to matter.
type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const CONNECTION: &[Row] = &[
    ("local_addrs", "192.0.2.1", &[]),
    ("remote_addrs", "192.0.2.9", &[]),
    ("remote_port", "4500", &[]),
    ("local_port", "4500", &[]),
    ("proposals", "aes256-sha384-ecp384", &[]),
    ("dscp", "101110", &[]),
    ("encap", "yes", &[]),
    ("mobike", "no", &[]),
    ("dpd_delay", "30s", &[]),
    ("fragmentation", "no", &[]),
    ("childless", "never", &[]),
    ("keyingtries", "0", &[]),
    ("unique", "replace", &[]),
    ("reauth_time", "1h", &[]),
    ("rekey_time", "1h", &[]),
    ("over_time", "7m", &[]),
    ("rand_time", "3m", &[]),
    ("if_id_in", "5", &[]),
    ("if_id_out", "%unique", &[]),
];

const CHILD: &[Row] = &[
    ("esp_proposals", "aes256gcm16-ecp384", &[]),
    ("local_ts", "10.1.0.0/16", &[]),
    ("remote_ts", "10.2.0.0/16[tcp/http]", &[]),
    ("rekey_time", "10m", &[]),
    ("life_time", "2h", &[]),
    ("rand_time", "1m", &[]),
    ("rekey_bytes", "500m", &[]),
    ("life_bytes", "1g", &[]),
    ("rand_bytes", "1k", &[("rekey_bytes", "500m")]),
    ("rekey_packets", "1000", &[]),
    ("life_packets", "2000", &[]),
    ("rand_packets", "10", &[("rekey_packets", "1000")]),
    ("updown", "/usr/lib/updown", &[]),
    ("hostaccess", "yes", &[("updown", "/usr/lib/updown")]),
    ("policies", "no", &[]),
    ("dpd_action", "trap", &[]),
    ("inactivity", "5m", &[]),
    ("reqid", "7", &[]),
    ("priority", "9", &[]),
    ("mark_in", "42/0xff", &[]),
    ("mark_out", "%unique", &[]),
    ("mark_in_sa", "yes", &[("mark_in", "42")]),
    ("set_mark_in", "%same", &[]),
    ("set_mark_out", "1", &[]),
    ("if_id_in", "5", &[]),
    ("if_id_out", "%unique-dir", &[]),
    ("replay_window", "64", &[]),
    ("hw_offload", "packet", &[]),
    ("copy_df", "no", &[]),
    ("copy_ecn", "no", &[]),
    ("copy_dscp", "in", &[]),
    ("start_action", "trap", &[]),
    ("close_action", "start", &[]),
];

/// `auth` is not here: there is one value that can be loaded, and none at all is refused.
const ROUND: &[Row] = &[("id", "gw.example", &[])];

fn load(scope: Scope, settings: &[(&str, &str)]) -> Result<String, String> {
    let mut content = Message::new();
    for (key, value) in settings {
        match scope.key(key) {
            Some(row) if row.list => content.list(*key, [*value]),
            _ => content.set(*key, *value),
        }
    }
    let psk = || Message::new().with("auth", "psk");
    let mut connection = if scope == Scope::Connection { content.clone() } else { Message::new() };
    for (name, own) in [("local", Scope::Local), ("remote", Scope::Remote)] {
        let mut round = psk();
        if scope == own {
            settings.iter().for_each(|(key, value)| round.set(*key, *value));
        }
        connection.section(name, round);
    }
    let mut children = Message::new();
    children.section("net", if scope == Scope::Child { content } else { Message::new() });
    connection.section("children", children);
    let loaded = parse("c", &connection).map_err(|rejected| rejected.errmsg())?;
    Ok(format!("{:?}", loaded.connection))
}

#[test]
fn every_supported_key_changes_what_is_loaded() {
    let tables =
        [(Scope::Connection, CONNECTION), (Scope::Child, CHILD), (Scope::Local, ROUND), (Scope::Remote, ROUND)];
    for (scope, rows) in tables {
        for key in scope.keys() {
            let works = matches!(key.status, Status::Supported | Status::ByDevice) && key.name != "auth";
            let Some((name, value, beside)) = rows.iter().find(|row| row.0 == key.name) else {
                assert!(!works, "no row for {} in {}", key.name, scope.pattern());
                continue;
            };
            if works {
                let with = load(scope, &[*beside, &[(*name, *value)]].concat()).unwrap();
                let without = load(scope, beside).unwrap();
                assert_ne!(with, without, "{name} = {value} changes nothing in {}", scope.pattern());
            }
        }
    }
}
