//! Datagrams over loopback: addresses, marker, DSCP, errors.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ike_model::IkeSettings;
use ike_wire::ids::{ExchangeType, NotifyType};
use ike_wire::{Flags, Header, IkeSpi, Message, MessageId, Nonce, Notify, Payload, encode};
use ipsec::{Answer, Event, OffloadError, Path, Reports, Tag};

use super::{Options, Receiver, Screen, Sockets, message};
use crate::events::{Hub, Origin};
use crate::router::Router;

struct Queue(Mutex<mpsc::Sender<(Path, Vec<u8>)>>);

impl Reports for Queue {
    fn done(&self, _: Tag, _: Result<Answer, OffloadError>) {}
    fn event(&self, _: Event) {}
    fn ike_datagram(&self, path: Path, octets: &[u8]) {
        let _ = self.0.lock().unwrap().send((path, octets.to_vec()));
    }
}

/// For what comes within a moment.
const PATIENCE: Duration = Duration::from_secs(60);

fn no_exemption(_: BorrowedFd<'_>, _: bool) -> anyhow::Result<()> {
    Ok(())
}

fn open(port: u16, nat_port: u16) -> anyhow::Result<Sockets> {
    let listen: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    Sockets::open(&Options { port, nat_port, listen: &listen, exempt: &no_exemption })
}

/// At two ports that nobody else has: the system gives those below 32768 to nobody, so that no other test is given one of ours meanwhile.
fn open_somewhere() -> (Arc<Sockets>, u16, u16) {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let mut ports = std::iter::repeat_with(|| NEXT.fetch_add(2, Ordering::Relaxed)).take(1_000);
    ports.find_map(|port| Some((Arc::new(open(port, port + 1).ok()?), port, port + 1))).expect("two free ports")
}

fn screen(cookie_threshold: u32) -> Screen {
    let settings = IkeSettings { cookie_threshold, ..IkeSettings::default() };
    let router = Arc::new(Router::new(1).unwrap());
    let origin = Origin {
        gateway: "gw".into(),
        boot_id: "b".into(),
        backend: "userspace",
        random: ike_crypto::ring_provider().random,
    };
    let events = Arc::new(Hub::new(origin, None, Vec::new()));
    Screen { admission: Arc::default(), provider: ike_crypto::ring_provider(), settings, router, events }
}

/// An IKE_SA_INIT request with a nonce and, where there is one, a cookie in front.
fn first_request(cookie: Option<&[u8]>) -> Vec<u8> {
    let flags = Flags { initiator: true, version: false, response: false };
    let header = Header::new(IkeSpi(7), IkeSpi(0), ExchangeType::IKE_SA_INIT, flags, MessageId(0));
    let cookie = cookie.map(|octets| Payload::Notify(Notify::new(NotifyType::COOKIE, octets.to_vec())));
    encode(&header, &cookie.into_iter().chain([Payload::Nonce(Nonce::new(vec![7; 32]))]).collect::<Vec<_>>()).unwrap()
}

/// On both ports; what belongs to an IKE SA goes another way.
#[test]
fn first_requests_are_screened_apart_from_all_others() {
    let (sockets, port, _) = open_somewhere();
    assert_eq!(sockets.of_first_requests().count(), 2, "one beside each socket of the IKE port");
    let (sender, received) = mpsc::channel();
    let reports = Arc::new(Queue(Mutex::new(sender)));
    let screen = screen(0);
    let (router, admission) = (Arc::clone(&screen.router), Arc::clone(&screen.admission));
    let settings = screen.settings.clone();
    let _receiver = Receiver::start(Arc::clone(&sockets), true, reports, screen).unwrap();
    let known = [&first_request(None)[..8], &[1; 8], &first_request(None)[16..]].concat();
    // COOKIE and other refusals of our own first requests name no responder either.
    let mut refusal = first_request(None);
    refusal[19] = 0x20;
    for host in ["127.0.0.1", "[::1]"] {
        let client = UdpSocket::bind(format!("{host}:0")).unwrap();
        let to = |port: u16| -> SocketAddr { format!("{host}:{port}").parse().unwrap() };
        client.send_to(&first_request(None), to(port)).unwrap();
        client.send_to(&known, to(port)).unwrap();
        assert_eq!(received.recv_timeout(PATIENCE).unwrap().1, known);
        client.send_to(&refusal, to(port)).unwrap();
        assert_eq!(received.recv_timeout(PATIENCE).unwrap().1, refusal);
        let turn = router.inbox(ipsec::Shard(0)).unwrap().turn(None, true);
        assert_eq!(*turn.datagrams[0].octets, *first_request(None));
        assert_eq!(turn.datagrams[0].path, Path { local: to(port), remote: client.local_addr().unwrap() });
    }
    assert!(received.try_recv().is_err(), "no first request came the way of the others");
    assert_eq!((admission.half_open(), settings.cookie_threshold), (0, 0));
}

//= RFC 7296 §2.6: the responder answers with COOKIE and keeps nothing; the same request with it is let in
#[test]
fn a_cookie_is_asked_for_without_any_shard() {
    let (sockets, port, _) = open_somewhere();
    let (sender, _received) = mpsc::channel();
    let screen = screen(1);
    let router = Arc::clone(&screen.router);
    let (rng, provider) = (screen.provider.random, screen.provider);
    let gate = ike_sa::Gate { now: crate::clock::now(), rng, provider, settings: &screen.settings };
    screen.admission.enter(&gate, "192.0.2.1".parse().unwrap(), false);
    let _receiver = Receiver::start(Arc::clone(&sockets), true, Arc::new(Queue(Mutex::new(sender))), screen).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(&first_request(None), ("127.0.0.1", port)).unwrap();
    let mut buffer = [0; 256];
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!(from.port(), port);
    let answer = Message::parse(&buffer[..length]).unwrap();
    let cookie = answer.payloads.notify(NotifyType::COOKIE).unwrap().data.to_vec();
    assert_eq!(router.inbox(ipsec::Shard(0)).unwrap().waiting(), (0, 0));
    client.send_to(&first_request(Some(&cookie)), ("127.0.0.1", port)).unwrap();
    let turn = router.inbox(ipsec::Shard(0)).unwrap().turn(None, true);
    assert_eq!(*turn.datagrams[0].octets, *first_request(Some(&cookie)));
}

//= RFC 3948 §2.2: the marker tells IKE from ESP
#[test]
fn datagrams_arrive_with_both_addresses_and_without_the_marker() {
    let (sockets, port, nat_port) = open_somewhere();
    let (sender, received) = mpsc::channel();
    let reports = Arc::new(Queue(Mutex::new(sender)));
    let _receiver = Receiver::start(Arc::clone(&sockets), true, reports, screen(0)).unwrap();
    for host in ["127.0.0.1", "[::1]"] {
        let client = UdpSocket::bind(format!("{host}:0")).unwrap();
        let remote = client.local_addr().unwrap();
        let to = |port: u16| -> SocketAddr { format!("{host}:{port}").parse().unwrap() };
        client.send_to(b"plain", to(port)).unwrap();
        client.send_to(b"\0\0\0\0marked", to(nat_port)).unwrap();
        client.send_to(b"\xff", to(nat_port)).unwrap();
        client.send_to(b"esp", to(nat_port)).unwrap();
        client.send_to(b"last", to(port)).unwrap();
        let mut got: Vec<_> = (0..3).map(|_| received.recv_timeout(PATIENCE).unwrap()).collect();
        got.sort();
        let expected = [(to(port), "plain"), (to(port), "last"), (to(nat_port), "marked")];
        let mut expected: Vec<_> =
            expected.map(|(local, text)| (Path { local, remote }, text.as_bytes().to_vec())).into();
        expected.sort();
        assert_eq!(got, expected);
        for local in [to(port), to(nat_port)] {
            sockets.send(&Path { local, remote }, b"answer", 46).unwrap();
        }
        sockets.keepalive(&Path { local: to(nat_port), remote }).unwrap();
        let mut buffer = [0; 64];
        let mut answer = || {
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            (from, buffer[..length].to_vec())
        };
        assert_eq!(answer(), (to(port), b"answer".to_vec()));
        assert_eq!(answer(), (to(nat_port), b"\0\0\0\0answer".to_vec()));
        assert_eq!(answer(), (to(nat_port), b"\xff".to_vec()));
    }
}

#[test]
fn a_port_in_use_names_its_holder() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = open(port, 0).err().unwrap();
    let expected = format!("UDP port {port} is held by");
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
}

#[test]
fn a_foreign_address_is_called_so() {
    let listen: [IpAddr; 1] = ["192.0.2.77".parse().unwrap()];
    let options = Options { port: 1, nat_port: 0, listen: &listen, exempt: &no_exemption };
    let text = Sockets::open(&options).err().unwrap().to_string();
    assert!(text.contains("192.0.2.77 is no address of this machine"), "{text}");
}

#[test]
fn an_empty_socket_would_block() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    message::want_local_address(socket.as_fd(), false).unwrap();
    let error = message::receive(socket.as_fd(), 1, &mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}
