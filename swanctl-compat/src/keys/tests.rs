use std::collections::BTreeSet;

use super::*;

/// `KEYS.md` is the table. To write it anew: `UPDATE_KEYS=1 cargo test -p swanctl-compat keys`.
#[test]
fn documentation_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/KEYS.md");
    let expected = documentation();
    if std::env::var_os("UPDATE_KEYS").is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
}

#[test]
fn no_key_stands_twice() {
    for scope in Scope::ALL {
        let mut seen = BTreeSet::new();
        for key in scope.keys() {
            assert!(seen.insert(key.name), "{} in {}", key.name, scope.pattern());
        }
    }
}

#[test]
fn harmless_values_are_legal() {
    for key in Scope::ALL.iter().flat_map(|scope| scope.keys()) {
        if let Status::Refused { harmless, .. } = key.status {
            for value in harmless {
                assert_eq!(key.kind.check(value), Ok(()), "{} = {value}", key.name);
            }
        }
    }
}

/// Every key that the reference format has; a drop-in must know each.
#[test]
fn the_table_is_complete() {
    let expected = [
        (
            Scope::Connection,
            "version local_addrs remote_addrs local_port remote_port proposals vips aggressive pull dscp encap mobike \
             dpd_delay dpd_timeout fragmentation childless send_certreq send_cert ocsp ppk_id ppk_required keyingtries unique \
             reauth_time rekey_time over_time rand_time pools if_id_in if_id_out mediation mediated_by mediation_peer",
        ),
        (Scope::Local, "round auth id certs pubkeys eap_id aaa_id xauth_id"),
        (Scope::Remote, "round auth id certs pubkeys eap_id xauth_id groups cert_policy cacerts ca_id revocation"),
        (
            Scope::Child,
            "esp_proposals ah_proposals sha256_96 local_ts remote_ts rekey_time life_time rand_time rekey_bytes life_bytes \
             rand_bytes rekey_packets life_packets rand_packets updown hostaccess mode policies policies_fwd_out dpd_action ipcomp \
             inactivity reqid priority interface mark_in mark_out mark_in_sa set_mark_in set_mark_out if_id_in if_id_out label \
             label_mode tfc_padding replay_window per_cpu_sas hw_offload copy_df copy_ecn copy_dscp icmp start_action close_action",
        ),
        (Scope::IkeSecret, "secret id id1 id-peer"),
        (Scope::Token, "handle slot module pin"),
        (Scope::Authority, "cacert file handle slot module crl_uris ocsp_uris cert_uri_base"),
        (Scope::Pool, "addrs address dns nbns dhcp netmask server subnet p_cscf split_include split_exclude"),
    ];
    for (scope, names) in expected {
        for name in names.split_whitespace() {
            assert!(scope.key(name).is_some(), "{name} in {}", scope.pattern());
        }
    }
}
