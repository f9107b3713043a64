//! `--load-all`, `--load-creds`, `--load-conns`: files to the daemon, or with `--dry-run` only what they would change.

use std::path::Path;

use swanctl_compat::plan::{Plan, PlannedConnection, PlannedSection};
use swanctl_compat::settings::{Diagnostic, OsFiles, Settings};
use swanctl_compat::text;
use swanctl_compat::vici::Message;

use swanctl_compat::vici::client::{ClientError, EINVAL};

use crate::connect::Client;
use crate::options::Invocation;
use crate::output::{Form, print};

/// Files that were read as they were meant.
pub(crate) struct Prepared {
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
        None => Path::new(&directory()).join("swanctl.conf").to_string_lossy().into_owned(),
    };
    let settings = Settings::load(&OsFiles, &path);
    let plan = Plan::make(&settings, &OsFiles);
    let prepared = Prepared { settings, plan };
    if !prepared.plan.is_well_written(&prepared.settings) {
        prepared.tell(true);
        return Err(nothing_loaded());
    }
    Ok(Some(prepared))
}

fn nothing_loaded() -> u8 {
    eprintln!("nothing was loaded: correct the errors above and try again");
    EINVAL
}

impl Prepared {
    /// Prints what was found: everything, or only what is true of any daemon.
    fn tell(&self, everything: bool) {
        let known = self.settings.diagnostics();
        for finding in self.plan.findings.iter().filter(|finding| everything || known.contains(finding)) {
            eprint!("{}", finding.render(self.settings.sources()));
        }
    }

    /// Prints what was found, and says whether to go on. What a section means is judged here for Cygnet alone: another daemon knows other
    /// methods and keys, and judges for itself.
    fn judge(&self, client: &mut Client) -> Result<bool, ClientError> {
        let beyond = self.plan.findings.len() > self.settings.diagnostics().len();
        if beyond && !is_cygnet(client)? {
            self.tell(false);
            return Ok(true);
        }
        self.tell(true);
        Ok(!self.plan.has_errors())
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

fn directory() -> String {
    std::env::var("SWANCTL_DIR")
        .ok()
        .filter(|directory| !directory.is_empty())
        .unwrap_or_else(|| "/etc/swanctl".to_owned())
}

/// Sends what the command asks for: credentials, then authorities, pools and connections. Stops at the first part that fails.
pub(crate) fn run(client: &mut Client, invocation: &Invocation, prepared: &Prepared) -> Result<u8, ClientError> {
    if !prepared.judge(client)? {
        return Ok(nothing_loaded());
    }
    let mut session = Session { client, form: Form::of(invocation), clear: invocation.has("clear") };
    if invocation.has("dry-run") {
        return session.dry_run(prepared);
    }
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
        if code != 0 {
            return Ok(code);
        }
    }
    Ok(0)
}

/// Exit code of a dry run when loading would make an SA restart or end.
const DISTURBS: u8 = 3;

enum Part {
    Credentials,
    Authorities,
    Pools,
    Connections,
}

/// What a kind of section is called.
struct Words {
    one: &'static str,
    many: &'static str,
}

struct Session<'c> {
    client: &'c mut Client,
    form: Form,
    clear: bool,
}

impl Session<'_> {
    /// One command; in raw form its answer is printed.
    fn command(&mut self, name: &str, message: Message) -> Result<Message, ClientError> {
        let answer = self.client.command(name, message, |_, _| Ok(()))?;
        self.form.dump(&format!("{name} reply"), &answer)?;
        Ok(answer)
    }

    fn say(&self, text: &str) -> Result<(), ClientError> {
        if self.form == Form::Human { print(&format!("{text}\n")) } else { Ok(()) }
    }

    /// The list under `key` in the answer to `command`.
    fn names(&mut self, command: &str, key: &str) -> Result<Vec<String>, ClientError> {
        let answer = self.command(command, Message::new())?;
        Ok(answer.list_strs(key).map(str::to_owned).collect())
    }

    fn credentials(&mut self, prepared: &Prepared) -> Result<u8, ClientError> {
        if self.clear {
            self.command("clear-creds", Message::new())?;
        }
        self.names("get-keys", "keys")?;
        let loaded = self.names("get-shared", "keys")?;
        let mut code = 0;
        for secret in &prepared.plan.secrets {
            let answer = self.command("load-shared", secret.message.clone())?;
            if succeeded(&answer) {
                self.say(&format!("loaded {} secret '{}'", secret.kind, secret.name))?;
            } else {
                eprintln!("loading shared secret failed: {}", reason(&answer));
                code = EINVAL;
            }
        }
        for id in prepared.plan.secrets_to_unload(&loaded) {
            let answer = self.command("unload-shared", Message::new().with("id", id.as_str()))?;
            if !succeeded(&answer) {
                eprintln!("unloading shared secret '{id}' failed: {}", reason(&answer));
                code = EINVAL;
            }
        }
        Ok(code)
    }

    fn authorities(&mut self, prepared: &Prepared) -> Result<u8, ClientError> {
        let loaded = self.names("get-authorities", "authorities")?;
        let words = Words { one: "authority", many: "authorities" };
        self.sections(&words, &prepared.plan.authorities, &loaded)
    }

    fn pools(&mut self, prepared: &Prepared) -> Result<u8, ClientError> {
        let answer = self.command("get-pools", Message::new())?;
        let loaded: Vec<String> = answer.sections().map(|(name, _)| name.to_owned()).collect();
        self.sections(&Words { one: "pool", many: "pools" }, &prepared.plan.pools, &loaded)
    }

    /// Loads what the files have and unloads what they have no longer.
    fn sections(&mut self, words: &Words, planned: &[PlannedSection], loaded: &[String]) -> Result<u8, ClientError> {
        let Words { one, many } = words;
        let mut failed = 0;
        for section in planned {
            if let Some(why) = &section.unreadable {
                eprintln!("loading {one} '{}' failed: {why}", section.name);
                failed += 1;
                continue;
            }
            let answer = self.command(&format!("load-{one}"), section.message.clone())?;
            if succeeded(&answer) {
                self.say(&format!("loaded {one} '{}'", section.name))?;
            } else {
                failed += 1;
                eprintln!("loading {one} '{}' failed: {}", section.name, reason(&answer));
            }
        }
        let gone = loaded.iter().filter(|name| planned.iter().all(|section| section.name != **name));
        let unloaded = self.unload(one, gone.cloned().collect())?;
        self.summary(many, planned.len(), failed, unloaded)
    }

    /// Unloads these; gives how many went.
    fn unload(&mut self, one: &str, names: Vec<String>) -> Result<usize, ClientError> {
        let command = if one == "connection" { "unload-conn".to_owned() } else { format!("unload-{one}") };
        let mut unloaded = 0;
        for name in names {
            let answer = self.command(&command, Message::new().with("name", name.as_str()))?;
            if succeeded(&answer) {
                unloaded += 1;
            } else {
                eprintln!("unloading {one} '{name}' failed: {}", reason(&answer));
            }
        }
        Ok(unloaded)
    }

    fn connections(&mut self, prepared: &Prepared) -> Result<u8, ClientError> {
        let loaded = self.names("get-conns", "conns")?;
        let mut failed = 0;
        for connection in &prepared.plan.connections {
            if let Some(why) = &connection.unreadable {
                failed += 1;
                eprintln!("loading connection '{}' failed: {why}", connection.name);
                continue;
            }
            let answer = self.command("load-conn", connection.message.clone())?;
            if succeeded(&answer) {
                self.say(&format!("loaded connection '{}'", connection.name))?;
            } else {
                failed += 1;
                eprintln!("loading connection '{}' failed: {}", connection.name, reason(&answer));
                eprint!("{}", placed(&answer, connection, &prepared.settings));
            }
        }
        let unloaded = self.unload("connection", prepared.plan.connections_to_unload(&loaded))?;
        self.summary("connections", prepared.plan.connections.len(), failed, unloaded)
    }

    /// Asks for each connection what loading it would do. Nothing is changed.
    fn dry_run(&mut self, prepared: &Prepared) -> Result<u8, ClientError> {
        let loaded = self.names("get-conns", "conns")?;
        let (mut code, mut disturbed) = (0, 0_u32);
        for connection in &prepared.plan.connections {
            let answer = self.command("cygnet-plan-conn", connection.message.clone())?;
            if succeeded(&answer) {
                disturbed += self.foretell(&connection.name, &answer)?;
            } else {
                eprintln!("loading connection '{}' would fail: {}", connection.name, reason(&answer));
                eprint!("{}", placed(&answer, connection, &prepared.settings));
                code = EINVAL;
            }
        }
        for name in prepared.plan.connections_to_unload(&loaded) {
            let answer = self.command("cygnet-plan-unload", Message::new().with("name", name.as_str()))?;
            if succeeded(&answer) {
                disturbed += self.foretell(&name, &answer)?;
            } else {
                eprintln!("unloading connection '{name}' would fail: {}", reason(&answer));
                code = EINVAL;
            }
        }
        Ok(if code == 0 && disturbed > 0 { DISTURBS } else { code })
    }

    /// Says what would become of a connection. Gives how many SAs would not go on.
    fn foretell(&self, name: &str, answer: &Message) -> Result<u32, ClientError> {
        if self.form == Form::Human {
            print(&text::forecast(name, answer))?;
        }
        let (restart, end) = text::disturbed(answer);
        Ok(restart.saturating_add(end))
    }

    fn summary(&self, many: &str, found: usize, failed: usize, unloaded: usize) -> Result<u8, ClientError> {
        if failed > 0 {
            let loaded = found - failed;
            eprintln!("loaded {loaded} of {found} {many}, {failed} failed to load, {unloaded} unloaded");
            return Ok(EINVAL);
        }
        let outcome =
            if found == 0 { format!("no {many} found") } else { format!("successfully loaded {found} {many}") };
        self.say(&format!("{outcome}, {unloaded} unloaded"))?;
        Ok(0)
    }
}

fn succeeded(answer: &Message) -> bool {
    answer.is_yes("success")
}

fn reason(answer: &Message) -> &str {
    answer.get_str("errmsg").unwrap_or("the daemon gave no reason")
}

/// The place in the files that the daemon's `errpath` means, with a caret.
fn placed(answer: &Message, connection: &PlannedConnection, settings: &Settings) -> String {
    let Some(span) = answer.get_str("errpath").and_then(|path| connection.spans.find(path)) else {
        return String::new();
    };
    let finding = Diagnostic::error("refused", Some(span), reason(answer));
    let finding = match answer.get_str("errhelp") {
        Some(help) => finding.with_help(help),
        None => finding,
    };
    finding.render(settings.sources())
}
