//! What may be said of webhooks and how errors in it are shown.

use std::fs;
use std::path::Path;

use super::super::file::apply;
use super::super::{Config, Finding, load};
use super::*;

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

fn read(text: &str) -> (Config, Vec<String>) {
    let mut config = Config::default();
    let mut findings: Vec<Finding> = Vec::new();
    apply(&mut config, Path::new("c.toml"), text, &mut findings, &mut Vec::new());
    (config, findings.iter().map(ToString::to_string).collect())
}

fn webhook(keys: &str) -> String {
    format!("[[webhook]]\nname = \"ops\"\nurl = \"http://127.0.0.1:8080/hook\"\nsecret = \"{SECRET}\"\n{keys}\n")
}

/// What the example says is what holds without it.
#[test]
fn the_example_names_every_key_and_its_default() {
    let text = include_str!("../../../cygnetd.example.toml");
    let block = text.split_once("\n#[[webhook]]\n").unwrap().1.split_once("\n\n").unwrap().0;
    let lines: Vec<&str> = block.lines().filter_map(|line| line.strip_prefix('#')).collect();
    for name in names() {
        assert_eq!(lines.iter().filter(|line| line.starts_with(&format!("{name} = "))).count(), 1, "{name}");
    }
    let chosen = ["secrets = ", "secret_file = ", "events = ", "ca_file = ", "proxy = "];
    let kept = lines.iter().filter(|line| !chosen.iter().any(|key| line.starts_with(key)));
    let kept: String = kept.map(|line| format!("{line}\n")).collect();
    let (config, findings) = read(&format!("[[webhook]]\n{kept}"));
    assert_eq!(findings, Vec::<String>::new());
    let read = &config.webhooks[0];
    let endpoint = Endpoint::new("ops", read.endpoint.address.clone(), read.endpoint.keys.clone());
    assert_eq!(*read, Webhook { endpoint, events: Vec::new(), connections: Vec::new() });
    // Those that were left out are good as well, but for the empty list of secrets.
    let others = lines.iter().filter(|line| chosen.iter().skip(1).any(|key| line.starts_with(key)));
    let others: String = others.map(|line| format!("{line}\n")).collect();
    assert_eq!(
        self::read(&format!("[[webhook]]\nname = \"ops\"\nurl = \"https://a/\"\n{others}")).1,
        Vec::<String>::new()
    );
}

#[test]
fn every_key_is_taken() {
    let text = format!(
        r#"
        [[webhook]]
        name = "a.b-c_d"
        url = "https://user:word@hooks.example/x?y=z"
        secrets = ["{SECRET}", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]
        events = ["child-sa.*", "config.rejected", "*"]
        connections = ["site"]
        headers = {{ X-Token = "hidden" }}
        timeout = "2s"
        connect_timeout = 7
        concurrency = 8
        retry = ["100ms", 2]
        longest_pause = 1
        give_up = 0
        allow_link_local = true
        ca_file = "/etc/ca.pem"
        proxy = "http://10.0.0.1:3128"

        [[webhook]]
        name = "other"
        url = "http://169.254.1.1/"
        secret_file = "/etc/cygnet/secret"
        allow_link_local = true
        retry = []
        "#
    );
    let (config, findings) = read(&text);
    assert_eq!(findings, Vec::<String>::new());
    let [first, second] = &config.webhooks[..] else { panic!("{config:?}") };
    assert!(matches!(&first.endpoint.keys, Keys::Given(secrets) if secrets.len() == 2));
    assert_eq!(first.endpoint.retry, [Duration::from_millis(100), Duration::from_secs(2)]);
    assert_eq!(
        (first.endpoint.timeout, first.endpoint.connect_timeout),
        (Duration::from_secs(2), Duration::from_secs(2))
    );
    assert_eq!((first.endpoint.concurrency, first.endpoint.give_up), (8, Duration::ZERO));
    assert!(
        first.subscription().takes("child-sa.closed", Some("site"))
            && !first.subscription().takes("ike-sa.closed", None)
    );
    assert_eq!((&second.endpoint.keys, second.endpoint.retry.len()), (&Keys::File("/etc/cygnet/secret".into()), 0));
    let shown = format!("{config:?}");
    assert!(!shown.contains("hidden") && !shown.contains("word@") && !shown.contains("AAEC"), "{shown}");
}

#[test]
fn errors_are_placed_and_hide_secrets() {
    let cases = [
        (
            "[[webhook]]\nnam = \"x\"\n".into(),
            "c.toml:2:1: error: unknown key `nam` in [[webhook]]; did you mean `name`?",
        ),
        ("[webhook]\nname = \"x\"\n".into(), "c.toml:1:2: error: there may be several webhooks: write [[webhook]]"),
        ("[[webhok]]\n".into(), "c.toml:1:3: error: unknown section [webhok]; did you mean [[webhook]]?"),
        ("webhook = [1]\n".into(), "c.toml:1:12: error: webhooks are tables: write [[webhook]]"),
        ("[[webhook]]\nname = \"x\"\n".into(), "c.toml:2:1: error: [[webhook]] needs `url`"),
        (
            "[[webhook]]\nname = \"x\"\nurl = \"http://a/\"\n".into(),
            "c.toml:2:1: error: [[webhook]] needs `secret` or `secret_file`: `cygnet webhook secret` makes one",
        ),
        ("[[webhook]]\nname = \"a b\"\n".into(), "c.toml:2:8: error: `webhook.name` must be 1 to 64 letters"),
        (
            "[[webhook]]\nurl = \"ftp://a/\"\n".into(),
            "c.toml:2:7: error: `webhook.url` must begin with `http://` or `https://`",
        ),
        (
            "[[webhook]]\nname = \"x\"\nurl = \"http://[::ffff:169.254.169.254]/\"\nsecret_file = \"/s\"\n".into(),
            "c.toml:2:1: error: `webhook.url` leads nowhere: ::ffff:169.254.169.254 is link-local",
        ),
        (
            webhook("proxy = \"http://169.254.169.254:3128/\""),
            "c.toml:2:1: error: `webhook.proxy` leads nowhere: 169.254.169.254 is link-local",
        ),
        (
            "[[webhook]]\nsecret = \"whsec_c2hvcnQ=\"\n".into(),
            "c.toml:2:10: error: `webhook.secret` has 5 octets, but needs 24 to 64",
        ),
        (
            format!("[[webhook]]\nsecrets = [\"{SECRET}\", \"!\"]\n"),
            "c.toml:2:11: error: `webhook.secrets` holds as number 2 one that is not base64 behind `whsec_`",
        ),
        (webhook("secret_file = \"/s\""), "c.toml:5:15: error: `webhook.secret_file` stands beside another one"),
        (
            "[[webhook]]\nsecret_file = \"s\"\n".into(),
            "c.toml:2:15: error: `webhook.secret_file` must be an absolute path",
        ),
        (
            webhook("events = [\"child-sa.rekeyd\"]"),
            "c.toml:5:10: error: `webhook.events` holds `child-sa.rekeyd`, which is the name of no event; did you mean `child-sa.rekeyed`?",
        ),
        (
            webhook("events = [\"childsa.*\"]"),
            "c.toml:5:10: error: `webhook.events` holds `childsa.*`, which is the name of no event; did you mean `child-sa.*`?",
        ),
        (
            webhook("events = [\"nonsense\"]"),
            "c.toml:5:10: error: `webhook.events` holds `nonsense`, which is the name of no event; there are ike-sa.established,",
        ),
        (
            webhook("headers = { webhook-id = \"1\" }"),
            "c.toml:5:11: error: `webhook.headers` holds `webhook-id`, which every message",
        ),
        (webhook("timeout = 0"), "c.toml:5:11: error: `webhook.timeout` must be more than 0 and at most 300 seconds"),
        (webhook("concurrency = 65"), "c.toml:5:15: error: `webhook.concurrency` must be a whole number from 1 to 64"),
        (webhook("retry = \"5s\""), "c.toml:5:9: error: `webhook.retry` must be a list of times"),
        (webhook("retry = [\"5x\"]"), "c.toml:5:9: error: `webhook.retry` must be seconds as a number"),
        (
            format!("{}{}", webhook(""), webhook("")),
            "c.toml:7:8: error: `webhook.name` `ops` is that of another webhook",
        ),
    ];
    for (text, expected) in cases {
        let findings = read(&text).1;
        assert!(findings.len() == 1 && findings[0].starts_with(expected), "for {text:?}: {findings:?}");
        assert!(!findings[0].contains("c2hvcnQ") && !findings[0].contains("AAEC"), "{findings:?}");
    }
}

#[test]
fn webhooks_of_several_files_add_up_and_need_a_history() {
    let directory = std::env::temp_dir().join(format!("cygnetd-webhook-{}", std::process::id()));
    fs::create_dir_all(directory.join("cygnetd.d")).unwrap();
    let main = directory.join("cygnetd.toml");
    fs::write(&main, webhook("")).unwrap();
    let other = directory.join("cygnetd.d/10.toml");
    fs::write(&other, webhook("").replace("ops", "more")).unwrap();
    let config = load(Some(&main)).unwrap();
    assert_eq!(config.webhooks.iter().map(|webhook| &*webhook.endpoint.name).collect::<Vec<_>>(), ["ops", "more"]);
    fs::write(&other, webhook("")).unwrap();
    let findings = load(Some(&main)).unwrap_err();
    assert!(findings[0].file.ends_with("10.toml") && findings[0].message.contains("another webhook"), "{findings:?}");
    fs::write(&other, "[history]\nurl = \"\"\n").unwrap();
    let findings = load(Some(&main)).unwrap_err();
    assert!(findings[0].message.contains("[[webhook]] needs the history"), "{findings:?}");
    fs::remove_dir_all(&directory).unwrap();
}
