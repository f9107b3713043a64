//! Who changed what: a line in the log for commands that change something.
//!
//! A controller that loads thousands of connections would fill the log with its name. So of the same command time after time only the first is
//! told when it comes, and the others by their number, with the next other command or when the client leaves.

use swanctl_compat::request;
use swanctl_compat::vici::{Element, Message};

/// The changing commands of one client.
pub(super) struct Account {
    peer: String,
    /// The last one, and how often it came after it was told.
    last: Option<(String, u64)>,
}

impl Account {
    /// None yet.
    pub(super) fn new(peer: String) -> Self {
        Self { peer, last: None }
    }

    /// Who the client is.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    /// A command that has come, and its message.
    pub(super) fn note(&mut self, command: &str, message: &Message) {
        if !request::changes(command) {
            return;
        }
        match &mut self.last {
            Some((last, more)) if last == command => *more += 1,
            _ => {
                self.close();
                let (name, about) = (command.escape_debug(), about(message));
                tracing::info!(command, "a VICI client ({}) orders {name}{about}", self.peer);
                self.last = Some((command.to_owned(), 0));
            }
        }
    }

    /// Tells what has not been told.
    pub(super) fn close(&mut self) {
        if let Some((command, more)) = self.last.take().filter(|(_, more)| *more > 0) {
            let name = command.escape_debug();
            tracing::info!(command, more, "a VICI client ({}) ordered {name} {more} more times", self.peer);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.close();
    }
}

/// What a command is about, in the words of its message: names and numbers of SAs, connections, secrets. No value of any other key, which may be a
/// secret itself.
fn about(message: &Message) -> String {
    const TELLING: [&str; 6] = ["name", "ike", "child", "ike-id", "child-id", "id"];
    let part = |element: &Element| match element {
        Element::Section(name, _) => Some(format!(" {}", name.escape_debug())),
        Element::KeyValue(key, value) if TELLING.contains(&key.as_str()) => {
            Some(format!(" {key}={}", value.as_str().unwrap_or("?").escape_debug()))
        }
        Element::KeyValue(..) | Element::List(..) => None,
    };
    message.elements().iter().filter_map(part).take(TELLING.len()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_is_about_shows_no_secret() {
        let mut message = Message::new().with("id", "ike-1").with("type", "IKE").with("data", "swordfish");
        message.list("owners", ["gw-b.example"]);
        assert_eq!(about(&message), " id=ike-1");
        let mut conn = Message::new();
        conn.section("si\nte", Message::new().with("version", "2"));
        assert_eq!(about(&conn), " si\\nte");
        assert_eq!(about(&Message::new()), "");
    }

    #[test]
    fn repetition_is_counted() {
        let mut account = Account::new("a test".into());
        for command in ["load-conn", "load-conn", "list-sas", "load-conn"] {
            account.note(command, &Message::new());
        }
        assert_eq!(account.last, Some(("load-conn".into(), 2)));
        account.note("unload-conn", &Message::new());
        assert_eq!(account.last, Some(("unload-conn".into(), 0)));
        account.close();
        assert_eq!(account.last, None);
    }
}
