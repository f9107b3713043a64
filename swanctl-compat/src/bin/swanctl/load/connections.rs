//! Connections, pools and authorities: what the files have is loaded, what they have no longer is unloaded.

use std::collections::BTreeSet;

use serde_json::json;
use swanctl_compat::plan::{PlannedConnection, PlannedSection};
use swanctl_compat::settings::Diagnostic;
use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::{ClientError, EINVAL};

use super::report::Step;
use super::{Prepared, Session, reason, succeeded};
use crate::output::{Form, print};
use crate::stdio::{say, tell};

/// Exit code of a dry run when loading would make an SA restart or end.
const DISTURBS: u8 = 3;

/// What a kind of section is called.
struct Words {
    one: &'static str,
    many: &'static str,
}

impl Session<'_> {
    pub(super) fn authorities(&mut self, prepared: &Prepared) -> Result<u8, ClientError> {
        let loaded = self.names("get-authorities", "authorities")?;
        let words = Words { one: "authority", many: "authorities" };
        self.sections(&words, &prepared.plan.authorities, &loaded)
    }

    pub(super) fn pools(&mut self, prepared: &Prepared) -> Result<u8, ClientError> {
        let answer = self.command("get-pools", Message::new())?;
        let loaded: Vec<String> = answer.sections().map(|(name, _)| name.to_owned()).collect();
        self.sections(&Words { one: "pool", many: "pools" }, &prepared.plan.pools, &loaded)
    }

    fn sections(&mut self, words: &Words, planned: &[PlannedSection], loaded: &[String]) -> Result<u8, ClientError> {
        let Words { one, many } = words;
        let command = format!("load-{one}");
        let mut failed = 0;
        for section in planned {
            let step = Step { command: &command, name: &section.name };
            if let Some(why) = &section.unreadable {
                self.report.failed(&step, why, &format!("loading {one} '{}' failed: {why}", section.name));
                failed += 1;
                continue;
            }
            let answer = self.command(&command, section.message.clone())?;
            if succeeded(&answer) {
                self.report.done(&step, &format!("loaded {one} '{}'", section.name))?;
            } else {
                failed += 1;
                let why = reason(&answer);
                self.report.failed(&step, why, &format!("loading {one} '{}' failed: {why}", section.name));
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
            let step = Step { command: &command, name: &name };
            if succeeded(&answer) {
                unloaded += 1;
                self.report.done(&step, "")?;
            } else {
                let why = reason(&answer);
                self.report.failed(&step, why, &format!("unloading {one} '{name}' failed: {why}"));
            }
        }
        Ok(unloaded)
    }

    pub(super) fn connections(&mut self, prepared: &Prepared) -> Result<u8, ClientError> {
        let answer = self.command("get-conns", Message::new())?;
        // What was refused and is gone from the files is no longer listed as refused, either.
        let listed = answer.list_strs("conns").chain(answer.list_strs("refused"));
        let mut known = BTreeSet::new();
        let loaded: Vec<String> = listed.filter(|name| known.insert(*name)).map(str::to_owned).collect();
        let mut failed = 0;
        for connection in &prepared.plan.connections {
            let name = &connection.name;
            let step = Step { command: "load-conn", name };
            if let Some(why) = self.withheld(connection) {
                failed += 1;
                self.report.failed(&step, why, &format!("loading connection '{name}' failed: {why}"));
                continue;
            }
            // What is known to be bad is sent as well: the daemon has the last word, and lists the connection as refused.
            let answer = self.command("load-conn", connection.message.clone())?;
            if succeeded(&answer) {
                self.report.done(&step, &format!("loaded connection '{name}'"))?;
            } else {
                failed += 1;
                let why = reason(&answer);
                self.report.failed(&step, why, &format!("loading connection '{name}' failed: {why}"));
                tell(format_args!("{}", placed(&answer, connection, prepared)));
            }
        }
        let unloaded = self.unload("connection", prepared.plan.connections_to_unload(&loaded))?;
        self.summary("connections", prepared.plan.connections.len(), failed, unloaded)
    }

    /// Why a connection is not sent at all.
    fn withheld<'p>(&self, connection: &'p PlannedConnection) -> Option<&'p String> {
        let collision = connection.collision.as_ref().filter(|_| self.is_cygnet);
        connection.unreadable.as_ref().or(collision)
    }

    /// Asks for each connection what loading it would do. Nothing is changed.
    pub(super) fn dry_run(&mut self, prepared: &Prepared) -> Result<u8, ClientError> {
        let loaded = self.names("get-conns", "conns")?;
        let (mut code, mut disturbed) = (0, 0_u32);
        for connection in &prepared.plan.connections {
            let name = &connection.name;
            let step = Step { command: "load-conn", name };
            if let Some(why) = self.withheld(connection) {
                self.report.failed(&step, why, &format!("loading connection '{name}' would fail: {why}"));
                code = EINVAL;
                continue;
            }
            let answer = self.command("cygnet-plan-conn", connection.message.clone())?;
            if succeeded(&answer) {
                disturbed += self.foretell(&step, &answer)?;
            } else {
                let why = reason(&answer);
                self.report.failed(&step, why, &format!("loading connection '{name}' would fail: {why}"));
                tell(format_args!("{}", placed(&answer, connection, prepared)));
                code = EINVAL;
            }
        }
        for name in prepared.plan.connections_to_unload(&loaded) {
            let answer = self.command("cygnet-plan-unload", Message::new().with("name", name.as_str()))?;
            let step = Step { command: "unload-conn", name: &name };
            if succeeded(&answer) {
                disturbed += self.foretell(&step, &answer)?;
            } else {
                let why = reason(&answer);
                self.report.failed(&step, why, &format!("unloading connection '{name}' would fail: {why}"));
                code = EINVAL;
            }
        }
        Ok(if code == 0 && disturbed > 0 { DISTURBS } else { code })
    }

    /// Says what would become of a connection. Gives how many SAs would not go on.
    fn foretell(&mut self, step: &Step<'_>, answer: &Message) -> Result<u32, ClientError> {
        if self.report.form() == Form::Human {
            print(&text::forecast(step.name, answer))?;
        }
        self.report.note(json!({ "command": step.command, "name": step.name, "forecast": text::json(answer) }));
        let (restart, end) = text::disturbed(answer);
        Ok(restart.saturating_add(end))
    }

    fn summary(&self, many: &str, found: usize, failed: usize, unloaded: usize) -> Result<u8, ClientError> {
        if failed > 0 {
            let loaded = found - failed;
            say!("loaded {loaded} of {found} {many}, {failed} failed to load, {unloaded} unloaded");
            return Ok(EINVAL);
        }
        let outcome =
            if found == 0 { format!("no {many} found") } else { format!("successfully loaded {found} {many}") };
        self.report.say(&format!("{outcome}, {unloaded} unloaded"))?;
        Ok(0)
    }
}

/// The place in the files that the daemon's `errpath` means, with a caret, unless an error there has been printed already.
fn placed(answer: &Message, connection: &PlannedConnection, prepared: &Prepared) -> String {
    let path = answer.get_str("errpath").unwrap_or_default();
    let Some(place) = connection.spans.find(path).filter(|place| !prepared.has_told(path, *place)) else {
        return String::new();
    };
    let finding = Diagnostic::error("refused", Some(place), reason(answer));
    let finding = match answer.get_str("errhelp") {
        Some(help) => finding.with_help(help),
        None => finding,
    };
    finding.render(prepared.settings.sources())
}
