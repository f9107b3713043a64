//! Writes `swanctl.conf` files as people and generators do, and now and then as nobody should. The same seed writes the same file.

use std::fmt::Write as _;

/// Keys of a connection with values that are fine, doubtful or wrong: to a client they are all text.
const CONNECTION: [(&str, &[&str]); 14] = [
    ("version", &["2", "0", "1", "x2"]),
    ("local_addrs", &["192.0.2.1", "192.0.2.1, 2001:db8::1", "%any", ",", "a,,b,"]),
    ("remote_addrs", &["203.0.113.9", "gw.example , 198.51.100.0/24", "203.0.113.1-203.0.113.9", "\"\""]),
    ("local_port", &["500", "4500", "none"]),
    ("proposals", &["default", "aes256-sha256-modp2048,aes128gcm16-prfsha256-x25519", "rot13", ",default"]),
    ("vips", &["0.0.0.0", "0.0.0.0, ::"]),
    ("dpd_delay", &["30s", "30 s", "1h30m", "0x1e"]),
    ("encap", &["yes", "no", "maybe"]),
    ("rekey_time", &["4h", "0", "240m  # four hours"]),
    ("unique", &["never", "replace"]),
    ("pools", &["p1,p2", "p1"]),
    ("mobike", &["no", "YES"]),
    ("if_id_in", &["42", "%unique"]),
    ("bogus_key", &["1", "a b  c"]),
];

const ROUND: [(&str, &[&str]); 8] = [
    ("auth", &["psk", "pubkey", "eap-mschapv2", "rsa-3072-sha256", "ike:rsa/pss-sha384"]),
    ("id", &["gw.example", "@gw", "\"C=XX, O=Example, CN=gw\"", "user@example.org", "%any", "C=XX O=a", "fqdn:^.*$"]),
    ("round", &["1", "2"]),
    ("groups", &["a, b", "\"a b\", c"]),
    ("cert_policy", &["1.2.3.4, 1.2.3.5"]),
    ("certs", &["@DIR@/cert.pem", "@DIR@/cert.pem, 0x3000", "0sAAEC"]),
    ("eap_id", &["user"]),
    ("revocation", &["strict", "relaxed"]),
];

const CHILD: [(&str, &[&str]); 12] = [
    ("local_ts", &["10.1.0.0/16", "10.1.0.0/16[tcp/http], 10.9.0.1", "dynamic[udp]"]),
    ("remote_ts", &["10.2.0.0/16", "0.0.0.0/0,::/0", "10.3.0.1-10.3.0.9[gre]", "10.2.0.0/33"]),
    ("esp_proposals", &["aes128gcm16", "default", "aes128-sha256-esn-noesn,null-sha1"]),
    ("ah_proposals", &["sha256"]),
    ("start_action", &["trap", "start", "trap|start", "go"]),
    ("mode", &["tunnel", "transport", "pass"]),
    ("updown", &["\"/usr/lib/updown \\\"arg\\\" # x\"", "/bin/true iptables", "a\\tb"]),
    ("rekey_bytes", &["500m", "5t"]),
    ("hw_offload", &["auto", "packet"]),
    ("mark_in", &["0x2a/0xff"]),
    ("interface", &["eth0"]),
    ("label", &["system_u:object_r:ipsec_spd_t:s0"]),
];

const POOL: [(&str, &[&str]); 4] = [
    ("addrs", &["10.9.0.0/24", "10.9.0.10-10.9.0.20", "2001:db8:9::/64"]),
    ("dns", &["192.0.2.53", "192.0.2.53, 2001:db8::53"]),
    ("split_include", &["10.0.0.0/8,192.168.0.0/16"]),
    ("28673", &["first text", "a, b"]),
];

const AUTHORITY: [(&str, &[&str]); 5] = [
    ("cacert", &["@DIR@/cert.pem"]),
    ("file", &["/etc/ca.pem"]),
    ("crl_uris", &["http://crl.example/a.crl, ldap://x/y?z", "file:///x"]),
    ("ocsp_uris", &["http://ocsp.example:8880"]),
    ("cert_uri_base", &["http://certs.example/"]),
];

/// Files that others may include. None includes itself: what Debian's does then is not the same each time, and may be to hang.
pub(super) const INCLUDED: [(&str, &str); 11] = [
    ("part.conf", "dpd_delay = 7s\nencap = yes\n"),
    ("whole.conf", "connections {\n  from-include {\n    version = 2\n  }\n}\n"),
    ("conf.d/10-a.conf", "connections {\n  a {\n    version = 1\n    local_addrs = 198.51.100.10\n  }\n}\n"),
    ("conf.d/20-b.conf", "connections { a { version = 2 }\n b : base { unique = keep\n } }"),
    ("conf.d/.hidden.conf", "connections { hidden { } }\n"),
    ("conf.d/readme", "connections { readme { } }\n"),
    ("fragments/1.conf", "mobike = no\nlocal { auth = psk\n}\n"),
    ("fragments/2.conf", "children {\n  net {\n    remote_ts = 10.77.0.0/16\n  }\n}"),
    ("sp ace.conf", "connections { spaced { version = 2 } }\r\n"),
    ("nested.conf", "include conf.d/20-*.conf\ninclude nowhere.conf\nsecrets {\n include fragments/none\n}\n"),
    ("broken.conf", "connections {\n  from-broken {\n    version = 2\n  }\n"),
];

/// Ways to include, at the root and inside a connection.
const ROOT_INCLUDES: [&str; 20] = [
    "include whole.conf",
    "include nothing-*.conf",
    "include missing.conf",
    "include conf.d/*.conf",
    "include conf.d/*",
    "include conf.d/[12]0-?.conf # both",
    "include conf.d/{10,20}-*.conf",
    "include \"sp ace.conf\"",
    "include sp\\ ace.conf",
    "include nested.conf",
    "include @DIR@/conf.d/10-a.conf",
    "include ./conf.d/../whole.conf",
    "include \"\"",
    "include conf.d",
    "include conf.d/",
    "include\twhole.conf",
    "include = whole.conf",
    "include {",
    "include broken.conf",
    "include whole.conf missing.conf",
];
const PARTS: [&str; 6] = [
    "include part.conf",
    "include missing-part.conf",
    "include fragments/*.conf",
    "include fragments/?.conf # all",
    "include \"part.conf\"",
    "include = part.conf",
];

/// Values in every way that one can write them.
const ODD_VALUES: [&str; 16] = [
    "\"quoted # and } and { and = \"",
    "two  \"quoted  parts\"\tjoined",
    "\"a\"\"b\"c",
    "\"over\ntwo lines\"",
    "\"joined \\\nlines\"",
    "\"\\n\\r\\t\\q\\\\\\\"\"",
    "back\\slash\\n",
    "'single  quotes'",
    "a=b:c,d{e",
    "value#comment",
    "\"\" after nothing",
    "\u{e4}\u{f6}\u{fc} \u{20ac}",
    "$HOME %any @x !y",
    "0x0g",
    "-5",
    "\t tab before",
];

/// Ways to break a text.
#[derive(Clone, Copy)]
enum Harm {
    None,
    CutOff,
    LoseBrace,
    StrayBrace,
    OpenQuote,
    LoseEquals,
    Insert(char),
}

const HARMS: [Harm; 12] = [
    Harm::CutOff,
    Harm::LoseBrace,
    Harm::StrayBrace,
    Harm::OpenQuote,
    Harm::LoseEquals,
    Harm::Insert('{'),
    Harm::Insert('}'),
    Harm::Insert('"'),
    Harm::Insert('='),
    Harm::Insert(':'),
    Harm::Insert(','),
    Harm::Insert('.'),
];

pub(super) struct Writer {
    state: u64,
    out: String,
    depth: usize,
    /// Everything of a section in one line.
    flat: bool,
}

impl Writer {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, out: String::new(), depth: 0, flat: false }
    }

    /// The next file.
    pub(super) fn file(mut self) -> String {
        let harm = if self.chance(3) { *self.pick(&HARMS) } else { Harm::None };
        if self.chance(3) {
            self.section("base", |w| w.keys(&CONNECTION, 3));
            self.section("more : base", |w| {
                w.keys(&CONNECTION, 2);
                w.section("children", |w| w.section("inherited", |w| w.keys(&CHILD, 3)));
                w.section("local", |w| w.keys(&ROUND, 2));
            });
        }
        self.includes();
        for part in 0..4 {
            match part {
                0 => self.section("connections", Self::connections),
                1 if self.chance(2) => self.section("secrets", Self::secrets),
                2 if self.chance(4) => self.section("pools", |w| w.named(&["p1", "p2"], &POOL)),
                3 if self.chance(4) => self.section("authorities", |w| w.named(&["ca-1", "ca-2"], &AUTHORITY)),
                _ => {}
            }
            self.noise();
        }
        // The same sections again: they are merged.
        if self.chance(4) {
            self.section("connections", Self::connections);
        }
        self.includes();
        let out = std::mem::take(&mut self.out);
        let out = self.harm(out, harm);
        self.ends(out)
    }

    fn includes(&mut self) {
        while self.chance(4) {
            let line = *self.pick(&ROOT_INCLUDES);
            let _ = writeln!(self.out, "{line}");
        }
    }

    /// Line ends as other systems write them, a mark at the beginning, no line end at the end.
    fn ends(&mut self, text: String) -> String {
        match self.below(24) {
            0 | 1 => text.replace('\n', "\r\n"),
            2 => format!("\u{feff}{text}"),
            3 | 4 => text.trim_end().to_owned(),
            5 => text.replace("  ", "\t"),
            _ => text,
        }
    }

    fn connections(&mut self) {
        // A name may come twice: both are one section then.
        for name in ["a", "b", "with-dash", "d_1", "a"] {
            if self.chance(2) {
                let references = match self.below(12) {
                    0 => " : base",
                    1 => " : base, more",
                    2 => " : more",
                    3 => " : nowhere",
                    4 => ":more,base",
                    5 => " : connections.a",
                    6 => " : connections.b , base",
                    7 => "\n  : base",
                    _ => "",
                };
                self.section(&format!("{name}{references}"), Self::connection);
            }
        }
    }

    fn connection(&mut self) {
        self.keys(&CONNECTION, 4);
        if self.chance(6) {
            let part = *self.pick(&PARTS);
            self.line(part);
        }
        if self.chance(4) {
            let value = *self.pick(&ODD_VALUES);
            self.key("ppk_id", value);
        }
        for round in ["local", "remote", "local-2", "remote-eap"] {
            if self.chance(2) {
                self.section(round, |w| w.keys(&ROUND, 3));
            }
        }
        if self.chance(6) {
            self.section("unknown-section", |w| w.keys(&CHILD, 1));
        }
        if self.chance(3) {
            self.section("children", |w| {
                for name in ["net", "net-2", "z", "net"] {
                    if w.chance(2) {
                        let reference = if w.chance(8) { " : more.children.inherited" } else { "" };
                        w.section(&format!("{name}{reference}"), |w| w.keys(&CHILD, 4));
                    }
                }
            });
        }
    }

    fn secrets(&mut self) {
        for (name, secrets) in [
            ("ike-a", &["plain", "\"with blanks # and more\"", "0x0011aaFF", "0sAAECAw==", "0s", "0x"][..]),
            ("ike", &["two  words", "\"\"", "0xzz", "\"a\\nb\""]),
            ("eap-user", &["pass", "\"p a s s\""]),
            ("xauth", &["pass"]),
            ("ntlm-x", &["0x00112233445566778899aabbccddeeff"]),
            ("ppk-q", &["0x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"]),
        ] {
            if self.chance(3) {
                self.section(name, |w| {
                    for id in ["id", "id-1", "id2", "identity"] {
                        if w.chance(3) {
                            let value = *w.pick(&["gw.example", "192.0.2.1", "\"C=XX, CN=a b\"", "@#00ff"]);
                            w.key(id, value);
                        }
                    }
                    if !w.chance(12) {
                        let value = *w.pick(secrets);
                        w.key("secret", value);
                    }
                });
            }
        }
    }

    fn named(&mut self, names: &[&str], keys: &[(&str, &[&str])]) {
        for name in names {
            if self.chance(2) {
                self.section(name, |w| w.keys(keys, 3));
            }
        }
    }

    /// Up to `most` of these keys, some of them twice or unset.
    fn keys(&mut self, keys: &[(&str, &[&str])], most: u64) {
        for _ in 0..=self.below(most) {
            let (name, values) = *self.pick(keys);
            let value = if self.chance(20) { "" } else { *self.pick(values) };
            self.key(name, value);
        }
    }

    fn key(&mut self, name: &str, value: &str) {
        let equals = *self.pick(&[" = ", "=", " =\t", "   =   "]);
        let line = format!("{name}{equals}{value}");
        self.line(&line);
    }

    fn line(&mut self, text: &str) {
        // A comment takes the rest of a line, and so does a value: after it only a line end or a brace can stand.
        let indent = if self.chance(6) { 1 } else { 2 * self.depth };
        let comment = if self.chance(10) { *self.pick(&[" # why", "# x = { y }", " #\"", "\t"]) } else { "" };
        let _ = writeln!(self.out, "{:indent$}{text}{comment}", "");
    }

    fn section(&mut self, name: &str, content: impl Fn(&mut Self)) {
        let brace = if self.chance(6) { "\n{" } else { " {" };
        // What follows an opening brace may stand in the same line.
        let end = if self.flat || self.chance(8) { " " } else { "\n" };
        let _ = write!(self.out, "{:indent$}{name}{brace}{end}", "", indent = 2 * self.depth);
        self.depth += 1;
        content(self);
        self.depth -= 1;
        if self.chance(5) && self.out.ends_with('\n') {
            // The last value is ended by the brace alone, unless a comment stands behind it.
            let last = self.out.trim_end().rsplit('\n').next().unwrap_or_default();
            if !last.contains('#') {
                self.out.pop();
            }
        }
        let _ = writeln!(self.out, "{:indent$}}}", "", indent = 2 * self.depth);
    }

    /// Empty lines, comments, sections that nobody reads.
    fn noise(&mut self) {
        match self.below(8) {
            0 => self.out.push_str("\n\n  # a comment with { and \" in it\n"),
            1 => self.out.push_str("foo { x = 1\n bar { y = \"2\" } }\n"),
            2 => self.out.push_str("key_at_the_root = value\n"),
            3 => self.out.push_str("\r\n"),
            _ => {}
        }
    }

    fn harm(&mut self, text: String, harm: Harm) -> String {
        let places = |what: char| text.char_indices().filter(move |(_, c)| *c == what).map(|(at, _)| at);
        let without = |at: Option<usize>| match at {
            Some(at) => format!("{}{}", &text[..at], &text[at + 1..]),
            None => text.clone(),
        };
        match harm {
            Harm::None => text,
            Harm::CutOff => {
                let at = self.place(text.char_indices().map(|(at, _)| at));
                text[..at.unwrap_or(0)].to_owned()
            }
            Harm::LoseBrace => {
                let at = self.place(places('}'));
                without(at)
            }
            Harm::LoseEquals => {
                let at = self.place(places('='));
                without(at)
            }
            Harm::StrayBrace => format!("{text}}}\n"),
            Harm::OpenQuote => {
                let at = self.place(places('\n')).unwrap_or(0);
                format!("{} \"open{}", &text[..at], &text[at..])
            }
            Harm::Insert(c) => {
                let at = self.place(text.char_indices().map(|(at, _)| at)).unwrap_or(0);
                format!("{}{c}{}", &text[..at], &text[at..])
            }
        }
    }

    fn place(&mut self, places: impl Iterator<Item = usize>) -> Option<usize> {
        let all: Vec<usize> = places.collect();
        if all.is_empty() { None } else { Some(*self.pick(&all)) }
    }

    /// One time in so many.
    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    #[allow(clippy::indexing_slicing)] // below the length, and nothing is picked from nothing
    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        let length = u64::try_from(all.len()).unwrap_or(u64::MAX);
        &all[usize::try_from(self.below(length)).unwrap_or(0)]
    }

    /// Below `limit`, which is not 0.
    fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 20) % limit
    }
}
