//! Traps and shunts of configured children: installed, taken out; and the guard before them. What packets ask for through a trap is answered
//! in [`super::acquire`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ike_model::config::FailClosed;
use ike_model::{Child, ChildMode, CommandError, CommandOutcome, ConfiguredSelector, Connection, HostSpec};
use ipsec::preflight::Entries;
use ipsec::{
    Answer, DeviceId, Direction, OffloadError, OffloadMode, Op, OuterAddresses, PolicyAction, PolicyHandle, PolicySpec,
    Reqid, SaMode, SelectorPair,
};

use crate::children::{Class, policy_tags, priority};
use crate::deadline::Timer;
use crate::endpoint::Endpoint;
use crate::endpoint::configured::{Keeper, Rungs, Trap};
use crate::io::Context;
use crate::ladder::{self, Ladder};
use crate::listing::Subject;
use crate::negotiation::not_up;
use crate::transport;
use crate::turn::Purpose;

impl Endpoint {
    pub(super) fn install_command(
        &mut self,
        context: &Context<'_>,
        connection: &str,
        child: &str,
    ) -> Result<CommandOutcome, CommandError> {
        let missing = || CommandError::NotFound(format!("connection '{connection}' has no child '{child}'"));
        let found = context.config.connections.get(connection).ok_or_else(missing)?;
        let config = found.child(child).ok_or_else(missing)?;
        let number = self.keepers.number(found, config);
        if let Some(Keeper { trap: Trap::Present { .. }, .. }) = self.keepers.by_number.get(&number) {
            return Ok(CommandOutcome { matches: 1, terminated: 0 });
        }
        self.install_trap(context, number);
        match self.keepers.by_number.get(&number).map(|keeper| &keeper.trap) {
            Some(Trap::Refused(reason) | Trap::Waiting(reason)) => Err(CommandError::Invalid(reason.clone())),
            Some(Trap::Present { .. } | Trap::Absent) | None => Ok(CommandOutcome { matches: 1, terminated: 0 }),
        }
    }

    pub(super) fn uninstall_command(
        &mut self,
        context: &Context<'_>,
        connection: &str,
        child: &str,
    ) -> Result<CommandOutcome, CommandError> {
        let number = self.keepers.find(connection, child);
        let removed = number.is_some_and(|number| self.remove_trap(context, number));
        if !removed {
            return Err(CommandError::NotFound(format!("'{child}' of connection '{connection}' is not installed")));
        }
        Ok(CommandOutcome { matches: 1, terminated: 0 })
    }

    /// Installs the trap or shunt of a configured child, unless it is there.
    pub(super) fn install_trap(&mut self, context: &Context<'_>, number: u32) {
        let Some(keeper) = self.keepers.by_number.get_mut(&number) else { return };
        if matches!(keeper.trap, Trap::Present { .. }) {
            return;
        }
        let OuterAddresses { local, remote } = outer_addresses(&keeper.connection);
        let pairs = match pairs(&keeper.child, local, remote) {
            Ok(pairs) => pairs,
            Err(reason) => {
                tracing::warn!(conn = keeper.connection.name, child = keeper.child.name, "not installed: {reason}");
                keeper.trap = Trap::Refused(reason);
                return;
            }
        };
        let Some(device) = context.spis.device_for(local, remote) else {
            keeper.trap = Trap::Waiting(format!("no device carries traffic to {remote}"));
            return;
        };
        if let Some(reason) = context.devices.get(device).and_then(not_up) {
            keeper.trap = Trap::Waiting(reason);
            return;
        }
        let found = context.devices.get(device).ok_or_else(|| "the device is not known".to_owned());
        let outer = OuterAddresses { local, remote };
        let ladder = found.and_then(|device| {
            let tables = &self.shared.registry.tables;
            ladder::for_policies(context, tables, device, (&keeper.connection, &keeper.child), outer, &pairs)
        });
        match ladder {
            Ok(ladder) => self.put_policies(context, number, device, pairs, ladder),
            Err(reason) => {
                tracing::warn!(conn = keeper.connection.name, child = keeper.child.name, "not installed: {reason}");
                keeper.trap = Trap::Refused(reason);
            }
        }
    }

    /// Has the policies of a trap or shunt installed on the next rung.
    fn put_policies(
        &mut self,
        context: &Context<'_>,
        number: u32,
        device: DeviceId,
        pairs: Vec<SelectorPair>,
        mut ladder: Ladder,
    ) {
        let Some(keeper) = self.keepers.by_number.get_mut(&number) else { return };
        let Some(offload) = ladder.step() else { return };
        let fixed = keeper.child.reqid.map(ipsec::Reqid);
        keeper.reqid.get_or_insert_with(|| fixed.unwrap_or_else(|| self.shared.ids.reqid()));
        let ids = &mut self.shared.ids;
        keeper.tags.get_or_insert_with(|| {
            let interface = keeper.connection.interface.draw(|| ids.tag_value());
            keeper.child.tags.draw(interface, || ids.tag_value())
        });
        let name = keeper.name();
        let is_trap = matches!(keeper.child.mode, ChildMode::Tunnel | ChildMode::Transport);
        let mut ops = Vec::new();
        if is_trap && context.config.settings.fail_closed != FailClosed::Off {
            ops.extend(self.shared.registry.missing_guards(&name, &pairs));
        }
        let policies = policies(keeper, device, offload, &pairs, || self.shared.ids.policy());
        ops.extend(policies.iter().cloned().map(Op::InstallPolicy));
        self.keepers.by_policy.extend(policies.iter().map(|policy| (policy.handle, number)));
        let entries = Entries { sas: 0, policies: ladder::policies_of(keeper.child.mode, &pairs) };
        let claim = self.shared.registry.tables.claim(device, offload, entries);
        keeper.trap =
            Trap::Present { policies, pairs, confirmed: false, rungs: Box::new(Rungs { device, ladder, claim }) };
        self.shared.turn(context).apply(ops, Purpose::Trap(number));
    }

    pub(super) fn on_trap_installed(
        &mut self,
        context: &Context<'_>,
        number: u32,
        result: Result<Answer, OffloadError>,
    ) {
        let Some(keeper) = self.keepers.by_number.get_mut(&number) else { return };
        let name = keeper.name();
        let Trap::Present { policies, pairs, confirmed, .. } = &mut keeper.trap else { return };
        let error = match result {
            Ok(_) => {
                *confirmed = true;
                let guarded = matches!(keeper.child.mode, ChildMode::Tunnel | ChildMode::Transport);
                if guarded && context.config.settings.fail_closed != FailClosed::Off {
                    self.shared.registry.guarded(&name, pairs);
                }
                return self.trap_repaired(context, number);
            }
            Err(error) => error,
        };
        tracing::warn!(conn = keeper.connection.name, child = keeper.child.name, "backend refused the policy: {error}");
        for policy in policies {
            self.keepers.by_policy.remove(&policy.handle);
        }
        let refused = match error {
            OffloadError::Unavailable(_) => Trap::Waiting(error.to_string()),
            OffloadError::Unsupported { .. }
            | OffloadError::Full { .. }
            | OffloadError::Exists(_)
            | OffloadError::Missing(_)
            | OffloadError::System { .. }
            | OffloadError::Invalid(_) => Trap::Refused(error.to_string()),
        };
        match std::mem::replace(&mut keeper.trap, refused) {
            Trap::Present { pairs, rungs, .. } if error.is_refusal() && rungs.ladder.has_more() => {
                let Rungs { device, ladder, claim } = *rungs;
                drop(claim);
                self.put_policies(context, number, device, pairs, ladder);
            }
            Trap::Present { .. } | Trap::Absent | Trap::Refused(_) | Trap::Waiting(_) => {
                self.shared.registry.listing.repairs.remove(&Subject::Trap(number));
            }
        }
    }

    /// Takes a trap or shunt out. Gives whether there was one.
    pub(super) fn remove_trap(&mut self, context: &Context<'_>, number: u32) -> bool {
        let Some(keeper) = self.keepers.by_number.get_mut(&number) else { return false };
        let Trap::Present { policies, .. } = std::mem::take(&mut keeper.trap) else { return false };
        for policy in &policies {
            self.keepers.by_policy.remove(&policy.handle);
        }
        self.shared.deadlines.clear(Timer::Trap(number));
        let ops = policies.into_iter().map(|policy| Op::RemovePolicy(policy.handle)).collect();
        self.shared.turn(context).apply(ops, Purpose::Remove);
        true
    }

    /// Puts the guard of a configured child up.
    pub(super) fn guard(&mut self, context: &Context<'_>, number: u32) {
        let Some(keeper) = self.keepers.by_number.get(&number) else { return };
        if !matches!(keeper.child.mode, ChildMode::Tunnel | ChildMode::Transport) {
            return;
        }
        let OuterAddresses { local, remote } = outer_addresses(&keeper.connection);
        // What is dynamic without an address is guarded once its addresses are known, with the first install.
        let Ok(pairs) = pairs(&keeper.child, local, remote) else { return };
        let name = keeper.name();
        let ops = self.shared.registry.missing_guards(&name, &pairs);
        self.shared.registry.guarded(&name, &pairs);
        self.shared.turn(context).apply(ops, Purpose::Remove);
    }
}

impl Keeper {
    /// Connection and child, as the backend is told.
    fn name(&self) -> Arc<str> {
        format!("{}/{}", self.connection.name, self.child.name).into()
    }

    /// The device that the way of its trap leads through.
    pub(super) fn device(&self, context: &Context<'_>) -> Option<DeviceId> {
        let outer = outer_addresses(&self.connection);
        context.spis.device_for(outer.local, outer.remote)
    }
}

/// The policies of a trap or shunt, whose group and tags are drawn.
fn policies(
    keeper: &Keeper,
    device: DeviceId,
    offload: OffloadMode,
    pairs: &[SelectorPair],
    mut handle: impl FnMut() -> PolicyHandle,
) -> Vec<PolicySpec> {
    let reqid = keeper.reqid.unwrap_or(Reqid(0));
    let (class, action) = match keeper.child.mode {
        ChildMode::Tunnel | ChildMode::Transport => {
            (Class::Trap, PolicyAction::Trap { reqid, mode: transport::mode(&keeper.child) })
        }
        ChildMode::Pass => (Class::Shunt, PolicyAction::Bypass),
        ChildMode::Drop => (Class::Shunt, PolicyAction::Discard),
    };
    let directions: &[Direction] = match class {
        Class::Trap | Class::Protect => &[Direction::Outbound],
        Class::Shunt => &[Direction::Inbound, Direction::Forward, Direction::Outbound],
    };
    let name = keeper.name();
    let each = pairs.iter().flat_map(|pair| directions.iter().map(move |direction| (pair, *direction)));
    let policy = |(selectors, direction): (&SelectorPair, Direction)| PolicySpec {
        handle: handle(),
        device,
        direction,
        selectors: *selectors,
        priority: priority(&keeper.child, class, selectors),
        action: action.clone(),
        offload,
        tags: policy_tags(keeper.tags.unwrap_or_default(), direction),
        name: name.clone(),
    };
    each.map(policy).collect()
}

/// The configured outer addresses of a connection; unspecified ones where there is none.
pub(super) fn outer_addresses(connection: &Connection) -> OuterAddresses {
    let v4 = is_v4(connection);
    OuterAddresses { local: outer(&connection.local_addrs, v4), remote: outer(&connection.remote_addrs, v4) }
}

fn is_v4(connection: &Connection) -> bool {
    let family = |specs: &[HostSpec]| {
        specs.iter().find_map(|spec| match spec {
            HostSpec::Address(address) => Some(address.is_ipv4()),
            HostSpec::Any | HostSpec::Range(_) | HostSpec::Name(_) => None,
        })
    };
    family(&connection.remote_addrs).or_else(|| family(&connection.local_addrs)).unwrap_or(true)
}

/// The configured outer address of one side, or none of its family.
fn outer(specs: &[HostSpec], v4: bool) -> IpAddr {
    let none = if v4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let found = specs.iter().find_map(|spec| match spec {
        HostSpec::Address(address) if address.is_ipv4() == v4 => Some(*address),
        HostSpec::Address(_) | HostSpec::Any | HostSpec::Range(_) | HostSpec::Name(_) => None,
    });
    found.unwrap_or(none)
}

/// The selectors of a child as far as they are known between these outer addresses.
pub(super) fn pairs(child: &Child, local: IpAddr, remote: IpAddr) -> Result<Vec<SelectorPair>, String> {
    let shunt = matches!(child.mode, ChildMode::Pass | ChildMode::Drop);
    let mode = transport::mode(child);
    let known = |configured: &[ConfiguredSelector], address: IpAddr, key: &str| {
        let dynamic = configured.iter().any(|selector| matches!(selector, ConfiguredSelector::Dynamic { .. }));
        if !address.is_unspecified() || shunt {
            Ok(())
        } else if dynamic {
            Err(format!("{key} = dynamic needs a configured address on that side to be trapped"))
        } else if mode == SaMode::Transport {
            Err("mode = transport needs a configured address on both sides to be trapped".to_owned())
        } else {
            Ok(())
        }
    };
    known(&child.local_ts, local, "local_ts")?;
    known(&child.remote_ts, remote, "remote_ts")?;
    let (local, remote) = transport::allowed(child, mode, OuterAddresses { local, remote });
    let pairs = SelectorPair::product(&local, &remote);
    match (pairs.is_empty(), mode) {
        (false, _) => Ok(pairs),
        (true, SaMode::Transport) => Err("local_ts and remote_ts leave nothing of the two outer addresses, which is all that mode = transport can carry".into()),
        (true, SaMode::Tunnel) => Err("local_ts and remote_ts have no address family in common".into()),
    }
}
