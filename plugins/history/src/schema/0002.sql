-- Webhooks that deliveries were ever made for, and which of them nothing is sent to since when and why.
CREATE TABLE endpoint (
    gateway     TEXT NOT NULL,
    endpoint    TEXT NOT NULL,
    disabled_us BIGINT,
    reason      TEXT,
    PRIMARY KEY (gateway, endpoint)
);
INSERT INTO endpoint (gateway, endpoint) SELECT DISTINCT gateway, endpoint FROM delivery;

-- Deliveries listed, the newest event first, and counted.
CREATE INDEX delivery_list ON delivery (gateway, endpoint, state, ulid);

-- What is due in its order, also where much of it is due at the same time.
DROP INDEX delivery_due;
CREATE INDEX delivery_due ON delivery (gateway, endpoint, due_us, ulid) WHERE state = 'waiting';

-- When a delivery that somebody has claimed was due before.
ALTER TABLE delivery ADD COLUMN claimed_us BIGINT;

-- What each child has carried over all its generations, those that were forgotten included, and the longest that one of them was up. Triggers
-- keep it, whichever release writes.
CREATE TABLE child_total (
    gateway     TEXT NOT NULL,
    connection  TEXT NOT NULL,
    child       TEXT NOT NULL,
    generations BIGINT NOT NULL,
    bytes_in    BIGINT NOT NULL,
    packets_in  BIGINT NOT NULL,
    bytes_out   BIGINT NOT NULL,
    packets_out BIGINT NOT NULL,
    first_us    BIGINT NOT NULL,
    longest_us  BIGINT NOT NULL,
    PRIMARY KEY (gateway, connection, child)
);
INSERT INTO child_total (gateway, connection, child, generations, bytes_in, packets_in, bytes_out, packets_out, first_us, longest_us)
    SELECT gateway, connection, child, COUNT(*), SUM(bytes_in), SUM(packets_in), SUM(bytes_out), SUM(packets_out), MIN(installed_us),
        MAX(COALESCE(removed_us - installed_us, 0))
    FROM child_sa GROUP BY gateway, connection, child;

-- The same of IKE SAs: how long one of a connection was up at most.
CREATE TABLE connection_total (
    gateway    TEXT NOT NULL,
    connection TEXT NOT NULL,
    ike_sas    BIGINT NOT NULL,
    first_us   BIGINT NOT NULL,
    longest_us BIGINT NOT NULL,
    PRIMARY KEY (gateway, connection)
);
INSERT INTO connection_total (gateway, connection, ike_sas, first_us, longest_us)
    SELECT gateway, connection, COUNT(*), MIN(established_us), MAX(COALESCE(closed_us - established_us, 0))
    FROM ike_sa GROUP BY gateway, connection;

-- What is up, by child; what was, by connection. Events by child and by type.
DROP INDEX child_sa_open;
CREATE INDEX child_sa_open ON child_sa (gateway, connection, child) WHERE removed_us IS NULL;
CREATE INDEX child_sa_of ON child_sa (gateway, connection, installed_us);
CREATE INDEX event_child ON event (gateway, child, time_us) WHERE child IS NOT NULL;
CREATE INDEX event_type ON event (gateway, type, time_us);
