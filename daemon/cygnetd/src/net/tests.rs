//! Datagrams over loopback: addresses, marker, DSCP, errors.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipsec::{Answer, Event, OffloadError, Path, Reports, Tag};

use super::{Options, Receiver, Sockets, message};

struct Queue(Mutex<mpsc::Sender<(Path, Vec<u8>)>>);

impl Reports for Queue {
    fn done(&self, _: Tag, _: Result<Answer, OffloadError>) {}
    fn event(&self, _: Event) {}
    fn ike_datagram(&self, path: Path, octets: &[u8]) {
        let _ = self.0.lock().unwrap().send((path, octets.to_vec()));
    }
}

fn no_exemption(_: BorrowedFd<'_>, _: bool) -> anyhow::Result<()> {
    Ok(())
}

fn free_ports() -> (u16, u16) {
    let port = || UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    (port(), port())
}

fn open(port: u16, nat_port: u16) -> anyhow::Result<Sockets> {
    let listen: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    Sockets::open(&Options { port, nat_port, listen: &listen, exempt: &no_exemption })
}

#[test]
fn datagrams_arrive_with_both_addresses_and_without_the_marker() {
    let (port, nat_port) = free_ports();
    let sockets = Arc::new(open(port, nat_port).unwrap());
    let (sender, received) = mpsc::channel();
    let _receiver = Receiver::start(Arc::clone(&sockets), true, Arc::new(Queue(Mutex::new(sender)))).unwrap();
    for host in ["127.0.0.1", "[::1]"] {
        let client = UdpSocket::bind(format!("{host}:0")).unwrap();
        let remote = client.local_addr().unwrap();
        let to = |port: u16| -> SocketAddr { format!("{host}:{port}").parse().unwrap() };
        client.send_to(b"plain", to(port)).unwrap();
        client.send_to(b"\0\0\0\0marked", to(nat_port)).unwrap();
        client.send_to(b"\xff", to(nat_port)).unwrap();
        client.send_to(b"esp", to(nat_port)).unwrap();
        client.send_to(b"last", to(port)).unwrap();
        let mut got: Vec<_> = (0..3).map(|_| received.recv_timeout(Duration::from_secs(5)).unwrap()).collect();
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
    let (port, nat_port) = free_ports();
    let _taken = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let error = open(port, nat_port).err().unwrap();
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
