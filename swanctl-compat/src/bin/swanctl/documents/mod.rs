//! The manual page and the completions of shells, from the definition of the commands. They are files of the repository, which a test holds against
//! what is made here; `UPDATE_DOCS=1 cargo test -p swanctl-compat documents` writes them anew.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends where an expectation fails")]

mod bash;
mod fish;
mod man;
mod shell;
mod zsh;

use std::path::PathBuf;
use std::process::Command;

/// Files below `docs`.
fn files() -> [(&'static str, String); 4] {
    [
        ("man/swanctl.8", man::page()),
        ("completions/bash/swanctl", bash::script()),
        ("completions/zsh/_swanctl", zsh::script()),
        ("completions/fish/swanctl.fish", fish::script()),
    ]
}

fn place(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

#[test]
fn documents_are_up_to_date() {
    for (name, text) in files() {
        let path = place(name);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(written, text, "{name} is not up to date: UPDATE_DOCS=1 cargo test -p swanctl-compat documents");
    }
}

/// A `swanctl` that answers a completion's questions.
const DAEMON: &str = r#"swanctl() {
  case "$*" in
  "--list-conns --uri unix:///x") printf 'elsewhere: IKEv2, no reauthentication\n' ;;
  *--list-conns*) printf 'site-a: IKEv2, no reauthentication, rekeying every 14400s\n  local:  %%any\n  local public key authentication:\n    id: x\n  net-4: TUNNEL, rekeying every 3600s\n    local:  10.1.0.0/16\n  lan: TRANSPORT, no rekeying\nsite-b: IKEv1/2, no reauthentication\n' ;;
  *--list-sas*) printf 'site-a: #7, ESTABLISHED, IKEv2, 1_i* 2_r\n  local  x @ y[500]\n  net-4: #12, reqid 3, INSTALLED, TUNNEL\n' ;;
  *--list-pools*) printf 'p1 10.9.0.0 1 / 1 / 254\n' ;;
  *--list-authorities*) printf 'ca-1:\n  cacert: C=XX\n' ;;
  esac
}
"#;

/// What bash offers for a command line that ends at the cursor.
fn offered(line: &str) -> Vec<String> {
    let script = format!(
        "{DAEMON}source {}\nCOMP_LINE={line:?}\nCOMP_POINT=${{#COMP_LINE}}\nCOMP_WORDS=({words})\nCOMP_CWORD={last}\n\
         complete -p swanctl >/dev/null || exit 9\n_swanctl\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        place("completions/bash/swanctl").display(),
        words = line.split(' ').map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        last = line.split(' ').count() - 1,
    );
    let output = Command::new("bash").args(["--norc", "--noprofile", "-uec", &script]).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}");
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_names() {
    let cases: [(&str, &[&str]); 16] = [
        ("swanctl --list-c", &["--list-conns", "--list-certs"]),
        ("swanctl --terminate --child-i", &["--child-id"]),
        ("swanctl -t --child-i", &["--child-id"]),
        ("swanctl --initiate --child ", &["net-4", "lan"]),
        ("swanctl --initiate --ike si", &["site-a", "site-b"]),
        ("swanctl --initiate -c n", &["net-4"]),
        ("swanctl --uri unix:///x --initiate -i ", &["elsewhere"]),
        ("swanctl --terminate --ike-id ", &["7"]),
        ("swanctl --terminate --child-id ", &["12"]),
        ("swanctl --list-certs --type x509_", &["x509_ac", "x509_crl"]),
        ("swanctl --list-certs --flag c", &["ca"]),
        ("swanctl --list-pools --name ", &["p1"]),
        ("swanctl --list-authorities --name ", &["ca-1"]),
        ("swanctl --counters --name site-b", &["site-b"]),
        ("swanctl --stats --r", &["--raw"]),
        ("swanctl --initiate --timeout ", &[]),
    ];
    for (line, expected) in cases {
        let mut found = offered(line);
        let mut expected: Vec<String> = expected.iter().map(|word| (*word).to_owned()).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{line}");
    }
    let all = offered("swanctl --");
    for command in crate::commands::COMMANDS {
        assert!(all.contains(&format!("--{}", command.name)), "{}", command.name);
    }
}

/// Another shell reads its script without an error, where it is installed.
#[test]
fn other_shells_read_their_scripts() {
    for (shell, name) in [("zsh", "completions/zsh/_swanctl"), ("fish", "completions/fish/swanctl.fish")] {
        match Command::new(shell).arg("-n").arg(place(name)).output() {
            Ok(output) => assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {output:?}"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{shell}"),
        }
    }
}

#[test]
fn the_manual_names_everything() {
    let page = man::page();
    for command in crate::commands::COMMANDS {
        assert!(page.contains(&man::escaped(&format!("--{}", command.name))), "{}", command.name);
        for option in command.options {
            assert!(page.contains(&man::escaped(&format!("--{}", option.name))), "{}", option.name);
        }
    }
    let man = Command::new("man").args(["--warnings", "-l"]).arg(place("man/swanctl.8")).env("MANWIDTH", "80").output();
    if let Ok(output) = man {
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}
