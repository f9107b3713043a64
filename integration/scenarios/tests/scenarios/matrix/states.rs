//! The states that a gateway can be in when a message comes, and how to get there.

use ike_wire::IkeSpi;
use ike_wire::encode_chain;
use ike_wire::ids::ExchangeType;
use scenarios::A;

use super::puppet::{DPD_DELAY, Loopback, Puppet, create_child};

/// A state of the IKE SA that a message names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is no such IKE SA.
    Unknown,
    /// We have sent IKE_SA_INIT.
    InitSent,
    /// We have sent IKE_AUTH.
    AuthSent,
    /// We have answered IKE_SA_INIT.
    HalfOpen,
    /// Established, nothing under way.
    Idle,
    /// We have asked whether the peer is there.
    Asking,
    /// We have asked for another CHILD SA.
    Creating,
    /// We have asked to rekey the CHILD SA.
    RekeyingChild,
    /// We have sent DELETE for the CHILD SA.
    DeletingChild,
    /// A CHILD SA that the peer asked for is being installed; the answer is still to come.
    Installing,
    /// We have asked to rekey the IKE SA.
    RekeyingIke,
    /// Made by the peer's rekeying while ours is under way.
    Undecided,
    /// The peer has rekeyed it; the old IKE SA waits for its DELETE.
    Replaced,
    /// We have sent DELETE for the IKE SA.
    DeletingIke,
    /// It has ended not long ago.
    Departed,
}

impl State {
    pub(super) const ALL: [Self; 15] = [
        Self::Unknown,
        Self::InitSent,
        Self::AuthSent,
        Self::HalfOpen,
        Self::Idle,
        Self::Asking,
        Self::Creating,
        Self::RekeyingChild,
        Self::DeletingChild,
        Self::Installing,
        Self::RekeyingIke,
        Self::Undecided,
        Self::Replaced,
        Self::DeletingIke,
        Self::Departed,
    ];

    /// Its name in the table, and what it means.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Unknown => ("unknown", "no IKE SA has these SPIs"),
            Self::InitSent => ("init sent", "we initiate; IKE_SA_INIT is not answered"),
            Self::AuthSent => ("auth sent", "we initiate; IKE_SA_INIT is answered, IKE_AUTH is not"),
            Self::HalfOpen => ("half-open", "the peer initiates; IKE_SA_INIT is answered, IKE_AUTH has not come"),
            Self::Idle => ("idle", "established, one CHILD SA, nothing under way"),
            Self::Asking => ("asking", "established; our liveness check is not answered"),
            Self::Creating => ("creating", "established; our CREATE_CHILD_SA for a further CHILD SA is not answered"),
            Self::RekeyingChild => {
                ("rekeying child", "established; our CREATE_CHILD_SA that rekeys the CHILD SA is not answered")
            }
            Self::DeletingChild => ("deleting child", "established; our DELETE of the CHILD SA is not answered"),
            Self::Installing => (
                "installing",
                "established; we have not answered a CREATE_CHILD_SA of the peer, the backend is at work",
            ),
            Self::RekeyingIke => {
                ("rekeying IKE", "established; our CREATE_CHILD_SA that rekeys the IKE SA is not answered")
            }
            Self::Undecided => ("undecided", "made by the peer's rekeying of the IKE SA while ours is not answered"),
            Self::Replaced => ("replaced", "the peer has rekeyed it and has not deleted it yet"),
            Self::DeletingIke => ("deleting IKE", "our DELETE of the IKE SA is not answered"),
            Self::Departed => ("departed", "it has ended not long ago, by the peer's DELETE"),
        }
    }

    /// A gateway in this state, and the peer's view of the IKE SA that messages are about to name.
    pub(super) fn reach(self) -> (Loopback, Puppet) {
        let mut gateway = Loopback::new();
        match self {
            Self::Unknown => {
                let spis = (IkeSpi(0x77), IkeSpi(0x0099_0000_0000_0001));
                (gateway, Puppet { spis, keys: None, initiator: true, next: 0, asked: None, answered: None })
            }
            Self::InitSent => {
                gateway.0.borrow_mut().initiate(A, "gw", "net");
                let header = ike_wire::Header::parse(&gateway.sent()[0]).unwrap();
                let spis = (header.initiator_spi, IkeSpi(0));
                (gateway, Puppet { spis, keys: None, initiator: false, next: 0, asked: None, answered: None })
            }
            Self::AuthSent => {
                gateway.0.borrow_mut().initiate(A, "gw", "net");
                let puppet = Puppet::responder(&mut gateway);
                (gateway, puppet)
            }
            Self::HalfOpen => {
                let puppet = Puppet::half_open(&mut gateway);
                (gateway, puppet)
            }
            Self::Idle
            | Self::Asking
            | Self::Creating
            | Self::RekeyingChild
            | Self::DeletingChild
            | Self::Installing
            | Self::RekeyingIke
            | Self::Undecided
            | Self::Replaced
            | Self::DeletingIke
            | Self::Departed => self.reach_established(gateway),
        }
    }

    /// Whether a request of ours is under way.
    fn asks(self) -> bool {
        matches!(
            self,
            Self::Asking
                | Self::Creating
                | Self::RekeyingChild
                | Self::DeletingChild
                | Self::RekeyingIke
                | Self::Undecided
                | Self::DeletingIke
        )
    }

    fn reach_established(self, mut gateway: Loopback) -> (Loopback, Puppet) {
        let mut puppet = Puppet::established(&mut gateway);
        let request = puppet.seal(ExchangeType::INFORMATIONAL, puppet.next, false, &encode_chain(&[]).unwrap());
        let answer = gateway.exchange(&request).remove(0);
        puppet.next += 1;
        puppet.answered = Some((request, answer));
        let act = |gateway: &Loopback| {
            let mut world = gateway.0.borrow_mut();
            match self {
                Self::Asking => world.run_for(DPD_DELAY),
                Self::Creating => drop(world.initiate(A, "gw", "other")),
                Self::RekeyingChild => drop(world.rekey_child(A, "net")),
                Self::DeletingChild => drop(world.terminate_child(A, "net")),
                Self::RekeyingIke | Self::Undecided => drop(world.rekey_ike(A, "gw")),
                Self::DeletingIke => drop(world.terminate_ike(A, "gw")),
                Self::Installing => world.hold_backend(A),
                Self::Unknown
                | Self::InitSent
                | Self::AuthSent
                | Self::HalfOpen
                | Self::Idle
                | Self::Replaced
                | Self::Departed => {}
            }
        };
        act(&gateway);
        let sent = gateway.sent();
        puppet.note_requests(&sent);
        assert_eq!(puppet.asked.is_some(), self.asks(), "{self:?}");
        match self {
            Self::Installing => {
                let chain = encode_chain(&create_child(None)).unwrap();
                let request = puppet.seal(ExchangeType::CREATE_CHILD_SA, puppet.next, false, &chain);
                assert!(gateway.exchange(&request).is_empty(), "the answer waits for the install");
            }
            Self::Undecided => puppet = puppet.rekey_ike(&mut gateway),
            Self::Replaced => drop(puppet.rekey_ike(&mut gateway)),
            Self::Departed => {
                let chain = encode_chain(&[ike_wire::Payload::Delete(ike_wire::Delete::ike_sa())]).unwrap();
                let request = puppet.seal(ExchangeType::INFORMATIONAL, puppet.next, false, &chain);
                let answer = gateway.exchange(&request).remove(0);
                puppet.next += 1;
                puppet.answered = Some((request, answer));
            }
            Self::Unknown
            | Self::InitSent
            | Self::AuthSent
            | Self::HalfOpen
            | Self::Idle
            | Self::Asking
            | Self::Creating
            | Self::RekeyingChild
            | Self::DeletingChild
            | Self::RekeyingIke
            | Self::DeletingIke => {}
        }
        (gateway, puppet)
    }
}
