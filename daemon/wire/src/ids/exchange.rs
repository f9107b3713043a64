//! Exchange types, payload types, protocols, traffic selector types and configuration ids.

use super::registry;

registry! {
    /// Exchange type of a message (RFC 7296 §3.1).
    ExchangeType(u8) {
        IKE_SA_INIT = 34,
        IKE_AUTH = 35,
        CREATE_CHILD_SA = 36,
        INFORMATIONAL = 37,
        IKE_SESSION_RESUME = 38,
        GSA_AUTH = 39,
        GSA_REGISTRATION = 40,
        GSA_REKEY = 41,
        GSA_INBAND_REKEY = 42,
        IKE_INTERMEDIATE = 43,
        IKE_FOLLOWUP_KE = 44,
    }
}

registry! {
    /// Payload type, as in a "next payload" field (RFC 7296 §3.2). Prints in the notation of the RFC.
    PayloadType(u8) {
        NO_NEXT_PAYLOAD = 0,
        SA = 33,
        KE = 34,
        ID_INITIATOR = 35 => "IDi",
        ID_RESPONDER = 36 => "IDr",
        CERT = 37,
        CERTREQ = 38,
        AUTH = 39,
        NONCE = 40 => "Nonce",
        NOTIFY = 41 => "N",
        DELETE = 42 => "D",
        VENDOR_ID = 43 => "V",
        TS_INITIATOR = 44 => "TSi",
        TS_RESPONDER = 45 => "TSr",
        SK = 46,
        CP = 47,
        EAP = 48,
        GSPM = 49,
        ID_GROUP = 50 => "IDg",
        GSA = 51,
        KD = 52,
        SKF = 53,
        PS = 54,
    }
}

registry! {
    /// Protocol that a proposal, notification or deletion is about (RFC 7296 §3.3.1).
    ProtocolId(u8) {
        NONE = 0,
        IKE = 1,
        AH = 2,
        ESP = 3,
        FC_ESP_HEADER = 4,
        FC_CT_AUTHENTICATION = 5,
        GIKE_UPDATE = 6,
    }
}

registry! {
    /// Kind of a traffic selector (RFC 7296 §3.13.1).
    TsType(u8) {
        TS_IPV4_ADDR_RANGE = 7,
        TS_IPV6_ADDR_RANGE = 8,
        TS_FC_ADDR_RANGE = 9,
        TS_SECLABEL = 10,
    }
}

registry! {
    /// Kind of a Configuration payload (RFC 7296 §3.15).
    ConfigurationType(u8) {
        CFG_REQUEST = 1,
        CFG_REPLY = 2,
        CFG_SET = 3,
        CFG_ACK = 4,
    }
}

registry! {
    /// Attribute of a Configuration payload (RFC 7296 §3.15.1), 15 bits.
    ConfigurationAttributeType(u16) {
        INTERNAL_IP4_ADDRESS = 1,
        INTERNAL_IP4_NETMASK = 2,
        INTERNAL_IP4_DNS = 3,
        INTERNAL_IP4_NBNS = 4,
        INTERNAL_IP4_DHCP = 6,
        APPLICATION_VERSION = 7,
        INTERNAL_IP6_ADDRESS = 8,
        INTERNAL_IP6_DNS = 10,
        INTERNAL_IP6_DHCP = 12,
        INTERNAL_IP4_SUBNET = 13,
        SUPPORTED_ATTRIBUTES = 14,
        INTERNAL_IP6_SUBNET = 15,
        MIP6_HOME_PREFIX = 16,
        INTERNAL_IP6_LINK = 17,
        INTERNAL_IP6_PREFIX = 18,
        HOME_AGENT_ADDRESS = 19,
        P_CSCF_IP4_ADDRESS = 20,
        P_CSCF_IP6_ADDRESS = 21,
        FTT_KAT = 22,
        EXTERNAL_SOURCE_IP4_NAT_INFO = 23,
        TIMEOUT_PERIOD_FOR_LIVENESS_CHECK = 24,
        INTERNAL_DNS_DOMAIN = 25,
        INTERNAL_DNSSEC_TA = 26,
        ENCDNS_IP4 = 27,
        ENCDNS_IP6 = 28,
        ENCDNS_DIGEST_INFO = 29,
    }
}
