//! Sequence numbers and replay windows of a state: XFRMA_REPLAY_VAL and XFRMA_REPLAY_ESN_VAL.
//!
//! The kernel keeps up to 32 numbers in the short form. More, and every ESN, need the long form, whose window is a bitmap.

use ipsec::Direction;
use netlink_packet_xfrm::{
    Replay, ReplayEsn, XFRM_REPLAY_ESN_LEN, XFRM_REPLAY_LEN, XFRMA_REPLAY_ESN_VAL, XFRMA_REPLAY_VAL, XfrmAttrs,
};
use offload_host::xfrm::attribute;

use crate::xfrm::NewState;

/// Largest window of the short form.
const SHORT: u32 = 32;

/// How the window of a new state is said.
pub(super) struct Written {
    /// The field of the fixed part; 0 whenever the long form is used.
    pub(super) window: u8,
    /// The attribute, where one is needed.
    pub(super) attribute: Option<XfrmAttrs>,
}

/// The window of a new state. `directions`: the kernel knows XFRMA_SA_DIR, and with it lets outbound states have no window.
pub(super) fn write(state: &NewState<'_>, directions: bool) -> Written {
    let [low, high] = halves(state.initial_sequence);
    match state.direction {
        Direction::Outbound if state.esn => {
            // Older kernels refuse ESN without a window whichever way the state works.
            let window = if directions { 0 } else { SHORT };
            let bmp_len = window.div_ceil(u32::BITS);
            let bmp = vec![0; words(bmp_len)];
            let long =
                ReplayEsn { bmp_len, oseq: low, oseq_hi: high, replay_window: window, bmp, ..ReplayEsn::default() };
            Written { window: 0, attribute: Some(XfrmAttrs::ReplayStateEsn(long)) }
        }
        Direction::Outbound => {
            let short = Replay { oseq: low, ..Replay::default() };
            Written { window: 0, attribute: (low != 0).then_some(XfrmAttrs::ReplayState(short)) }
        }
        Direction::Inbound | Direction::Forward => inbound(state, low, high),
    }
}

fn inbound(state: &NewState<'_>, low: u32, high: u32) -> Written {
    // A state that begins at a number has received all before it: none of them is let in again.
    let seen = if state.initial_sequence == 0 { 0 } else { u32::MAX };
    match u8::try_from(state.replay_window) {
        Ok(window) if !state.esn && state.replay_window <= SHORT => {
            let short = Replay { seq: low, bitmap: seen, ..Replay::default() };
            Written { window, attribute: (low != 0).then_some(XfrmAttrs::ReplayState(short)) }
        }
        _ => {
            let bmp_len = state.replay_window.div_ceil(u32::BITS);
            let bmp = vec![seen; words(bmp_len)];
            let seq_hi = if state.esn { high } else { 0 };
            let replay_window = state.replay_window;
            let long = ReplayEsn { bmp_len, seq: low, seq_hi, replay_window, bmp, ..ReplayEsn::default() };
            Written { window: 0, attribute: Some(XfrmAttrs::ReplayStateEsn(long)) }
        }
    }
}

fn halves(sequence: u64) -> [u32; 2] {
    let low = u32::try_from(sequence & u64::from(u32::MAX)).unwrap_or_default();
    [low, u32::try_from(sequence >> u32::BITS).unwrap_or_default()]
}

fn words(length: u32) -> usize {
    usize::try_from(length).unwrap_or_default()
}

/// What a state has sent and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sequences {
    /// Highest number sent.
    pub(super) sent: u64,
    /// Highest number received.
    pub(super) received: u64,
    /// Window of the long form.
    pub(super) window: Option<u32>,
}

/// The numbers in a message; zero where it has none.
pub(super) fn read(attributes: &[u8]) -> Option<Sequences> {
    if let Some(long) = attribute(attributes, XFRMA_REPLAY_ESN_VAL) {
        // Only the fixed part is looked at, so a bitmap that is cut short does not matter.
        let long = ReplayEsn::parse(long.get(..XFRM_REPLAY_ESN_LEN)?).ok()?;
        return Some(Sequences {
            sent: whole(long.oseq, long.oseq_hi),
            received: whole(long.seq, long.seq_hi),
            window: Some(long.replay_window),
        });
    }
    let Some(short) = attribute(attributes, XFRMA_REPLAY_VAL) else { return Some(Sequences::default()) };
    let short = Replay::parse(short.get(..XFRM_REPLAY_LEN)?).ok()?;
    Some(Sequences { sent: short.oseq.into(), received: short.seq.into(), window: None })
}

fn whole(low: u32, high: u32) -> u64 {
    u64::from(high) << u32::BITS | u64::from(low)
}
