//! Every metric there is: the one table that the answer, the documentation and the tests go by.

/// How values behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows while the daemon runs.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// One metric.
#[derive(Debug)]
pub(crate) struct Family {
    /// Its name; that of a counter ends in `_total`.
    pub(crate) name: &'static str,
    /// How its values behave.
    pub(crate) kind: Kind,
    /// Names of its labels.
    pub(crate) labels: &'static [&'static str],
    /// What it says.
    pub(crate) help: &'static str,
    /// Names of the same thing in exporters for strongSwan, for the documentation.
    #[cfg(test)]
    pub(crate) formerly: &'static [&'static str],
}

macro_rules! families {
    ($($constant:ident: $kind:ident $name:literal $labels:tt $help:literal $(also $formerly:tt)?;)*) => {
        $(pub(crate) const $constant: Family = Family {
            name: $name,
            kind: Kind::$kind,
            labels: &$labels,
            help: $help,
            #[cfg(test)]
            formerly: families!(@formerly $($formerly)?),
        };)*
        /// All of them, in the order in which they are told.
        #[cfg(test)]
        pub(crate) const ALL: &[&Family] = &[$(&$constant),*];
    };
    (@formerly $formerly:tt) => { &$formerly };
    (@formerly) => { &[] };
}

families! {
    BUILD_INFO: Gauge "cygnet_build_info" ["version", "backend"]
        "Always 1; release of the daemon and the data path it uses.";
    GATEWAY_INFO: Gauge "cygnet_gateway_info" ["gateway", "boot_id"]
        "Always 1; name of the gateway, and what tells this run of the daemon from others.";
    START_TIME: Gauge "cygnet_start_time_seconds" []
        "When the daemon was started, seconds since the epoch." also ["ipsec_uptime_seconds"];
    SCRAPE_COMPLETE: Gauge "cygnet_scrape_complete" []
        "1 when every part of the daemon answered in time; else what is told may lack SAs and counters." also ["ipsec_up"];
    SCRAPE_SECONDS: Gauge "cygnet_scrape_duration_seconds" []
        "Time that asking the daemon took; answers are shared for one second.";
    SERIES_DROPPED: Gauge "cygnet_series_dropped" []
        "Configured children beyond the bound on what is told one by one; the sums count them.";
    CONDITION_MET: Gauge "cygnet_condition_met" ["condition"]
        "1 for each condition of /readyz that is met; 0 also when it is merely degraded.";

    CONNECTIONS: Gauge "cygnet_connections" []
        "Configured connections." also ["strongswan_conn_count"];
    CHILDREN: Gauge "cygnet_children" ["state"]
        "Configured children by what they are doing.";
    IKE_SAS: Gauge "cygnet_ike_sas" ["state"]
        "IKE SAs by state." also ["strongswan_ike_count", "ipsec_ike_sas"];
    IKE_SAS_HALF_OPEN: Gauge "cygnet_ike_sas_half_open" []
        "IKE SAs that peers have begun and not yet authenticated." also ["ipsec_half_open_ike_sas"];
    CHILD_SAS: Gauge "cygnet_child_sas" ["state"]
        "CHILD SAs by state." also ["strongswan_ike_children_size"];
    POLICIES: Gauge "cygnet_policies" ["kind"]
        "Traps and shunts that are installed.";

    CONNECTION_UP: Gauge "cygnet_connection_up" ["connection"]
        "1 when the connection has an established IKE SA." also ["strongswan_ike_status", "ipsec_ike_sa_state"];
    CONNECTION_IKE_SAS: Gauge "cygnet_connection_ike_sas" ["connection"]
        "Established IKE SAs of the connection.";
    CONNECTION_INFO: Gauge "cygnet_connection_info" ["connection", "remote_host", "local_id", "remote_id", "nat"]
        "Always 1, while the connection is up; who is at the other end of its newest IKE SA, and who is behind NAT."
        also ["strongswan_ike_info", "strongswan_ike_nat_local", "strongswan_ike_nat_remote", "strongswan_ike_nat_any"];
    CONNECTION_ESTABLISHED: Gauge "cygnet_connection_established_seconds" ["connection"]
        "Age of the oldest established IKE SA."
        also ["strongswan_ike_established_seconds", "ipsec_ike_sa_established_seconds"];
    CONNECTION_REKEY: Gauge "cygnet_connection_rekey_seconds" ["connection"]
        "Time until an IKE SA is rekeyed next; negative when overdue." also ["strongswan_ike_rekey_seconds"];
    CONNECTION_REAUTH: Gauge "cygnet_connection_reauth_seconds" ["connection"]
        "Time until an IKE SA is authenticated afresh next; negative when overdue." also ["strongswan_ike_reauth_seconds"];
    CONNECTION_HEARD: Gauge "cygnet_connection_heard_seconds" ["connection"]
        "Time since the peer was last heard, authentically.";
    CONNECTION_REPEATS: Gauge "cygnet_connection_unanswered_repeats" ["connection"]
        "How often the request was sent again that a peer does not answer now.";
    CONNECTION_ESTABLISHED_TOTAL: Counter "cygnet_connection_established_total" ["connection"]
        "IKE SAs that have come up, rekeys not counted.";
    CONNECTION_REKEYS: Counter "cygnet_connection_rekeys_total" ["connection"]
        "Rekeys of IKE SAs.";
    CONNECTION_MESSAGES: Counter "cygnet_connection_messages_total" ["connection", "exchange", "direction", "message"]
        "IKE messages of the connection, as in cygnet_ike_messages_total; those from before it is known whose they are do not count, nor is there a series before the first one.";
    CONNECTION_INVALID: Counter "cygnet_connection_invalid_messages_total" ["connection"]
        "Messages for IKE SAs of the connection that could not be read.";
    CONNECTION_CLOSED: Counter "cygnet_connection_closed_total" ["connection", "reason"]
        "IKE SAs that have ended, by cause.";
    CONNECTION_FAILURES: Counter "cygnet_connection_failures_total" ["connection", "what", "reason"]
        "What went wrong with IKE SAs (establish, authenticate, rekey, unreachable), by cause.";

    CHILD_CONFIGURED: Gauge "cygnet_child_configured" ["connection", "child"]
        "Always 1 for a configured child, whether it is up or not." also ["strongswan_conn_child_count"];
    CHILD_UP: Gauge "cygnet_child_up" ["connection", "child"]
        "1 when the child carries traffic: its CHILD SA, or its shunt, is installed."
        also ["strongswan_sa_status", "ipsec_child_sa_state"];
    CHILD_STATE: Gauge "cygnet_child_state" ["connection", "child", "state"]
        "Always 1; what the child is doing: up, connecting, trapped, shunt, retry, down or refused.";
    CHILD_FAILED_ATTEMPTS: Gauge "cygnet_child_failed_attempts" ["connection", "child"]
        "Attempts that failed since the child was last up.";
    CHILD_SA_COUNT: Gauge "cygnet_child_sas_installed" ["connection", "child"]
        "CHILD SAs of the child that are installed.";
    CHILD_BYTES: Counter "cygnet_child_bytes_total" ["connection", "child", "direction"]
        "Octets carried by all SAs of the child since the daemon was started."
        also ["strongswan_sa_inbound_bytes", "strongswan_sa_outbound_bytes", "ipsec_child_sa_bytes_in", "ipsec_child_sa_bytes_out"];
    CHILD_PACKETS: Counter "cygnet_child_packets_total" ["connection", "child", "direction"]
        "Packets carried by all SAs of the child since the daemon was started."
        also ["strongswan_sa_inbound_packets", "strongswan_sa_outbound_packets", "ipsec_child_sa_packets_in",
              "ipsec_child_sa_packets_out"];
    CHILD_IDLE: Gauge "cygnet_child_idle_seconds" ["connection", "child", "direction"]
        "Time since the last packet; nothing where none has passed."
        also ["strongswan_sa_last_inbound_seconds", "strongswan_sa_last_outbound_seconds"];
    CHILD_INSTALLED: Gauge "cygnet_child_installed_seconds" ["connection", "child"]
        "Age of the newest installed CHILD SA."
        also ["strongswan_sa_established_seconds", "ipsec_child_sa_installed_seconds"];
    CHILD_REKEY: Gauge "cygnet_child_rekey_seconds" ["connection", "child"]
        "Time until the CHILD SA is rekeyed; negative when overdue." also ["strongswan_sa_rekey_seconds"];
    CHILD_LIFE: Gauge "cygnet_child_life_seconds" ["connection", "child"]
        "Time until the CHILD SA may carry nothing any more; negative when overdue." also ["strongswan_sa_lifetime_seconds"];
    CHILD_REMAINING_BYTES: Gauge "cygnet_child_rekey_bytes" ["connection", "child"]
        "Octets until the CHILD SA is rekeyed, in the direction that is nearer to its limit; nothing without a limit.";
    CHILD_REMAINING_PACKETS: Gauge "cygnet_child_rekey_packets" ["connection", "child"]
        "Packets until the CHILD SA is rekeyed, in the direction that is nearer to its limit; nothing without a limit.";
    CHILD_OFFLOAD: Gauge "cygnet_child_offload" ["connection", "child", "mode", "device"]
        "Always 1, while the child is up; offload really in use (no, crypto, packet), and the device, with (simulated) behind its name where it is a simulation.";
    CHILD_ENCAP: Gauge "cygnet_child_encap" ["connection", "child"]
        "1 when ESP goes in UDP." also ["strongswan_sa_encap"];
    CHILD_REKEYS: Counter "cygnet_child_rekeys_total" ["connection", "child", "cause"]
        "Rekeys of CHILD SAs: because a limit of ours in time, bytes or packets was reached, or because the peer or an operator asked.";
    CHILD_LAST_REKEY: Gauge "cygnet_child_last_rekey_timestamp_seconds" ["connection", "child"]
        "When a CHILD SA of the child was rekeyed last, seconds since the epoch; nothing before the first time.";
    CHILD_CLOSED: Counter "cygnet_child_closed_total" ["connection", "child", "reason"]
        "CHILD SAs that have ended without a successor, by cause.";
    CHILD_REKEY_FAILURES: Counter "cygnet_child_rekey_failures_total" ["connection", "child"]
        "Rekeys of CHILD SAs that failed; the SA goes on until its hard limit.";
    CHILD_FAILURES: Counter "cygnet_child_failures_total" ["connection", "child", "what", "reason"]
        "What went wrong with CHILD SAs (negotiate, install, rekey, hard-limit, degraded, state-lost, updown), by cause.";
    CHILD_ACQUIRES: Counter "cygnet_child_acquires_total" ["connection", "child"]
        "Packets that asked for the child while it was not up.";

    EVENTS: Counter "cygnet_events_total" ["event"]
        "Events so far, by name.";
    MESSAGES: Counter "cygnet_ike_messages_received_total" []
        "IKE messages received.";
    EXCHANGE_MESSAGES: Counter "cygnet_ike_messages_total" ["exchange", "direction", "message"]
        "IKE messages made (out) or received and read (in), requests and responses; what is sent or comes again does not count. Begins anew with reset-counters.";
    RETRANSMITS: Counter "cygnet_ike_retransmits_total" ["message"]
        "IKE messages sent again: requests that were not answered, responses whose request came again.";
    COOKIES: Counter "cygnet_ike_cookies_demanded_total" []
        "First requests that were answered by asking for a COOKIE.";
    DROPPED: Counter "cygnet_ike_dropped_total" ["reason"]
        "IKE messages that came to nothing, by reason.";
    SHARD_QUEUE: Gauge "cygnet_shard_queue" ["shard", "queue"]
        "What waits in the inbox of a shard: control messages, datagrams.";
    WORKERS: Gauge "cygnet_worker_threads" ["state"]
        "Worker threads, busy and idle." also ["ipsec_workers_total", "ipsec_idle_workers", "ipsec_active_workers"];

    DATAPATH_DROPS: Counter "cygnet_datapath_drops_total" ["reason"]
        "Packets that the data path has dropped, by reason in its own words.";
    DEVICE_UP: Gauge "cygnet_device_up" ["device"]
        "1 when the device carries traffic.";
    DEVICE_SAS: Gauge "cygnet_device_sas" ["device", "mode"]
        "SAs on the device by offload mode, both directions.";
    DEVICE_SA_TABLE: Gauge "cygnet_device_sa_table_size" ["device", "mode"]
        "SAs the device can hold; nothing where memory alone bounds it.";

    HISTORY_UP: Gauge "cygnet_history_database_up" ["engine"]
        "1 when the history database takes events.";
    HISTORY_SPOOL: Gauge "cygnet_history_spool_bytes" []
        "Octets that the spool takes.";
    HISTORY_SPOOL_SIZE: Gauge "cygnet_history_spool_size_bytes" []
        "Octets that the spool may take.";
    HISTORY_ROOM: Gauge "cygnet_history_has_room" []
        "1 when events of new IKE SAs can be taken down; else no new handshake is begun.";
    HISTORY_WAITING: Gauge "cygnet_history_events_waiting" []
        "Events in the spool that the database does not have yet.";
    HISTORY_OLDEST: Gauge "cygnet_history_oldest_waiting_seconds" []
        "Age of the first of them; 0 when none waits.";
    HISTORY_TAKEN: Counter "cygnet_history_events_written_total" []
        "Events that the database has taken.";
    HISTORY_LEFT_OUT: Counter "cygnet_history_events_left_out_total" []
        "Events that could not be understood or that the database refused.";
    HISTORY_FORGOTTEN: Counter "cygnet_history_rows_forgotten_total" []
        "Rows that were forgotten for their age or their number.";

    WEBHOOK_WAITING: Gauge "cygnet_webhook_waiting" ["webhook"]
        "Deliveries that are due or wait for their next attempt.";
    WEBHOOK_DEAD: Gauge "cygnet_webhook_dead" ["webhook"]
        "Deliveries that were given up and can be redelivered.";
    WEBHOOK_STATE: Gauge "cygnet_webhook_state" ["webhook", "state"]
        "Always 1; how the webhook is doing: untried, up, down or disabled.";
    WEBHOOK_ATTEMPTS: Counter "cygnet_webhook_attempts_total" ["webhook"]
        "Attempts that have ended.";
    WEBHOOK_DELIVERED: Counter "cygnet_webhook_delivered_total" ["webhook"]
        "Messages that have arrived.";
    WEBHOOK_FAILURES: Counter "cygnet_webhook_failures_total" ["webhook", "reason"]
        "Attempts that failed, by what went wrong.";
    WEBHOOK_SECONDS: Counter "cygnet_webhook_attempt_seconds_total" ["webhook"]
        "Time that all attempts together have taken.";
    WEBHOOK_LAST_SUCCESS: Gauge "cygnet_webhook_last_success_timestamp_seconds" ["webhook"]
        "When a message arrived last, seconds since the epoch; nothing before the first.";

    VICI_CLIENTS: Gauge "cygnet_vici_clients" []
        "VICI clients that are connected.";
    VICI_LOST: Counter "cygnet_vici_events_lost_total" []
        "Events that VICI clients have lost because they did not read them.";
    HTTP_READERS: Gauge "cygnet_http_event_readers" []
        "Clients that follow the events over HTTP.";
    HTTP_LOST: Counter "cygnet_http_events_lost_total" []
        "Events that such clients have missed by being slow.";

    PROCESS_CPU: Counter "process_cpu_seconds_total" []
        "Processor time of the daemon.";
    PROCESS_RSS: Gauge "process_resident_memory_bytes" []
        "Memory of the daemon in octets.";
    PROCESS_VIRTUAL: Gauge "process_virtual_memory_bytes" []
        "Address space of the daemon in octets.";
    PROCESS_FDS: Gauge "process_open_fds" []
        "Open files of the daemon.";
    PROCESS_MAX_FDS: Gauge "process_max_fds" []
        "Files the daemon may have open.";
    PROCESS_THREADS: Gauge "process_threads" []
        "Threads of the daemon.";
    PROCESS_START: Gauge "process_start_time_seconds" []
        "When the daemon was started, seconds since the epoch.";
}
