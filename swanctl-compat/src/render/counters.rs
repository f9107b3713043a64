//! `get-counters`: what was counted of messages and rekeyings.

use ike_model::{CounterScope, Counters};

use crate::vici::Message;

/// The answer: a section for each connection, or one without a name. Of a connection that nothing was counted of there is none, which is an error
/// where it was asked for.
#[must_use]
pub fn counters(scope: &CounterScope, found: &[(String, Counters)]) -> Message {
    let mut sections = Message::new();
    for (name, counters) in found {
        let mut section = Message::new();
        for (what, number) in counters.all() {
            section.set_display(what.name(), number);
        }
        sections.section(name.as_str(), section);
    }
    let mut message = Message::new();
    message.section("counters", sections);
    if matches!(scope, CounterScope::Connection(_)) && found.is_empty() {
        return message.with("success", "no").with("errmsg", "no counters found for this connection");
    }
    message.with("success", "yes")
}

#[cfg(test)]
mod tests {
    use ike_model::Counter;

    use super::*;
    use crate::text;

    #[test]
    fn answers_have_the_form_that_clients_know() {
        let mut some = Counters::default();
        some.count(Counter::InvalidSpi);
        let global = counters(&CounterScope::Global, &[(String::new(), some)]);
        let shown = text::labelled("counters reply", &global);
        assert!(
            shown.starts_with(
                "counters reply {counters { {ike-rekey-init=0 ike-rekey-resp=0 child-rekey=0 invalid=0 invalid-spi=1 "
            ),
            "{shown}"
        );
        assert!(shown.trim_end().ends_with(" info-out-req=0 info-out-resp=0}} success=yes}"), "{shown}");
        let scope = CounterScope::Connection("gw".into());
        let unknown = text::labelled("counters reply", &counters(&scope, &[]));
        assert_eq!(
            unknown.trim_end(),
            "counters reply {counters {} success=no errmsg=no counters found for this connection}"
        );
        let none = text::labelled("counters reply", &counters(&CounterScope::Each, &[]));
        assert_eq!(none.trim_end(), "counters reply {counters {} success=yes}");
        let human = text::counters(&counters(&scope, &[("gw".into(), some)]));
        assert!(human.starts_with("gw:\n  ike-rekey-init        : 0\n"), "{human}");
    }

    #[test]
    fn numbers_are_numbers_in_json() {
        let shown = text::json(&counters(&CounterScope::Each, &[("gw".into(), Counters::default())])).to_string();
        for what in Counter::ALL {
            assert!(shown.contains(&format!("\"{}\":0", what.name())), "{} in {shown}", what.name());
        }
    }
}
