//! A small blocking netlink request layer: one request, its acknowledgement or its dump.
//!
//! The kernel's extended acknowledgement (its reason in words) is part of every error. Lengths are checked before anything is handed to a
//! parser, because the message crates slice without asking. Message bodies are made by their callers.
//!
//! XFRM messages carry keys both ways, so every buffer that a message was in is wiped, and none is ever printed.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::{Socket, SocketAddr};
use zeroize::Zeroizing;

use super::error::{HostError, KernelError};

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// How often a dump is tried again when the table changed under it.
const DUMP_TRIES: usize = 8;

/// One netlink socket and its requests.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    family: &'static str,
    sequence: u32,
}

/// One message of a dump.
pub struct Message {
    /// Type.
    pub kind: u16,
    /// Body, without the header.
    pub body: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message {{ kind: {:#x}, body: {} octets }}", self.kind, self.body.len())
    }
}

/// What comes out of a listening socket.
pub enum Heard<'m> {
    /// A message: its type and its body.
    Message(u16, &'m [u8]),
    /// Messages were lost.
    Lost,
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What can go wrong in one request.
#[derive(Debug)]
pub enum Refusal {
    /// The kernel said no.
    Kernel(KernelError),
    /// The socket failed, or what came out of it makes no sense.
    Socket(HostError),
}

impl Refusal {
    /// Whether the kernel answered with one of `errnos`.
    pub fn is_any(&self, errnos: &[i32]) -> bool {
        match self {
            Self::Kernel(error) => errnos.iter().any(|errno| error.is(*errno)),
            Self::Socket(_) => false,
        }
    }

    /// The error, naming what was tried on which object.
    pub fn on(self, action: &'static str, object: impl ToString) -> HostError {
        match self {
            Self::Kernel(source) => HostError::Kernel { action, object: object.to_string(), source },
            Self::Socket(error) => error,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(error) => error.fmt(f),
            Self::Socket(error) => error.fmt(f),
        }
    }
}

/// A message body as octets.
pub fn octets(message: &impl Emitable) -> Vec<u8> {
    let mut out = vec![0; message.buffer_len()];
    message.emit(&mut out);
    out
}

/// A request with its header; the lengths involved are far below 2^32.
pub fn frame(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + body.len());
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(body);
    out
}

impl Netlink {
    /// A socket in the network namespace of the calling thread.
    pub fn open(family: &'static str, protocol: isize) -> Result<Self, HostError> {
        let open = || {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            // Lets the kernel filter dumps by table; kernels before 4.20 lack it, and callers filter anyway.
            let _ = socket.set_netlink_get_strict_chk(true);
            Ok(socket)
        };
        let socket = open().map_err(|source| HostError::Netlink { family, source })?;
        Ok(Self { socket, family, sequence: 0 })
    }

    /// A socket that hears what is told to these multicast groups; see [`Self::heard`].
    pub fn listen(family: &'static str, protocol: isize, groups: &[u32]) -> Result<Self, HostError> {
        let listening = Self::open(family, protocol)?;
        let join = || {
            groups.iter().try_for_each(|group| listening.socket.add_membership(*group))?;
            listening.socket.set_non_blocking(true)
        };
        join().map_err(|source| HostError::Netlink { family, source })?;
        Ok(listening)
    }

    /// Whether anything heard since the last call `matters`; also when the kernel had to drop messages.
    pub fn heard(&mut self, matters: impl Fn(u16, &[u8]) -> bool) -> bool {
        let mut heard = false;
        self.drain(|what| {
            heard |= match what {
                Heard::Message(kind, body) => matters(kind, body),
                Heard::Lost => true,
            }
        });
        heard
    }

    /// Asks for room for this many octets of messages that wait, beyond the system's limit where we may; gives what was granted.
    pub fn set_receive_buffer(&self, octets: usize) -> Result<usize, HostError> {
        super::sockets::set_receive_buffer(self.as_fd(), octets)
    }

    /// Everything heard since the last call, in order.
    pub fn drain(&mut self, mut each: impl FnMut(Heard<'_>)) {
        loop {
            match self.socket.recv_from_full().map(wiped_later) {
                Ok((octets, sender)) if sender.port_number() == 0 => parts(&octets).for_each(|part| {
                    each(part.map_or(Heard::Lost, |part| Heard::Message(part.kind, part.body)));
                }),
                Ok(_) => {} // not from the kernel
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => each(Heard::Lost),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot hear of changes at the host");
                    return each(Heard::Lost);
                }
            }
        }
    }

    /// Sends one request and waits for its acknowledgement.
    pub fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> Result<(), Refusal> {
        let sequence = self.next_sequence();
        self.send(&Zeroizing::new(frame(kind, NLM_F_REQUEST | NLM_F_ACK | flags, sequence, body)))?;
        self.acknowledgement(sequence, sequence)
    }

    /// Sends a netfilter batch of the requests numbered `first` to `last`; only the last one asks for an acknowledgement. A refused batch may
    /// be answered more than once, so a socket serves one batch.
    pub fn batch(mut self, octets: &[u8], first: u32, last: u32) -> Result<(), Refusal> {
        self.send(octets)?;
        self.acknowledgement(first, last)
    }

    /// Sends one request that is answered by messages of its own; gives those that come before the acknowledgement.
    pub fn ask(&mut self, kind: u16, body: &[u8]) -> Result<Vec<Message>, Refusal> {
        let sequence = self.next_sequence();
        self.send(&frame(kind, NLM_F_REQUEST | NLM_F_ACK, sequence, body))?;
        let mut messages = Vec::new();
        loop {
            let received = self.receive()?;
            for part in parts(&received) {
                let part = part.ok_or_else(|| self.malformed("an answer is cut short"))?;
                match part.kind {
                    _ if part.sequence != sequence => {}
                    NLMSG_ERROR => return status(&part).map(|()| messages).map_err(Refusal::Kernel),
                    kind => messages.push(Message { kind, body: Zeroizing::new(part.body.to_vec()) }),
                }
            }
        }
    }

    /// Numbers for the requests of a batch.
    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Everything a dump request answers; tried again when the kernel says that the table changed meanwhile.
    pub fn dump(&mut self, kind: u16, body: &[u8]) -> Result<Vec<Message>, Refusal> {
        for _ in 0..DUMP_TRIES {
            if let Some(messages) = self.try_dump(kind, body)? {
                return Ok(messages);
            }
        }
        Err(self.malformed("the table keeps changing during a dump"))
    }

    fn try_dump(&mut self, kind: u16, body: &[u8]) -> Result<Option<Vec<Message>>, Refusal> {
        let sequence = self.next_sequence();
        self.send(&frame(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, body))?;
        let mut messages = Vec::new();
        let mut interrupted = false;
        loop {
            let received = self.receive()?;
            for part in parts(&received) {
                let part = part.ok_or_else(|| self.malformed("a message is cut short"))?;
                if part.sequence != sequence {
                    continue;
                }
                interrupted |= part.flags & NLM_F_DUMP_INTR != 0;
                match part.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        status(&part).map_err(Refusal::Kernel)?;
                        return Ok((!interrupted).then_some(messages));
                    }
                    NLMSG_OVERRUN => return Err(self.malformed("the kernel lost messages")),
                    kind => messages.push(Message { kind, body: Zeroizing::new(part.body.to_vec()) }),
                }
            }
        }
    }

    fn acknowledgement(&mut self, first: u32, last: u32) -> Result<(), Refusal> {
        loop {
            let received = self.receive()?;
            for part in parts(&received) {
                let part = part.ok_or_else(|| self.malformed("an answer is cut short"))?;
                if part.kind == NLMSG_ERROR && (first..=last).contains(&part.sequence) {
                    // A batch may be refused at any of its requests; such an answer carries that request's number.
                    let answer = status(&part);
                    if answer.is_err() || part.sequence == last {
                        return answer.map_err(Refusal::Kernel);
                    }
                }
            }
        }
    }

    fn send(&self, request: &[u8]) -> Result<(), Refusal> {
        self.socket.send(request, 0).map(|_| ()).map_err(|source| self.socket_error(source))
    }

    fn receive(&self) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        loop {
            match self.socket.recv_from_full().map(wiped_later) {
                Ok((octets, sender)) if sender.port_number() == 0 => return Ok(octets),
                Ok(_) => {} // not from the kernel
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.socket_error(source)),
            }
        }
    }

    fn socket_error(&self, source: io::Error) -> Refusal {
        Refusal::Socket(HostError::Netlink { family: self.family, source })
    }

    fn malformed(&self, what: &'static str) -> Refusal {
        self.socket_error(io::Error::new(io::ErrorKind::InvalidData, what))
    }
}

fn wiped_later<T>((octets, other): (Vec<u8>, T)) -> (Zeroizing<Vec<u8>>, T) {
    (Zeroizing::new(octets), other)
}

struct Part<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

/// The messages in one datagram; the last is `None` when the datagram ends inside a message.
fn parts(datagram: &[u8]) -> impl Iterator<Item = Option<Part<'_>>> {
    let mut rest = datagram;
    let mut broken = false;
    std::iter::from_fn(move || {
        if broken || rest.is_empty() {
            return None;
        }
        let part = (|| {
            let length = usize::try_from(u32_at(rest, 0)?).ok()?;
            let body = rest.get(HEADER..length)?;
            let part = Part { kind: u16_at(rest, 4)?, flags: u16_at(rest, 6)?, sequence: u32_at(rest, 8)?, body };
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some(part)
        })();
        broken = part.is_none();
        Some(part)
    })
}

/// The outcome in an error or done message: errno and, where present, the reason in words.
fn status(part: &Part<'_>) -> Result<(), KernelError> {
    let code = u32_at(part.body, 0).map_or(0, |code| i32::from_ne_bytes(code.to_ne_bytes()));
    if code >= 0 {
        return Ok(());
    }
    let attributes = if part.flags & NLM_F_ACK_TLVS == 0 {
        &[]
    } else if part.kind == NLMSG_DONE {
        part.body.get(4..).unwrap_or_default()
    } else {
        // The offending request follows the code: only its header when the answer is capped.
        let echoed = match u32_at(part.body, 4) {
            Some(length) if part.flags & NLM_F_CAPPED == 0 => usize::try_from(length).unwrap_or(usize::MAX),
            _ => HEADER,
        };
        part.body.get(echoed.saturating_add(4).next_multiple_of(4)..).unwrap_or_default()
    };
    Err(KernelError { errno: code.saturating_neg(), text: attribute_text(attributes) })
}

fn attribute_text(octets: &[u8]) -> Option<String> {
    let (_, value) = attributes(octets).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?;
    Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned())
}

/// The attributes in `octets`, type and value, up to the first that does not fit. The flag for nested ones is taken off the type.
pub fn attributes(octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const TYPE: u16 = 0x3fff;
    let mut rest = octets;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let value = rest.get(4..length)?;
        let kind = u16_at(rest, 2)? & TYPE;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The number at the beginning of `octets`.
pub fn u32_of(octets: &[u8]) -> Option<u32> {
    u32_at(octets, 0)
}

fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    octets.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error_message(code: i32, flags: u16, tail: &[u8]) -> Vec<u8> {
        let mut body = code.to_ne_bytes().to_vec();
        body.extend_from_slice(&frame(24, 0, 7, &[]));
        body.extend_from_slice(tail);
        frame(NLMSG_ERROR, flags, 7, &body)
    }

    #[test]
    fn the_extended_acknowledgement_reaches_the_error() {
        let mut tlv = vec![13, 0, 1, 0];
        tlv.extend_from_slice(b"no route\0\0\0\0");
        let octets = error_message(-22, NLM_F_CAPPED | NLM_F_ACK_TLVS, &tlv);
        let part = parts(&octets).next().unwrap().unwrap();
        let error = status(&part).unwrap_err();
        assert_eq!(error, KernelError { errno: 22, text: Some("no route".to_owned()) });
        assert_eq!(error.to_string(), "Invalid argument (os error 22): no route");
    }

    #[test]
    fn an_acknowledgement_is_no_error() {
        let octets = error_message(0, NLM_F_CAPPED, &[]);
        assert!(status(&parts(&octets).next().unwrap().unwrap()).is_ok());
    }

    #[test]
    fn cut_messages_are_seen() {
        let whole = [frame(20, 0, 1, &[1, 2, 3, 4]), frame(20, 0, 1, &[5])].concat();
        assert_eq!(parts(&whole).filter(Option::is_some).count(), 2);
        for cut in 1..whole.len() {
            let seen: Vec<_> = parts(&whole[..cut]).map(|part| part.is_some()).collect();
            assert_eq!(seen.last(), Some(&(cut == 20)), "cut at {cut}");
        }
        let mut lying = whole.clone();
        lying[0] = 4;
        assert!(parts(&lying).next().unwrap().is_none());
    }

    #[test]
    fn attribute_parsing_survives_any_octets() {
        for length in 0..=255_u8 {
            let octets = [length, 0, 1, 0, 65, 66];
            let _ = attribute_text(&octets);
        }
        assert_eq!(attribute_text(&[0, 0, 9, 0]), None);
    }

    /// Reads everything that a datagram may hold.
    fn read(datagram: &[u8]) -> usize {
        let read = |part: Part<'_>| {
            let _ = status(&part);
            attributes(part.body).count() + attribute_text(part.body).map_or(0, |text| text.len())
        };
        parts(datagram).flatten().map(read).sum()
    }

    proptest! {
        #[test]
        fn no_octets_make_the_reader_panic(datagram in prop::collection::vec(any::<u8>(), 0..400)) {
            read(&datagram);
        }

        #[test]
        fn no_answer_with_broken_lengths_makes_the_reader_panic(
            code: i32, flags: u16, kind in 1_u16..5, tail in prop::collection::vec(any::<u8>(), 0..60),
            at in 0_usize..100, octet: u8, cut in 0_usize..100,
        ) {
            let mut answer = error_message(code, flags, &tail);
            answer[4..6].copy_from_slice(&kind.to_ne_bytes());
            let length = answer.len();
            answer[at % length] = octet;
            read(&answer);
            read(&answer[..cut.min(length)]);
        }
    }
}
