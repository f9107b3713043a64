//! Passwords of encrypted keys: typed at a terminal, which `script` of util-linux makes, or missing.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::daemon::{Daemon, Script};
use crate::{stderr, stdout, swanctl};

/// A directory of credentials with one encrypted key.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("swanctl-passwords-{name}-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("pkcs8")).unwrap();
        std::fs::write(directory.join("swanctl.conf"), "").unwrap();
        let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys/ec-pkcs8.pem");
        std::fs::copy(key, directory.join("pkcs8/key.pem")).unwrap();
        Self(directory)
    }

    fn conf(&self) -> String {
        self.0.join("swanctl.conf").display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What stays in the temporary directory harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs with a terminal at which `typed` is typed.
fn at_a_terminal(daemon: &Daemon, files: &Files, more: &str, typed: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_swanctl");
    let line = format!("'{program}' --load-creds {more} --file '{}' --uri {}", files.conf(), daemon.uri());
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_password_is_asked_for_and_not_shown() {
    let (daemon, files) = (Daemon::start(Script::default()), Files::new("typed"));
    let output = at_a_terminal(&daemon, &files, "", "wrong\ncorrect\n");
    let shown = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert_eq!(shown.matches("Password for pkcs8 file 'key.pem': ").count(), 2, "{shown}");
    assert!(shown.contains(&format!("loaded ECDSA key from '{}/pkcs8/key.pem'", files.0.display())), "{shown}");
    let sent: Vec<String> = daemon.received().into_iter().filter(|line| line.starts_with("load-key")).collect();
    assert!(matches!(&*sent, [line] if line.starts_with("load-key type=ECDSA data=0x3077")), "{sent:?}");
}

#[test]
fn wrong_passwords_end_after_three_and_noprompt_asks_nobody() {
    let (daemon, files) = (Daemon::start(Script::default()), Files::new("wrong"));
    let shown = stdout(&at_a_terminal(&daemon, &files, "", "a\nb\nc\ncorrect\n"));
    assert_eq!(shown.matches("Password for").count(), 3, "{shown}");
    assert!(shown.contains("failed: the password does not fit"), "{shown}");
    let shown = stdout(&at_a_terminal(&daemon, &files, "--noprompt", "correct\n"));
    assert!(!shown.contains("Password for") && shown.contains("key.pem' failed: it is encrypted"), "{shown}");
    assert!(daemon.received().iter().all(|line| !line.starts_with("load-key")));
}

#[test]
fn without_a_terminal_it_says_where_the_password_belongs() {
    let (daemon, files) = (Daemon::start(Script::default()), Files::new("none"));
    let output = swanctl(&daemon, &["--load-creds", "--file", &files.conf()]);
    assert_eq!(output.status.code(), Some(0));
    let told = stderr(&output);
    assert!(told.contains("configure secrets.pkcs8-NAME { file = key.pem }"), "{told}");
    std::fs::write(files.conf(), "secrets {\n  pkcs8-a {\n    file = key.pem\n    secret = correct\n  }\n}\n").unwrap();
    let output = swanctl(&daemon, &["--load-creds", "--file", &files.conf()]);
    assert!(stdout(&output).contains("loaded ECDSA key from"), "{}", stderr(&output));
    let text = std::fs::read_to_string(files.conf()).unwrap().replace("correct", "mistaken");
    std::fs::write(files.conf(), text).unwrap();
    let told = stderr(&swanctl(&daemon, &["--load-creds", "--file", &files.conf()]));
    assert!(
        told.contains("failed: secrets.pkcs8-a: the password does not fit") && !told.contains("mistaken"),
        "{told}"
    );
}
