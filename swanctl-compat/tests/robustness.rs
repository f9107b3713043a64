//! Whatever a client sends or a file holds: an answer or a finding, never a panic.

use std::collections::BTreeMap;
use std::io;

use proptest::collection::vec;
use proptest::prelude::*;
use swanctl_compat::keys::Scope;
use swanctl_compat::plan::Plan;
use swanctl_compat::settings::{FileSource, Settings};
use swanctl_compat::vici::{Element, Message};
use swanctl_compat::{Request, RequestError, address, identity, proposal, secret, text, units};

const COMMANDS: [&str; 18] = [
    "load-conn",
    "load-shared",
    "initiate",
    "terminate",
    "rekey",
    "install",
    "uninstall",
    "list-sas",
    "list-conns",
    "list-policies",
    "unload-conn",
    "unload-shared",
    "cygnet-status",
    "cygnet-backend-sas",
    "cygnet-why",
    "cygnet-explain",
    "cygnet-guards",
    "stats",
];

/// Names that mean something somewhere.
fn name() -> impl Strategy<Value = String> {
    let known: Vec<&'static str> = Scope::ALL.iter().flat_map(|scope| scope.keys()).map(|key| key.name).collect();
    let others = [
        "src", "dst", "proto", "port", "local", "remote", "children", "cert", "ike", "child", "ike-id", "timeout",
        "type", "data", "owners", "name",
    ];
    prop_oneof![
        3 => proptest::sample::select(known).prop_map(str::to_owned),
        2 => proptest::sample::select(others.to_vec()).prop_map(str::to_owned),
        1 => "\\PC{0,8}",
    ]
}

/// Values that are nearly right.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let near = [
        "psk",
        "pubkey",
        "yes",
        "1h",
        "1h30m",
        "5t",
        "0x1f",
        "-1",
        "4294967296",
        "10.1.0.0/16",
        "10.1.0.0/33",
        "::/0",
        "%any",
        "dynamic[tcp/80]",
        "10.0.0.9-10.0.0.1",
        "aes256gcm16-prfsha384-ecp384",
        "aes128-sha256-modp2048-ke1_mlkem768",
        "trap|start",
        "default",
        "ike",
        "@#00",
        "C=XX, CN=*",
        "{11}:#ff",
        "0sYQ==",
        "packet",
    ];
    prop_oneof![
        4 => proptest::sample::select(near.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        1 => "[a-z0-9:./\\[\\]{}=#@*%-]{0,20}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..12),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let leaf = prop_oneof![
        (name(), value()).prop_map(|(name, value)| Element::KeyValue(name, value.into())),
        (name(), vec(value(), 0..3))
            .prop_map(|(name, items)| Element::List(name, items.into_iter().map(Into::into).collect())),
    ];
    let element = leaf.prop_recursive(4, 30, 6, |inner| {
        (name(), vec(inner, 0..6)).prop_map(|(name, elements)| Element::Section(name, collect(elements)))
    });
    vec(element, 0..6).prop_map(collect)
}

fn collect(elements: Vec<Element>) -> Message {
    let mut message = Message::new();
    elements.into_iter().for_each(|element| message.push(element));
    message
}

struct Files(BTreeMap<String, Vec<u8>>);

impl FileSource for Files {
    fn expand(&self, pattern: &str) -> Vec<String> {
        self.0.keys().filter(|path| path.as_str() == pattern).cloned().collect()
    }
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn canonical(&self, path: &str) -> String {
        path.to_owned()
    }
    fn world_readable(&self, _path: &str) -> bool {
        true
    }
}

/// Lines of a configuration, most of them sound.
fn line() -> impl Strategy<Value = String> {
    let value = value().prop_map(|octets| String::from_utf8_lossy(&octets).into_owned());
    prop_oneof![
        4 => (name(), value).prop_map(|(name, value)| format!("{name} = {value}")),
        2 => name().prop_map(|name| format!("{name} {{")),
        1 => (name(), name()).prop_map(|(name, other)| format!("{name} : connections.a.{other}, t {{")),
        3 => Just("}".to_owned()),
        1 => Just("connections {\na {\nlocal {\nauth = psk\n}\nchildren {\nnet {".to_owned()),
        1 => Just("secrets {\nike-a {\nsecret = planted".to_owned()),
        1 => Just("include b".to_owned()),
        1 => Just("x = \"".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn requests(command in proptest::sample::select(COMMANDS.to_vec()), message in message()) {
        match Request::parse(command, &message) {
            Ok(_) => {}
            Err(RequestError::Unknown) => prop_assert!(false, "{} is a command", command),
            Err(RequestError::Refused(reply)) => {
                prop_assert_eq!(reply.get_str("success"), Some("no"));
                prop_assert!(reply.get_str("errmsg").is_some_and(|text| !text.is_empty()));
                prop_assert!(reply.encode(&mut Vec::new()).is_ok());
            }
        }
    }

    #[test]
    fn connections(content in message()) {
        let mut content = content;
        if content.get_section("local").is_none() {
            content.section("local", Message::new().with("auth", "psk"));
        }
        let mut message = Message::new();
        message.section("c", content);
        let _ = Request::parse("load-conn", &message);
    }

    #[test]
    fn listings(message in message()) {
        let _ = (text::list_sa(&message), text::list_conn(&message), text::list_policy(&message), text::stats(&message));
        let _ = (text::raw(&message), text::pretty("x", &message), text::json(&message), text::log(&message));
        let _ = text::cygnet_child(&message, 0, 8, &|ms| ms.to_string());
    }

    #[test]
    fn values(octets in value(), other in "\\PC{0,30}") {
        for text in [String::from_utf8_lossy(&octets).into_owned(), other] {
            let _ = (identity::parse(&text), address::host(&text), address::selector(&text));
            let _ = (proposal::ike(&text), proposal::esp(&text), secret::decode(text.as_bytes()));
            let _ = (units::u32(&text), units::u64(&text), units::seconds(&text), units::bytes(&text), units::dscp(&text));
        }
    }

    #[test]
    fn files(lines in vec(line(), 0..40), included in vec(line(), 0..10)) {
        let files = Files([("a".to_owned(), lines.join("\n").into_bytes()), ("b".to_owned(), included.join("\n").into_bytes())].into());
        let settings = Settings::load(&files, "a");
        let plan = Plan::make(&settings, &files);
        let text: String = plan.findings.iter().map(|finding| finding.render(settings.sources())).collect();
        prop_assert!(!text.contains("planted"), "{}", text);
        let debug = format!("{plan:?}{settings:?}");
        prop_assert!(!debug.contains("planted"), "{}", debug);
    }
}
