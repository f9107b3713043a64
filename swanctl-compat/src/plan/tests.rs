//! Files in `tests/files` against what is said about them.
//!
//! `broken/*` cannot be loaded, `doubtful/*` can with warnings, `good/*` passes in silence; beside each `swanctl.conf` stands the exact text in `expected`.
//! To write those anew, and then read the difference: `UPDATE_EXPECTED=1 cargo test -p swanctl-compat plan`.

use std::fs;
use std::path::{Path, PathBuf};

use ipsec::recording::{able, device};
use ipsec::{DeviceTable, OffloadMode};

use super::*;
use crate::settings::OsFiles;

/// A marker that stands in for secrets in the files and must come out nowhere.
const PLANTED: &str = "planted";

fn cases(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(kind);
    let mut cases: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

/// The files' own permissions depend on the checkout; none of these is about them.
struct Private;

impl FileSource for Private {
    fn expand(&self, pattern: &str) -> Vec<String> {
        OsFiles.expand(pattern)
    }
    fn read(&self, path: &str) -> std::io::Result<Vec<u8>> {
        OsFiles.read(path)
    }
    fn canonical(&self, path: &str) -> String {
        OsFiles.canonical(path)
    }
    fn world_readable(&self, _path: &str) -> bool {
        false
    }
}

fn load(case: &Path) -> (Plan, String) {
    let settings = Settings::load(&Private, case.join("swanctl.conf").to_str().unwrap());
    let plan = Plan::make(&settings, &Private);
    let text: String = plan.findings.iter().map(|finding| finding.render(settings.sources())).collect();
    let debug = format!("{plan:?}{settings:?}");
    assert!(!debug.contains(PLANTED), "{}: {debug}", case.display());
    (plan, text.replace(&format!("{}/", case.display()), ""))
}

fn compare(case: &Path, text: &str) {
    assert!(!text.contains(PLANTED), "{}: {text}", case.display());
    let path = case.join("expected");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{}", case.display());
}

#[test]
fn broken_files() {
    for case in cases("broken") {
        let (plan, text) = load(&case);
        assert!(plan.has_errors(), "{}", case.display());
        compare(&case, &text);
    }
}

#[test]
fn doubtful_files() {
    for case in cases("doubtful") {
        let (plan, text) = load(&case);
        assert!(!plan.has_errors() && !plan.findings.is_empty(), "{}: {text}", case.display());
        compare(&case, &text);
    }
}

#[test]
fn good_files() {
    for case in cases("good") {
        let (plan, text) = load(&case);
        assert_eq!(text, "", "{}", case.display());
        assert_eq!(plan.usable_connections().count(), plan.connections.len());
    }
}

/// Every finding in the files has a place.
#[test]
fn findings_have_positions() {
    for case in cases("broken").into_iter().chain(cases("doubtful")) {
        let (plan, _) = load(&case);
        assert!(plan.findings.iter().all(|finding| finding.span.is_some()), "{}", case.display());
    }
}

fn plan_of(text: &str) -> Plan {
    let files = crate::settings::tests::MemoryFiles::new(&[("/etc/s.conf", text)]);
    Plan::make(&Settings::load(&files, "/etc/s.conf"), &files)
}

/// The messages that Debian's swanctl 5.9.8 sends for the same file.
#[test]
fn messages_are_those_of_swanctl() {
    let plan = plan_of(
        "defaults { ike { version = 2\n proposals = aes256-sha256-ecp256 , aes128-sha256-modp2048 \n rekey_time = 4h } }
         connections {
           gw-a : defaults.ike {
             remote_addrs = 192.0.2.1, ,192.0.2.2
             local { auth = psk
              id = a }
             remote { auth = psk
              id = \"b c\" }
             rekey_time =
             children { net { local_ts = 10.1.0.0/16
               remote_ts = \"10.2.0.0/16,10.3.0.0/16\" } }
           }
           gw-b { local { auth = psk } }
         }
         secrets {
           ike-a { id-1 = a
            secret = \"foo bar\"
            id-2 = b }
           ike-b { secret = 0x616263 }
           ike-c { secret = 0sYWJj
            id = x, y }
           eap-d { secret = q
            id = u }
         }",
    );
    assert!(!plan.has_errors(), "{:?}", plan.findings);
    let shown: Vec<String> = plan.connections.iter().map(|c| crate::text::raw(&c.message)).collect();
    assert_eq!(
        shown,
        [
            "gw-a {remote_addrs=[192.0.2.1 192.0.2.2] version=2 proposals=[aes256-sha256-ecp256 aes128-sha256-modp2048] \
             local {auth=psk id=a} remote {auth=psk id=b c} children {net {local_ts=[10.1.0.0/16] \
             remote_ts=[10.2.0.0/16 10.3.0.0/16]}}}",
            "gw-b {local {auth=psk}}",
        ]
    );
    let shown: Vec<String> = plan.secrets.iter().map(|c| crate::text::raw(&c.message)).collect();
    assert_eq!(
        shown,
        [
            "id=ike-a type=ike data=foo bar owners=[a b]",
            "id=ike-b type=ike data=abc owners=[]",
            "id=ike-c type=ike data=abc owners=[x, y]",
            "id=eap-d type=eap data=q owners=[u]",
        ]
    );
    assert_eq!(plan.pre_shared_keys().count(), 3);
}

#[test]
fn what_vanished_is_unloaded() {
    let plan = plan_of("connections { a { local { auth = psk } } }\nsecrets { ike-a { secret = x } }");
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(plan.connections_to_unload(&names(&["old", "a", "older"])), names(&["old", "older"]));
    assert_eq!(plan.secrets_to_unload(&names(&["ike-a", "ike-b"])), names(&["ike-b"]));
}

#[test]
fn a_file_with_secrets_open_to_all_is_a_warning() {
    struct Open(crate::settings::tests::MemoryFiles);
    impl FileSource for Open {
        fn expand(&self, pattern: &str) -> Vec<String> {
            self.0.expand(pattern)
        }
        fn read(&self, path: &str) -> std::io::Result<Vec<u8>> {
            self.0.read(path)
        }
        fn canonical(&self, path: &str) -> String {
            path.to_owned()
        }
        fn world_readable(&self, path: &str) -> bool {
            path.ends_with("open.conf")
        }
    }
    let files = crate::settings::tests::MemoryFiles::new(&[
        ("/etc/s.conf", "include open.conf\nsecrets { ike-b { secret = y } }"),
        ("/etc/open.conf", "secrets {\n  ike-a {\n    secret = planted\n  }\n}"),
    ]);
    let files = Open(files);
    let settings = Settings::load(&files, "/etc/s.conf");
    let plan = Plan::make(&settings, &files);
    let text: String = plan.findings.iter().map(|finding| finding.render(settings.sources())).collect();
    assert_eq!(
        text,
        "/etc/open.conf:3:5: warning: /etc/open.conf holds secrets and can be read by everybody\n 3 |     secret = ***\n   |     ^^^^^^\n  \
         help: chmod o= /etc/open.conf\n"
    );
}

#[test]
fn offload_that_is_not_there_refuses_its_connection_alone() {
    let text = "connections {
        a { local { auth = psk }
          children { net { hw_offload = packet } } }
        b { local { auth = psk } }
    }";
    let files = crate::settings::tests::MemoryFiles::new(&[("/etc/s.conf", text)]);
    let settings = Settings::load(&files, "/etc/s.conf");
    let mut plan = Plan::make(&settings, &files);
    let table = DeviceTable { devices: vec![device("cygnet0", [(OffloadMode::No, able())])] }.into();
    plan.check_devices(&settings, &Devices { table, replay_window: 32, may_appear: false });
    assert_eq!(plan.usable_connections().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["b"]);
    let error = plan.findings.iter().find(|finding| finding.severity == Severity::Error).unwrap();
    assert_eq!(
        error.message,
        "`hw_offload` cannot be used: device cygnet0 has no packet offload, only software: set `hw_offload` to one of these"
    );
    assert_eq!(error.span.map(|span| (span.line, span.column)), Some((3, 41)));
}

#[test]
fn credentials_without_use_are_told() {
    let files = crate::settings::tests::MemoryFiles::new(&[
        ("/etc/s.conf", ""),
        ("/etc/private/a.pem", ""),
        ("/etc/x509ca/a.pem", ""),
        ("/etc/x509ca/b.pem", ""),
    ]);
    let settings = Settings::load(&files, "/etc/s.conf");
    let messages: Vec<String> = Plan::make(&settings, &files).findings.into_iter().map(|f| f.message).collect();
    assert_eq!(
        messages,
        [
            "/etc/x509ca/a.pem and 1 more in /etc/x509ca: not used, authentication is by pre-shared key",
            "/etc/private/a.pem in /etc/private: not used, authentication is by pre-shared key",
        ]
    );
}

/// Of a file that is named without a directory as well.
#[test]
fn files_beside_the_configuration_are_found_from_where_one_is() {
    let text = "connections { a { local { certs = a.pem\n } remote { cacerts = /etc/b.pem\n } } }";
    let files = crate::settings::tests::MemoryFiles::new(&[
        ("s.conf", text),
        ("x509/a.pem", "mine"),
        ("/etc/b.pem", "theirs"),
        ("./x509/a.pem", "mine"),
    ]);
    let settings = Settings::load(&files, "s.conf");
    let plan = Plan::make(&settings, &files);
    assert_eq!(plan.connections[0].unreadable, None);
    let sent = crate::text::raw(&plan.connections[0].message);
    assert!(sent.contains("certs=[mine]") && sent.contains("cacerts=[theirs]"), "{sent}");
    let unused = "./x509/a.pem in ./x509: not used, authentication is by pre-shared key";
    assert!(plan.findings.iter().any(|finding| finding.message == unused), "{:?}", plan.findings);
}

/// Where an error of the daemon belongs, by its `errpath`.
#[test]
fn daemon_errors_find_their_place() {
    let plan = plan_of(
        "connections {\n  a {\n    local { auth = psk }\n    children {\n      net {\n        local_ts = 10.1.0.0/16\n      }\n    }\n  }\n}",
    );
    let spans = &plan.connections[0].spans;
    let line = |path: &str| spans.find(path).map(|span| (span.line, span.column));
    assert_eq!(line("connections.a.children.net.local_ts[0]"), Some((6, 20)));
    assert_eq!(line("connections.a.children.net.hw_offload"), Some((5, 7)));
    assert_eq!(line("connections.a"), Some((2, 3)));
    assert_eq!(line("connections.b"), None);
}
