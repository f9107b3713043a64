//! Endpoints that are added, changed and taken away while others are served.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use super::*;
use crate::signature::Secret;
use crate::{Changes, Webhooks};

/// A receiver on loopback that takes everything and counts it.
fn counting() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, counter) = (stream.unwrap(), Arc::clone(&counter));
            std::thread::spawn(move || {
                let (mut octets, mut buffer) = (Vec::new(), [0; 4096]);
                // A body of these messages ends where its record does.
                while !octets.ends_with(b"}}") {
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => return,
                        Ok(length) => octets.extend_from_slice(&buffer[..length]),
                    }
                }
                counter.fetch_add(1, Ordering::SeqCst);
                let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(answer);
            });
        }
    });
    (address, count)
}

fn to(name: &str, address: SocketAddr) -> Endpoint {
    let keys = Keys::Given(vec![Secret::parse("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX").unwrap()]);
    Endpoint::new(name, Address::parse(&format!("http://{address}/")).unwrap(), keys)
}

fn changes(added: &[&str], changed: &[&str], removed: &[&str]) -> Changes {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Changes { added: names(added), changed: names(changed), removed: names(removed) }
}

#[tokio::test]
async fn endpoints_change_while_messages_arrive() {
    let ((first, at_first), (second, at_second)) = (counting(), counting());
    let outbox = Memory::of(5);
    let kept = Arc::<Memory>::clone(&outbox) as Arc<dyn Outbox>;
    let webhooks = Webhooks::start(vec![to(NAME, first)], &kept, "gw", "cygnet/test").unwrap();
    all_delivered(&outbox, 5).await;
    assert_eq!(webhooks.change(vec![to(NAME, first)]).await, Changes::default());
    assert_eq!(webhooks.change(vec![to(NAME, second)]).await, changes(&[], &[NAME], &[]));
    outbox.add(5..10);
    all_delivered(&outbox, 10).await;
    assert_eq!((at_first.load(Ordering::SeqCst), at_second.load(Ordering::SeqCst)), (5, 5));
    assert_eq!(webhooks.figures(NAME).unwrap().delivered, 10, "what was counted counts on");
    // Nobody delivers what goes to one that is there no more.
    assert_eq!(webhooks.change(Vec::new()).await, changes(&[], &[], &[NAME]));
    outbox.add(10..15);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((outbox.count(DeliveryState::Waiting), webhooks.figures(NAME)), (5, None));
    assert!(webhooks.test(NAME).await.is_none());
    // It comes back under its name, beside another one.
    let both = vec![to("more", second), to(NAME, first)];
    assert_eq!(webhooks.change(both).await, changes(&["more", NAME], &[], &[]));
    all_delivered(&outbox, 15).await;
    assert_eq!(webhooks.test(NAME).await.unwrap().status, Some(204));
    webhooks.stop();
    assert_eq!(webhooks.change(vec![to(NAME, first)]).await.removed, ["more"], "also when all has been ended");
}

/// What a receiver is just being sent is not cut off by a change, and is not sent twice.
#[tokio::test(start_paused = true)]
async fn what_is_under_way_arrives_once() {
    let (outbox, receiver) = (Memory::of(3), Receiver::slow(Duration::from_millis(80), |_, _| Ok(())));
    let running = Running::start(endpoint(), &outbox, &receiver);
    until("the first is under way", || receiver.under_way.load(Ordering::SeqCst) == 1).await;
    running.stop().await;
    let again = Running::start(endpoint(), &outbox, &receiver);
    all_delivered(&outbox, 3).await;
    assert_eq!(receiver.seen(), [0, 1, 2]);
    again.stop().await;
}
