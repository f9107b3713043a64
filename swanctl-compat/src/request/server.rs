//! What a server has to know of commands before it carries them out.

use std::borrow::Cow;

use super::{Request, RequestError};
use crate::render;
use crate::vici::{DecodeError, Message};

/// The answer to a command whose message cannot be read: nothing of it is carried out, and the client does not wait for ever. `None` when there
/// is no such command.
#[must_use]
pub fn unreadable(command: &str, error: &DecodeError) -> Option<Message> {
    let known = Request::parse(command, &Message::new()) != Err(RequestError::Unknown);
    known.then(|| render::failed(&format!("parsing request failed: {error}")))
}

/// The connections of a `load-conn` message, each as a message of its own, in order. Whatever else it holds means nothing.
pub fn each_connection(message: &Message) -> impl Iterator<Item = Cow<'_, Message>> {
    let alone = message.elements().len() == 1;
    message.sections().map(move |(name, content)| match alone {
        true => Cow::Borrowed(message),
        false => {
            let mut single = Message::new();
            single.section(name, content.clone());
            Cow::Owned(single)
        }
    })
}

/// Whether a command may change something. Those that only tell are known; what is not known may be anything.
#[must_use]
pub fn changes(command: &str) -> bool {
    const TELLING: [&str; 13] = [
        "version",
        "stats",
        "cygnet-status",
        "cygnet-backend-sas",
        "cygnet-doctor",
        "cygnet-explain",
        "cygnet-why",
        "cygnet-history",
        "cygnet-events",
        "cygnet-webhooks",
        "cygnet-webhook-deliveries",
        "cygnet-plan-conn",
        "cygnet-plan-unload",
    ];
    !command.starts_with("list-") && !command.starts_with("get-") && !TELLING.contains(&command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_is_a_message_of_its_own() {
        let section = |name: &str| Message::new().with("version", name);
        let single = |name: &str| {
            let mut message = Message::new();
            message.section(name, section(name));
            message
        };
        let mut message = Message::new().with("stray", "x");
        message.section("a", section("a"));
        message.list("stray", ["x"]);
        message.section("b", section("b"));
        let all: Vec<Message> = each_connection(&message).map(Cow::into_owned).collect();
        assert_eq!(all, [single("a"), single("b")]);
        let alone = single("a");
        assert!(matches!(each_connection(&alone).next(), Some(Cow::Borrowed(found)) if *found == alone));
        assert_eq!(each_connection(&Message::new().with("k", "v")).count(), 0);
    }

    #[test]
    fn what_cannot_be_read_is_answered() {
        let error = DecodeError::Truncated(3);
        let answer = unreadable("terminate", &error).unwrap();
        assert_eq!(answer.get_str("errmsg"), Some("parsing request failed: message ends too early, at octet 3"));
        assert_eq!(unreadable("nonsense", &error), None);
    }

    #[test]
    fn commands_that_only_tell_are_known() {
        for telling in ["version", "list-sas", "get-conns", "cygnet-status"] {
            assert!(!changes(telling), "{telling}");
        }
        for changing in ["load-conn", "initiate", "terminate", "clear-creds", "cygnet-simulate", "of tomorrow"] {
            assert!(changes(changing), "{changing}");
        }
    }
}
