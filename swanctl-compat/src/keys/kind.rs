//! How values are written, and checking one.

use crate::settings::did_you_mean;
use crate::{address, identity, load_conn, proposal, tags, units};

/// Longest shell command: the system takes twice as much, with some for the environment.
const MAX_SCRIPT: usize = 65_536;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `yes` or `no`.
    Bool,
    /// A number up to 2^32 - 1.
    U32,
    /// A port number.
    Port,
    /// A number up to 2^64 - 1.
    U64,
    /// A time.
    Time,
    /// A size in octets.
    Bytes,
    /// One of these words.
    Words(&'static [&'static str]),
    /// `none`, `trap`, `start`, or `trap|start`.
    Actions,
    /// Six binary digits.
    Dscp,
    /// An address, network, range or DNS name.
    Host,
    /// A traffic selector.
    Selector,
    /// An IKE proposal.
    IkeProposal,
    /// An ESP proposal.
    EspProposal,
    /// An identity.
    Identity,
    /// An authentication method.
    Auth,
    /// A mark that packets are met by.
    Mark,
    /// A mark to set.
    SetMark,
    /// An interface id.
    InterfaceId,
    /// A secret: text, `0x` and hexadecimal digits, or `0s` and Base64.
    Secret,
    /// A line for the shell.
    Script,
    /// A file name.
    File,
    /// Text.
    Text,
}

/// Why a value does not fit its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The piece that does not fit, if it is not the whole value.
    pub fragment: Option<String>,
    /// What is wrong, or what was expected.
    pub reason: String,
    /// What to do.
    pub help: Option<String>,
    /// The value is legal, but what it asks for is not built.
    pub unsupported: bool,
}

impl Misfit {
    fn expected(what: impl Into<String>) -> Self {
        Self { fragment: None, reason: format!("expected {}", what.into()), help: None, unsupported: false }
    }

    pub(crate) fn unsupported(reason: impl Into<String>, help: Option<&str>) -> Self {
        Self { fragment: None, reason: reason.into(), help: help.map(str::to_owned), unsupported: true }
    }
}

impl Kind {
    /// Whether `text` is such a value.
    ///
    /// # Errors
    /// Says what does not fit.
    pub fn check(self, text: &str) -> Result<(), Misfit> {
        let ok = |fits: bool, expected: &str| if fits { Ok(()) } else { Err(Misfit::expected(expected)) };
        match self {
            Self::Bool => ok(units::boolean(text).is_some(), "`yes` or `no`"),
            Self::U32 => ok(units::u32(text).is_some(), "a number from 0 to 4294967295"),
            Self::Port => ok(units::u32(text).is_some_and(|port| port <= 65_535), "a port number from 0 to 65535"),
            Self::U64 => ok(units::u64(text).is_some(), "a number without a suffix"),
            Self::Time => ok(
                units::seconds(text).is_some(),
                "a number with at most one of the suffixes s, m, h or d, such as 90m",
            ),
            Self::Bytes => {
                ok(units::bytes(text).is_some(), "a number with at most one of the suffixes k, m or g, such as 500m")
            }
            Self::Dscp => ok(units::dscp(text).is_some(), "six binary digits, such as 101110"),
            Self::Words(words) => word(text, words),
            Self::Actions => load_conn::actions(text).map(drop).ok_or_else(|| {
                let mut misfit = Misfit::expected("`none`, `trap`, `start` or `trap|start`");
                misfit.help =
                    did_you_mean(text, ["none", "trap", "start"]).map(|word| format!("did you mean `{word}`?"));
                misfit
            }),
            Self::Host => address::host(text).map(drop).map_err(from_address),
            Self::Selector => address::selector(text).map(drop).map_err(from_address),
            Self::IkeProposal => proposal::ike(text).map(drop).map_err(from_proposal),
            Self::EspProposal => proposal::esp(text).map(drop).map_err(from_proposal),
            Self::Identity => identity::parse(text).map(drop).map_err(|error| Misfit {
                fragment: None,
                reason: error.to_string(),
                help: None,
                unsupported: false,
            }),
            Self::Auth => load_conn::auth_method(text).map(drop),
            Self::Mark => ok(
                tags::mark(text).is_some(),
                "a number, `%unique` or `%unique-dir`, and a mask behind `/` if not all bits count",
            ),
            Self::SetMark => {
                ok(tags::set_mark(text).is_some(), "a number or `%same`, and a mask behind `/` if not all bits are set")
            }
            Self::InterfaceId => ok(tags::interface_id(text).is_some(), "a number, `%unique` or `%unique-dir`"),
            Self::Secret => {
                crate::secret::decode(text.as_bytes()).map(drop).map_err(|error| Misfit::expected(error.expected()))
            }
            Self::Script => ok(
                text.len() <= MAX_SCRIPT && !text.contains('\0'),
                "a shell command of at most 65536 octets, none of them zero",
            ),
            Self::File | Self::Text => Ok(()),
        }
    }

    /// Words of a proposal that are legal but left out of what is offered.
    #[must_use]
    pub fn left_out(self, text: &str) -> Vec<String> {
        if self == Self::IkeProposal {
            proposal::ike(text).map(|parsed| parsed.left_out).unwrap_or_default()
        } else if self == Self::EspProposal {
            proposal::esp(text).map(|parsed| parsed.left_out).unwrap_or_default()
        } else {
            Vec::new()
        }
    }

    /// How documentation describes the value.
    #[must_use]
    pub fn documentation(self) -> String {
        match self {
            Self::Bool => "yes, no".to_owned(),
            Self::U32 | Self::U64 => "number".to_owned(),
            Self::Port => "port".to_owned(),
            Self::Time => "time (s, m, h, d)".to_owned(),
            Self::Bytes => "size (k, m, g)".to_owned(),
            Self::Words(words) => words.join(", "),
            Self::Actions => "none, trap, start, trap|start".to_owned(),
            Self::Dscp => "six binary digits".to_owned(),
            Self::Host => "address, network, range or DNS name".to_owned(),
            Self::Selector => "traffic selector".to_owned(),
            Self::IkeProposal => "IKE proposal".to_owned(),
            Self::EspProposal => "ESP proposal".to_owned(),
            Self::Identity => "identity".to_owned(),
            Self::Auth => "authentication method".to_owned(),
            Self::Mark => "number, %unique or %unique-dir, optional /mask".to_owned(),
            Self::SetMark => "number or %same, optional /mask".to_owned(),
            Self::InterfaceId => "number, %unique, %unique-dir".to_owned(),
            Self::Secret => "secret: text, 0x and hexadecimal digits, or 0s and Base64".to_owned(),
            Self::Script => "shell command".to_owned(),
            Self::File => "file".to_owned(),
            Self::Text => "text".to_owned(),
        }
    }
}

fn word(text: &str, words: &'static [&'static str]) -> Result<(), Misfit> {
    if words.iter().any(|word| word.eq_ignore_ascii_case(text)) {
        return Ok(());
    }
    let mut misfit = Misfit::expected(format!("one of {}", words.join(", ")));
    misfit.help = did_you_mean(text, words.iter().copied()).map(|word| format!("did you mean `{word}`?"));
    Err(misfit)
}

fn from_address(error: address::AddressError) -> Misfit {
    Misfit { fragment: Some(error.fragment), ..Misfit::expected(error.expected) }
}

fn from_proposal(error: proposal::ProposalError) -> Misfit {
    Misfit { fragment: Some(error.fragment), reason: error.reason, help: error.help, unsupported: error.unsupported }
}
