//! What settings files may say and how errors in them are shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::apply;
use super::{Config, Finding, load};

fn read(text: &str) -> (Config, Vec<String>) {
    let mut config = Config::default();
    let mut findings: Vec<Finding> = Vec::new();
    apply(&mut config, Path::new("c.toml"), text, &mut findings);
    (config, findings.iter().map(ToString::to_string).collect())
}

/// The example file says what holds without any file, so that nobody reads one thing and gets another.
#[test]
fn the_example_file_holds_every_key_with_its_default() {
    let text = include_str!("../../cygnetd.example.toml");
    let (config, findings) = read(text);
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!(config, Config::default());
    for key in super::keys::names().filter(|key| !key.starts_with("ike.spi_")) {
        let (section, name) = key.rsplit_once('.').unwrap();
        let body = text.split(&format!("\n[{section}]\n")).nth(1).unwrap().split("\n[").next().unwrap();
        assert!(body.lines().any(|line| line.starts_with(&format!("{name} = "))), "{key} is not in the example");
    }
}

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cygnetd-config-{}-{name}", std::process::id()));
        fs::create_dir_all(path.join("cygnetd.d")).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_documented_key_is_taken() {
    let (config, findings) = read(
        r#"
        [gateway]
        name = "gw-a"
        [ike]
        port = 5500
        listen = ["192.0.2.1", "2001:db8::1"]
        retransmit_timeout = 1.5
        half_open_timeout = "2m"
        shards = 4
        fragment_size = 0
        [backend]
        kind = "auto"
        on_stop = "open"
        fail_closed = "always"
        [backend.userspace]
        device = "esp0"
        mark = 0x10
        simulate_packet_device = true
        [swanctl]
        directory = "/tmp/s"
        load = false
        [vici]
        socket = "unix:///run/x.vici"
        [log]
        level = "debug,ike_sa=trace"
        format = "json"
        "#,
    );
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!(config.gateway.name, "gw-a");
    assert_eq!(config.ike.settings.port, 5500);
    assert_eq!(config.ike.settings.retransmit_timeout, Duration::from_millis(1500));
    assert_eq!(config.ike.settings.half_open_timeout, Duration::from_secs(120));
    assert_eq!((config.ike.shards, config.ike.listen.len(), config.ike.settings.fragment_size), (4, 2, 0));
    assert_eq!(config.vici.socket, Path::new("/run/x.vici"));
    assert!(config.backend.userspace.simulate_packet_device && !config.swanctl.load);
}

#[test]
fn errors_name_file_line_column_and_remedy() {
    let cases = [
        ("[ike]\nprot = 500\n", "c.toml:2:1: error: unknown key `prot` in [ike]; did you mean `port`?"),
        ("[ikee]\n", "c.toml:1:2: error: unknown section [ikee]; did you mean [ike]?"),
        ("[ike]\nport = 70000\n", "c.toml:2:8: error: `ike.port` must be a whole number from 0 to 65535"),
        ("[ike]\nport = \"500\"\n", "c.toml:2:8: error: `ike.port` must be a whole number from 0 to 65535"),
        ("[history]\nurl = \"\"\n", "c.toml:1:2: error: [history]: this build does not have the SA history"),
        ("[[webhook]]\nname = \"x\"\n", "c.toml:1:3: error: [webhook]: this build does not have webhooks"),
        ("[http]\n", "c.toml:1:2: error: [http]: this build does not have the HTTP server"),
        ("[backend.kernel]\n", "c.toml:1:10: error: [backend.kernel]: this build does not have the kernel backend"),
        (
            "[backend]\nkind = \"kernel\"\n",
            "c.toml:2:8: error: `backend.kind` cannot be `kernel`: this build does not have the kernel backend",
        ),
        (
            "[backend]\non_stop = \"shut\"\n",
            "c.toml:2:11: error: `backend.on_stop` must be one of block, open, not `shut`",
        ),
        (
            "[ike]\nlisten = [\"nowhere\"]\n",
            "c.toml:2:10: error: `ike.listen` holds `nowhere`, which is not an address",
        ),
        (
            "[ike]\nfragment_size = 100\n",
            "c.toml:2:17: error: `ike.fragment_size` must be 0 or a whole number from 256 to 65535",
        ),
        ("port = 500\n", "c.toml:1:1: error: `port` stands outside of any section; it belongs to [ike]"),
        (
            "[ike]\nspi_min = 256\n",
            "c.toml:2:11: error: `ike.spi_min` cannot be set: the userspace backend derives SPIs from its own table, from the whole range above 255",
        ),
        ("ike = 1\n", "c.toml:1:1: error: `ike` is a section: write [ike]"),
    ];
    for (text, expected) in cases {
        assert_eq!(read(text).1, [expected], "for {text:?}");
    }
    let broken = read("[ike\n").1;
    assert!(broken[0].starts_with("c.toml:1:"), "{broken:?}");
}

#[test]
fn drop_ins_win_in_order_of_their_names() {
    let directory = Directory::new("order");
    let main = directory.0.join("cygnetd.toml");
    fs::write(&main, "[ike]\nport = 1\n").unwrap();
    fs::write(directory.0.join("cygnetd.d/20.toml"), "[ike]\nport = 3\n").unwrap();
    fs::write(directory.0.join("cygnetd.d/10.toml"), "[ike]\nport = 2\nnat_port = 9\n").unwrap();
    fs::write(directory.0.join("cygnetd.d/note.txt"), "not read").unwrap();
    let config = load(Some(&main)).unwrap();
    assert_eq!((config.ike.settings.port, config.ike.settings.nat_port), (3, 9));
}

#[test]
fn a_named_file_must_exist() {
    let findings = load(Some(Path::new("/nonexistent/cygnetd.toml"))).unwrap_err();
    assert!(findings[0].to_string().starts_with("/nonexistent/cygnetd.toml: error: cannot be read:"), "{findings:?}");
}

#[test]
fn equal_ports_are_refused() {
    let directory = Directory::new("ports");
    let main = directory.0.join("cygnetd.toml");
    fs::write(&main, "[ike]\nport = 4500\n").unwrap();
    let findings = load(Some(&main)).unwrap_err();
    assert!(findings[0].message.contains("both 4500"), "{findings:?}");
}
