//! Counters of messages and rekeyings of one shard, for all together and for each connection, with the meaning that strongSwan gives them.
//!
//! A message counts once: when it was made, or when it was received and could be read. What is sent or comes again does not count. Of a
//! connection it counts as soon as it is known which one that is, so a responder counts IKE_SA_INIT and the IKE_AUTH request for all together
//! only. Numbers of a connection stay when it is unloaded; they go when they are reset.

use std::collections::BTreeMap;

use ike_model::{Counter, CounterScope, Counters};
use ike_wire::ids::ExchangeType;
use ike_wire::{HEADER_LEN, Version};

/// Which way a message goes, and whether it is a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The peer's request.
    RequestIn,
    /// The peer's response.
    ResponseIn,
    /// Our request.
    RequestOut,
    /// Our response.
    ResponseOut,
}

/// What a message of this exchange counts as; nothing for one that IKEv2 of RFC 7296 does not have.
pub(crate) fn of_message(exchange: ExchangeType, way: Way) -> Option<Counter> {
    use Counter::*;
    let [request_in, response_in, request_out, response_out] = match exchange {
        ExchangeType::IKE_SA_INIT => [IkeInitInReq, IkeInitInResp, IkeInitOutReq, IkeInitOutResp],
        ExchangeType::IKE_AUTH => [IkeAuthInReq, IkeAuthInResp, IkeAuthOutReq, IkeAuthOutResp],
        ExchangeType::CREATE_CHILD_SA => [CreateChildInReq, CreateChildInResp, CreateChildOutReq, CreateChildOutResp],
        ExchangeType::INFORMATIONAL => [InfoInReq, InfoInResp, InfoOutReq, InfoOutResp],
        _ => return None,
    };
    Some(match way {
        Way::RequestIn => request_in,
        Way::ResponseIn => response_in,
        Way::RequestOut => request_out,
        Way::ResponseOut => response_out,
    })
}

/// What a datagram counts as that is for no IKE SA of ours, or that cannot be read. One of a later version of IKE does not count: it is answered.
pub(crate) fn of_stranger(octets: &[u8]) -> Option<Counter> {
    let Some(header) = octets.first_chunk::<HEADER_LEN>() else { return Some(Counter::Invalid) };
    let [.., version, exchange, flags, _, _, _, _, _, _, _, _] = *header;
    let (major, exchange) = (version >> 4, ExchangeType(exchange));
    if major > Version::V2.major {
        return None;
    }
    if major < Version::V2.major || !KNOWN.contains(&exchange) {
        return Some(Counter::Invalid);
    }
    let zero = |octets: Option<&[u8]>| octets.is_some_and(|octets| octets.iter().all(|octet| *octet == 0));
    let (responder_spi, message_id) = (header.get(8..16), header.get(20..24));
    let first =
        exchange == ExchangeType::IKE_SA_INIT && flags & RESPONSE == 0 && zero(responder_spi) && zero(message_id);
    Some(if first { Counter::Invalid } else { Counter::InvalidSpi })
}

const RESPONSE: u8 = 0x20;

/// Exchanges whose messages name an IKE SA, or may.
const KNOWN: [ExchangeType; 5] = [
    ExchangeType::IKE_SA_INIT,
    ExchangeType::IKE_AUTH,
    ExchangeType::CREATE_CHILD_SA,
    ExchangeType::INFORMATIONAL,
    ExchangeType::IKE_SESSION_RESUME,
];

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct CounterTable {
    global: Counters,
    connections: BTreeMap<String, Counters>,
}

impl CounterTable {
    /// One more of something that belongs to no connection, or to one that is not known yet.
    pub(crate) fn count(&mut self, what: Counter) {
        self.global.count(what);
    }

    /// One more, of a connection too.
    pub(crate) fn count_for(&mut self, connection: &str, what: Counter) {
        self.global.count(what);
        match self.connections.get_mut(connection) {
            Some(counters) => counters.count(what),
            None => {
                let mut counters = Counters::default();
                counters.count(what);
                self.connections.insert(connection.to_owned(), counters);
            }
        }
    }

    /// The numbers that are meant, by name of the connection; the global ones have none.
    pub(crate) fn read(&self, scope: &CounterScope) -> Vec<(String, Counters)> {
        match scope {
            CounterScope::Global => vec![(String::new(), self.global)],
            CounterScope::Connection(name) => self.connections.get_key_value(name).map(owned).into_iter().collect(),
            CounterScope::Each => self.connections.iter().map(owned).collect(),
        }
    }

    /// Begins again at zero; those of connections are forgotten.
    pub(crate) fn reset(&mut self, scope: &CounterScope) {
        match scope {
            CounterScope::Global => self.global = Counters::default(),
            CounterScope::Connection(name) => drop(self.connections.remove(name)),
            CounterScope::Each => self.connections.clear(),
        }
    }
}

fn owned((name, counters): (&String, &Counters)) -> (String, Counters) {
    (name.clone(), *counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_count_for_all_and_are_reset_alone() {
        let mut table = CounterTable::default();
        table.count(Counter::Invalid);
        table.count_for("a", Counter::InfoInReq);
        table.count_for("a", Counter::InfoInReq);
        table.count_for("b", Counter::InfoInReq);
        let number = |table: &CounterTable, scope: &CounterScope| -> Vec<(String, u64, u64)> {
            let all = table.read(scope).into_iter();
            all.map(|(name, c)| (name, c.so_far(Counter::InfoInReq), c.so_far(Counter::Invalid))).collect()
        };
        let a = CounterScope::Connection("a".into());
        assert_eq!(number(&table, &CounterScope::Global), [(String::new(), 3, 1)]);
        assert_eq!(number(&table, &CounterScope::Each), [("a".into(), 2, 0), ("b".into(), 1, 0)]);
        table.reset(&a);
        assert_eq!(number(&table, &a), []);
        assert_eq!(number(&table, &CounterScope::Global), [(String::new(), 3, 1)]);
        table.reset(&CounterScope::Global);
        assert_eq!(number(&table, &CounterScope::Global), [(String::new(), 0, 0)]);
        table.reset(&CounterScope::Each);
        assert_eq!(number(&table, &CounterScope::Each), []);
    }

    #[test]
    fn messages_of_strangers_are_told_apart() {
        let message = |at: &[(usize, u8)]| {
            let mut octets = [0x11; 32];
            octets[16..20].copy_from_slice(&[46, 0x20, 37, 0x08]);
            octets[20..24].fill(0);
            at.iter().for_each(|(at, octet)| octets[*at] = *octet);
            octets
        };
        let mut first = message(&[(18, 34)]);
        first[8..16].fill(0);
        assert_eq!(of_stranger(&first), Some(Counter::Invalid), "one of IKE_SA_INIT that cannot be read");
        first[23] = 5;
        assert_eq!(of_stranger(&first), Some(Counter::InvalidSpi), "no first message");
        for (at, expected) in [
            (&[][..], Some(Counter::InvalidSpi)),
            (&[(18, 34)], Some(Counter::InvalidSpi)),
            (&[(18, 34), (19, 0x20)], Some(Counter::InvalidSpi)),
            (&[(18, 99)], Some(Counter::Invalid)),
            (&[(17, 0x10)], Some(Counter::Invalid)),
            (&[(17, 0x30)], None),
        ] {
            assert_eq!(of_stranger(&message(at)), expected, "{at:?}");
        }
        assert_eq!(of_stranger(&message(&[])[..27]), Some(Counter::Invalid), "no header");
    }

    #[test]
    fn only_exchanges_of_the_table_count() {
        assert_eq!(of_message(ExchangeType::IKE_AUTH, Way::RequestIn), Some(Counter::IkeAuthInReq));
        assert_eq!(of_message(ExchangeType::INFORMATIONAL, Way::ResponseOut), Some(Counter::InfoOutResp));
        assert_eq!(of_message(ExchangeType::IKE_INTERMEDIATE, Way::RequestIn), None);
    }
}
