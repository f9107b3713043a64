//! Where our `swanctl` prints otherwise than the ones it is compared with. Decided: what is newer than both is printed as the newest strongSwan does,
//! where the daemon sends it; a line that scripts read today stays where it is, and begins as it does.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

/// One way in which ours is otherwise.
struct Decided {
    /// The command.
    command: &'static str,
    /// The version that prints something else; none stands for both.
    version: Option<&'static str>,
    reason: &'static str,
    /// What ours would print without it.
    undone: fn(&str) -> String,
}

const DECIDED: [Decided; 8] = [
    Decided {
        command: "--list-conns",
        version: None,
        reason: "behind an address stands its port, as since strongSwan sends ports, which is after 6.0.1",
        undone: |text| lines(text, |line| if is_address(line) { until(line, '[') } else { line.to_owned() }),
    },
    Decided {
        command: "--list-conns",
        version: None,
        reason: "a label is shown as it was sent",
        undone: |text| text.replace("  label:  system_u", "  label:  ???"),
    },
    Decided {
        command: "--list-pols",
        version: None,
        reason: "the reqid stands before the mode where the daemon sends one, as since strongSwan sends it, which is after 6.0.1",
        undone: |text| text.replace(", reqid 3, ", ", "),
    },
    Decided {
        command: "--list-pols",
        version: None,
        reason: "a label is shown as it was sent",
        undone: |text| text.replace("  label:  system_u", "  label:  ???"),
    },
    Decided {
        command: "--version",
        version: None,
        reason: "strongSwan's calls every daemon strongSwan; ours says who it is where it is not charon",
        undone: |text| text.replacen("Cygnet ", "strongSwan ", 1),
    },
    Decided {
        command: "--list-sas",
        version: Some("5_9"),
        reason: "additional key exchanges (RFC 9370) are shown as since 6.0",
        undone: |text| text.replace("/KE1_ML_KEM_768", ""),
    },
    Decided {
        command: "--install",
        version: None,
        reason: "the raw forms print the answer under its name in one line, as for every other command",
        undone: policy_answer,
    },
    Decided {
        command: "--uninstall",
        version: None,
        reason: "the raw forms print the answer under its name in one line, as for every other command",
        undone: policy_answer,
    },
];

/// strongSwan's knows no raw form of these, and breaks the line of the pretty one.
fn policy_answer(text: &str) -> String {
    text.replace(" reply {success=yes}\n", " completed successfully\n").replace(" reply {\n", "\n reply {\n")
}

fn lines(text: &str, change: impl Fn(&str) -> String) -> String {
    text.lines().map(|line| change(line) + "\n").collect()
}

fn is_address(line: &str) -> bool {
    (line.starts_with("  local:") || line.starts_with("  remote:")) && line.ends_with(']')
}

fn until(line: &str, end: char) -> String {
    line.split(end).next().unwrap_or_default().to_owned()
}

/// Which decisions have been met.
#[derive(Default)]
pub(super) struct Decisions(BTreeSet<usize>);

impl Decisions {
    /// Whether two outputs are the same but for what was decided about the command.
    pub(super) fn alike(&mut self, version: &str, arguments: &[&str], theirs: &str, ours: &str) -> bool {
        if theirs == ours {
            return true;
        }
        let mut text = ours.to_owned();
        for (number, decided) in DECIDED.iter().enumerate() {
            let about = arguments.first() == Some(&decided.command);
            let undone = (decided.undone)(&text);
            if about && decided.version.is_none_or(|only| only == version) && undone != text {
                self.0.insert(number);
                text = undone;
            }
        }
        text == theirs
    }

    /// Fails where a decision is met by nothing any more.
    pub(super) fn finish(&self) -> Result<()> {
        for (number, decided) in DECIDED.iter().enumerate() {
            // What a daemon is called is seen of a live one.
            let met = self.0.contains(&number) || decided.command == "--version";
            ensure!(met, "nothing needs this any more: {}: {}", decided.command, decided.reason);
        }
        Ok(())
    }
}
