//! `--load-all`, `--load-creds`, `--load-conns` and the like: files to the daemon, or with `--dry-run` only what they would change.
//!
//! A file that cannot be read as it was meant loads nothing and unloads nothing. Otherwise every connection, secret, pool and authority stands for
//! itself: all findings are printed first, what is good is loaded, what is not is counted, and what runs under the name of a bad one stays as it is.

mod connections;
mod credentials;
mod files;
mod report;

use std::path::{Path, PathBuf};

use swanctl_compat::plan::Plan;
use swanctl_compat::settings::{Diagnostic, OsFiles, Settings, Severity, Span};
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::{ClientError, EINVAL};

use crate::connect::Client;
use crate::options::Invocation;
use crate::output::Form;
use crate::stdio::say;
use report::Report;

/// Files that were read as they were meant.
pub(crate) struct Prepared {
    path: String,
    settings: Settings,
    plan: Plan,
}

/// For a load command: reads the files. `Err` is the exit code when they cannot be read as they were meant; what was found is printed then.
pub(crate) fn prepare(invocation: &Invocation) -> Result<Option<Prepared>, u8> {
    if !invocation.command.name.starts_with("load-") {
        return Ok(None);
    }
    let path = match invocation.value("file") {
        Some(file) => file.to_owned(),
        None => usual_file()?,
    };
    let settings = Settings::load(&OsFiles, &path);
    let plan = Plan::make(&settings, &OsFiles);
    let prepared = Prepared { path, settings, plan };
    if !prepared.plan.is_readable(&prepared.settings) {
        let mut report = Report::new(Form::of(invocation));
        report.find(prepared.plan.findings.iter(), prepared.settings.sources());
        say!("nothing was loaded: correct the errors above and try again");
        // What cannot be written any more is of no use to anybody.
        let _ = report.end();
        return Err(EINVAL);
    }
    Ok(Some(prepared))
}

/// `swanctl.conf` in its directory. One that is named and cannot be written as text is not replaced by another.
fn usual_file() -> Result<String, u8> {
    let directory = std::env::var_os("SWANCTL_DIR").filter(|directory| !directory.is_empty());
    let file = Path::new(&directory.unwrap_or_else(|| "/etc/swanctl".into())).join("swanctl.conf");
    file.into_os_string().into_string().map_err(|file| {
        say!("swanctl: '{}' is not UTF-8 text (SWANCTL_DIR)", file.display());
        EINVAL
    })
}

impl Prepared {
    /// Where the directories of credential files are.
    fn directory(&self) -> PathBuf {
        Path::new(&self.path).parent().map(Path::to_owned).unwrap_or_default()
    }

    /// Prints what was found. What a section means is judged here for Cygnet alone: another daemon knows other methods and keys, and judges for
    /// itself. Gives whether it is Cygnet; who is not asked, because there is nothing to say, passes for it.
    fn judge(&self, client: &mut Client, report: &mut Report) -> Result<bool, ClientError> {
        let general = self.plan.findings_for_any_daemon(&self.settings).count();
        let is_cygnet = self.plan.findings.len() == general || is_cygnet(client)?;
        if is_cygnet {
            report.find(self.plan.findings.iter(), self.settings.sources());
        } else {
            report.find(self.plan.findings_for_any_daemon(&self.settings), self.settings.sources());
        }
        Ok(is_cygnet)
    }

    /// Whether an error about this, or at this place, has been printed already.
    fn has_told(&self, path: &str, place: Span) -> bool {
        let same = |finding: &Diagnostic| finding.path.as_deref() == Some(path) || finding.span == Some(place);
        self.plan.findings.iter().any(|finding| finding.severity == Severity::Error && same(finding))
    }
}

/// Who does not say that it is another one is taken for Cygnet.
fn is_cygnet(client: &mut Client) -> Result<bool, ClientError> {
    match client.command("version", Message::new(), |_, _| Ok(())) {
        Ok(answer) => Ok(answer.get_str("daemon").is_none_or(|daemon| daemon == "cygnetd")),
        Err(ClientError::UnknownCommand(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Sends what the command asks for: credentials, then authorities, pools and connections. A part that fails does not keep the others from being
/// loaded; the exit code is that of the first that did.
pub(crate) fn run(client: &mut Client, invocation: &Invocation, prepared: &Prepared) -> Result<u8, ClientError> {
    let mut report = Report::new(Form::of(invocation));
    let is_cygnet = prepared.judge(client, &mut report)?;
    let (clear, prompts) = (invocation.has("clear"), !invocation.has("noprompt"));
    let mut session = Session { client, is_cygnet, clear, prompts, report };
    let mut first = 0;
    if invocation.has("dry-run") {
        first = session.dry_run(prepared)?;
    } else {
        let parts: &[Part] = match invocation.command.name {
            "load-creds" => &[Part::Credentials],
            "load-conns" => &[Part::Connections],
            "load-authorities" => &[Part::Authorities],
            "load-pools" => &[Part::Pools],
            _ => &[Part::Credentials, Part::Authorities, Part::Pools, Part::Connections],
        };
        for part in parts {
            let code = match part {
                Part::Credentials => session.credentials(prepared)?,
                Part::Authorities => session.authorities(prepared)?,
                Part::Pools => session.pools(prepared)?,
                Part::Connections => session.connections(prepared)?,
            };
            first = if first == 0 { code } else { first };
        }
    }
    session.report.end()?;
    Ok(first)
}

enum Part {
    Credentials,
    Authorities,
    Pools,
    Connections,
}

/// One load: the daemon it goes to, and what is said of it.
struct Session<'c> {
    client: &'c mut Client,
    is_cygnet: bool,
    clear: bool,
    /// Whether passwords may be asked for.
    prompts: bool,
    report: Report,
}

impl Session<'_> {
    /// One command; in raw form its answer is printed.
    fn command(&mut self, name: &str, message: Message) -> Result<Message, ClientError> {
        let answer = self.client.command(name, message, |_, _| Ok(()))?;
        self.report.form().dump(&format!("{name} reply"), &answer)?;
        Ok(answer)
    }

    /// The list under `key` in the answer to `command`.
    fn names(&mut self, command: &str, key: &str) -> Result<Vec<String>, ClientError> {
        let answer = self.command(command, Message::new())?;
        Ok(answer.list_strs(key).map(str::to_owned).collect())
    }
}

fn succeeded(answer: &Message) -> bool {
    answer.is_yes("success")
}

fn reason(answer: &Message) -> &str {
    answer.get_str("errmsg").unwrap_or("the daemon gave no reason")
}
