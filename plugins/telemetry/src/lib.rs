//! What the daemon shows of itself over HTTP: metrics, health and the status page.
