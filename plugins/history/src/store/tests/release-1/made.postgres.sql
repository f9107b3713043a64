BEGIN;
SELECT pg_advisory_xact_lock(109326643651956);
CREATE TABLE IF NOT EXISTS cygnet_schema (version BIGINT PRIMARY KEY, compatible_from BIGINT NOT NULL);
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
INSERT INTO cygnet_schema (version, compatible_from) VALUES (1, 1);
COMMIT;
BEGIN;
INSERT INTO boot (boot_id, gateway, started_us) VALUES ('b1', 'gw', 1790000000000000) ON CONFLICT (boot_id) DO NOTHING;
UPDATE ike_sa SET closed_us = 1790000000000000, cause = 'daemon-died', cause_text = 'the daemon ended without closing it; found at its next start' WHERE gateway = 'gw' AND boot_id <> 'b1' AND closed_us IS NULL;
UPDATE child_sa SET removed_us = 1790000000000000, cause = 'daemon-died', cause_text = 'the daemon ended without closing it; found at its next start' WHERE gateway = 'gw' AND boot_id <> 'b1' AND removed_us IS NULL;
INSERT INTO boot (boot_id, gateway, started_us) VALUES ('b1', 'gw', 1790000001000000) ON CONFLICT (boot_id) DO NOTHING;
SELECT last_seq FROM boot WHERE boot_id = 'b1';
INSERT INTO ike_sa (boot_id, unique_id, gateway, connection, generation, previous, initiator, initiator_spi, responder_spi, local_address, remote_address, local_id, remote_id, nat_local, nat_remote, encryption, key_bits, integrity, prf, key_exchange, established_us) VALUES ('b1', 1, 'gw', 'site', 0, NULL, 1, 'fedcba9876543210', '0000000000000001', '192.0.2.1:4500', '192.0.2.2:4500', 'a.example', 'b.example', 0, 1, 20, 256, NULL, 5, 31, 1790000001000000) ON CONFLICT (boot_id, unique_id) DO NOTHING;
INSERT INTO child_sa (boot_id, unique_id, gateway, connection, child, ike_unique_id, lineage, generation, reqid, mode, encap, spi_in, spi_out, encryption, key_bits, integrity, key_exchange, esn, backend, offload, device, simulated, local_ts, remote_ts, soft_seconds, soft_bytes, soft_packets, hard_seconds, hard_bytes, hard_packets, bytes_in, packets_in, bytes_out, packets_out, total_bytes_in, total_packets_in, total_bytes_out, total_packets_out, installed_us) VALUES ('b1', 1, 'gw', 'site', 'net', 1, 1, 0, 7, 'tunnel', 1, 3221225473, 3489660929, 20, 128, NULL, 31, 1, 'userspace', 'packet', 'eth0', 0, '10.1.0.0/16', '10.2.0.0/16', 3300, 1073741824, NULL, 3600, NULL, 9223372036854775807, 0, 0, 0, 0, 0, 0, 0, 0, 1790000002000000) ON CONFLICT (boot_id, unique_id) DO NOTHING;
UPDATE child_sa SET offload = 'packet', device = 'eth0', bytes_in = GREATEST(bytes_in, 1000), packets_in = GREATEST(packets_in, 10), bytes_out = GREATEST(bytes_out, 1000), packets_out = GREATEST(packets_out, 10), total_bytes_in = GREATEST(total_bytes_in, 1000), total_packets_in = GREATEST(total_packets_in, 10), total_bytes_out = GREATEST(total_bytes_out, 1000), total_packets_out = GREATEST(total_packets_out, 10), removed_us = 1790000003000000, cause = 'rekeyed', cause_text = 'replaced by {2}' WHERE boot_id = 'b1' AND unique_id = 1 AND removed_us IS NULL;
SELECT lineage FROM child_sa WHERE boot_id = 'b1' AND unique_id = 1;
INSERT INTO child_sa (boot_id, unique_id, gateway, connection, child, ike_unique_id, lineage, generation, reqid, mode, encap, spi_in, spi_out, encryption, key_bits, integrity, key_exchange, esn, backend, offload, device, simulated, local_ts, remote_ts, soft_seconds, soft_bytes, soft_packets, hard_seconds, hard_bytes, hard_packets, bytes_in, packets_in, bytes_out, packets_out, total_bytes_in, total_packets_in, total_bytes_out, total_packets_out, installed_us) VALUES ('b1', 2, 'gw', 'site', 'net', 1, 1, 1, 7, 'tunnel', 1, 3221225474, 3489660930, 20, 128, NULL, 31, 1, 'userspace', 'packet', 'eth0', 0, '10.1.0.0/16', '10.2.0.0/16', 3300, 1073741824, NULL, 3600, NULL, 9223372036854775807, 0, 0, 0, 0, 1000, 10, 1000, 10, 1790000003000000) ON CONFLICT (boot_id, unique_id) DO NOTHING;
UPDATE child_sa SET offload = 'packet', device = 'eth0', bytes_in = GREATEST(bytes_in, 1000), packets_in = GREATEST(packets_in, 10), bytes_out = GREATEST(bytes_out, 1000), packets_out = GREATEST(packets_out, 10), total_bytes_in = GREATEST(total_bytes_in, 2000), total_packets_in = GREATEST(total_packets_in, 20), total_bytes_out = GREATEST(total_bytes_out, 2000), total_packets_out = GREATEST(total_packets_out, 20), removed_us = 1790000004000000, cause = 'rekeyed', cause_text = 'replaced by {3}' WHERE boot_id = 'b1' AND unique_id = 2 AND removed_us IS NULL;
SELECT lineage FROM child_sa WHERE boot_id = 'b1' AND unique_id = 2;
INSERT INTO child_sa (boot_id, unique_id, gateway, connection, child, ike_unique_id, lineage, generation, reqid, mode, encap, spi_in, spi_out, encryption, key_bits, integrity, key_exchange, esn, backend, offload, device, simulated, local_ts, remote_ts, soft_seconds, soft_bytes, soft_packets, hard_seconds, hard_bytes, hard_packets, bytes_in, packets_in, bytes_out, packets_out, total_bytes_in, total_packets_in, total_bytes_out, total_packets_out, installed_us) VALUES ('b1', 3, 'gw', 'site', 'net', 1, 1, 2, 7, 'tunnel', 1, 3221225475, 3489660931, 20, 128, NULL, 31, 1, 'userspace', 'packet', 'eth0', 0, '10.1.0.0/16', '10.2.0.0/16', 3300, 1073741824, NULL, 3600, NULL, 9223372036854775807, 0, 0, 0, 0, 2000, 20, 2000, 20, 1790000004000000) ON CONFLICT (boot_id, unique_id) DO NOTHING;
UPDATE child_sa SET offload = 'packet', device = 'eth0', bytes_in = GREATEST(bytes_in, 1000), packets_in = GREATEST(packets_in, 10), bytes_out = GREATEST(bytes_out, 1000), packets_out = GREATEST(packets_out, 10), total_bytes_in = GREATEST(total_bytes_in, 3000), total_packets_in = GREATEST(total_packets_in, 30), total_bytes_out = GREATEST(total_bytes_out, 3000), total_packets_out = GREATEST(total_packets_out, 30), removed_us = 1790000005000000, cause = 'operator', cause_text = 'terminated by command' WHERE boot_id = 'b1' AND unique_id = 3 AND removed_us IS NULL;
UPDATE ike_sa SET closed_us = 1790000006000000, cause = 'operator', cause_text = 'terminated by command' WHERE boot_id = 'b1' AND unique_id = 1 AND closed_us IS NULL;
INSERT INTO event (ulid, boot_id, seq, gateway, time_us, type, connection, child, data) VALUES ('01M3250VZ8A38D1M6GT38D1M6G', 'b1', 1, 'gw', 1790000001000000, 'ike-sa.established', 'site', NULL, '{"v":1,"ulid":"01M3250VZ8A38D1M6GT38D1M6G","time":"2026-09-21T14:13:21.000Z","gateway":"gw","boot_id":"b1","seq":1,"type":"ike-sa.established","ike":{"connection":"site","unique_id":1,"state":"ESTABLISHED","local":"192.0.2.1:4500","remote":"192.0.2.2:4500","local_id":{"Fqdn":"a.example"},"remote_id":{"Fqdn":"b.example"},"initiator":true,"initiator_spi":18364758544493064720,"responder_spi":1,"nat_local":false,"nat_remote":true,"nat_fake":false,"algorithms":{"encryption":20,"key_bits":256,"integrity":null,"prf":5,"key_exchange":31},"established_seconds":0,"rekey_seconds":null,"reauth_seconds":null,"heard_seconds":0,"repeats":0,"waiting_seconds":null,"tasks_queued":[],"tasks_active":[],"generation":0,"if_id_in":0,"if_id_out":0,"children":[]}}'), ('01M3250WYGA38D1M6GT38D1M6G', 'b1', 2, 'gw', 1790000002000000, 'child-sa.installed', 'site', 'net', '{"v":1,"ulid":"01M3250WYGA38D1M6GT38D1M6G","time":"2026-09-21T14:13:22.000Z","gateway":"gw","boot_id":"b1","seq":2,"type":"child-sa.installed","ike":{"connection":"site","unique_id":1,"state":"ESTABLISHED","local":"192.0.2.1:4500","remote":"192.0.2.2:4500","local_id":{"Fqdn":"a.example"},"remote_id":{"Fqdn":"b.example"},"initiator":true,"initiator_spi":18364758544493064720,"responder_spi":1,"nat_local":false,"nat_remote":true,"nat_fake":false,"algorithms":{"encryption":20,"key_bits":256,"integrity":null,"prf":5,"key_exchange":31},"established_seconds":0,"rekey_seconds":null,"reauth_seconds":null,"heard_seconds":0,"repeats":0,"waiting_seconds":null,"tasks_queued":[],"tasks_active":[],"generation":0,"if_id_in":0,"if_id_out":0,"children":[]},"child":{"name":"net","unique_id":1,"reqid":7,"state":"INSTALLED","mode":"tunnel","encap":true,"spi_in":3221225473,"spi_out":3489660929,"algorithms":{"encryption":20,"key_bits":128,"integrity":null,"key_exchange":31,"esn":true},"traffic_in":{"bytes":0,"packets":0,"idle_seconds":null},"traffic_out":{"bytes":0,"packets":0,"idle_seconds":null},"total_in":{"bytes":0,"packets":0},"total_out":{"bytes":0,"packets":0},"limits":{"soft":{"time":{"secs":3300,"nanos":0},"bytes":1073741824,"packets":null},"hard":{"time":{"secs":3600,"nanos":0},"bytes":null,"packets":18446744073709551615}},"rekey_seconds":null,"life_seconds":null,"installed_seconds":null,"local_ts":[{"addresses":{"start":"10.1.0.0","end":"10.1.255.255"},"protocol":0,"ports":{"start":0,"end":65535}}],"remote_ts":[{"addresses":{"start":"10.2.0.0","end":"10.2.255.255"},"protocol":0,"ports":{"start":0,"end":65535}}],"backend":"userspace","generation":0,"offload":{"mode":"packet","device":"eth0","simulated":false},"tags":{"mark_in":null,"mark_out":null,"set_mark_in":null,"set_mark_out":null,"if_id_in":0,"if_id_out":0}}}'), ('01M3250XXRA38D1M6GT38D1M6G', 'b1', 3, 'gw', 1790000003000000, 'child-sa.rekeyed', 'site', 'net', '{"v":1,"ulid":"01M3250XXRA38D1M6GT38D1M6G","time":"2026-09-21T14:13:23.000Z","gateway":"gw","boot_id":"b1","seq":3,"type":"child-sa.rekeyed","ike":{"connection":"site","unique_id":1,"state":"ESTABLISHED","local":"192.0.2.1:4500","remote":"192.0.2.2:4500","local_id":{"Fqdn":"a.example"},"remote_id":{"Fqdn":"b.example"},"initiator":true,"initiator_spi":18364758544493064720,"responder_spi":1,"nat_local":false,"nat_remote":true,"nat_fake":false,"algorithms":{"encryption":20,"key_bits":256,"integrity":null,"prf":5,"key_exchange":31},"established_seconds":0,"rekey_seconds":null,"reauth_seconds":null,"heard_seconds":0,"repeats":0,"waiting_seconds":null,"tasks_queued":[],"tasks_active":[],"generation":0,"if_id_in":0,"if_id_out":0,"children":[]},"old":{"name":"net","unique_id":1,"reqid":7,"state":"INSTALLED","mode":"tunnel","encap":true,"spi_in":3221225473,"spi_out":3489660929,"algorithms":{"encryption":20,"key_bits":128,"integrity":null,"key_exchange":31,"esn":true},"traffic_in":{"bytes":1000,"packets":10,"idle_seconds":null},"traffic_out":{"bytes":1000,"packets":10,"idle_seconds":null},"total_in":{"bytes":1000,"packets":10},"total_out":{"bytes":1000,"packets":10},"limits":{"soft":{"time":{"secs":3300,"nanos":0},"bytes":1073741824,"packets":null},"hard":{"time":{"secs":3600,"nanos":0},"bytes":null,"packets":18446744073709551615}},"rekey_seconds":null,"life_seconds":null,"installed_seconds":null,"local_ts":[{"addresses":{"start":"10.1.0.0","end":"10.1.255.255"},"protocol":0,"ports":{"start":0,"end":65535}}],"remote_ts":[{"addresses":{"start":"10.2.0.0","end":"10.2.255.255"},"protocol":0,"ports":{"start":0,"end":65535}}],"backend":"userspace","generation":0,"offload":{"mode":"packet","device":"eth0","simulated":false},"tags":{"mark_in":null,"mark_out":null,"set_mark_in":null,"set_mark_out":null,"if_id_in":0,"if_id_out":0}},"new":{"name":"net","unique_id":2,"reqid":7,"state":"INSTALLED","mode":"tunnel","encap":true,"spi_in":3221225474,"spi_out":3489660930,"algorithms":{"encryption":20,"key_bits":128,"integrity":null,"key_exchange":31,"esn":true},"traffic_in":{"bytes":0,"packets":0,"idle_seconds":null},"traffic_out":{"bytes":0,"packets":0,"idle_seconds":null},"total_in":{"bytes":1000,"packets":10},"total_out":{"bytes":1000,"packets":10},"limits":{"soft":{"time":{"secs":3300,"nanos":0},"bytes":1073741824,"packets":null},"hard":{"time":{"secs":3600,"nanos":0},"bytes":null,"packets":18446744073709551615}},"rekey_seconds":null,"life_seconds":null,"installed_seconds":null,"local_ts":[{"addresses":{"start":"10.1.0.0","end":"10.1.255.255"},"protocol":0,"ports":{"start":0,"end":65535}}],"remote_ts":[{"addresses":{"start":"10.2.0.0","end":"10.2.255.255"},"protocol":0,"ports":{"start":0,"end":65535}}],"backend":"userspace","generation":1,"offload":{"mode":"packet","device":"eth0","simulated":false},"tags":{"mark_in":null,"mark_out":null,"set_mark_in":null,"set_mark_out":null,"if_id_in":0,"if_id_out":0}}}'), ('01M3250YX0A38D1M6GT38D1M6G', 'b1', 4, 'gw', 1790000004000000, 'child-sa.rekeyed', 'site', 'net', '{"v":1,"ulid":"01M3250YX0A38D1M6GT38D1M6G","time":"2026-09-21T14:13:24.000Z","gateway":"gw","boot_id":"b1","seq":4,"type":"child-sa.rekeyed","ike":{"connection":"site","unique_id":1,"state":"ESTABLISHED","local":"192.0.2.1:4500","remote":"192.0.2.2:4500","local_id":{"Fqdn":"a.example"},"remote_id":{"Fqdn":"b.example"},"initiator":true,"initiator_spi":18364758544493064720,"responder_spi":1,"nat_local":false,"nat_remote":true,"nat_fake":false,"algorithms":{"encryption":20,"key_bits":256,"integrity":null,"prf":5,"key_exchange":31},"established_seconds":0,"rekey_seconds":null,"reauth_seconds":null,"heard_seconds":0,"repeats":0,"waiting_seconds":null,"tasks_queued":[],"tasks_active":[],"generation":0,"if_id_in":0,"if_id_out":0,"children":[]},"old":{"name":"net","unique_id":2,"reqid":7,"state":"INSTALLED","mode":"tunnel","encap":true,"spi_in":3221225474,"spi_out":3489660930,"algorithms":{"encryption":20,"key_bits":128,"integrity":null,"key_exchange":31,"esn":true},"traffic_in":{"bytes":1000,"packets":10,"idle_seconds":null},"traffic_out":{"bytes":1000,"packets":10,"idle_seconds":null},"total_in":{"bytes":2000,"packets":20},"total_out":{"bytes":2000,"packets":20},"limits":{"soft":{"time":{"secs":3300,"nanos":0},"bytes":1073741824,"packets":null},"hard":{"time":{"secs":3600,"nanos":0},"bytes":null,"packets":18446744073709551615}},"rekey_seconds":null,"life_seconds":null,"installed_seconds":null,"local_ts":[{"addresses":{"start":"10.1.0.0","end":"10.1.255.255"},"protocol":0,"ports":{"start":0,"end":65535}}],"remote_ts":[{"addresses":{"start":"10.2.0.0","end":"10.2.255.255"},"protocol":0,"ports":{"start":0,"end":65535}}],"backend":"userspace","generation":1,"offload":{"mode":"packet","device":"eth0","simulated":false},"tags":{"mark_in":null,"mark_out":null,"set_mark_in":null,"set_mark_out":null,"if_id_in":0,"if_id_out":0}},"new":{"name":"net","unique_id":3,"reqid":7,"state":"INSTALLED","mode":"tunnel","encap":true,"spi_in":3221225475,"spi_out":3489660931,"algorithms":{"encryption":20,"key_bits":128,"integrity":null,"key_exchange":31,"esn":true},"traffic_in":{"bytes":0,"packets":0,"idle_seconds":null},"traffic_out":{"bytes":0,"packets":0,"idle_seconds":null},"total_in":{"bytes":2000,"packets":20},"total_out":{"bytes":2000,"packets":20},"limits":{"soft":{"time":{"secs":3300,"nanos":0},"bytes":1073741824,"packets":null},"hard":{"time":{"secs":3600,"nanos":0},"bytes":null,"packets":18446744073709551615}},"rekey_seconds":null,"life_seconds":null,"installed_seconds":null,"local_ts":[{"addresses":{"start":"10.1.0.0","end":"10.1.255.255"},"protocol":0,"ports":{"start":0,"end":65535}}],"remote_ts":[{"addresses":{"start":"10.2.0.0","end":"10.2.255.255"},"protocol":0,"ports":{"start":0,"end":65535}}],"backend":"userspace","generation":2,"offload":{"mode":"packet","device":"eth0","simulated":false},"tags":{"mark_in":null,"mark_out":null,"set_mark_in":null,"set_mark_out":null,"if_id_in":0,"if_id_out":0}}}'), ('01M3250ZW8A38D1M6GT38D1M6G', 'b1', 5, 'gw', 1790000005000000, 'child-sa.closed', 'site', 'net', '{"v":1,"ulid":"01M3250ZW8A38D1M6GT38D1M6G","time":"2026-09-21T14:13:25.000Z","gateway":"gw","boot_id":"b1","seq":5,"type":"child-sa.closed","ike":{"connection":"site","unique_id":1,"state":"ESTABLISHED","local":"192.0.2.1:4500","remote":"192.0.2.2:4500","local_id":{"Fqdn":"a.example"},"remote_id":{"Fqdn":"b.example"},"initiator":true,"initiator_spi":18364758544493064720,"responder_spi":1,"nat_local":false,"nat_remote":true,"nat_fake":false,"algorithms":{"encryption":20,"key_bits":256,"integrity":null,"prf":5,"key_exchange":31},"established_seconds":0,"rekey_seconds":null,"reauth_seconds":null,"heard_seconds":0,"repeats":0,"waiting_seconds":null,"tasks_queued":[],"tasks_active":[],"generation":0,"if_id_in":0,"if_id_out":0,"children":[]},"child":{"name":"net","unique_id":3,"reqid":7,"state":"INSTALLED","mode":"tunnel","encap":true,"spi_in":3221225475,"spi_out":3489660931,"algorithms":{"encryption":20,"key_bits":128,"integrity":null,"key_exchange":31,"esn":true},"traffic_in":{"bytes":1000,"packets":10,"idle_seconds":null},"traffic_out":{"bytes":1000,"packets":10,"idle_seconds":null},"total_in":{"bytes":3000,"packets":30},"total_out":{"bytes":3000,"packets":30},"limits":{"soft":{"time":{"secs":3300,"nanos":0},"bytes":1073741824,"packets":null},"hard":{"time":{"secs":3600,"nanos":0},"bytes":null,"packets":18446744073709551615}},"rekey_seconds":null,"life_seconds":null,"installed_seconds":null,"local_ts":[{"addresses":{"start":"10.1.0.0","end":"10.1.255.255"},"protocol":0,"ports":{"start":0,"end":65535}}],"remote_ts":[{"addresses":{"start":"10.2.0.0","end":"10.2.255.255"},"protocol":0,"ports":{"start":0,"end":65535}}],"backend":"userspace","generation":2,"offload":{"mode":"packet","device":"eth0","simulated":false},"tags":{"mark_in":null,"mark_out":null,"set_mark_in":null,"set_mark_out":null,"if_id_in":0,"if_id_out":0}},"cause":{"kind":"operator","text":"terminated by command"}}'), ('01M32510VGA38D1M6GT38D1M6G', 'b1', 6, 'gw', 1790000006000000, 'ike-sa.closed', 'site', NULL, '{"v":1,"ulid":"01M32510VGA38D1M6GT38D1M6G","time":"2026-09-21T14:13:26.000Z","gateway":"gw","boot_id":"b1","seq":6,"type":"ike-sa.closed","ike":{"connection":"site","unique_id":1,"state":"ESTABLISHED","local":"192.0.2.1:4500","remote":"192.0.2.2:4500","local_id":{"Fqdn":"a.example"},"remote_id":{"Fqdn":"b.example"},"initiator":true,"initiator_spi":18364758544493064720,"responder_spi":1,"nat_local":false,"nat_remote":true,"nat_fake":false,"algorithms":{"encryption":20,"key_bits":256,"integrity":null,"prf":5,"key_exchange":31},"established_seconds":0,"rekey_seconds":null,"reauth_seconds":null,"heard_seconds":0,"repeats":0,"waiting_seconds":null,"tasks_queued":[],"tasks_active":[],"generation":0,"if_id_in":0,"if_id_out":0,"children":[]},"cause":{"kind":"operator","text":"terminated by command"}}');
INSERT INTO delivery (ulid, endpoint, gateway, state, due_us) VALUES ('01M3250VZ8A38D1M6GT38D1M6G', 'all', 'gw', 'waiting', 1790000001000000), ('01M3250WYGA38D1M6GT38D1M6G', 'all', 'gw', 'waiting', 1790000002000000), ('01M3250XXRA38D1M6GT38D1M6G', 'all', 'gw', 'waiting', 1790000003000000), ('01M3250YX0A38D1M6GT38D1M6G', 'all', 'gw', 'waiting', 1790000004000000), ('01M3250ZW8A38D1M6GT38D1M6G', 'all', 'gw', 'waiting', 1790000005000000), ('01M3250ZW8A38D1M6GT38D1M6G', 'ends', 'gw', 'waiting', 1790000005000000), ('01M32510VGA38D1M6GT38D1M6G', 'all', 'gw', 'waiting', 1790000006000000);
UPDATE boot SET last_seq = 6 WHERE boot_id = 'b1';
COMMIT;
BEGIN;
INSERT INTO boot (boot_id, gateway, started_us) VALUES ('b1', 'gw', 1790000007000000) ON CONFLICT (boot_id) DO NOTHING;
SELECT last_seq FROM boot WHERE boot_id = 'b1';
INSERT INTO ike_sa (boot_id, unique_id, gateway, connection, generation, previous, initiator, initiator_spi, responder_spi, local_address, remote_address, local_id, remote_id, nat_local, nat_remote, encryption, key_bits, integrity, prf, key_exchange, established_us) VALUES ('b1', 11, 'gw', 'branch', 0, NULL, 1, 'fedcba9876543210', '000000000000000b', '192.0.2.1:4500', '192.0.2.2:4500', 'a.example', 'b.example', 0, 1, 20, 256, NULL, 5, 31, 1790000007000000) ON CONFLICT (boot_id, unique_id) DO NOTHING;
INSERT INTO child_sa (boot_id, unique_id, gateway, connection, child, ike_unique_id, lineage, generation, reqid, mode, encap, spi_in, spi_out, encryption, key_bits, integrity, key_exchange, esn, backend, offload, device, simulated, local_ts, remote_ts, soft_seconds, soft_bytes, soft_packets, hard_seconds, hard_bytes, hard_packets, bytes_in, packets_in, bytes_out, packets_out, total_bytes_in, total_packets_in, total_bytes_out, total_packets_out, installed_us) VALUES ('b1', 11, 'gw', 'branch', 'voice', 11, 11, 0, 7, 'tunnel', 1, 3221225483, 3489660939, 20, 128, NULL, 31, 1, 'userspace', 'packet', 'eth0', 0, '10.1.0.0/16', '10.2.0.0/16', 3300, 1073741824, NULL, 3600, NULL, 9223372036854775807, 0, 0, 0, 0, 0, 0, 0, 0, 1790000008000000) ON CONFLICT (boot_id, unique_id) DO NOTHING;
INSERT INTO event (ulid, boot_id, seq, gateway, time_us, type, connection, child, data) VALUES ('01M32511TRA38D1M6GT38D1M6G', 'b1', 7, 'gw', 1790000007000000, 'ike-sa.established', 'branch', NULL, '{"v":1,"ulid":"01M32511TRA38D1M6GT38D1M6G","time":"2026-09-21T14:13:27.000Z","gateway":"gw","boot_id":"b1","seq":7,"type":"ike-sa.established","ike":{"connection":"branch","unique_id":11,"state":"ESTABLISHED","local":"192.0.2.1:4500","remote":"192.0.2.2:4500","local_id":{"Fqdn":"a.example"},"remote_id":{"Fqdn":"b.example"},"initiator":true,"initiator_spi":18364758544493064720,"responder_spi":11,"nat_local":false,"nat_remote":true,"nat_fake":false,"algorithms":{"encryption":20,"key_bits":256,"integrity":null,"prf":5,"key_exchange":31},"established_seconds":0,"rekey_seconds":null,"reauth_seconds":null,"heard_seconds":0,"repeats":0,"waiting_seconds":null,"tasks_queued":[],"tasks_active":[],"generation":0,"if_id_in":0,"if_id_out":0,"children":[]}}'), ('01M32512T0A38D1M6GT38D1M6G', 'b1', 8, 'gw', 1790000008000000, 'child-sa.installed', 'branch', 'voice', '{"v":1,"ulid":"01M32512T0A38D1M6GT38D1M6G","time":"2026-09-21T14:13:28.000Z","gateway":"gw","boot_id":"b1","seq":8,"type":"child-sa.installed","ike":{"connection":"branch","unique_id":11,"state":"ESTABLISHED","local":"192.0.2.1:4500","remote":"192.0.2.2:4500","local_id":{"Fqdn":"a.example"},"remote_id":{"Fqdn":"b.example"},"initiator":true,"initiator_spi":18364758544493064720,"responder_spi":11,"nat_local":false,"nat_remote":true,"nat_fake":false,"algorithms":{"encryption":20,"key_bits":256,"integrity":null,"prf":5,"key_exchange":31},"established_seconds":0,"rekey_seconds":null,"reauth_seconds":null,"heard_seconds":0,"repeats":0,"waiting_seconds":null,"tasks_queued":[],"tasks_active":[],"generation":0,"if_id_in":0,"if_id_out":0,"children":[]},"child":{"name":"voice","unique_id":11,"reqid":7,"state":"INSTALLED","mode":"tunnel","encap":true,"spi_in":3221225483,"spi_out":3489660939,"algorithms":{"encryption":20,"key_bits":128,"integrity":null,"key_exchange":31,"esn":true},"traffic_in":{"bytes":0,"packets":0,"idle_seconds":null},"traffic_out":{"bytes":0,"packets":0,"idle_seconds":null},"total_in":{"bytes":0,"packets":0},"total_out":{"bytes":0,"packets":0},"limits":{"soft":{"time":{"secs":3300,"nanos":0},"bytes":1073741824,"packets":null},"hard":{"time":{"secs":3600,"nanos":0},"bytes":null,"packets":18446744073709551615}},"rekey_seconds":null,"life_seconds":null,"installed_seconds":null,"local_ts":[{"addresses":{"start":"10.1.0.0","end":"10.1.255.255"},"protocol":0,"ports":{"start":0,"end":65535}}],"remote_ts":[{"addresses":{"start":"10.2.0.0","end":"10.2.255.255"},"protocol":0,"ports":{"start":0,"end":65535}}],"backend":"userspace","generation":0,"offload":{"mode":"packet","device":"eth0","simulated":false},"tags":{"mark_in":null,"mark_out":null,"set_mark_in":null,"set_mark_out":null,"if_id_in":0,"if_id_out":0}}}'), ('01M32515QRA38D1M6GT38D1M6G', 'b1', 11, 'gw', 1790000011000000, 'config.loaded', 'it''s', NULL, '{"v":1,"ulid":"01M32515QRA38D1M6GT38D1M6G","time":"2026-09-21T14:13:31.000Z","gateway":"gw","boot_id":"b1","seq":11,"type":"config.loaded","connection":"it''s"}');
INSERT INTO delivery (ulid, endpoint, gateway, state, due_us) VALUES ('01M32511TRA38D1M6GT38D1M6G', 'all', 'gw', 'waiting', 1790000007000000), ('01M32512T0A38D1M6GT38D1M6G', 'all', 'gw', 'waiting', 1790000008000000), ('01M32515QRA38D1M6GT38D1M6G', 'all', 'gw', 'waiting', 1790000011000000);
UPDATE boot SET last_seq = 11 WHERE boot_id = 'b1';
COMMIT;
BEGIN;
SELECT delivery.ulid, delivery.attempts, event.type, event.time_us, event.data FROM delivery JOIN event ON event.ulid = delivery.ulid WHERE delivery.state = 'waiting' AND delivery.gateway = 'gw' AND delivery.endpoint = 'all' AND delivery.due_us <= 1790000100000000 ORDER BY delivery.due_us, delivery.ulid LIMIT 3 FOR UPDATE OF delivery SKIP LOCKED;
UPDATE delivery SET due_us = 1790000130000000 WHERE ulid = '01M3250VZ8A38D1M6GT38D1M6G' AND endpoint = 'all';
UPDATE delivery SET due_us = 1790000130000000 WHERE ulid = '01M3250WYGA38D1M6GT38D1M6G' AND endpoint = 'all';
UPDATE delivery SET due_us = 1790000130000000 WHERE ulid = '01M3250XXRA38D1M6GT38D1M6G' AND endpoint = 'all';
COMMIT;
UPDATE delivery SET attempts = attempts + 1, state = 'delivered', last_error = NULL, delivered_us = 1790000100000000 WHERE ulid = '01M3250VZ8A38D1M6GT38D1M6G' AND endpoint = 'all' AND state = 'waiting';
UPDATE delivery SET attempts = attempts + 1, due_us = 1790000160000000, last_error = '503' WHERE ulid = '01M3250WYGA38D1M6GT38D1M6G' AND endpoint = 'all' AND state = 'waiting';
UPDATE delivery SET attempts = attempts + 1, state = 'dead', last_error = '404' WHERE ulid = '01M3250XXRA38D1M6GT38D1M6G' AND endpoint = 'all' AND state = 'waiting';
