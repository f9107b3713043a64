//! What `swanctl --list-sas --raw` prints, as values.

use std::iter::Peekable;
use std::str::Chars;

use swanctl_compat::vici::{Element, Message, Value};

/// A VICI message in its raw text form: sections, lists and values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// `name=value`
    Value(String),
    /// `name=[item item]`
    List(Vec<String>),
    /// `name {...}`
    Section(Vec<(String, Node)>),
}

impl Node {
    /// Reads all messages of an output: each line is `WHAT event {...}` or `WHAT reply {...}`.
    #[must_use]
    pub fn parse_all(text: &str) -> Vec<Node> {
        let bodies = text.lines().filter_map(|line| line.split_once(" {").map(|(_, body)| body));
        bodies.map(|body| Node::Section(section(&mut body.chars().peekable()))).collect()
    }

    /// A value below sections, by its path of names.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        match self.child(name)? {
            Node::Value(text) => Some(text),
            Node::List(_) | Node::Section(_) => None,
        }
    }

    /// An entry of this section.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Node> {
        self.entries().iter().find(|(found, _)| found == name).map(|(_, node)| node)
    }

    /// The entries of this section, in order.
    #[must_use]
    pub fn entries(&self) -> &[(String, Node)] {
        match self {
            Node::Section(entries) => entries,
            Node::Value(_) | Node::List(_) => &[],
        }
    }
}

impl From<&Message> for Node {
    fn from(message: &Message) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let entry = |element: &Element| match element {
            Element::Section(name, content) => (name.clone(), Node::from(content)),
            Element::List(name, items) => (name.clone(), Node::List(items.iter().map(text).collect())),
            Element::KeyValue(name, value) => (name.clone(), Node::Value(text(value))),
        };
        Node::Section(message.elements().iter().map(entry).collect())
    }
}

fn section(text: &mut Peekable<Chars<'_>>) -> Vec<(String, Node)> {
    let mut entries = Vec::new();
    loop {
        skip_blanks(text);
        match text.peek() {
            None | Some('}') => {
                text.next();
                return entries;
            }
            Some(_) => {}
        }
        let name = word(text, "={ ");
        skip_blanks(text);
        match text.next() {
            Some('{') => entries.push((name, Node::Section(section(text)))),
            Some('=') if text.peek() == Some(&'[') => {
                text.next();
                let items = word(text, "]").split_whitespace().map(str::to_owned).collect();
                text.next();
                entries.push((name, Node::List(items)));
            }
            Some('=') => entries.push((name, Node::Value(word(text, " }")))),
            Some(_) | None => return entries,
        }
    }
}

fn skip_blanks(text: &mut Peekable<Chars<'_>>) {
    while text.next_if(|letter| letter.is_whitespace()).is_some() {}
}

fn word(text: &mut Peekable<Chars<'_>>, ends: &str) -> String {
    let mut word = String::new();
    while let Some(letter) = text.next_if(|letter| !ends.contains(*letter)) {
        word.push(letter);
    }
    word
}

/// An IKE SA as a daemon lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IkeSa {
    /// The connection.
    pub name: String,
    /// The daemon's number for it.
    pub unique_id: String,
    /// `ESTABLISHED` and others.
    pub state: String,
    /// Whether this side initiated it.
    pub initiator: bool,
    /// Both SPIs, initiator's first.
    pub spis: (String, String),
    /// Our port.
    pub local_port: String,
    /// Our address.
    pub local_host: String,
    /// The peer's address.
    pub remote_host: String,
    /// The peer's port.
    pub remote_port: String,
    /// Encryption, PRF and key exchange in one word each.
    pub algorithms: String,
    /// Its CHILD SAs.
    pub children: Vec<ChildSa>,
}

/// A CHILD SA as a daemon lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChildSa {
    /// The child's name.
    pub name: String,
    /// The daemon's number for it.
    pub unique_id: String,
    /// What ties its policies to its SAs in the data path; may differ between the ends.
    pub reqid: String,
    /// `INSTALLED` and others.
    pub state: String,
    /// Whether ESP travels in UDP.
    pub encap: bool,
    /// Inbound SPI.
    pub spi_in: String,
    /// Outbound SPI.
    pub spi_out: String,
    /// Encryption, key length and key exchange in one word each.
    pub algorithms: String,
    /// Packets received.
    pub packets_in: u64,
    /// Packets sent.
    pub packets_out: u64,
    /// Octets of the packets received.
    pub bytes_in: u64,
    /// Octets of the packets sent.
    pub bytes_out: u64,
    /// How often it has been rekeyed; only Cygnet says so.
    pub generation: Option<u64>,
    /// Offload in use, its device, and `simulated` where it is; only Cygnet says so: `packet wan0 simulated`, `no`.
    pub offload: String,
}

impl IkeSa {
    /// Whether it is established with every one of these children installed.
    #[must_use]
    pub fn carries(&self, children: &[&str]) -> bool {
        self.state == "ESTABLISHED" && children.iter().all(|name| self.installed(name).is_some())
    }

    /// The installed CHILD SA of that name.
    #[must_use]
    pub fn installed(&self, name: &str) -> Option<&ChildSa> {
        self.children.iter().find(|child| child.name == name && child.state == "INSTALLED")
    }
}

/// The IKE SAs of a list.
#[must_use]
pub fn ike_sas(messages: &[Node]) -> Vec<IkeSa> {
    messages
        .iter()
        .flat_map(Node::entries)
        .filter(|(_, node)| node.value("uniqueid").is_some())
        .map(|(name, node)| ike_sa(name, node))
        .collect()
}

fn ike_sa(name: &str, node: &Node) -> IkeSa {
    let text = |key: &str| node.value(key).unwrap_or_default().to_owned();
    let children = node.child("child-sas").map(Node::entries).unwrap_or_default();
    IkeSa {
        name: name.to_owned(),
        unique_id: text("uniqueid"),
        state: text("state"),
        initiator: node.value("initiator") == Some("yes"),
        spis: (text("initiator-spi"), text("responder-spi")),
        local_port: text("local-port"),
        local_host: text("local-host"),
        remote_host: text("remote-host"),
        remote_port: text("remote-port"),
        algorithms: words(node, &["encr-alg", "encr-keysize", "integ-alg", "prf-alg", "dh-group"]),
        children: children.iter().map(|(_, child)| child_sa(child)).collect(),
    }
}

fn child_sa(node: &Node) -> ChildSa {
    let text = |key: &str| node.value(key).unwrap_or_default().to_owned();
    let number = |key: &str| node.value(key).and_then(|text| text.parse().ok());
    ChildSa {
        name: text("name"),
        unique_id: text("uniqueid"),
        reqid: text("reqid"),
        state: text("state"),
        encap: node.value("encap") == Some("yes"),
        spi_in: text("spi-in"),
        spi_out: text("spi-out"),
        algorithms: words(node, &["encr-alg", "encr-keysize", "integ-alg", "dh-group"]),
        packets_in: number("packets-in").unwrap_or(0),
        packets_out: number("packets-out").unwrap_or(0),
        bytes_in: number("bytes-in").unwrap_or(0),
        bytes_out: number("bytes-out").unwrap_or(0),
        generation: number("generation"),
        offload: {
            let simulated = (node.value("simulated") == Some("yes")).then_some("simulated");
            let parts = [node.value("hw-offload"), node.value("offload-dev"), simulated];
            parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
        },
    }
}

fn words(node: &Node, keys: &[&str]) -> String {
    keys.iter().filter_map(|key| node.value(key)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_back() {
        let text = "list-sa event {site {uniqueid=3 version=2 state=ESTABLISHED local-port=4500 remote-host=192.0.2.2 initiator=yes \
                    initiator-spi=00aa responder-spi=00bb encr-alg=AES_GCM_16 encr-keysize=128 prf-alg=PRF_HMAC_SHA2_256 \
                    dh-group=CURVE_25519 child-sas {net4-1 {name=net4 uniqueid=1 reqid=1 state=INSTALLED mode=TUNNEL encap=yes \
                    spi-in=c1 spi-out=c2 packets-in=7 packets-out=9 local-ts=[10.1.0.0/24 10.3.0.0/24] remote-ts=[10.2.0.0/24]}}}}\n\
                    list-sas reply {}\n";
        let sas = ike_sas(&Node::parse_all(text));
        let [sa] = sas.as_slice() else { panic!("one IKE SA: {sas:?}") };
        assert!(sa.initiator && sa.carries(&["net4"]) && !sa.carries(&["net6"]));
        assert_eq!(sa.algorithms, "AES_GCM_16 128 PRF_HMAC_SHA2_256 CURVE_25519");
        let child = sa.installed("net4").unwrap();
        assert_eq!((child.packets_in, child.packets_out, child.encap, child.spi_in.as_str()), (7, 9, true, "c1"));
        assert_eq!(child.reqid, "1");
    }
}
