-- What keeps the totals, once for each row.
CREATE TRIGGER child_total_up AFTER INSERT ON child_sa
BEGIN
    INSERT INTO child_total (gateway, connection, child, generations, bytes_in, packets_in, bytes_out, packets_out, first_us, longest_us)
    VALUES (NEW.gateway, NEW.connection, NEW.child, 1, NEW.bytes_in, NEW.packets_in, NEW.bytes_out, NEW.packets_out, NEW.installed_us,
        COALESCE(NEW.removed_us - NEW.installed_us, 0))
    ON CONFLICT (gateway, connection, child) DO UPDATE SET
        generations = generations + 1,
        bytes_in    = bytes_in + excluded.bytes_in,
        packets_in  = packets_in + excluded.packets_in,
        bytes_out   = bytes_out + excluded.bytes_out,
        packets_out = packets_out + excluded.packets_out,
        first_us    = MIN(first_us, excluded.first_us),
        longest_us  = MAX(longest_us, excluded.longest_us);
END
----
CREATE TRIGGER child_total_told AFTER UPDATE OF bytes_in, packets_in, bytes_out, packets_out, removed_us ON child_sa
BEGIN
    UPDATE child_total SET
        bytes_in    = bytes_in + NEW.bytes_in - OLD.bytes_in,
        packets_in  = packets_in + NEW.packets_in - OLD.packets_in,
        bytes_out   = bytes_out + NEW.bytes_out - OLD.bytes_out,
        packets_out = packets_out + NEW.packets_out - OLD.packets_out,
        longest_us  = MAX(longest_us, COALESCE(NEW.removed_us - NEW.installed_us, 0))
    WHERE gateway = NEW.gateway AND connection = NEW.connection AND child = NEW.child;
END
----
CREATE TRIGGER connection_total_up AFTER INSERT ON ike_sa
BEGIN
    INSERT INTO connection_total (gateway, connection, ike_sas, first_us, longest_us)
    VALUES (NEW.gateway, NEW.connection, 1, NEW.established_us, COALESCE(NEW.closed_us - NEW.established_us, 0))
    ON CONFLICT (gateway, connection) DO UPDATE SET
        ike_sas    = ike_sas + 1,
        first_us   = MIN(first_us, excluded.first_us),
        longest_us = MAX(longest_us, excluded.longest_us);
END
----
CREATE TRIGGER connection_total_told AFTER UPDATE OF closed_us ON ike_sa
BEGIN
    UPDATE connection_total SET longest_us = MAX(longest_us, COALESCE(NEW.closed_us - NEW.established_us, 0))
    WHERE gateway = NEW.gateway AND connection = NEW.connection;
END
