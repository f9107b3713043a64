//! A CHILD SA in the lines of the log.

use std::fmt;

use ipsec::Direction;
use ipsec::preflight::words;

use super::ChildSa;
use crate::core::Core;
use crate::say::say;
use crate::selectors::describe;

/// What a CHILD SA is known by: `net{1} established with SPIs c1_i c2_o and TS 10.1.0.0/24 === 10.2.0.0/24`.
pub(crate) struct Established<'c>(&'c ChildSa);

impl fmt::Display for Established<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ChildSa { config, unique_id, spi_in, spi_out, local_ts, remote_ts, .. } = self.0;
        write!(f, "{}{{{unique_id}}} established with SPIs {spi_in}_i {spi_out}_o", config.name)?;
        write!(f, " and TS {} === {}", describe(local_ts), describe(remote_ts))
    }
}

impl ChildSa {
    pub(crate) fn established(&self) -> Established<'_> {
        Established(self)
    }

    /// The backend is asked to install it.
    pub(crate) fn say_installing(&self, core: &Core) {
        let (name, id) = (&self.config.name, self.unique_id);
        let (local, remote) = (self.outer.local, self.outer.remote);
        say!(TRACE, "CHD 2", core, "CHILD_SA {name}{{{id}}} state change: CREATED => INSTALLING");
        say!(TRACE, "CHD 2", core, "  using {}", self.suite.shown());
        say!(TRACE, "CHD 2", core, "adding inbound ESP SA");
        say!(TRACE, "CHD 2", core, "  SPI 0x{}, src {remote} dst {local}", self.spi_in);
        say!(TRACE, "CHD 2", core, "adding outbound ESP SA");
        say!(TRACE, "CHD 2", core, "  SPI 0x{}, src {local} dst {remote}", self.spi_out);
    }

    /// The backend has installed it.
    pub(crate) fn say_installed(&self, core: &Core) {
        let (name, id) = (&self.config.name, self.unique_id);
        say!(TRACE, "KNL 2", core, "CHILD_SA {name}{{{id}}} runs with {}", words::rung(self.rung()));
        say!(TRACE, "CHD 2", core, "CHILD_SA {name}{{{id}}} state change: INSTALLING => INSTALLED");
    }

    /// It goes.
    pub(crate) fn say_closing(&self, core: &Core) {
        let (name, id, spi_in, spi_out) = (&self.config.name, self.unique_id, self.spi_in, self.spi_out);
        let (received, sent) =
            (self.meter.traffic(Direction::Inbound).bytes, self.meter.traffic(Direction::Outbound).bytes);
        let (local, remote) = (describe(&self.local_ts), describe(&self.remote_ts));
        say!(
            DEBUG,
            "IKE 0",
            core,
            "closing CHILD_SA {name}{{{id}}} with SPIs {spi_in}_i ({received} bytes) {spi_out}_o ({sent} bytes) and TS {local} === {remote}"
        );
    }
}
