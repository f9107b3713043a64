//! The table: configurations over all sections of `swanctl.conf`, what is asked after each, and commands that need none.

use swanctl_compat::vici::Message;

/// One `swanctl.conf`.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) conf: &'static str,
    /// charon takes it and we do not: what the refusal must name.
    pub(super) refused: Option<&'static str>,
}

impl Case {
    /// Whether a question makes sense here: what a start action has begun is in another state at each look.
    pub(super) fn asks(&self, question: &Question) -> bool {
        question.name != "list-sas" || !self.conf.contains("= start")
    }
}

/// One command.
pub(super) struct Question {
    pub(super) name: &'static str,
    pub(super) command: &'static str,
    /// Events to register for.
    pub(super) events: &'static [&'static str],
    pub(super) request: fn() -> Message,
}

const fn plain(command: &'static str, events: &'static [&'static str]) -> Question {
    Question { name: command, command, events, request: Message::new }
}

const fn with(name: &'static str, command: &'static str, request: fn() -> Message) -> Question {
    Question { name, command, events: &[], request }
}

/// What is asked after each configuration.
pub(super) const AFTER_LOAD: &[Question] = &[
    plain("get-conns", &[]),
    plain("list-conns", &["list-conn"]),
    plain("get-shared", &[]),
    plain("get-keys", &[]),
    plain("get-pools", &[]),
    plain("get-authorities", &[]),
    plain("list-authorities", &["list-authority"]),
    plain("list-policies", &["list-policy"]),
    Question {
        name: "list-policies of all kinds",
        command: "list-policies",
        events: &["list-policy"],
        request: || key("trap", "yes").with("drop", "yes").with("pass", "yes"),
    },
    plain("list-certs", &["list-cert"]),
    plain("list-sas", &["list-sa"]),
];

fn key(name: &str, value: &str) -> Message {
    Message::new().with(name, value)
}

fn inside(name: &str, content: Message) -> Message {
    let mut message = Message::new();
    message.section(name, content);
    message
}

/// Commands that need no configuration, most of them wrong.
pub(super) const QUESTIONS: &[Question] = &[
    plain("version", &[]),
    plain("stats", &[]),
    plain("get-algorithms", &[]),
    plain("get-counters", &[]),
    with("get-counters all", "get-counters", || key("all", "yes")),
    with("get-counters unknown", "get-counters", || key("name", "nothing")),
    plain("reset-counters", &[]),
    with("reset-counters unknown", "reset-counters", || key("name", "nothing")),
    plain("reload-settings", &[]),
    plain("no-such-command", &[]),
    plain("initiate", &[]),
    with("initiate unknown child", "initiate", || key("child", "nothing").with("timeout", "500")),
    with("initiate unknown ike", "initiate", || key("ike", "nothing").with("timeout", "500")),
    with("initiate unknown both", "initiate", || key("ike", "nothing").with("child", "nothing").with("timeout", "500")),
    plain("terminate", &[]),
    with("terminate unknown ike", "terminate", || key("ike", "nothing")),
    // A script whose variable is unset.
    with("terminate an empty ike", "terminate", || key("ike", "")),
    with("terminate an empty ike with a child", "terminate", || key("ike", "").with("child", "nothing")),
    with("terminate an empty child", "terminate", || key("child", "")),
    with("rekey an empty ike", "rekey", || key("ike", "")),
    with("initiate an empty child", "initiate", || key("child", "").with("timeout", "500")),
    with("initiate an empty ike", "initiate", || key("ike", "").with("timeout", "500")),
    with("install an empty child", "install", || key("child", "")),
    with("uninstall an empty child", "uninstall", || key("child", "")),
    with("unload-conn of an empty name", "unload-conn", || key("name", "")),
    with("list-conns of an empty ike", "list-conns", || key("ike", "")),
    with("terminate unknown ike-id", "terminate", || key("ike-id", "4711")),
    with("terminate unknown child", "terminate", || key("child", "nothing")),
    with("terminate unknown child-id", "terminate", || key("child-id", "4711")),
    plain("rekey", &[]),
    with("rekey unknown ike", "rekey", || key("ike", "nothing")),
    with("rekey unknown child", "rekey", || key("child", "nothing")),
    with("rekey unknown child-id", "rekey", || key("child-id", "4711")),
    plain("redirect", &[]),
    with("redirect without a gateway", "redirect", || key("ike", "nothing")),
    with("redirect unknown", "redirect", || key("ike", "nothing").with("gateway", "gw.example")),
    plain("install", &[]),
    with("install unknown", "install", || key("child", "nothing")),
    plain("uninstall", &[]),
    with("uninstall unknown", "uninstall", || key("child", "nothing")),
    plain("unload-conn", &[]),
    with("unload-conn unknown", "unload-conn", || key("name", "nothing")),
    plain("load-shared", &[]),
    with("load-shared without a type", "load-shared", || key("id", "x").with("data", "x")),
    with("load-shared unknown type", "load-shared", || key("type", "foo").with("data", "x")),
    with("load-shared without data", "load-shared", || key("type", "ike")),
    plain("unload-shared", &[]),
    with("unload-shared unknown", "unload-shared", || key("id", "nothing")),
    plain("unload-pool", &[]),
    with("unload-pool unknown", "unload-pool", || key("name", "nothing")),
    plain("unload-authority", &[]),
    with("unload-authority unknown", "unload-authority", || key("name", "nothing")),
    with("load-authority without a certificate", "load-authority", || inside("x", Message::new())),
    plain("load-cert", &[]),
    with("load-cert unknown type", "load-cert", || key("type", "foo").with("data", "x")),
    with("load-cert unreadable", "load-cert", || key("type", "X509").with("flag", "CA").with("data", "x")),
    plain("load-key", &[]),
    with("load-key unreadable", "load-key", || key("type", "any").with("data", "x")),
    plain("unload-key", &[]),
    with("unload-key unknown", "unload-key", || key("id", "00112233445566778899aabbccddeeff00112233")),
    with("load-pool without addresses", "load-pool", || inside("x", Message::new())),
    plain("flush-certs", &[]),
    plain("clear-creds", &[]),
    with("load-conn unknown option", "load-conn", || inside("x", key("bogus", "1"))),
    with("load-conn invalid section", "load-conn", || inside("x", inside("bogus", Message::new()))),
    with("load-conn invalid value", "load-conn", || inside("x", key("version", "x2"))),
    plain("load-conn", &[]),
];

const fn case(name: &'static str, conf: &'static str) -> Case {
    Case { name, conf, refused: None }
}

const fn refused(name: &'static str, key: &'static str, conf: &'static str) -> Case {
    Case { name, conf, refused: Some(key) }
}

/// The configurations.
pub(super) const CASES: &[Case] = &[
    case("nothing", ""),
    case("the least", "connections { a { local { auth = psk } } }"),
    case(
        "ordinary site to site",
        "connections { site { version = 2\n local_addrs = 192.0.2.1\n remote_addrs = 192.0.2.77\n proposals = aes128gcm16-prfsha256-x25519\n
           local { auth = psk\n id = gw-a.example }\n remote { auth = psk\n id = gw-b.example }
           children { net { local_ts = 10.1.0.0/24\n remote_ts = 10.2.0.0/24\n esp_proposals = aes128gcm16-x25519 } } } }
         secrets { ike-site { id-1 = gw-a.example\n id-2 = gw-b.example\n secret = \"a secret\" } }",
    ),
    case(
        "several connections keep their order",
        "connections { zulu { local { auth = psk }\n children { z { } } }\n alpha { local { auth = psk } }\n mike { local { auth = psk } } }",
    ),
    case(
        "several children keep their order",
        "connections { a { local { auth = psk }\n children { z { remote_ts = 10.3.0.0/24 }\n b { remote_ts = 10.4.0.0/24 }\n a { } } } }",
    ),
    case("addresses", "connections { a { local_addrs = 192.0.2.1, 2001:db8::1\n remote_addrs = gw.example, 198.51.100.0/24, 203.0.113.1-203.0.113.9, %any\n local { auth = psk } } }"),
    case("any address", "connections { a { local_addrs = %any\n remote_addrs = %any\n local { auth = psk } } }"),
    case("ports", "connections { a { local_port = 500\n remote_port = 4500\n remote_addrs = 192.0.2.9\n local { auth = psk } } }"),
    case("dead peer detection", "connections { a { dpd_delay = 30s\n local { auth = psk }\n children { c { dpd_action = restart } } } }"),
    case("ike lifetimes", "connections { a { rekey_time = 2h\n over_time = 10m\n rand_time = 5m\n local { auth = psk } } }"),
    case("reauthentication", "connections { a { reauth_time = 3h\n local { auth = psk } } }"),
    case("reauthentication and rekeying", "connections { a { reauth_time = 3h\n rekey_time = 1h\n local { auth = psk } } }"),
    case("no reauthentication and no word of rekeying", "connections { a { reauth_time = 0\n local { auth = psk } } }"),
    case("no lifetimes", "connections { a { rekey_time = 0\n local { auth = psk }\n children { c { rekey_time = 0 } } } }"),
    case(
        "unique",
        "connections { a { unique = never\n local { auth = psk } }\n b { unique = replace\n local { auth = psk } }\n c { unique = keep\n local { auth = psk } }\n d { unique = no\n local { auth = psk } } }",
    ),
    case("mobike, fragmentation, childless, keyingtries, dscp, encap", "connections { a { mobike = no\n fragmentation = accept\n childless = force\n keyingtries = 0\n dscp = 101110\n encap = yes\n local { auth = psk } } }"),
    case("numbers in all notations", "connections { a { keyingtries = 0x10\n dpd_delay = 010\n local { auth = psk }\n children { c { rekey_bytes = 0x100\n reqid = 017\n priority = 0xff } } } }"),
    case("identities", "connections { a { local { auth = psk\n id = @gw.example }\n remote { auth = psk\n id = user@example.org } }\n b { local { auth = psk\n id = 192.0.2.1 }\n remote { auth = psk\n id = \"C=CH, O=Example, CN=gw\" } }\n c { local { auth = psk\n id = keyid:abc }\n remote { auth = psk\n id = @#00ff } } }"),
    case("identities with wildcards", "connections { a { local { auth = psk\n id = fqdn:gw.example }\n remote { auth = psk\n id = *.example.org } }\n b { local { auth = psk }\n remote { auth = psk\n id = *@example.org } }\n c { local { auth = psk }\n remote { auth = psk\n id = %any } } }"),
    case("identities of networks", "connections { a { local { auth = psk\n id = 10.0.0.0/8 }\n remote { auth = psk\n id = 10.0.0.1-10.0.0.9 } }\n b { local { auth = psk\n id = \"C=CH, ST=x, O=Example, OU=y, CN=gw\" }\n remote { auth = psk\n id = \"/DC=org/DC=example/UID=7\" } } }"),
    case("identities of addresses", "connections { a { local { auth = psk\n id = 2001:db8::1 }\n remote { auth = psk\n id = ipv4:192.0.2.7 } }\n b { local { auth = psk\n id = email:x@example.org }\n remote { auth = psk\n id = dns:gw.example } } }"),
    case("rounds with suffixes", "connections { a { local-1 { auth = psk\n id = x }\n remote-1 { auth = psk\n id = y } } }"),
    case("traffic selectors", "connections { a { local { auth = psk }\n children { c { local_ts = 10.1.0.0/16, 10.9.0.1, 2001:db8::/32\n remote_ts = 10.2.0.0/16[tcp/80], 10.3.0.0-10.3.0.9[udp], 0.0.0.0/0[icmp] } } } }"),
    case("selectors with ports", "connections { a { local { auth = psk }\n children { c { local_ts = 10.1.0.0/16[tcp/http]\n remote_ts = 10.2.0.0/16[tcp/1024-2048], 10.3.0.0/16[udp/domain], 10.4.0.0/16[17/500], 10.5.0.0/16[tcp/opaque] } } } }"),
    case("selectors with names and numbers", "connections { a { local { auth = psk }\n children { c { local_ts = 10.1.0.0/16[tcp/mysql], 10.1.1.0/24[tcp/5432], 10.1.2.0/24[udp/514]\n remote_ts = 10.2.0.0/16[tcp/0x50], 10.3.0.0/16[0x11/0120-0377], 10.4.0.0/16[112], 10.5.0.0/16[udplite], 10.6.0.0/16[tcp/www], 10.7.0.0/16[ipv6-icmp/128] } } } }"),
    case("a port in a notation that is none", "connections { a { local { auth = psk }\n children { c { local_ts = 10.0.0.0/24[tcp/080] } } } }"),
    case("selectors with protocols", "connections { a { local { auth = psk }\n children { c { local_ts = dynamic[gre]\n remote_ts = dynamic[47], 10.6.0.0/16[sctp/7], 10.7.0.0/16[icmp/8], 10.8.0.0/16[any/any], 10.9.0.0/16[50] } } } }"),
    case("dynamic selectors", "connections { a { local { auth = psk }\n children { c { local_ts = dynamic\n remote_ts = dynamic[tcp/22] } } } }"),
    case("child lifetimes", "connections { a { local { auth = psk }\n children { c { rekey_time = 30m\n life_time = 40m\n rand_time = 2m } } } }"),
    case("child limits on octets and packets", "connections { a { local { auth = psk }\n children { c { rekey_bytes = 500m\n life_bytes = 1g\n rekey_packets = 1000000\n life_packets = 2000000 } } } }"),
    case("child life_time alone", "connections { a { local { auth = psk }\n children { c { life_time = 66m } } } }"),
    case("child life_bytes alone", "connections { a { local { auth = psk }\n children { c { life_bytes = 1100 } } } }"),
    case("close and dpd actions", "connections { a { local { auth = psk }\n children { c { close_action = trap\n dpd_action = trap }\n d { close_action = start\n dpd_action = clear }\n e { close_action = none\n dpd_action = none } } } }"),
    case("several actions", "connections { a { dpd_delay = 30s\n local { auth = psk }\n children { c { close_action = trap|start\n dpd_action = start|trap } } } }"),
    case("transport mode", "connections { a { local { auth = psk }\n children { c { mode = transport } } } }"),
    case("pass and drop", "connections { a { local { auth = psk }\n children { p { mode = pass\n local_ts = 10.1.0.0/24\n remote_ts = 10.1.0.0/24\n start_action = trap }\n d { mode = drop\n local_ts = 10.1.0.0/24\n remote_ts = 10.66.0.0/24\n start_action = trap } } } }"),
    case("a trap", "connections { a { remote_addrs = 192.0.2.77\n local { auth = psk }\n children { t { local_ts = 10.1.0.0/24\n remote_ts = 10.2.0.0/24\n start_action = trap } } } }"),
    case("two traps", "connections { a { remote_addrs = 192.0.2.77\n local { auth = psk }\n children { t { local_ts = 10.1.0.0/24\n remote_ts = 10.2.0.0/24\n start_action = trap }\n u { local_ts = 10.1.0.0/24\n remote_ts = 10.4.0.0/24[tcp/80]\n start_action = trap } } } }"),
    case("priority and reqid", "connections { a { local { auth = psk }\n children { c { priority = 7\n reqid = 100 } } } }"),
    case("header fields and replay window", "connections { a { local { auth = psk }\n children { c { copy_df = no\n copy_ecn = no\n copy_dscp = yes\n replay_window = 128 } } } }"),
    case("inactivity and policies", "connections { a { local { auth = psk }\n children { c { inactivity = 5m\n policies = no } } } }"),
    case("scripts", "connections { a { local { auth = psk }\n children { c { updown = /bin/true  and\\ \"arguments\"\n hostaccess = yes }\n d { updown = \"\"\n hostaccess = yes } } } }"),
    case("proposals", "connections { a { proposals = aes256-sha256-modp2048, aes128gcm16-prfsha384-ecp256, default\n local { auth = psk }\n children { c { esp_proposals = aes256gcm16-x25519-esn, aes128-sha256, default } } } }"),
    case("pre-shared keys", "secrets { ike-a { secret = text }\n ike-b { id = gw-b.example\n secret = 0x00112233 }\n ike-c { id-1 = x\n id-2 = y\n secret = 0sAAECAw== } }"),
    case("other secrets", "secrets { eap-x { id = user\n secret = pass }\n xauth-y { id = user2\n secret = pass }\n ntlm-z { id = user3\n secret = 0x00112233445566778899aabbccddeeff } }"),
    case("templates", "base { local { auth = psk }\n rekey_time = 1h\n children { c { rekey_time = 20m } } }\n connections { a : base { remote_addrs = 192.0.2.5\n children { c { local_ts = 10.1.0.0/24 } } }\n b : base { rekey_time = 5h } }"),
    case("a value unset", "base { dpd_delay = 10s\n local { auth = psk } }\n connections { a : base { dpd_delay = } }"),
    case("words for yes and no", "connections { a { mobike = TRUE\n encap = Disabled\n local { auth = psk }\n children { c { policies = 1\n copy_df = enabled } } } }"),
    case("units in capitals", "connections { a { rekey_time = 2H\n local { auth = psk }\n children { c { rekey_time = 90 M\n rekey_bytes = 2 K } } } }"),
    // Both refuse, with the same words.
    case("unknown option", "connections { a { bogus = 1\n local { auth = psk } } }"),
    case("unknown option of a child", "connections { a { local { auth = psk }\n children { c { bogus = 1 } } } }"),
    case("unknown option of a round", "connections { a { local { auth = psk\n bogus = 1 } } }"),
    case("unknown section", "connections { a { local { auth = psk }\n foo { x = 1 } } }"),
    case("two units", "connections { a { rekey_time = 1h30m\n local { auth = psk } } }"),
    refused("no such version", "version", "connections { a { version = 3\n local { auth = psk } } }"),
    case("bad proposal", "connections { a { proposals = aes256gcm16-ecp384\n local { auth = psk } } }"),
    case("bad child proposal", "connections { a { local { auth = psk }\n children { c { esp_proposals = aes512 } } } }"),
    case("bad boolean", "connections { a { mobike = maybe\n local { auth = psk } } }"),
    case("bad size", "connections { a { local { auth = psk }\n children { c { rekey_bytes = 5t } } } }"),
    refused("a prefix that is too long", "local_ts", "connections { a { local { auth = psk }\n children { c { local_ts = 10.0.0.0/33 } } } }"),
    case("bad method", "connections { a { local { auth = ed25519 } } }"),
    case("bad action", "connections { a { local { auth = psk }\n children { c { start_action = go } } } }"),
    case("bad mode", "connections { a { local { auth = psk }\n children { c { mode = tunel } } } }"),
    case("one of three is bad", "connections { a { local { auth = psk } }\n b { local { auth = psk }\n bogus = 1 }\n c { local { auth = psk } } }"),
    // charon takes these.
    refused("IKEv1", "version", "connections { a { version = 1\n local { auth = psk } } }"),
    refused("public keys by default", "auth", "connections { a { } }"),
    refused("two rounds", "remote-2", "connections { a { local { auth = psk }\n remote-1 { auth = psk }\n remote-2 { auth = psk } } }"),
    refused("EAP", "auth", "connections { a { local { auth = psk }\n remote { auth = eap-mschapv2\n eap_id = user } } }"),
    refused("certificate constraints", "auth", "connections { a { local { auth = psk }\n remote { auth = rsa-2048-sha256 } } }"),
    refused("virtual addresses", "vips", "connections { a { vips = 0.0.0.0, ::\n local { auth = psk } } }"),
    refused("pools of a connection", "pools", "connections { a { pools = p\n local { auth = psk } } }"),
    refused("AH", "ah_proposals", "connections { a { local { auth = psk }\n children { c { ah_proposals = sha256 } } } }"),
    refused("BEET mode", "mode", "connections { a { local { auth = psk }\n children { c { mode = beet } } } }"),
    refused("IPComp", "ipcomp", "connections { a { local { auth = psk }\n children { c { ipcomp = yes } } } }"),
    refused("an interface", "interface", "connections { a { local { auth = psk }\n children { c { interface = eth0 } } } }"),
    refused("a label", "label", "connections { a { local { auth = psk }\n children { c { label = x } } } }"),
    refused("padding", "tfc_padding", "connections { a { local { auth = psk }\n children { c { tfc_padding = mtu } } } }"),
    refused("marks on a device without", "mark", "connections { a { local { auth = psk }\n children { c { mark_in = 42/0xff\n mark_out = 43 } } } }"),
    refused("interface ids on a device without", "if_id", "connections { a { if_id_in = 5\n local { auth = psk }\n children { c { if_id_out = 7 } } } }"),
    refused("a pool", "pool", "pools { p { addrs = 10.9.0.0/24\n dns = 192.0.2.53 } }"),
];
