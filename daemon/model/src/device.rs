//! Devices and what they can do, for those who show them.

pub use ipsec::{
    Capabilities, Device, DeviceId, DeviceState, DeviceTable, LimitUnit, LimitUnits, ModeInUse, OffloadMode,
    ReplayWindows, Reqid, Rung, SaMode, SelectorSupport, Spi,
};
