//! Lines as one types them, the exit codes they end with, and what they must say: on the standard output, or on the standard error where they fail. A
//! word behind `!` must not be there; no words at all stand for silence.

/// One call.
pub(super) struct Step {
    pub(super) line: &'static str,
    pub(super) code: i32,
    pub(super) words: &'static [&'static str],
    /// Whether the same can be asked again, in the pretty form.
    pub(super) repeats: bool,
}

impl Step {
    /// A call that fails.
    pub(super) const fn fails(line: &'static str, code: i32, words: &'static [&'static str]) -> Self {
        Step { line, code, words, repeats: false }
    }
}

/// A call that only looks.
const fn looks(line: &'static str, words: &'static [&'static str]) -> Step {
    Step { line, code: 0, words, repeats: true }
}

/// A call that does something.
const fn does(line: &'static str, words: &'static [&'static str]) -> Step {
    Step { line, code: 0, words, repeats: false }
}

const fn fails(line: &'static str, words: &'static [&'static str]) -> Step {
    Step::fails(line, 1, words)
}

/// What is added to the file of the tunnel.
pub(super) const MORE: &str = "
connections {
  more {
    remote_addrs = 192.0.2.99
    local {
      auth = psk
      id = more.example
    }
    remote {
      auth = psk
      id = other.example
    }
    children {
      later {
        local_ts = 10.1.0.0/24
        remote_ts = 10.77.0.0/24
      }
      in-clear {
        mode = pass
        local_ts = 10.1.0.0/24
        remote_ts = 10.1.0.0/24
        start_action = trap
      }
      blocked {
        mode = drop
        local_ts = 10.1.0.0/24
        remote_ts = 10.66.0.0/24
        start_action = trap
      }
    }
  }
}
";

/// With a tunnel of two children: the IKE SA is number 1, so is `net4`. The policies beside it have taken reqids before.
pub(super) const LISTINGS: &[Step] = &[
    looks(
        "--list-sas",
        &[
            "site: #1, ESTABLISHED, IKEv2, ",
            "_i* ",
            "_r\n  local  'gw-a.example' @ 192.0.2.1[",
            "\n  remote 'gw-b.example' @ 192.0.2.2[",
            "\n  AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519\n  established ",
            "s ago, rekeying in ",
            "\n  net4: #1, reqid ",
            ", INSTALLED, TUNNEL, ESP:AES_GCM_16-128\n    installed ",
            "s, expires in ",
            "\n    in  ",
            "\n    out ",
            "\n    local  10.1.0.0/24\n    remote 10.2.0.0/24\n",
            "\n  net6: #2, reqid ",
        ],
    ),
    looks(
        "--list-sas --raw",
        &[
            "list-sa event {site {uniqueid=1 version=2 state=ESTABLISHED local-host=192.0.2.1 ",
            "child-sas {net4-1 {name=net4 uniqueid=1 reqid=",
            " state=INSTALLED mode=TUNNEL protocol=ESP spi-in=",
            " local-ts=[10.1.0.0/24] remote-ts=[10.2.0.0/24] ",
            "\nlist-sas reply {}\n",
        ],
    ),
    looks("--list-sas --ike site --raw", &["list-sa event {site {", "net6-2 {"]),
    looks("--list-sas --ike nothing", &[]),
    looks("--list-sas --ike-id 1", &["site: #1", "net4: #1", "net6: #2"]),
    looks("--list-sas --ike-id 4711 --raw", &["list-sas reply {}", "!list-sa event"]),
    looks("--list-sas --child net4", &["net4: #1", "!net6"]),
    looks("--list-sas --child-id 2 --raw", &["net6-2 {", "!net4"]),
    looks("--list-sas --noblock", &["site: #1", "net6: #2"]),
    looks("--list-sas --options @OPTIONS@", &["list-sa event {site {"]),
    looks(
        "--list-pols",
        &[
            "more/later, TUNNEL\n  local:  10.1.0.0/24\n  remote: 10.77.0.0/24\n",
            "more/in-clear, PASS\n",
            "more/blocked, DROP\n",
        ],
    ),
    looks(
        "--list-pols --raw",
        &[
            "list-policy event {more/later {child=later ike=more mode=TUNNEL local-ts=[10.1.0.0/24] remote-ts=[10.77.0.0/24]",
            "\nlist-policies reply {}\n",
        ],
    ),
    looks("--list-pols --trap", &["more/later", "!in-clear", "!blocked"]),
    looks("--list-pols --pass", &["!more/later", "more/in-clear", "!blocked"]),
    looks("--list-pols --drop", &["!more/later", "!in-clear", "more/blocked"]),
    looks("--list-pols --child blocked --raw", &["more/blocked {", "!in-clear"]),
    looks(
        "--list-conns",
        &[
            "site: IKEv2, no reauthentication, rekeying every 14400s\n  local:  192.0.2.1\n  remote: 192.0.2.2\n  local pre-shared key authentication:\n    id: gw-a.example\n  remote pre-shared key authentication:\n    id: gw-b.example\n  net4: TUNNEL, rekeying every 3600s\n    local:  10.1.0.0/24\n    remote: 10.2.0.0/24\n",
            "\nmore: IKEv2",
            "\n  in-clear: PASS, no rekeying\n",
        ],
    ),
    looks(
        "--list-conns --raw",
        &[
            "list-conn event {site {local_addrs=[192.0.2.1] remote_addrs=[192.0.2.2] ",
            "local-1 {id=gw-a.example class=pre-shared key groups=[] ",
            " children {net4 {mode=TUNNEL rekey_time=3600 ",
            "\nlist-conns reply {}\n",
        ],
    ),
    looks("--list-certs", &[]),
    looks("--list-certs --subject CN=x --type x509 --flag ca --pem --short --utc", &[]),
    looks("--list-certs --raw", &["list-certs reply {}"]),
    looks("--list-pools", &[]),
    looks("--list-pools --leases --name p --raw", &["get-pools reply {}"]),
    looks("--list-authorities", &[]),
    looks("--list-authorities --name x --raw", &["list-authorities reply {}"]),
    looks("--list-algs", &["encryption:\n  AES_CBC[", "\naead:\n  AES_GCM_16[", "\nprf:\n  PRF_HMAC_SHA2_256["]),
    looks("--list-algs --raw", &["get-algorithms reply {encryption {AES_CBC=", " nonce-gen {"]),
    does("--flush-certs", &[]),
    does("--flush-certs --type x509 --raw", &["flush-certs reply {success=yes}"]),
    looks(
        "--stats",
        &[
            "uptime: ",
            ", since ",
            "\nworker threads: ",
            " total, ",
            "\njob queues: ",
            "\njobs scheduled: ",
            "\nIKE_SAs: 1 total, 0 half-open\n",
            "\nmallinfo: sbrk ",
            "\nloaded plugins: ",
        ],
    ),
    looks("--stats --raw", &["stats reply {uptime {running=", " ikesas {total=1 half-open=0}"]),
    looks("--version", &["strongSwan swanctl "]),
    looks("--version --daemon", &["cygnetd (Linux, "]),
    looks("--version --daemon --raw", &["version reply {daemon=cygnetd version="]),
    does("--reload-settings", &[]),
    does("--reload-settings --raw", &["reload-settings reply {success=yes}"]),
    looks("--list-sas --debug 0", &["site: #1"]),
    fails("--list-sas --nothing", &["unrecognized option '--nothing'", "invalid options"]),
];

/// In this order: each finds what the one before has left. `--raw` of `--install` and `--uninstall` changes nothing.
pub(super) const CONTROL: &[Step] = &[
    does(
        "--initiate --child net4 --ike site --timeout 10 --loglevel 2",
        &["[IKE] ", "initiate completed successfully\n"],
    ),
    does(
        "--initiate --child net6 --raw",
        &["log {group=IKE level=", " ikesa-name=site ikesa-uniqueid=1 msg=", "initiate reply {success=yes}\n"],
    ),
    does(
        "--initiate --child net6 --pretty",
        &["initiate reply {\n  success = no\n  errmsg = establishing CHILD_SA 'net6' failed"],
    ),
    fails("--initiate", &["initiate failed: missing configuration name\n"]),
    fails("--initiate --child nothing", &["initiate failed: CHILD_SA config 'nothing' not found\n"]),
    fails("--initiate --ike nothing", &["initiate failed: IKE_SA config 'nothing' not found\n"]),
    does("--rekey --child net4", &["rekey completed successfully\n"]),
    does("--rekey --child-id 2 --raw", &["rekey reply {success=yes matches=1}\n"]),
    does("--rekey --ike site --pretty", &["rekey reply {\n  success = yes\n  matches = 1\n}\n"]),
    does("--rekey --ike-id 2", &["rekey completed successfully\n"]),
    does("--rekey --ike site --reauth", &["rekey completed successfully\n"]),
    fails("--rekey", &["rekey failed: missing rekey selector\n"]),
    fails("--rekey --ike-id 4711", &["rekey failed: no matching SAs to rekey found\n"]),
    fails("--redirect --ike site", &["redirect failed: missing target gateway\n"]),
    fails(
        "--redirect --ike site --ike-id 1 --peer-ip 192.0.2.2 --peer-id gw-b.example --gateway 192.0.2.9",
        &["redirect failed: "],
    ),
    does(
        "--redirect --ike-id 4711 --gateway gw.example --raw",
        &["redirect reply {success=no matches=0 errmsg=no matching SAs to redirect found}\n"],
    ),
    does(
        "--redirect --peer-ip 192.0.2.99 --gateway gw.example --pretty",
        &["redirect reply {\n  success = no\n  matches = 0\n"],
    ),
    does("--install --child later --ike more", &["install completed successfully\n"]),
    does("--install --child net6 --raw", &["install completed successfully\n"]),
    fails("--install", &["install failed: missing configuration name\n"]),
    fails("--install --child later --ike site", &["install failed: configuration name not found\n"]),
    does("--uninstall --child later --ike more", &["uninstall completed successfully\n"]),
    does("--uninstall --child net6 --raw", &["uninstall completed successfully\n"]),
    does("--uninstall --child net6 --pretty", &["uninstall\n reply {\n  success = no\n"]),
    does("--terminate --child net6 --timeout 5 --loglevel 1", &["[IKE] ", "terminate completed successfully\n"]),
    does("--initiate --child net6", &["initiate completed successfully\n"]),
    does(
        "--terminate --child-id 4711 --raw",
        &["terminate reply {success=no matches=0 terminated=0 errmsg=no matching SAs to terminate found}\n"],
    ),
    fails("--terminate", &["terminate failed: missing terminate selector\n"]),
    fails("--terminate --ike-id 4711", &["terminate failed: no matching SAs to terminate found\n"]),
    does(
        "--terminate --ike site --force --pretty",
        &["terminate reply {\n  success = yes\n  matches = 1\n  terminated = 1\n}\n"],
    ),
];

/// With a tunnel; none of these touches it.
pub(super) const FILES: &[Step] = &[
    does("--load-creds", &["loaded ike secret 'ike-site'\n"]),
    does(
        "--load-creds --clear --noprompt --raw",
        &["clear-creds reply {success=yes}\n", "load-shared reply {success=yes}\n"],
    ),
    does("--load-creds --noprompt --file @CONF@ --pretty", &["load-shared reply {\n  success = yes\n}\n"]),
    does("--load-authorities", &["no authorities found, 0 unloaded\n"]),
    does("--load-authorities --file @CONF@ --raw", &["get-authorities reply {authorities=[]}\n"]),
    does("--load-pools", &["no pools found, 0 unloaded\n"]),
    does("--load-pools --file @CONF@ --raw", &["get-pools reply {}\n"]),
    does(
        "--load-conns",
        &["loaded connection 'site'\nloaded connection 'more'\nsuccessfully loaded 2 connections, 0 unloaded\n"],
    ),
    does(
        "--load-conns --file @CONF@ --raw",
        &["get-conns reply {conns=[site more]}\nload-conn reply {success=yes}\nload-conn reply {success=yes}\n"],
    ),
    does(
        "--load-all --noprompt",
        &[
            "loaded ike secret 'ike-site'\nno authorities found, 0 unloaded\nno pools found, 0 unloaded\nloaded connection 'site'\n",
            "successfully loaded 2 connections, 0 unloaded\n",
        ],
    ),
    does(
        "--load-all --clear --noprompt --file @CONF@ --raw",
        &["clear-creds reply {success=yes}\n", "get-conns reply {conns=[site more]}\n"],
    ),
];

/// After a tunnel of two children was made from here.
pub(super) const COUNTERS: &[Step] = &[
    looks(
        "--counters",
        &[
            "global:\n  ike-rekey-init        : 0\n  ike-rekey-resp        : 0\n  child-rekey           : 0\n  invalid               : 0\n  invalid-spi           : 0\n  ike-init-in-req       : 0\n  ike-init-in-resp      : 1\n  ike-init-out-req      : 1\n  ike-init-out-resp     : 0\n  ike-auth-in-req       : 0\n  ike-auth-in-resp      : 1\n  ike-auth-out-req      : 1\n  ike-auth-out-resp     : 0\n  create-child-in-req   : 0\n  create-child-in-resp  : 1\n  create-child-out-req  : 1\n  create-child-out-resp : 0\n  info-in-req           : ",
            "  info-out-resp         : ",
        ],
    ),
    does("--counters --raw", &["counters reply {counters { {ike-rekey-init=0 ike-rekey-resp=0 ", " success=yes}\n"]),
    does("--counters --pretty", &["counters reply {\n  counters {\n"]),
    looks("--counters --name site", &["site:\n  ike-rekey-init        : 0\n", "\n  ike-init-out-req      : 1\n"]),
    looks("--counters --all", &["site:\n  ike-rekey-init        : 0\n", "!global:"]),
    fails("--counters --name nothing", &["no counters found for this connection"]),
    does("--counters --name site --reset", &["reset-counters completed successfully\n"]),
    does("--counters --reset --raw", &["counters reply {success=yes}\n"]),
    does("--counters", &["global:\n  ike-rekey-init        : 0\n", "\n  ike-init-out-req      : 0\n"]),
];
