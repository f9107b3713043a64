//! What a message holds, in one line for the log.

use std::fmt;

use super::Payload;
use crate::ids::NotifyType;

/// The payloads of a message by their short names, as IKE daemons have always written them: `[ SA KE No N(COOKIE) ]`.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'p, 'a>(
    /// The payloads in their order.
    pub &'p [Payload<'a>],
);

impl fmt::Display for Contents<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[ ")?;
        for payload in self.0 {
            short(payload, f)?;
            f.write_str(" ")?;
        }
        f.write_str("]")
    }
}

fn short(payload: &Payload<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let name = match payload {
        Payload::Sa(_) => "SA",
        Payload::KeyExchange(_) => "KE",
        Payload::IdInitiator(_) => "IDi",
        Payload::IdResponder(_) => "IDr",
        Payload::Certificate(_) => "CERT",
        Payload::CertificateRequest(_) => "CERTREQ",
        Payload::Auth(_) => "AUTH",
        Payload::Nonce(_) => "No",
        Payload::Notify(notify) => {
            return match abbreviation(notify.kind) {
                Some(name) => write!(f, "N({name})"),
                None => write!(f, "N({})", notify.kind),
            };
        }
        Payload::Delete(_) => "D",
        Payload::VendorId(_) => "V",
        Payload::TsInitiator(_) => "TSi",
        Payload::TsResponder(_) => "TSr",
        Payload::Encrypted(_) => "E",
        Payload::EncryptedFragment(fragment) => return write!(f, "EF({}/{})", fragment.number, fragment.total),
        Payload::Configuration(_) => "CP",
        Payload::Eap(_) => "EAP",
        Payload::Unknown(unknown) => return write!(f, "{}", unknown.kind),
    };
    f.write_str(name)
}

/// The short names that tools look for in logs; other types stand there with their full names.
fn abbreviation(kind: NotifyType) -> Option<&'static str> {
    ABBREVIATIONS.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name)
}

const ABBREVIATIONS: [(NotifyType, &str); 42] = [
    (NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, "CRIT"),
    (NotifyType::INVALID_IKE_SPI, "INVAL_IKE_SPI"),
    (NotifyType::INVALID_MAJOR_VERSION, "INVAL_MAJOR"),
    (NotifyType::INVALID_SYNTAX, "INVAL_SYN"),
    (NotifyType::INVALID_MESSAGE_ID, "INVAL_MID"),
    (NotifyType::INVALID_SPI, "INVAL_SPI"),
    (NotifyType::NO_PROPOSAL_CHOSEN, "NO_PROP"),
    (NotifyType::INVALID_KE_PAYLOAD, "INVAL_KE"),
    (NotifyType::AUTHENTICATION_FAILED, "AUTH_FAILED"),
    (NotifyType::SINGLE_PAIR_REQUIRED, "SINGLE_PAIR"),
    (NotifyType::NO_ADDITIONAL_SAS, "NO_ADD_SAS"),
    (NotifyType::INTERNAL_ADDRESS_FAILURE, "INT_ADDR_FAIL"),
    (NotifyType::FAILED_CP_REQUIRED, "FAIL_CP_REQ"),
    (NotifyType::TS_UNACCEPTABLE, "TS_UNACCEPT"),
    (NotifyType::INVALID_SELECTORS, "INVAL_SEL"),
    (NotifyType::UNACCEPTABLE_ADDRESSES, "UNACCEPT_ADDR"),
    (NotifyType::UNEXPECTED_NAT_DETECTED, "UNEXPECT_NAT"),
    (NotifyType::TEMPORARY_FAILURE, "TEMP_FAIL"),
    (NotifyType::CHILD_SA_NOT_FOUND, "NO_CHILD_SA"),
    (NotifyType::INITIAL_CONTACT, "INIT_CONTACT"),
    (NotifyType::SET_WINDOW_SIZE, "SET_WINSIZE"),
    (NotifyType::ADDITIONAL_TS_POSSIBLE, "ADD_TS_POSS"),
    (NotifyType::IPCOMP_SUPPORTED, "IPCOMP_SUPP"),
    (NotifyType::NAT_DETECTION_SOURCE_IP, "NATD_S_IP"),
    (NotifyType::NAT_DETECTION_DESTINATION_IP, "NATD_D_IP"),
    (NotifyType::USE_TRANSPORT_MODE, "USE_TRANSP"),
    (NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED, "ESP_TFC_PAD_N"),
    (NotifyType::NON_FIRST_FRAGMENTS_ALSO, "NON_FIRST_FRAG"),
    (NotifyType::MOBIKE_SUPPORTED, "MOBIKE_SUP"),
    (NotifyType::ADDITIONAL_IP4_ADDRESS, "ADD_4_ADDR"),
    (NotifyType::ADDITIONAL_IP6_ADDRESS, "ADD_6_ADDR"),
    (NotifyType::NO_ADDITIONAL_ADDRESSES, "NO_ADD_ADDR"),
    (NotifyType::UPDATE_SA_ADDRESSES, "UPD_SA_ADDR"),
    (NotifyType::NO_NATS_ALLOWED, "NO_NATS"),
    (NotifyType::AUTH_LIFETIME, "AUTH_LFT"),
    (NotifyType::MULTIPLE_AUTH_SUPPORTED, "MULT_AUTH"),
    (NotifyType::REDIRECT_SUPPORTED, "REDIR_SUP"),
    (NotifyType::EAP_ONLY_AUTHENTICATION, "EAP_ONLY"),
    (NotifyType::CHILDLESS_IKEV2_SUPPORTED, "CHDLESS_SUP"),
    (NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED, "MSG_ID_SYN_SUP"),
    (NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, "FRAG_SUP"),
    (NotifyType::SIGNATURE_HASH_ALGORITHMS, "HASH_ALG"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Delete, KeyExchange, Nonce, Notify, SecurityAssociation, ids::KeyExchangeId};

    #[test]
    fn a_message_is_its_payloads_by_their_short_names() {
        let payloads = [
            Payload::Sa(SecurityAssociation::new(Vec::new())),
            Payload::KeyExchange(KeyExchange::new(KeyExchangeId::CURVE_25519, vec![7; 32])),
            Payload::Nonce(Nonce::new(vec![7; 32])),
            Payload::Notify(Notify::plain(NotifyType::NAT_DETECTION_SOURCE_IP)),
            Payload::Notify(Notify::plain(NotifyType::COOKIE)),
            Payload::Notify(Notify::plain(NotifyType(40_999))),
            Payload::Delete(Delete::ike_sa()),
        ];
        assert_eq!(Contents(&payloads).to_string(), "[ SA KE No N(NATD_S_IP) N(COOKIE) N((40999)) D ]");
        assert_eq!(Contents(&[]).to_string(), "[ ]");
    }
}
