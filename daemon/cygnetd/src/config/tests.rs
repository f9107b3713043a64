//! What settings files may say and how errors in them are shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use offload_userspace::nic::Simulation;

use super::file::apply;
use super::{Config, Finding, load};

fn read(text: &str) -> (Config, Vec<String>) {
    let mut config = Config::default();
    let mut findings: Vec<Finding> = Vec::new();
    apply(&mut config, Path::new("c.toml"), text, &mut findings, &mut Vec::new());
    (config, findings.iter().map(ToString::to_string).collect())
}

/// The example file says what holds without any file, so that nobody reads one thing and gets another.
#[test]
fn the_example_file_holds_every_key_with_its_default() {
    if !cfg!(feature = "kernel") {
        return; // these files are for builds with everything
    }
    let text = include_str!("../../cygnetd.example.toml");
    let (config, findings) = read(text);
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!(config, Config::default());
    // What is refused without a simulated NIC is there as a comment. Webhooks have no defaults, and their own test.
    let (before, rest) = text.split_once("\n#[[webhook]]\n").unwrap();
    let text = format!("{before}\n{}", rest.split_once("\n\n").unwrap().1);
    let text = &text.lines().map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line));
    let text = &text.clone().map(|line| format!("{line}\n")).collect::<String>();
    let (mut config, findings) = read(text);
    assert_eq!(findings, Vec::<String>::new());
    let nic = std::mem::take(&mut config.backend.userspace.simulation.limits);
    assert_eq!(config, Config::default());
    let rungs = Simulation { limits: nic, each_link: false }.rungs();
    assert_eq!(rungs, Simulation::default().rungs());
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
    if !cfg!(feature = "kernel") {
        return; // these files are for builds with everything
    }
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
        [backend.kernel]
        table = 221
        install_routes = false
        [swanctl]
        directory = "/tmp/s"
        load = false
        [vici]
        socket = ["unix:///run/x.vici", "tcp://127.0.0.1:4502", "tcp://[::]:4502"]
        user = "charon"
        group = "adm"
        mode = "0600"
        allow_remote = true
        [history]
        url = "sqlite:///tmp/h/history.db"
        retain_days = 7
        retain_rows = 1000
        spool_size = 1_048_576
        fsync = true
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
    let places: Vec<_> = config.vici.places.iter().map(ToString::to_string).collect();
    assert_eq!(places, ["unix:///run/x.vici", "tcp://127.0.0.1:4502", "tcp://[::]:4502"]);
    let access = super::vici::Access { user: "charon".into(), group: "adm".into(), mode: 0o600 };
    assert_eq!((config.vici.access, config.vici.allow_remote), (access, true));
    assert_eq!((config.history.retain_days, config.history.retain_rows, config.history.fsync), (7, 1000, true));
    assert_eq!((config.history.spool(), config.history.is_chosen()), (PathBuf::from("/tmp/h/spool"), true));
    assert!(config.backend.userspace.simulate_packet_device && !config.swanctl.load);
}

#[test]
fn errors_name_file_line_column_and_remedy() {
    let cases = [
        ("[ike]\nprot = 500\n", "c.toml:2:1: error: unknown key `prot` in [ike]; did you mean `port`?"),
        ("[ikee]\n", "c.toml:1:2: error: unknown section [ikee]; did you mean [ike]?"),
        ("[ike]\nport = 70000\n", "c.toml:2:8: error: `ike.port` must be a whole number from 0 to 65535"),
        ("[ike]\nport = \"500\"\n", "c.toml:2:8: error: `ike.port` must be a whole number from 0 to 65535"),
        (
            "[history]\nurl = \"history.db\"\n",
            "c.toml:2:7: error: `history.url` must begin with `sqlite://` or `postgres://`",
        ),
        (
            "[http]\nlisten = \"localhost:80\"\n",
            "c.toml:2:10: error: `http.listen` cannot be `localhost:80`: it is an address with a port, such as 127.0.0.1:9470 or [::1]:9470, \
             or unix:PATH",
        ),
        (
            "[http]\ntoken = \"short\"\n",
            "c.toml:2:9: error: `http.token` must be at least 16 printable ASCII characters without blanks",
        ),
        (
            "[vici]\nsocket = \"charon.vici\"\n",
            "c.toml:2:10: error: `vici.socket` must be `unix://` and an absolute path of less than 108 octets, or `tcp://` and an address \
             with a port, not `charon.vici`",
        ),
        (
            "[vici]\nsocket = [\"unix:///run/a\", \"vsock://2:4502\"]\n",
            "c.toml:2:10: error: `vici.socket` cannot be `vsock://2:4502`: vsock:// is not supported: use unix:///path/to/socket or \
             tcp://host:port",
        ),
        (
            "[vici]\nsocket = [\"/run/a\", \"unix:///run/a\"]\n",
            "c.toml:2:10: error: `vici.socket` holds unix:///run/a twice",
        ),
        ("[vici]\nsocket = []\n", "c.toml:2:10: error: `vici.socket` must hold at least one place"),
        (
            "[vici]\nmode = 660\n",
            "c.toml:2:8: error: `vici.mode` must be permissions in octal digits, such as \"0660\"",
        ),
        (
            "[vici]\nmode = \"0440\"\n",
            "c.toml:2:8: error: `vici.mode` is 0440, with which not even the owner could connect",
        ),
        (
            "[backend]\nkind = \"ipsec\"\n",
            "c.toml:2:8: error: `backend.kind` must be one of userspace, kernel, auto, not `ipsec`",
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
            "c.toml:2:11: error: `ike.spi_min` cannot be set: SPIs are derived from a table of the backend, from the whole range above 255",
        ),
        ("ike = 1\n", "c.toml:1:1: error: `ike` is a section: write [ike]"),
        (
            "[backend.userspace.limits]\nciphers = [\"aes\"]\n",
            "c.toml:2:11: error: `backend.userspace.limits.ciphers` holds `aes`, but the datapath has aes256gcm16",
        ),
        (
            "[backend.userspace.limits]\nreplay_windows = [32, 16]\n",
            "c.toml:2:18: error: `backend.userspace.limits.replay_windows` holds 16, but windows have 32 packets or more",
        ),
        (
            "[backend.userspace.limits]\nlimits = [\"octets\"]\n",
            "c.toml:2:10: error: `backend.userspace.limits.limits` holds `octets`, but knows time, bytes, packets",
        ),
        (
            "[backend.userspace.limits]\nprotocols = [\"gre\"]\n",
            "c.toml:2:13: error: `backend.userspace.limits.protocols` holds `gre`: use a number from 1 to 255, or one of icmp, tcp, udp, icmpv6, sctp",
        ),
        (
            "[backend.userspace.limits]\nsa_tables = 1\n",
            "c.toml:2:1: error: unknown key `sa_tables` in [backend.userspace.limits]; did you mean `sa_table`?",
        ),
    ];
    are_found(&cases);
    let broken = read("[ike\n").1;
    assert!(broken[0].starts_with("c.toml:1:"), "{broken:?}");
}

fn are_found(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let findings = read(text).1;
        let placed = findings.iter().map(|finding| finding.starts_with(expected)).collect::<Vec<_>>();
        assert_eq!(placed, [true], "for {text:?}: {findings:?}");
    }
}

#[cfg(feature = "kernel")]
#[test]
fn errors_about_the_kernel_backend_are_placed() {
    are_found(&[
        (
            "[backend.kernel]\ntabel = 7\n",
            "c.toml:2:1: error: unknown key `tabel` in [backend.kernel]; did you mean `table`?",
        ),
        (
            "[backend.kernel]\njournal = \"here\"\n",
            "c.toml:2:11: error: `backend.kernel.journal` must be an absolute path, or empty for none, not `here`",
        ),
    ]);
}

#[cfg(not(feature = "kernel"))]
#[test]
fn a_build_without_the_kernel_backend_says_so() {
    are_found(&[
        ("[backend.kernel]\n", "c.toml:1:10: error: [backend.kernel]: this build does not have the kernel backend"),
        (
            "[backend]\nkind = \"kernel\"\n",
            "c.toml:2:8: error: `backend.kind` cannot be `kernel`: this build does not have the kernel backend",
        ),
    ]);
    assert_eq!(read("[backend]\nkind = \"auto\"\n").1, Vec::<String>::new());
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

#[test]
fn simulated_nics_and_the_kernel_exclude_each_other() {
    if !cfg!(feature = "kernel") {
        return; // these files are for builds with everything
    }
    let directory = Directory::new("kinds");
    let main = directory.0.join("cygnetd.toml");
    let text = "[backend]\nkind = \"kernel\"\n[backend.userspace]\nsimulate_packet_device = true\n";
    fs::write(&main, text).unwrap();
    let findings = load(Some(&main)).unwrap_err();
    assert!(findings[0].message.contains("needs backend.kind = \"userspace\""), "{findings:?}");
    fs::write(&main, text.replace("kernel", "auto")).unwrap();
    assert_eq!(load(Some(&main)).unwrap().backend.kind, super::BackendKind::Auto);
}

/// A limit that nothing has would be believed to hold.
#[test]
fn limits_of_a_nic_that_is_not_simulated_are_refused() {
    let directory = Directory::new("limits");
    let main = directory.0.join("cygnetd.toml");
    let refused = |text: &str| {
        fs::write(&main, text).unwrap();
        load(Some(&main)).unwrap_err().iter().map(|f| (f.line, f.column, f.message.clone())).collect::<Vec<_>>()
    };
    let needs =
        |key| format!("`backend.userspace.{key}` is about simulated NICs: it needs simulate_packet_device = true");
    assert_eq!(refused("[backend.userspace.limits]\nesn = false\n"), [(2, 1, needs("limits.esn"))]);
    assert_eq!(refused("[backend.userspace]\nsimulated_devices = \"links\"\n"), [(2, 1, needs("simulated_devices"))]);
    let nothing = "[backend.userspace]\nsimulate_packet_device = true\n[backend.userspace.limits]\npacket = false\n";
    assert!(refused(nothing)[0].2.contains("would do nothing"));
    // Another file may simulate what the first one limits.
    fs::write(&main, "[backend.userspace.limits]\nlike = \"mlx5\"\nesn = false\n").unwrap();
    fs::write(directory.0.join("cygnetd.d/10.toml"), "[backend.userspace]\nsimulate_packet_device = true\n").unwrap();
    let config = load(Some(&main)).unwrap();
    let packet = &config.backend.userspace.simulation.rungs()[0].capabilities;
    assert!(!packet.esn && !packet.udp_encapsulation && !packet.limits.bytes);
}

/// Whoever connects controls the daemon.
#[test]
fn a_port_for_other_machines_has_to_be_meant() {
    let directory = Directory::new("remote");
    let main = directory.0.join("cygnetd.toml");
    let refused = |text: &str| {
        fs::write(&main, text).unwrap();
        load(Some(&main)).unwrap_err().iter().map(|f| (f.line, f.column, f.message.clone())).collect::<Vec<_>>()
    };
    let reason = |place: &str| {
        format!(
            "`vici.socket` holds {place}: other machines can reach it, and whoever connects controls the daemon; if that is meant, set \
             allow_remote = true in [vici]"
        )
    };
    let text = "[vici]\nsocket = [\"tcp://[::1]:4502\",\n  \"tcp://192.0.2.1:4502\", \"tcp://0.0.0.0:1\"]\n";
    assert_eq!(refused(text), [(3, 3, reason("tcp://192.0.2.1:4502")), (3, 27, reason("tcp://0.0.0.0:1"))]);
    assert_eq!(refused("[vici]\nsocket = \"tcp://[::]:1\"\n"), [(2, 10, reason("tcp://[::]:1"))]);
    // A later file may say that it is meant, or set other places.
    let later = directory.0.join("cygnetd.d/10.toml");
    fs::write(&later, "[vici]\nallow_remote = true\n").unwrap();
    assert_eq!(load(Some(&main)).unwrap().vici.places.len(), 1);
    fs::write(&later, "[vici]\nsocket = \"tcp://localhost:1\"\n").unwrap();
    assert_eq!(load(Some(&main)).unwrap().vici.places[0].to_string(), "tcp://127.0.0.1:1");
    fs::write(&later, "[vici]\nmode = 0o600\n").unwrap();
    assert_eq!(load(Some(&main)).unwrap_err().len(), 1);
}

/// Leave to give keys out is made where the settings are read, and nowhere else in what is shipped.
#[test]
fn only_the_settings_let_keys_out() {
    fn search(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() && !entry.ends_with("tests") {
                search(&entry, found);
            } else if entry.extension().is_some_and(|kind| kind == "rs") && !entry.ends_with("tests.rs") {
                let text = fs::read_to_string(&entry).unwrap();
                found.extend(text.contains("permitted_in_settings").then_some(entry));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    for part in ["daemon", "plugins", "swanctl-compat"] {
        search(&root.join(part), &mut found);
    }
    found.sort();
    assert_eq!(
        found,
        ["daemon/cygnetd/src/config/keys.rs", "daemon/model/src/key_export.rs"].map(|path| root.join(path))
    );
    let (config, findings) = read("[debug]\nexport_keys = true\n");
    assert_eq!((findings.len(), config.ike.settings.key_export.is_some()), (0, true));
    assert!(Config::default().ike.settings.key_export.is_none());
}
