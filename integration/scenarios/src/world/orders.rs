//! What operators and backends tell the gateways of a world.

use std::time::Duration;

use ike_model::{Command, CommandId, Selector};
use ike_sa::{CommandRoute, command_route};
use ipsec::{Direction, Event, LimitUnit, PacketSelectors, PolicyAction, PolicySpec, SaHandle, SaSpec, Shard};

use super::text::letter;
use super::{Due, World};
use crate::gateway::{Done, Message, Ticket};
use crate::journal::Happening;
use crate::packets::{Packet, Way, ways};
use crate::{A, B, Who};

/// Commands.
impl World {
    /// Gives a command to a gateway.
    pub fn command(&mut self, who: Who, command: Command) -> Ticket {
        if self.keeps_trace() {
            self.note(format!("{} <- {command:?}", letter(who)));
        }
        self.record(|| Happening::Asked(who, command.clone()));
        self.oracle.borrow_mut().commanded(who);
        let gateway = &mut self.gateways[who];
        let ticket = gateway.next_command;
        gateway.next_command += 1;
        let count = gateway.shard_count();
        let shards: Vec<_> = match command_route(&command, count) {
            CommandRoute::Shard(shard) => vec![shard],
            CommandRoute::All => (0..count).map(Shard).collect(),
        };
        gateway.commands.entry(ticket).or_default().waiting = shards.len();
        for shard in shards {
            gateway.inbox.push_back((shard, Message::Command(CommandId(ticket), command.clone())));
        }
        self.settle(who);
        Ticket(ticket)
    }

    /// What came of a command; `None` while it runs.
    pub fn reply(&self, who: Who, ticket: Ticket) -> Option<Done> {
        self.gateways[who].commands.get(&ticket.0)?.outcome()
    }

    /// Establishes a child.
    pub fn initiate(&mut self, who: Who, connection: &str, child: &str) -> Ticket {
        self.command(who, Command::Initiate { connection: connection.into(), child: Some(child.into()) })
    }

    /// Closes CHILD SAs by name.
    pub fn terminate_child(&mut self, who: Who, child: &str) -> Ticket {
        let selector = Selector { child: Some(child.into()), ..Selector::default() };
        self.command(who, Command::Terminate { selector, force: false })
    }

    /// Closes IKE SAs by connection.
    pub fn terminate_ike(&mut self, who: Who, connection: &str) -> Ticket {
        let selector = Selector { ike: Some(connection.into()), ..Selector::default() };
        self.command(who, Command::Terminate { selector, force: false })
    }

    /// Rekeys CHILD SAs by name.
    pub fn rekey_child(&mut self, who: Who, child: &str) -> Ticket {
        self.command(who, Command::Rekey { selector: Selector { child: Some(child.into()), ..Selector::default() } })
    }

    /// Rekeys IKE SAs by connection.
    pub fn rekey_ike(&mut self, who: Who, connection: &str) -> Ticket {
        self.command(who, Command::Rekey { selector: Selector { ike: Some(connection.into()), ..Selector::default() } })
    }

    /// Tells a gateway that connections were loaded or changed.
    pub fn reload(&mut self, who: Who, changed: &[&str], removed: &[&str]) -> Ticket {
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect();
        self.command(who, Command::Reload { changed: names(changed), removed: names(removed) })
    }

    /// Initiates child `net` of connection `gw` at A and runs until both ends are up; then strict checks begin.
    ///
    /// # Panics
    /// When they do not come up within a minute.
    #[track_caller]
    pub fn establish(&mut self) {
        let ticket = self.initiate(A, "gw", "net");
        self.run_until(Duration::from_secs(60), |world| world.reply(A, ticket).is_some());
        let outcome = self.reply(A, ticket);
        self.check(matches!(outcome, Some(Ok(_))), &format!("initiate: {outcome:?}"));
        self.run_for(Duration::from_millis(500));
        self.check_one_tunnel(A, B);
        self.strict(true);
    }
}

/// What the backend tells.
impl World {
    /// The backend of a gateway tells something.
    pub fn backend_event(&mut self, who: Who, event: Event) {
        if self.keeps_trace() {
            self.note(format!("{} <- {event:?}", letter(who)));
        }
        self.record(|| Happening::Backend(who, event.clone()));
        self.oracle.borrow_mut().commanded(who);
        if matches!(event, Event::StateLost { .. } | Event::DeviceDown(_) | Event::DeviceUp(_) | Event::DeviceGone(_)) {
            self.oracle.borrow_mut().shaken(who);
        }
        let shards: Vec<Shard> = match &event {
            Event::Acquire { policy, .. } => vec![policy.shard()],
            Event::InboundFirstUse { sa }
            | Event::SoftExpire { sa, .. }
            | Event::HardExpire { sa, .. }
            | Event::MappingChange { sa, .. }
            | Event::PeerForm { sa, .. }
            | Event::StateLost { sa } => vec![sa.shard()],
            Event::DeviceDown(_) | Event::DeviceUp(_) | Event::DeviceGone(_) | Event::Resync | Event::Drops { .. } => {
                (0..self.gateways[who].shard_count()).map(Shard).collect()
            }
        };
        for shard in shards {
            self.gateways[who].inbox.push_back((shard, Message::Backend(event.clone())));
        }
        self.settle(who);
    }

    /// A packet limit of the outbound SA in use is reached: softly.
    ///
    /// # Panics
    /// Without an SA in use.
    #[track_caller]
    pub fn soft_expire(&mut self, who: Who) {
        let sa = self.sa_in_use(who);
        self.backend_event(who, Event::SoftExpire { sa, unit: LimitUnit::Packets });
    }

    /// The hard packet limit of the outbound SA in use is reached.
    ///
    /// # Panics
    /// Without an SA in use.
    #[track_caller]
    pub fn hard_expire(&mut self, who: Who) {
        let sa = self.sa_in_use(who);
        self.backend_event(who, Event::HardExpire { sa, unit: LimitUnit::Packets });
    }

    #[track_caller]
    fn sa_in_use(&self, who: Who) -> SaHandle {
        let ways = ways(&self.gateways[who].tables());
        match ways.iter().find_map(|way| way.sa) {
            Some(sa) => sa,
            None => self.fail(&format!("{} has no SA in use", letter(who))),
        }
    }

    /// A packet of a host behind a gateway meets a trap. False when there is none.
    pub fn acquire(&mut self, who: Who, packet: PacketSelectors) -> bool {
        let tables = self.gateways[who].tables();
        let trap = tables.policies.values().find(|policy| {
            matches!(policy.action, PolicyAction::Trap { .. }) && policy.selectors.matches_outbound(&packet)
        });
        let Some(trap) = trap else { return false };
        self.backend_event(who, Event::Acquire { policy: trap.handle, packet });
        true
    }

    /// A packet of a host behind a gateway comes to the data path, which holds what meets a trap and raises an acquire only when none is
    /// outstanding, as backends do.
    pub fn packet(&mut self, who: Who, packet: PacketSelectors) -> Met {
        let tables = self.gateways[who].tables();
        let fits = |policy: &&PolicySpec| {
            policy.direction == Direction::Outbound && policy.selectors.matches_outbound(&packet)
        };
        let Some(policy) = tables.policies.values().filter(fits).min_by_key(|policy| policy.priority) else {
            return Met::Nothing;
        };
        match policy.action {
            PolicyAction::Protect { sa: Some(_), .. } => return Met::Sa,
            PolicyAction::Protect { sa: None, .. } | PolicyAction::Bypass | PolicyAction::Discard => {
                return Met::Nothing;
            }
            PolicyAction::Trap { .. } => {}
        }
        let (trap, now) = (policy.handle, self.now());
        let touched = tables.touched.get(&trap).copied().unwrap_or_default();
        let outstanding = self.gateways[who].acquires.get(&trap);
        if outstanding.is_some_and(|(then, since)| *then == touched && now.saturating_since(*since) < ACQUIRE_AGE) {
            return Met::Trap { asked: false };
        }
        self.gateways[who].acquires.insert(trap, (touched, now));
        self.backend_event(who, Event::Acquire { policy: trap, packet });
        Met::Trap { asked: true }
    }

    /// Sends one packet over every tunnel of a gateway.
    pub fn send_packets(&mut self, who: Who) {
        if self.gateways[who].asleep {
            return;
        }
        let sending: Vec<_> = self.gateways[who].with_tables(|tables| {
            let sa = |way: Way| way.sa.and_then(|sa| tables.sas.get(&sa));
            let form = |sa: &SaSpec| (sa.outer, sa.encapsulation, sa.handle, Packet::under(sa));
            ways(tables).into_iter().map(|way| sa(way).map(form)).collect()
        });
        for sending in sending {
            let Some((outer, encapsulation, sa, packet)) = sending else {
                self.traffic.blocked += 1;
                continue;
            };
            if self.gateways[who].backend.is_expired(sa) {
                self.traffic.blocked += 1;
                continue;
            }
            self.traffic.sent += 1;
            self.count(who, sa);
            let Some((to, packet)) = self.route_packet(who, outer, encapsulation, packet) else { continue };
            let at = self.now + self.link.travel(&mut self.dice);
            self.schedule(at, Due::Esp(to, packet));
        }
    }

    /// An SA carries a packet; the device raises what is reached with it, unless its reports are lost.
    fn count(&mut self, who: Who, sa: SaHandle) {
        let reached = self.gateways[who].backend.count(sa, 1, 100);
        if self.gateways[who].loses_expires {
            return;
        }
        if let Some(unit) = reached.soft {
            self.backend_event(who, Event::SoftExpire { sa, unit });
        }
        if let Some(unit) = reached.hard {
            self.backend_event(who, Event::HardExpire { sa, unit });
        }
    }

    pub(super) fn deliver_packet(&mut self, to: Who, packet: &Packet) {
        if self.gateways[to].asleep {
            return;
        }
        let handle = self.gateways[to].with_tables(|tables| packet.receiver(tables).map(|sa| sa.handle));
        let Some(handle) = handle else {
            self.traffic.lost += 1;
            self.note(format!("{} has no SA for ESP {}", letter(to), packet.spi));
            self.check_missed(to, packet.spi);
            return;
        };
        if self.gateways[to].backend.is_expired(handle) {
            self.traffic.lost += 1;
            return;
        }
        self.traffic.delivered += 1;
        self.notice_mapping(to, handle, packet);
        self.count(to, handle);
        if self.used.insert((to, handle)) {
            self.backend_event(to, Event::InboundFirstUse { sa: handle });
        }
    }
}

/// What a packet meets in the data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// An SA, which takes it.
    Sa,
    /// A trap, which holds it.
    Trap {
        /// An acquire was raised.
        asked: bool,
    },
    /// Neither.
    Nothing,
}

/// Until then a data path does not raise a second acquire by itself.
const ACQUIRE_AGE: Duration = Duration::from_secs(30);
