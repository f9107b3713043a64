//! Schedules: what is done to the gateways of a world, as data that can be printed, read back and made smaller.
//!
//! The text form has one JSON value a line: the set-up first, then one operation each with the pause before it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Who;

/// A whole schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The world it runs in.
    pub setup: Setup,
    /// What is done, in order.
    pub actions: Vec<Action>,
}

/// The world of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Seed of everything that is random in the world.
    pub seed: u64,
    /// Shards of each gateway; its length is the number of gateways.
    pub shards: Vec<u8>,
    /// A second connection between A and B, with other identities.
    pub second: bool,
    /// Key exchange when CHILD SAs are rekeyed: nothing, or which of two methods each gateway guesses first; a third one all take.
    pub pfs: Option<Vec<bool>>,
    /// Preference of each gateway among three key exchange methods for IKE SAs.
    pub ike_methods: Vec<bool>,
    /// A is behind an address translator.
    pub nat: bool,
    /// The backends of all gateways count their SPIs from the same number.
    pub same_spis: bool,
    /// Liveness checks after so many seconds.
    pub dpd: u64,
    /// Repetitions of a request.
    pub tries: u32,
    /// Soft lifetime of IKE SAs in seconds; 0 = none.
    pub ike_rekey: u64,
    /// IKE SAs are authenticated afresh after so many seconds; 0 = never.
    pub reauth: u64,
    /// Soft lifetime of CHILD SAs in seconds; 0 = none.
    pub child_rekey: u64,
    /// Work takes so many milliseconds, by gateway.
    pub work: Vec<u64>,
    /// Answers of the backends take so many milliseconds, by gateway.
    pub reports: Vec<u64>,
    /// One way takes so many milliseconds.
    pub latency: u64,
    /// And up to so many more.
    pub jitter: u64,
    /// Datagrams lost, out of 1,000.
    pub loss: u32,
    /// Datagrams delivered twice, out of 1,000.
    pub duplicates: u32,
}

/// One line of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Milliseconds before it.
    pub pause: u64,
    /// What is done.
    pub op: Op,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Nothing; only the pause counts.
    Wait,
    /// Establish a child.
    Initiate(Who, String, String),
    /// Close CHILD SAs.
    CloseChild(Who, String, String),
    /// Close IKE SAs.
    CloseIke(Who, String),
    /// Rekey CHILD SAs.
    RekeyChild(Who, String, String),
    /// Rekey IKE SAs.
    RekeyIke(Who, String),
    /// Install the trap of a child.
    Install(Who, String, String),
    /// Take it out.
    Uninstall(Who, String, String),
    /// A packet meets a trap of a child.
    Acquire(Who, String, String),
    /// Load a connection again.
    Reload(Who, String, Change),
    /// The gateway dies and starts again.
    Restart(Who),
    /// It stops in good order; until it starts again it does nothing.
    Shutdown(Who),
    /// A soft limit of one live CHILD SA, counted round.
    Soft(Who, usize, Unit),
    /// A hard limit of one live CHILD SA, counted round.
    Hard(Who, usize, Unit),
    /// The limit of the CHILD SA that has just been rekeyed and is not deleted yet; hard or not.
    OldLimit(Who, bool),
    /// The device no longer holds one SA, counted round.
    LoseSa(Who, usize),
    /// The device goes down, and comes back with empty tables.
    LoseDevice(Who),
    /// The device is gone.
    DeviceGone(Who),
    /// Its cryptography has lost some key exchange methods: these or those, or has all again.
    Computes(Who, Option<bool>),
    /// The backend refuses the next install.
    Refuse(Who),
    /// The backend keeps what it is asked.
    HoldBackend(Who),
    /// It goes on.
    ReleaseBackend(Who),
    /// Its answers take so many milliseconds.
    Reports(Who, u64),
    /// Work takes so many milliseconds.
    Work(Who, u64),
    /// The next nonce begins with this octet.
    Nonce(Who, u8),
    /// Datagrams lost and doubled, out of 1,000, and jitter in milliseconds.
    Link(u32, u32, u64),
    /// Nothing passes from the one to the other.
    Cut(Who, Who),
    /// Everything passes again.
    Mend,
    /// What fits is held from now on.
    Hold(Fits),
    /// Nothing is held any more; what is held stays so.
    Flow,
    /// One held datagram arrives, counted round.
    LetGo(usize),
    /// The first held datagram that fits arrives.
    LetGoFirst(Fits),
    /// One held datagram is lost, counted round.
    Lose(usize),
    /// The next datagram that fits is lost.
    DropNext(Fits),
    /// The gateway sleeps for so many seconds.
    Suspend(Who, u64),
    /// Its clock jumps by so many seconds.
    Jump(Who, u64),
    /// The translator forgets its mappings.
    Rebind(Who),
    /// One ESP packet over every tunnel.
    Packets(Who),
    /// An end to all that is out of order; connections are as at the beginning.
    Heal,
}

/// How a connection changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Not at all.
    Nothing,
    /// Its liveness checks.
    Liveness(u64),
    /// The lifetime of its CHILD SAs.
    Lifetime(u64),
    /// The order of its key exchange methods.
    Methods,
    /// The selectors of its child `other`, to what the peer does not have.
    Selectors,
    /// It is gone.
    Removed,
    /// As it was at first.
    Restored,
}

/// Unit of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Time.
    Time,
    /// Octets.
    Bytes,
    /// Packets.
    Packets,
}

/// Which datagrams are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fits {
    /// By whom; `None` = anybody.
    pub from: Option<Who>,
    /// Of which kind.
    pub kind: Kind,
}

/// Kinds of datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Any.
    Any,
    /// A request of IKE_SA_INIT or IKE_AUTH.
    FirstRequest,
    /// A response of these.
    FirstResponse,
    /// A request of CREATE_CHILD_SA.
    CreateRequest,
    /// A response of it.
    CreateResponse,
    /// A request of INFORMATIONAL.
    InformRequest,
    /// A response of it.
    InformResponse,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |text: serde_json::Result<String>| text.map_err(|_| fmt::Error);
        writeln!(f, "{}", line(serde_json::to_string(&self.setup))?)?;
        for action in &self.actions {
            writeln!(f, "{}", line(serde_json::to_string(action))?)?;
        }
        Ok(())
    }
}

impl Schedule {
    /// Reads the text form; lines that begin with `#` are comments.
    ///
    /// # Errors
    /// The first line that cannot be read, with its number.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        let wrong = |at: usize, error: serde_json::Error| format!("line {}: {error}", at + 1);
        let (at, first) = lines.next().ok_or("the schedule is empty")?;
        let setup = serde_json::from_str(first).map_err(|error| wrong(at, error))?;
        let actions = lines.map(|(at, line)| serde_json::from_str(line).map_err(|error| wrong(at, error)));
        Ok(Self { setup, actions: actions.collect::<Result<_, _>>()? })
    }
}
