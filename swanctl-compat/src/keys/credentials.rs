//! Keys of `secrets`, `pools` and `authorities`.

use super::{Key, Kind, Status, many, one};
use Status::{Refused, Supported};

const POOLS: Status = Refused {
    harmless: &[],
    reason: "virtual IP pools are not supported; give the peers addresses of their own and name these in remote_ts",
};
const AUTHORITIES: Status = Refused {
    harmless: &[],
    reason: "certification authorities are not supported; use auth = psk with a long random secret",
};
const PRIVATE_KEYS: Status =
    Status::NoEffect { quiet: &[], reason: "private keys are not used: authentication is by pre-shared key" };
const OTHER_METHODS: Status =
    Status::NoEffect { quiet: &[], reason: "the methods that use this secret are not supported" };

pub(super) const IKE_SECRET: &[Key] =
    &[one("secret", Kind::Secret, "", Supported), one("id*", Kind::Identity, "%any", Supported)];

pub(super) const OTHER_SECRET: &[Key] =
    &[one("secret", Kind::Secret, "", OTHER_METHODS), one("id*", Kind::Identity, "%any", OTHER_METHODS)];

pub(super) const KEY_FILE: &[Key] =
    &[one("file", Kind::File, "", PRIVATE_KEYS), one("secret*", Kind::Secret, "", PRIVATE_KEYS)];

pub(super) const TOKEN: &[Key] = &[
    one("handle", Kind::Text, "", PRIVATE_KEYS),
    one("slot", Kind::U32, "", PRIVATE_KEYS),
    one("module", Kind::Text, "", PRIVATE_KEYS),
    one("pin", Kind::Text, "", PRIVATE_KEYS),
];

pub(super) const POOL: &[Key] = &[
    one("addrs", Kind::Text, "", POOLS),
    many("address", Kind::Text, "", POOLS),
    many("dns", Kind::Text, "", POOLS),
    many("nbns", Kind::Text, "", POOLS),
    many("dhcp", Kind::Text, "", POOLS),
    many("netmask", Kind::Text, "", POOLS),
    many("server", Kind::Text, "", POOLS),
    many("subnet", Kind::Text, "", POOLS),
    many("p_cscf", Kind::Text, "", POOLS),
    many("split_include", Kind::Text, "", POOLS),
    many("split_exclude", Kind::Text, "", POOLS),
];

pub(super) const AUTHORITY: &[Key] = &[
    one("cacert", Kind::File, "", AUTHORITIES),
    one("file", Kind::File, "", AUTHORITIES),
    one("handle", Kind::Text, "", AUTHORITIES),
    one("slot", Kind::U32, "", AUTHORITIES),
    one("module", Kind::Text, "", AUTHORITIES),
    many("crl_uris", Kind::Text, "", AUTHORITIES),
    many("ocsp_uris", Kind::Text, "", AUTHORITIES),
    one("cert_uri_base", Kind::Text, "", AUTHORITIES),
];
