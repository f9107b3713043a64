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

-- When a delivery that somebody has claimed was due before.
ALTER TABLE delivery ADD COLUMN claimed_us BIGINT;
