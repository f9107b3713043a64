-- What SQLite's planner is to think of the tables. It measures nothing by itself, and takes the column that all rows have in common for the
-- one that tells them apart; so it is told of a large history: rows, and how many of them have the first, the first two ... columns alike.
ANALYZE
----
DELETE FROM sqlite_stat1
----
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('child_sa', 'sqlite_autoindex_child_sa_1', '10000000 10000 1'),
    ('child_sa', 'child_sa_time', '10000000 10000000 10'),
    ('child_sa', 'child_sa_child', '10000000 10000000 10000 1'),
    ('child_sa', 'child_sa_connection', '10000000 10000000 10000 10000 1'),
    ('child_sa', 'child_sa_of', '10000000 10000000 10000 1'),
    ('child_sa', 'child_sa_open', '1000 1000 1 1'),
    ('child_sa', 'child_sa_removed', '10000000 10000000 10'),
    ('ike_sa', 'sqlite_autoindex_ike_sa_1', '10000000 10000 1'),
    ('ike_sa', 'ike_sa_time', '10000000 10000000 10'),
    ('ike_sa', 'ike_sa_connection', '10000000 10000000 10000 1'),
    ('ike_sa', 'ike_sa_open', '1000 1000'),
    ('ike_sa', 'ike_sa_closed', '10000000 10000000 10'),
    ('event', 'sqlite_autoindex_event_1', '10000000 1'),
    ('event', 'sqlite_autoindex_event_2', '10000000 10000 1'),
    ('event', 'event_time', '10000000 10000000 10'),
    ('event', 'event_connection', '10000000 10000000 10000 1'),
    ('event', 'event_child', '10000000 10000000 10000 1'),
    ('event', 'event_type', '10000000 10000000 500000 5'),
    ('delivery', 'sqlite_autoindex_delivery_1', '10000000 2 1'),
    ('delivery', 'delivery_due', '10000 10000 5000 2 1'),
    ('delivery', 'delivery_dead', '1000 1000 500'),
    ('delivery', 'delivery_list', '10000000 10000000 5000000 1000000 1'),
    ('child_total', 'sqlite_autoindex_child_total_1', '1000 1000 1 1'),
    ('connection_total', 'sqlite_autoindex_connection_total_1', '1000 1000 1')
----
ANALYZE sqlite_schema
