//! Keys of `connections`.

use super::{Key, Kind, Status, many, one};
use Status::{Refused, Supported};

const fn no_effect(quiet: &'static [&'static str], reason: &'static str) -> Status {
    Status::NoEffect { quiet, reason }
}

/// A second round is refused, so there is nothing to put in order.
const ONE_ROUND: Status = no_effect(&["0", "1"], "there is one round of authentication");
const IKEV1: Status = no_effect(&["no", "0"], "it concerns IKEv1 only");
const EAP_ONLY: Status = no_effect(&[], "it concerns EAP and XAuth only, which are refused as methods");
const CERTIFICATES: Status = Refused {
    harmless: &[],
    reason: "certificates and public keys are not supported; use auth = psk with a long random secret",
};
const NO_CERTIFICATES: Status = no_effect(&["no", "never", "relaxed"], "certificates are not used");
const NO_MEDIATION: &str =
    "mediation is not supported; let the peer that is behind a NAT initiate, and name the other in its remote_addrs";
const NO_PPK: &str = "postquantum preshared keys (RFC 8784) are not supported; leave them out at both ends, nothing here stands in for them";
const NO_POOLS: &str =
    "virtual IP pools are not supported; give the peers addresses of their own and name these in remote_ts";
/// Carried by the core; a connection is refused when its device cannot.
const BY_DEVICE: Status = Status::ByDevice;
const MEDIATION: Status = Refused { harmless: &[], reason: NO_MEDIATION };

pub(super) const CONNECTION: &[Key] = &[
    one(
        "version",
        Kind::Words(&["0", "1", "2"]),
        "0 (= 2)",
        Refused {
            harmless: &["0", "2"],
            reason: "only IKEv2 is supported; set version = 2 here and IKEv2 at the peer",
        },
    ),
    many("local_addrs", Kind::Host, "%any", Supported),
    many("remote_addrs", Kind::Host, "%any", Supported),
    one("local_port", Kind::Port, "500", no_effect(&["0", "500", "4500"], "IKE is sent from the daemon's own ports")),
    one("remote_port", Kind::Port, "500", Supported),
    many("proposals", Kind::IkeProposal, "default", Supported),
    many(
        "vips",
        Kind::Text,
        "",
        Refused {
            harmless: &[],
            reason: "virtual IP addresses are not supported; give this host the address itself and name it in local_ts",
        },
    ),
    one("aggressive", Kind::Bool, "no", IKEV1),
    one("pull", Kind::Bool, "yes", IKEV1),
    one("dscp", Kind::Dscp, "000000", Supported),
    one("encap", Kind::Bool, "no", Supported),
    one("mobike", Kind::Bool, "yes", Supported),
    one("dpd_delay", Kind::Time, "0", Supported),
    one("dpd_timeout", Kind::Time, "0", IKEV1),
    one("fragmentation", Kind::Words(&["yes", "accept", "no", "force"]), "yes", Supported),
    one("childless", Kind::Words(&["allow", "prefer", "force", "never"]), "allow", Supported),
    one("send_certreq", Kind::Bool, "yes", NO_CERTIFICATES),
    one("send_cert", Kind::Words(&["always", "never", "ifasked"]), "ifasked", NO_CERTIFICATES),
    one("ocsp", Kind::Words(&["never", "reply", "request", "both"]), "reply", NO_CERTIFICATES),
    one("ppk_id", Kind::Identity, "", Refused { harmless: &[], reason: NO_PPK }),
    one("ppk_required", Kind::Bool, "no", Refused { harmless: &["no"], reason: NO_PPK }),
    one("keyingtries", Kind::U32, "1", Supported),
    one("unique", Kind::Words(&["never", "no", "keep", "replace"]), "no", Supported),
    one("reauth_time", Kind::Time, "0", Supported),
    one("rekey_time", Kind::Time, "4h, or 0 if reauth_time is set", Supported),
    one("over_time", Kind::Time, "10% of the longer of rekey_time and reauth_time", Supported),
    one("rand_time", Kind::Time, "over_time, at most half of the lifetime", Supported),
    many("pools", Kind::Text, "", Refused { harmless: &[], reason: NO_POOLS }),
    one("if_id_in", Kind::InterfaceId, "0", BY_DEVICE),
    one("if_id_out", Kind::InterfaceId, "0", BY_DEVICE),
    one("mediation", Kind::Bool, "no", Refused { harmless: &["no"], reason: NO_MEDIATION }),
    one("mediated_by", Kind::Text, "", MEDIATION),
    one("mediation_peer", Kind::Identity, "", MEDIATION),
];

pub(super) const LOCAL: &[Key] = &[
    one("round", Kind::U32, "0", ONE_ROUND),
    one("auth", Kind::Auth, "pubkey (which is refused)", Supported),
    one("id", Kind::Identity, "the local address", Supported),
    many("certs", Kind::File, "", CERTIFICATES),
    many("pubkeys", Kind::File, "", CERTIFICATES),
    one("eap_id", Kind::Identity, "id", EAP_ONLY),
    one("aaa_id", Kind::Identity, "the remote id", EAP_ONLY),
    one("xauth_id", Kind::Identity, "id", EAP_ONLY),
];

pub(super) const REMOTE: &[Key] = &[
    one("round", Kind::U32, "0", ONE_ROUND),
    one("auth", Kind::Auth, "any (= psk)", Supported),
    one("id", Kind::Identity, "%any", Supported),
    many("certs", Kind::File, "", CERTIFICATES),
    many("pubkeys", Kind::File, "", CERTIFICATES),
    one("eap_id", Kind::Identity, "id", EAP_ONLY),
    one("xauth_id", Kind::Identity, "id", EAP_ONLY),
    many(
        "groups",
        Kind::Text,
        "",
        Refused {
            harmless: &[],
            reason: "group memberships are not supported; tell peers apart by id, which may hold wildcards such as *.example.org",
        },
    ),
    many("cert_policy", Kind::Text, "", CERTIFICATES),
    many("cacerts", Kind::File, "", CERTIFICATES),
    one("ca_id", Kind::Identity, "", CERTIFICATES),
    one("revocation", Kind::Words(&["strict", "ifuri", "relaxed"]), "relaxed", NO_CERTIFICATES),
];

pub(super) const CHILD: &[Key] = &[
    many("esp_proposals", Kind::EspProposal, "default", Supported),
    many(
        "ah_proposals",
        Kind::Text,
        "",
        Refused { harmless: &[], reason: "AH is not supported; use esp_proposals, which authenticate as well" },
    ),
    one(
        "sha256_96",
        Kind::Bool,
        "no",
        Refused {
            harmless: &["no"],
            reason: "the truncation to 96 bits that predates RFC 4868 is not supported; use aes128gcm16, which needs no such hash",
        },
    ),
    many("local_ts", Kind::Selector, "dynamic", Supported),
    many("remote_ts", Kind::Selector, "dynamic", Supported),
    one("rekey_time", Kind::Time, "1h, or life_time / 1.1", Supported),
    one("life_time", Kind::Time, "rekey_time * 1.1", Supported),
    one("rand_time", Kind::Time, "life_time - rekey_time", Supported),
    one("rekey_bytes", Kind::Bytes, "0 (off), or life_bytes / 1.1", Supported),
    one("life_bytes", Kind::Bytes, "rekey_bytes * 1.1", Supported),
    one("rand_bytes", Kind::Bytes, "life_bytes - rekey_bytes", Supported),
    one("rekey_packets", Kind::U64, "0 (off), or life_packets / 1.1", Supported),
    one("life_packets", Kind::U64, "rekey_packets * 1.1", Supported),
    one("rand_packets", Kind::U64, "life_packets - rekey_packets", Supported),
    one("updown", Kind::Script, "", Supported),
    one("hostaccess", Kind::Bool, "no", Supported),
    one(
        "mode",
        Kind::Words(&["tunnel", "transport", "transport_proxy", "iptfs", "beet", "pass", "drop"]),
        "tunnel",
        Refused {
            harmless: &["tunnel", "transport", "pass", "drop"],
            reason: "this mode is not supported; tunnel carries the same packets, and transport those between the two hosts themselves",
        },
    ),
    one("policies", Kind::Bool, "yes", Supported),
    one(
        "policies_fwd_out",
        Kind::Bool,
        "no",
        no_effect(&["no"], "forwarded traffic needs no policy of its own on its way out"),
    ),
    one("dpd_action", Kind::Actions, "none", Supported),
    one(
        "ipcomp",
        Kind::Bool,
        "no",
        Refused {
            harmless: &["no"],
            reason: "IPComp is not supported; leave it out, and the peer sends uncompressed as well",
        },
    ),
    one("inactivity", Kind::Time, "0", Supported),
    one("reqid", Kind::U32, "0 (allocated)", Supported),
    one("priority", Kind::U32, "0 (computed)", Supported),
    one(
        "interface",
        Kind::Text,
        "",
        Refused {
            harmless: &[],
            reason: "policies bound to an interface are not supported; narrow local_ts and remote_ts, or use if_id_out and an XFRM interface",
        },
    ),
    one("mark_in", Kind::Mark, "0/0", BY_DEVICE),
    one("mark_out", Kind::Mark, "0/0", BY_DEVICE),
    one("mark_in_sa", Kind::Bool, "no", Supported),
    one("set_mark_in", Kind::SetMark, "0/0", BY_DEVICE),
    one("set_mark_out", Kind::SetMark, "0/0", BY_DEVICE),
    one("if_id_in", Kind::InterfaceId, "0, or that of the connection", BY_DEVICE),
    one("if_id_out", Kind::InterfaceId, "0, or that of the connection", BY_DEVICE),
    one(
        "label",
        Kind::Text,
        "",
        Refused {
            harmless: &[],
            reason: "security labels are not negotiated (RFC 9478) and no device enforces them; tell traffic apart by selectors or by mark_out",
        },
    ),
    one(
        "label_mode",
        Kind::Words(&["system", "simple", "selinux"]),
        "system",
        no_effect(&["system"], "security labels are refused"),
    ),
    one(
        "tfc_padding",
        Kind::Text,
        "0",
        Refused {
            harmless: &["0"],
            reason: "traffic flow confidentiality padding is not supported; leave it out, no peer can ask for it",
        },
    ),
    one("replay_window", Kind::U32, "32", Supported),
    one(
        "per_cpu_sas",
        Kind::Words(&["no", "yes", "encap"]),
        "no",
        Refused {
            harmless: &["no"],
            reason: "SAs per CPU (RFC 9611) are not supported; several children with narrower selectors have an SA each",
        },
    ),
    one("hw_offload", Kind::Words(&["no", "yes", "crypto", "packet", "auto"]), "no", Supported),
    one("copy_df", Kind::Bool, "yes", Supported),
    one("copy_ecn", Kind::Bool, "yes", Supported),
    one("copy_dscp", Kind::Words(&["out", "in", "yes", "no"]), "out", Supported),
    one(
        "icmp",
        Kind::Bool,
        "no",
        Refused {
            harmless: &["no"],
            reason: "ICMP errors from outside the selectors are not forwarded; add the routers in between to local_ts and remote_ts",
        },
    ),
    one("start_action", Kind::Actions, "none", Supported),
    one("close_action", Kind::Actions, "none", Supported),
];
