-- One schema for SQLite and PostgreSQL: times are microseconds since the epoch, truth values 0 and 1, the rest text and integers.

-- Runs of daemons, and how far the events of each have been taken over.
CREATE TABLE boot (
    boot_id    TEXT PRIMARY KEY,
    gateway    TEXT NOT NULL,
    started_us BIGINT NOT NULL,
    last_seq   BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE ike_sa (
    boot_id        TEXT NOT NULL,
    unique_id      BIGINT NOT NULL,
    gateway        TEXT NOT NULL,
    connection     TEXT NOT NULL,
    generation     BIGINT NOT NULL,
    previous       BIGINT,
    initiator      BIGINT NOT NULL,
    initiator_spi  TEXT NOT NULL,
    responder_spi  TEXT NOT NULL,
    local_address  TEXT NOT NULL,
    remote_address TEXT NOT NULL,
    local_id       TEXT NOT NULL,
    remote_id      TEXT NOT NULL,
    nat_local      BIGINT NOT NULL,
    nat_remote     BIGINT NOT NULL,
    encryption     BIGINT,
    key_bits       BIGINT,
    integrity      BIGINT,
    prf            BIGINT,
    key_exchange   BIGINT,
    established_us BIGINT NOT NULL,
    closed_us      BIGINT,
    cause          TEXT,
    cause_text     TEXT,
    PRIMARY KEY (boot_id, unique_id)
);
CREATE INDEX ike_sa_time ON ike_sa (gateway, established_us);
CREATE INDEX ike_sa_connection ON ike_sa (gateway, connection, established_us);
CREATE INDEX ike_sa_open ON ike_sa (gateway) WHERE closed_us IS NULL;
CREATE INDEX ike_sa_closed ON ike_sa (gateway, closed_us) WHERE closed_us IS NOT NULL;

-- One row for each generation of a CHILD SA. `lineage` is the number of the first one of the same line of rekeys, `total_*` is what that line
-- has carried up to this row, as last told.
CREATE TABLE child_sa (
    boot_id           TEXT NOT NULL,
    unique_id         BIGINT NOT NULL,
    gateway           TEXT NOT NULL,
    connection        TEXT NOT NULL,
    child             TEXT NOT NULL,
    ike_unique_id     BIGINT NOT NULL,
    lineage           BIGINT NOT NULL,
    generation        BIGINT NOT NULL,
    reqid             BIGINT NOT NULL,
    mode              TEXT NOT NULL,
    encap             BIGINT NOT NULL,
    spi_in            BIGINT,
    spi_out           BIGINT,
    encryption        BIGINT,
    key_bits          BIGINT,
    integrity         BIGINT,
    key_exchange      BIGINT,
    esn               BIGINT,
    backend           TEXT NOT NULL,
    offload           TEXT NOT NULL,
    device            TEXT,
    simulated         BIGINT NOT NULL,
    local_ts          TEXT NOT NULL,
    remote_ts         TEXT NOT NULL,
    soft_seconds      BIGINT,
    soft_bytes        BIGINT,
    soft_packets      BIGINT,
    hard_seconds      BIGINT,
    hard_bytes        BIGINT,
    hard_packets      BIGINT,
    bytes_in          BIGINT NOT NULL,
    packets_in        BIGINT NOT NULL,
    bytes_out         BIGINT NOT NULL,
    packets_out       BIGINT NOT NULL,
    total_bytes_in    BIGINT NOT NULL,
    total_packets_in  BIGINT NOT NULL,
    total_bytes_out   BIGINT NOT NULL,
    total_packets_out BIGINT NOT NULL,
    installed_us      BIGINT NOT NULL,
    removed_us        BIGINT,
    cause             TEXT,
    cause_text        TEXT,
    PRIMARY KEY (boot_id, unique_id)
);
CREATE INDEX child_sa_time ON child_sa (gateway, installed_us);
CREATE INDEX child_sa_child ON child_sa (gateway, child, installed_us);
CREATE INDEX child_sa_connection ON child_sa (gateway, connection, child, installed_us);
CREATE INDEX child_sa_open ON child_sa (gateway) WHERE removed_us IS NULL;
CREATE INDEX child_sa_removed ON child_sa (gateway, removed_us) WHERE removed_us IS NOT NULL;

-- Only ever appended to: `data` is the record as every sink got it.
CREATE TABLE event (
    ulid       TEXT PRIMARY KEY,
    boot_id    TEXT NOT NULL,
    seq        BIGINT NOT NULL,
    gateway    TEXT NOT NULL,
    time_us    BIGINT NOT NULL,
    type       TEXT NOT NULL,
    connection TEXT,
    child      TEXT,
    data       TEXT NOT NULL,
    UNIQUE (boot_id, seq)
);
CREATE INDEX event_time ON event (gateway, time_us);
CREATE INDEX event_connection ON event (gateway, connection, time_us);

-- Events on their way to webhooks. A row is written with its event. `state` is waiting, delivered or dead.
CREATE TABLE delivery (
    ulid         TEXT NOT NULL,
    endpoint     TEXT NOT NULL,
    gateway      TEXT NOT NULL,
    state        TEXT NOT NULL,
    attempts     BIGINT NOT NULL DEFAULT 0,
    due_us       BIGINT NOT NULL,
    delivered_us BIGINT,
    last_error   TEXT,
    PRIMARY KEY (ulid, endpoint)
);
CREATE INDEX delivery_due ON delivery (gateway, endpoint, due_us) WHERE state = 'waiting';
CREATE INDEX delivery_dead ON delivery (gateway, endpoint) WHERE state = 'dead';
