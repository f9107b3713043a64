//! What an IKE SA may use while it handles one input.

use std::collections::VecDeque;
use std::time::Duration;

use ike_crypto::CryptoError;
use ike_model::EventBody;
use ike_wire::IkeSpi;
use ipsec::{DeviceId, Direction, Instant, ModeInUse, Op, Path, PolicyHandle, Reqid, Request, SaHandle, Shard, Tag};

use crate::deadline::Deadlines;
use crate::io::{Context, Output, Transmit};
use crate::notice::Notice;
use crate::registry::Registry;
use crate::work::{Job, WorkId};

/// Everything an IKE SA may use besides itself.
pub(crate) struct Turn<'t> {
    /// What came from outside.
    pub(crate) context: &'t Context<'t>,
    /// Names for new objects.
    pub(crate) ids: &'t mut Ids,
    /// Deadlines of all SAs.
    pub(crate) deadlines: &'t mut Deadlines,
    /// Who is established, and who waits for which answer.
    pub(crate) registry: &'t mut Registry,
    /// What is to be done outside.
    pub(crate) outputs: &'t mut VecDeque<Output>,
    /// What the endpoint should know.
    pub(crate) notices: &'t mut VecDeque<Notice>,
}

impl Turn<'_> {
    /// Now.
    pub(crate) fn now(&self) -> Instant {
        self.context.now
    }

    /// Sends a datagram.
    pub(crate) fn transmit(&mut self, path: Path, octets: Vec<u8>, dscp: u8) {
        self.outputs.push_back(Output::Transmit(Transmit { path, octets, dscp }));
    }

    /// Tells the event sinks.
    pub(crate) fn event(&mut self, body: EventBody) {
        self.outputs.push_back(Output::Event(body));
    }

    /// Asks the backend on behalf of a CHILD SA; the answer comes back to the IKE SA that owns the child then.
    pub(crate) fn apply(&mut self, ops: Vec<Op>, purpose: Purpose) {
        for sa in self.registry.switches.before(&ops) {
            self.switch(sa);
        }
        if !ops.is_empty() {
            self.submit(Request::Apply(ops), purpose);
        }
    }

    /// Traffic passes to an outbound SA, if that is still to happen.
    pub(crate) fn switch(&mut self, sa: SaHandle) {
        if let Some(ops) = self.registry.switches.take(sa) {
            self.submit(Request::Apply(ops), Purpose::Activate(child_of(sa)));
        }
    }

    /// Asks the backend.
    pub(crate) fn submit(&mut self, request: Request, purpose: Purpose) {
        if let Request::Apply(ops) = &request {
            self.registry.listing.note(ops);
        }
        let tag = self.ids.tag();
        if let Request::Apply(ops) = &request {
            self.registry.farewells.asked(tag, ops);
        }
        self.registry.waiting.insert(tag, purpose);
        self.outputs.push_back(Output::Offload(tag, request));
    }

    /// Has something done outside for the IKE SA with our SPI `spi`.
    pub(crate) fn work(&mut self, spi: IkeSpi, job: Job) -> WorkId {
        let id = self.ids.work();
        self.registry.working.insert(id, spi.0);
        self.outputs.push_back(Output::Work(id, job));
        id
    }

    /// A uniform random number.
    pub(crate) fn random(&self) -> u32 {
        let mut octets = [0; 4];
        // Jitter only: without randomness there is none.
        if self.context.rng.fill(&mut octets).is_err() {
            return 0;
        }
        u32::from_be_bytes(octets)
    }

    /// A uniform random share of one.
    pub(crate) fn share(&self) -> f64 {
        f64::from(self.random()) / f64::from(u32::MAX)
    }

    //= RFC 7296 §2.10: nonces are random and at least half as long as the key of the PRF
    /// A fresh nonce (RFC 7296 §2.10): at least half the key size of any PRF here.
    pub(crate) fn nonce(&self) -> Result<Vec<u8>, CryptoError> {
        let mut nonce = vec![0; NONCE_LEN];
        self.context.rng.fill(&mut nonce)?;
        Ok(nonce)
    }

    /// `duration` from now.
    pub(crate) fn after(&self, duration: Duration) -> Instant {
        self.context.now + duration
    }
}

/// Octets of our nonces.
const NONCE_LEN: usize = 32;

/// Why the backend was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To install a CHILD SA.
    Install(u32),
    /// To let traffic take a new CHILD SA, which is installed in this mode.
    First(u32, ModeInUse),
    /// To switch the outbound policies to a CHILD SA.
    Activate(u32),
    /// To see how long the lingering inbound SA was idle.
    Linger(u32),
    /// To see whether a CHILD SA is in use in one direction.
    Inactivity(u32, Direction),
    /// To read the counters of a CHILD SA in one direction.
    Count(u32, Direction),
    /// To move a CHILD SA.
    Move(u32),
    /// To see whether a CHILD SA was sent on, so that no keepalive is needed.
    Keepalive(u32),
    /// To install the trap or shunt of a configured child, by the number of its keeper.
    Trap(u32),
    /// To see what it holds.
    List,
    /// To put back policies of a CHILD SA.
    Repair(u32),
    /// To take something out, which cannot fail in a way that matters.
    Remove,
}

/// Names for new objects of this shard.
#[derive(Debug)]
pub(crate) struct Ids {
    shard: Shard,
    shards: u8,
    ike: u32,
    child: u32,
    reqid: u32,
    tag_value: u32,
    policy: u64,
    tag: u64,
    work: u64,
}

impl Ids {
    pub(crate) fn new(shard: Shard, shards: u8) -> Self {
        Self { shard, shards: shards.max(1), ike: 0, child: 0, reqid: 0, tag_value: 0, policy: 0, tag: 0, work: 0 }
    }

    /// The shard.
    pub(crate) fn shard(&self) -> Shard {
        self.shard
    }

    /// Number of shards.
    pub(crate) fn shards(&self) -> u8 {
        self.shards
    }

    /// The `count`-th number of this shard: numbers of different shards never meet.
    fn spread(&self, count: u32) -> u32 {
        count
            .saturating_sub(1)
            .saturating_mul(self.shards.into())
            .saturating_add(u32::from(self.shard.0))
            .saturating_add(1)
    }

    /// A unique id for an IKE SA.
    pub(crate) fn ike(&mut self) -> u32 {
        self.ike = self.ike.saturating_add(1);
        self.spread(self.ike)
    }

    /// A unique id for a CHILD SA.
    pub(crate) fn child(&mut self) -> u32 {
        self.child = self.child.saturating_add(1);
        self.spread(self.child)
    }

    /// A reqid.
    pub(crate) fn reqid(&mut self) -> Reqid {
        self.reqid = self.reqid.saturating_add(1);
        Reqid(self.spread(self.reqid))
    }

    /// A mark or interface id that nobody else has (`%unique`).
    pub(crate) fn tag_value(&mut self) -> u32 {
        self.tag_value = self.tag_value.saturating_add(1);
        self.spread(self.tag_value)
    }

    /// Handle of an SPD entry.
    pub(crate) fn policy(&mut self) -> PolicyHandle {
        self.policy = self.policy.saturating_add(1);
        PolicyHandle::new(self.shard, self.policy)
    }

    /// Handle of one SA of a CHILD SA.
    pub(crate) fn sa(&self, child: u32, direction: Direction) -> SaHandle {
        let bit = u64::from(direction == Direction::Outbound);
        SaHandle::new(self.shard, u64::from(child) << 1 | bit)
    }

    fn tag(&mut self) -> Tag {
        self.tag = self.tag.saturating_add(1);
        Tag::new(self.shard, self.tag)
    }

    fn work(&mut self) -> WorkId {
        self.work = self.work.saturating_add(1);
        WorkId::new(self.shard, self.work)
    }

    /// An SPI for an IKE SA, with the shard in its top eight bits and never zero.
    pub(crate) fn ike_spi(&self, context: &Context<'_>) -> Result<IkeSpi, CryptoError> {
        loop {
            let mut octets = [0; 8];
            context.rng.fill(&mut octets)?;
            let [first, rest @ ..] = &mut octets;
            *first = self.shard.0;
            if rest.iter().any(|octet| *octet != 0) {
                return Ok(IkeSpi::from_octets(octets));
            }
        }
    }
}

/// The direction of a handle made by [`Ids::sa`].
pub(crate) fn direction_of(sa: SaHandle) -> Direction {
    if sa.raw() & 1 == 1 { Direction::Outbound } else { Direction::Inbound }
}

/// The CHILD SA that a handle made by [`Ids::sa`] names.
pub(crate) fn child_of(sa: SaHandle) -> u32 {
    let count = sa.raw() & ((1 << 56) - 1);
    u32::try_from(count >> 1).unwrap_or(0)
}

/// A device is named by the pair of outer addresses.
pub(crate) fn device_for(context: &Context<'_>, path: Path) -> Option<DeviceId> {
    context.spis.device_for(path.local.ip(), path.remote.ip())
}
