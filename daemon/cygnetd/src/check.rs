//! `--check`: everything there is to say about the files, without a socket and without privileges. Root's, where there are any, are given up in
//! the end, to see what could be reached without them.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use swanctl_compat::plan::Plan;
use swanctl_compat::settings::{Diagnostic, OsFiles, Settings, Severity};

use crate::backend;
use crate::config::{self, Config, Finding};
use crate::load::{self, FILE};
use crate::privileges::{self, Standing, reach};

/// What is printed, and how bad it is.
#[derive(Debug, Default)]
struct Report {
    text: String,
    findings: Vec<Value>,
    errors: usize,
    warnings: usize,
}

/// Checks the settings and the connections, prints, and tells the exit code: 0 good, 1 warnings, 2 errors.
pub(crate) fn run(config: Option<&Path>, swanctl: Option<&Path>, as_json: bool) -> ExitCode {
    let mut report = examine(config, swanctl);
    report.reach(config, swanctl);
    let text = if as_json {
        let summary = json!({ "errors": report.errors, "warnings": report.warnings, "findings": report.findings });
        format!("{summary}\n")
    } else {
        format!("{}{} errors, {} warnings\n", report.text, report.errors, report.warnings)
    };
    // The exit code says it as well, also where nobody reads the words.
    let _ = std::io::stdout().write_all(text.as_bytes());
    match (report.errors, report.warnings) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(1),
        _ => ExitCode::from(2),
    }
}

fn examine(path: Option<&Path>, swanctl: Option<&Path>) -> Report {
    let mut report = Report::default();
    let config = config::load(path).unwrap_or_else(|findings| {
        findings.iter().for_each(|finding| report.setting(finding));
        Config::default()
    });
    let directory = match swanctl {
        Some(directory) => directory,
        // A wrong cygnetd.toml does not say where the connections are.
        None if report.errors > 0 || !config.swanctl.load => return report,
        None => &config.swanctl.directory,
    };
    let settings = Settings::load(&OsFiles, &directory.join(FILE).to_string_lossy());
    let mut plan = Plan::make(&settings, &OsFiles);
    plan.check_devices(&settings, &backend::expected_devices(backend::configured(&config.backend), &config));
    for finding in &plan.findings {
        report.diagnostic(&settings, finding);
    }
    #[cfg(feature = "webhook")]
    for webhook in &config.webhooks {
        let known: Vec<&str> = plan.connections.iter().map(|connection| &*connection.name).collect();
        webhook.doubts(&known).into_iter().for_each(|(severity, message)| report.doubt(severity, "webhook", &message));
    }
    report
}

impl Report {
    fn setting(&mut self, finding: &Finding) {
        self.errors += 1;
        self.text.push_str(&format!("{finding}\n"));
        self.findings.push(json!({
            "severity": "error", "code": "setting", "file": finding.file, "line": finding.line, "column": finding.column,
            "message": finding.message,
        }));
    }

    /// What the user as whom the daemon would go on cannot reach. Afterwards this process is that user's.
    fn reach(&mut self, path: Option<&Path>, swanctl: Option<&Path>) {
        // What is wrong with them has been said.
        let Ok(config) = config::load(path) else { return };
        let account = match privileges::standing_of_root(&config.privileges) {
            Ok(Standing::User(account)) => account,
            Ok(Standing::AsStarted) => return,
            Err(error) => return self.doubt(Severity::Error, "privileges", &error),
        };
        let settings = config::files(path);
        let directory = swanctl.unwrap_or(&config.swanctl.directory);
        let connections = if config.swanctl.load { load::read(directory).paths() } else { Vec::new() };
        let us = rustix::process::geteuid();
        if !us.is_root() && us.as_raw() != account.uid {
            // What another user can reach only root can try out.
            return;
        }
        if us.is_root()
            && let Err(error) = privileges::give_up(&account)
        {
            return self.doubt(Severity::Error, "privileges", &format!("{error:#}"));
        }
        let mut found = reach::files(&config, &settings, &connections, &account);
        found.extend(reach::places(&config, &account, true));
        for found in found {
            let severity = if found.needed { Severity::Error } else { Severity::Warning };
            self.doubt(severity, "privileges", &found.to_string());
        }
    }

    /// What is said of no single place.
    fn doubt(&mut self, severity: Severity, code: &str, message: &str) {
        match severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
        let severity = severity.as_str();
        self.text.push_str(&format!("{severity}: {message}\n"));
        self.findings.push(json!({ "severity": severity, "code": code, "message": message }));
    }

    fn diagnostic(&mut self, settings: &Settings, finding: &Diagnostic) {
        match finding.severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
        self.text.push_str(&finding.render(settings.sources()));
        let file = finding.span.map(|span| settings.sources().path(span.file));
        self.findings.push(json!({
            "severity": finding.severity.as_str(), "code": finding.code, "file": file,
            "line": finding.span.map(|span| span.line), "column": finding.span.map(|span| span.column),
            "path": finding.path, "message": finding.message, "help": finding.help,
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn findings_of_both_files_are_counted_and_placed() {
        let directory = std::env::temp_dir().join(format!("cygnetd-check-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (main, conf) = (directory.join("cygnetd.toml"), directory.join(FILE));
        fs::write(&main, format!("[swanctl]\ndirectory = \"{}\"\n", directory.display())).unwrap();
        fs::write(
            &conf,
            "connections {\n  a {\n    children { net { mode = nonsense } }\n    local { auth = psk }\n  }\n}\n",
        )
        .unwrap();
        let report = examine(Some(&main), None);
        assert_eq!(report.errors, 1, "{}", report.text);
        assert!(report.text.contains(&format!("{}:3:29: error", conf.display())), "{}", report.text);
        assert_eq!((&report.findings[0]["line"], &report.findings[0]["severity"]), (&json!(3), &json!("error")));
        #[cfg(feature = "webhook")]
        {
            let (secret, webhook) = (directory.join("secret"), |file: &str| {
                let keys = "url = \"http://127.0.0.1/\"\nconnections = [\"a\", \"z\"]\n";
                format!(
                    "[[webhook]]\nname = \"ops\"\n{keys}secret_file = \"{file}\"\nca_file = \"{}\"\n",
                    conf.display()
                )
            });
            fs::write(&secret, "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX\n").unwrap();
            fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
            fs::write(&main, webhook(&secret.display().to_string())).unwrap();
            let report = examine(Some(&main), Some(&directory));
            assert_eq!((report.errors, report.warnings), (2, 2), "{}", report.text);
            for words in ["everybody on this machine can read", "connection `z`", "ca_file"] {
                assert!(report.text.contains(words), "{words}: {}", report.text);
            }
            fs::write(&main, webhook("/nonexistent/secret")).unwrap();
            let report = examine(Some(&main), Some(&directory));
            assert!(
                report.text.contains("error: webhook ops: secret_file /nonexistent/secret cannot be read"),
                "{}",
                report.text
            );
        }
        fs::write(&main, "[nonsense]\n").unwrap();
        let report = examine(Some(&main), Some(&directory));
        assert_eq!(report.errors, 2, "{}", report.text);
        fs::remove_dir_all(&directory).unwrap();
    }
}
