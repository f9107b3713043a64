//! Sections that ask something of an implementation.

/// An RFC.
pub(crate) struct Rfc {
    pub(crate) number: u32,
    pub(crate) title: &'static str,
    pub(crate) sections: &'static [Section],
}

/// A section.
pub(crate) struct Section {
    pub(crate) number: &'static str,
    pub(crate) title: &'static str,
    /// Why it is not carried out.
    pub(crate) left_out: Option<&'static str>,
}

const fn done(number: &'static str, title: &'static str) -> Section {
    Section { number, title, left_out: None }
}

const fn out(number: &'static str, title: &'static str, why: &'static str) -> Section {
    Section { number, title, left_out: Some(why) }
}

const NO_EAP: &str = "for remote access; between gateways both ends prove a key of their own";
const NO_CP: &str = "for remote access: gateways have their addresses";
const NO_CERTIFICATES: &str = "authentication is by pre-shared key";

/// All RFCs with their sections.
pub(crate) const RFCS: &[Rfc] = &[
    Rfc {
        number: 7296,
        title: "Internet Key Exchange Protocol Version 2 (IKEv2)",
        sections: &[
            done("1.2", "the initial exchanges"),
            done("1.3", "the CREATE_CHILD_SA exchange"),
            done("1.3.1", "creating new CHILD SAs"),
            done("1.3.2", "rekeying IKE SAs"),
            done("1.3.3", "rekeying CHILD SAs"),
            done("1.4", "the INFORMATIONAL exchange"),
            done("1.4.1", "deleting an SA"),
            done("1.5", "messages outside of an IKE SA"),
            done("2.1", "retransmission timers"),
            done("2.2", "message IDs"),
            done("2.3", "window of overlapping requests"),
            done("2.4", "state synchronization, liveness, INITIAL_CONTACT"),
            done("2.5", "versions, critical payloads"),
            done("2.6", "SPIs of IKE SAs and cookies"),
            done("2.6.1", "COOKIE together with INVALID_KE_PAYLOAD"),
            done("2.7", "negotiation of algorithms"),
            done("2.8", "rekeying"),
            done("2.8.1", "simultaneous rekeying of a CHILD SA"),
            done("2.8.2", "simultaneous rekeying of an IKE SA"),
            done("2.8.3", "reauthentication"),
            done("2.9", "traffic selectors"),
            out(
                "2.9.1",
                "selectors that violate the own policy",
                "the SPD never asks for more than it is configured to: the first selectors of an offer are those of a packet that a configured trap caught",
            ),
            done("2.10", "nonces"),
            done("2.11", "address and port agility"),
            out("2.12", "reuse of Diffie-Hellman exponentials", "optional; every exchange makes its own"),
            done("2.13", "prf+"),
            done("2.14", "keys of the IKE SA"),
            done("2.15", "authentication of the IKE SA"),
            out("2.16", "EAP", NO_EAP),
            done("2.17", "keys of CHILD SAs"),
            done("2.18", "keys of a rekeyed IKE SA"),
            out("2.19", "requesting an internal address", NO_CP),
            out("2.20", "requesting the peer's version", "optional; tells strangers what to attack"),
            done("2.21", "error handling"),
            done("2.21.1", "errors in IKE_SA_INIT"),
            done("2.21.2", "errors in IKE_AUTH"),
            done("2.21.3", "errors after authentication"),
            done("2.21.4", "errors outside of an IKE SA"),
            out("2.22", "IPComp", "not offloadable; refused at load"),
            done("2.23", "NAT traversal"),
            done("2.23.1", "transport mode behind NAT"),
            done("2.24", "ECN in tunnels"),
            done("2.25", "exchange collisions"),
            done("2.25.1", "collisions about CHILD SAs"),
            done("2.25.2", "collisions about IKE SAs"),
            done("3.1", "header"),
            done("3.2", "generic payload header"),
            done("3.3", "SA payload"),
            done("3.3.1", "proposals"),
            done("3.3.2", "transforms"),
            done("3.3.3", "valid transform types"),
            done("3.3.5", "transform attributes"),
            done("3.3.6", "attribute negotiation"),
            done("3.4", "key exchange payload"),
            done("3.5", "identification payloads"),
            out("3.6", "certificate payload", NO_CERTIFICATES),
            out("3.7", "certificate request payload", NO_CERTIFICATES),
            done("3.8", "authentication payload"),
            done("3.9", "nonce payload"),
            done("3.10", "notify payload"),
            done("3.10.1", "notify message types"),
            done("3.11", "delete payload"),
            done("3.12", "vendor ID payload"),
            done("3.13", "traffic selector payload"),
            done("3.13.1", "traffic selectors"),
            done("3.14", "encrypted payload"),
            out("3.15", "configuration payload", NO_CP),
            out("3.16", "EAP payload", NO_EAP),
        ],
    },
    Rfc {
        number: 7383,
        title: "IKEv2 Message Fragmentation",
        sections: &[
            done("2.3", "negotiation"),
            done("2.5", "fragmenting a message"),
            done("2.5.1", "size of fragments"),
            out(
                "2.5.2",
                "path MTU discovery",
                "optional; `fragment_size` says what fits, and repeated messages stay the same octets",
            ),
            done("2.5.3", "fragmenting messages with other payloads beside SK"),
            done("2.6", "receiving fragments"),
            done("2.6.1", "replay detection and retransmission"),
        ],
    },
    Rfc {
        number: 4555,
        title: "IKEv2 Mobility and Multihoming Protocol (MOBIKE)",
        sections: &[
            done("3.1", "initial IKE exchange"),
            done("3.2", "signaling support"),
            done("3.3", "addresses of tunnel headers"),
            done("3.4", "additional addresses"),
            done("3.5", "changing addresses in IPsec SAs"),
            done("3.6", "updating additional addresses"),
            done("3.7", "return routability check"),
            done("3.8", "changes in NAT mappings"),
            done("3.9", "NAT prohibition"),
            done("3.10", "path testing"),
            done("3.11", "failure recovery and timeouts"),
            done("3.12", "dead peer detection"),
            done("4.1", "error notifications"),
            done("4.2", "status notifications"),
        ],
    },
    Rfc {
        number: 6023,
        title: "Childless Initiation of the IKEv2 SA",
        sections: &[done("3", "announcement, and IKE_AUTH without CHILD SA")],
    },
    Rfc {
        number: 4478,
        title: "Repeated Authentication in IKEv2",
        sections: &[
            done("2", "authentication lifetime"),
            done("3", "AUTH_LIFETIME notification"),
            done("5", "policies of both ends"),
        ],
    },
    Rfc {
        number: 3948,
        title: "UDP Encapsulation of IPsec ESP Packets",
        sections: &[
            done("2.1", "UDP-encapsulated ESP"),
            done("2.2", "IKE on port 4500"),
            done("2.3", "keepalives"),
            done("3.1.1", "tunnel mode decapsulation"),
            done("3.1.2", "transport mode decapsulation"),
            done("3.2", "transport mode encapsulation"),
            done("3.3", "transport mode ESP decapsulation"),
            done("3.4", "tunnel mode encapsulation"),
            done("3.5", "tunnel mode ESP decapsulation"),
            done("4", "NAT keepalive procedure"),
        ],
    },
];
