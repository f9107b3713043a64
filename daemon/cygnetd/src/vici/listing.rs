//! Listings of SAs, children and policies, which may be long, to clients that may be slow.
//!
//! What is listed is looked at once and sent piece by piece. A client that takes nothing for a while does not keep all of it in memory: the rest is
//! forgotten, and looked at afresh when it reads on. What has ended by then is left out, what is new comes last; nothing comes twice.

use std::time::Duration;

use ike_model::snapshot::{ConfiguredState, PolicySnapshot};
use ike_model::{ConfiguredChildStatus, IkeSaSnapshot};
use swanctl_compat::vici::{Message, Packet, frame};

use crate::subscribers::{Client, Frame, framed};

/// How long the rest of a listing is kept for a client that takes nothing.
pub(super) const KEPT: Duration = Duration::from_secs(1);

/// Elements that are made before others get their turn.
const BATCH: usize = 16;

/// What is listed, in the order of its places.
pub(super) trait Listed {
    /// What tells one from the other.
    type Place: Ord + Clone;

    /// Its place.
    fn place(&self) -> Self::Place;
}

impl Listed for IkeSaSnapshot {
    type Place = u32;

    fn place(&self) -> u32 {
        self.unique_id
    }
}

impl Listed for ConfiguredChildStatus {
    type Place = (String, String, bool);

    /// What runs under the name of a child that was refused comes before it.
    fn place(&self) -> Self::Place {
        let refused = matches!(self.state, ConfiguredState::Refused(_));
        (self.connection.clone(), self.child.clone(), refused)
    }
}

/// With the shard that it comes from.
impl Listed for (usize, PolicySnapshot) {
    type Place = (usize, u32);

    fn place(&self) -> Self::Place {
        (self.0, self.1.number)
    }
}

/// How a piece was taken.
enum Taken {
    AtOnce,
    /// After more than [`KEPT`].
    Late,
    /// The client has gone.
    Never,
}

/// Sends all that `look` finds and `show` shows, in the order of their places; the answer after it is empty.
pub(super) async fn stream<T: Listed, F: Future<Output = Vec<T>>>(
    client: &Client,
    event: &str,
    kept: Duration,
    look: impl Fn() -> F,
    show: impl Fn(&T) -> Option<Message>,
) -> Message {
    let times = client.registrations(event);
    let mut last: Option<T::Place> = None;
    let mut complete = times == 0;
    while !complete {
        let mut rest = look().await.into_iter();
        let sent = last.clone();
        complete = true;
        let mut made = 0_usize;
        while let Some(listed) = rest.next() {
            let place = listed.place();
            if sent.as_ref().is_some_and(|sent| place <= *sent) {
                continue;
            }
            last = Some(place);
            let Some(frame) = show(&listed).and_then(|message| encoded(event, message)) else { continue };
            drop(listed);
            made += 1;
            if made.is_multiple_of(BATCH) {
                tokio::task::yield_now().await;
            }
            for _ in 0..times {
                match send(client, &frame, kept, || rest = Vec::new().into_iter()).await {
                    Taken::AtOnce => {}
                    Taken::Late => complete = false,
                    Taken::Never => return Message::new(),
                }
            }
        }
    }
    Message::new()
}

/// Sends one piece; `forget` is called when it is not taken for `kept`.
async fn send(client: &Client, frame: &Frame, kept: Duration, forget: impl FnOnce()) -> Taken {
    match tokio::time::timeout(kept, client.send(Frame::clone(frame))).await {
        Ok(true) => Taken::AtOnce,
        Ok(false) => Taken::Never,
        Err(_) => {
            forget();
            if client.send(Frame::clone(frame)).await { Taken::Late } else { Taken::Never }
        }
    }
}

/// A piece that is too long for the protocol is left out, with a line in the log.
fn encoded(event: &str, message: Message) -> Option<Frame> {
    match frame::encode(&Packet::Event(event.to_owned(), message)) {
        Ok(octets) => Some(framed(octets)),
        Err(error) => {
            tracing::error!(%error, "an answer is too long for VICI and was not sent");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::{Rc, Weak};

    use super::*;
    use crate::subscribers::Subscribers;

    const EVENT: &str = "list-sa";
    const SOON: Duration = Duration::from_millis(50);

    /// Something that is listed and may be seen to be kept.
    struct Thing(Rc<u32>);

    impl Listed for Thing {
        type Place = u32;

        fn place(&self) -> u32 {
            *self.0
        }
    }

    fn things(numbers: impl Iterator<Item = u32>) -> Vec<Thing> {
        numbers.map(|number| Thing(Rc::new(number))).collect()
    }

    /// There is room for eight of them.
    fn show(thing: &Thing) -> Option<Message> {
        (thing.place() != 3)
            .then(|| Message::new().with("n", thing.place().to_string()).with("pad", "x".repeat(60_000)))
    }

    fn number(frame: &Frame) -> u32 {
        let Ok(Packet::Event(_, message)) = Packet::decode(frame.get(4..).unwrap()) else { panic!("no event") };
        message.get_str("n").unwrap().parse().unwrap()
    }

    /// In virtual time: what looks must do so before the rest is forgotten, however slow the machine is.
    #[tokio::test(start_paused = true)]
    async fn the_rest_is_forgotten_while_nobody_reads_and_looked_at_afresh() {
        let subscribers = Subscribers::default();
        let (client, mut queue) = subscribers.join(None);
        client.register(EVENT);
        let (looks, kept) = (Cell::new(0), RefCell::new(Vec::<Weak<u32>>::new()));
        // Between the first look and the second 12 has ended and 21 has come.
        let look = || async {
            looks.set(looks.get() + 1);
            let numbers = if looks.get() == 1 { 1..=20 } else { 1..=21 };
            let found = things(numbers.filter(|number| looks.get() == 1 || *number != 12));
            *kept.borrow_mut() = found.iter().map(|thing| Rc::downgrade(&thing.0)).collect();
            found
        };
        let alive = || kept.borrow().iter().filter(|thing| thing.strong_count() > 0).count();
        let reading = async {
            // Until there is no room any more, and longer than the rest is kept.
            while queue.len() < 7 {
                tokio::time::sleep(SOON / 10).await;
            }
            assert!(alive() >= 10, "{}", alive());
            while alive() > 0 {
                tokio::time::sleep(SOON / 10).await;
            }
            let mut read = Vec::new();
            while read.last() != Some(&21) {
                read.push(number(&queue.recv().await.unwrap().frame));
            }
            read
        };
        let (answer, read) = tokio::join!(stream(&client, EVENT, SOON, look, show), reading);
        assert_eq!(answer, Message::new());
        let expected: Vec<u32> = (1..=21).filter(|number| ![3, 12].contains(number)).collect();
        assert_eq!(read, expected);
        assert!(looks.get() >= 2);
    }

    #[tokio::test]
    async fn whoever_reads_gets_one_look() {
        let subscribers = Subscribers::default();
        let (client, mut queue) = subscribers.join(None);
        client.register(EVENT);
        client.register(EVENT);
        let looks = Cell::new(0);
        let look = || async {
            looks.set(looks.get() + 1);
            things(1..=40)
        };
        let reading = async {
            let mut read = Vec::new();
            while read.len() < 2 * 39 {
                read.push(number(&queue.recv().await.unwrap().frame));
            }
            read
        };
        let (_, read) = tokio::join!(stream(&client, EVENT, Duration::from_secs(60), look, show), reading);
        let expected: Vec<u32> = (1..=40).filter(|number| *number != 3).flat_map(|number| [number; 2]).collect();
        assert_eq!((read, looks.get()), (expected, 1));
    }

    #[tokio::test]
    async fn nobody_is_looked_for_in_vain() {
        let subscribers = Subscribers::default();
        let (client, queue) = subscribers.join(None);
        let looks = Cell::new(0);
        let look = || async {
            looks.set(looks.get() + 1);
            things(1..=40)
        };
        stream(&client, EVENT, SOON, look, show).await;
        assert_eq!(looks.get(), 0, "nobody listens");
        client.register(EVENT);
        drop(queue);
        stream(&client, EVENT, SOON, look, show).await;
        assert_eq!(looks.get(), 1, "the client has gone");
    }
}
