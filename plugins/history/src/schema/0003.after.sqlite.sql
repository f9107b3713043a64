-- Events by the kind of their cause. Only what has one is read as JSON.
CREATE INDEX event_cause ON event (gateway, json_extract(data, '$.cause.kind'), time_us)
    WHERE instr(data, '"cause":{"kind":"') > 0
----
-- What SQLite's planner is to think of the new indices: see the step before.
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('child_sa', 'child_sa_cause', '100000 100000 10000 1'),
    ('ike_sa', 'ike_sa_cause', '100000 100000 10000 1'),
    ('event', 'event_cause', '1000000 1000000 50000 1')
----
ANALYZE sqlite_schema
