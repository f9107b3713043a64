//! The views of the page, for tests that go through all of them.

/// Address of a view, its heading, and what is there once it is complete.
pub(super) const VIEWS: [(&str, &str, &str); 5] = [
    ("#/tunnels", "Tunnels", ".tunnels tbody tr"),
    ("#/tunnel/branch-oslo/lan", "branch-oslo/lan", ".strip .bar"),
    ("#/deliveries", "Webhook deliveries", ".hooks"),
    ("#/events", "Events", ".events li"),
    ("#/devices", "Devices", ".devices tbody tr"),
];
