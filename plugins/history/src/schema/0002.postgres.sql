-- Writers are kept out first, so that the totals begin with all that is there: every writer begins with its run. One that forgets events has them
-- locked when it looks for what waits to be delivered: before the deliveries, or it and this step would wait for each other.
LOCK TABLE boot, child_sa, ike_sa, event IN SHARE ROW EXCLUSIVE MODE
----
-- Nor may one that claims deliveries be in the middle of it, for the same reason; the events it only reads.
LOCK TABLE delivery IN ACCESS EXCLUSIVE MODE
----
-- What keeps the totals, once for each statement. The functions run with the rights of whoever took this step: a gateway that writes under
-- another name need not have any on the tables of totals.
CREATE FUNCTION cygnet_child_total_up() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO child_total AS total
        (gateway, connection, child, generations, bytes_in, packets_in, bytes_out, packets_out, first_us, longest_us)
    SELECT gateway, connection, child, COUNT(*), SUM(bytes_in), SUM(packets_in), SUM(bytes_out), SUM(packets_out), MIN(installed_us),
        MAX(COALESCE(removed_us - installed_us, 0))
    FROM more GROUP BY gateway, connection, child ORDER BY gateway, connection, child
    ON CONFLICT (gateway, connection, child) DO UPDATE SET
        generations = total.generations + excluded.generations,
        bytes_in    = total.bytes_in + excluded.bytes_in,
        packets_in  = total.packets_in + excluded.packets_in,
        bytes_out   = total.bytes_out + excluded.bytes_out,
        packets_out = total.packets_out + excluded.packets_out,
        first_us    = LEAST(total.first_us, excluded.first_us),
        longest_us  = GREATEST(total.longest_us, excluded.longest_us);
    RETURN NULL;
END $$
----
CREATE TRIGGER child_total_up AFTER INSERT ON child_sa
    REFERENCING NEW TABLE AS more FOR EACH STATEMENT EXECUTE FUNCTION cygnet_child_total_up()
----
CREATE FUNCTION cygnet_child_total_told() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE child_total AS total SET
        bytes_in    = total.bytes_in + told.bytes_in,
        packets_in  = total.packets_in + told.packets_in,
        bytes_out   = total.bytes_out + told.bytes_out,
        packets_out = total.packets_out + told.packets_out,
        longest_us  = GREATEST(total.longest_us, told.longest_us)
    FROM (
        SELECT after.gateway, after.connection, after.child,
            SUM(after.bytes_in - before.bytes_in) AS bytes_in, SUM(after.packets_in - before.packets_in) AS packets_in,
            SUM(after.bytes_out - before.bytes_out) AS bytes_out, SUM(after.packets_out - before.packets_out) AS packets_out,
            MAX(COALESCE(after.removed_us - after.installed_us, 0)) AS longest_us
        FROM after JOIN before ON after.boot_id = before.boot_id AND after.unique_id = before.unique_id
        GROUP BY after.gateway, after.connection, after.child
    ) AS told
    WHERE total.gateway = told.gateway AND total.connection = told.connection AND total.child = told.child;
    RETURN NULL;
END $$
----
CREATE TRIGGER child_total_told AFTER UPDATE ON child_sa
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION cygnet_child_total_told()
----
CREATE FUNCTION cygnet_connection_total_up() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO connection_total AS total (gateway, connection, ike_sas, first_us, longest_us)
    SELECT gateway, connection, COUNT(*), MIN(established_us), MAX(COALESCE(closed_us - established_us, 0))
    FROM more GROUP BY gateway, connection ORDER BY gateway, connection
    ON CONFLICT (gateway, connection) DO UPDATE SET
        ike_sas    = total.ike_sas + excluded.ike_sas,
        first_us   = LEAST(total.first_us, excluded.first_us),
        longest_us = GREATEST(total.longest_us, excluded.longest_us);
    RETURN NULL;
END $$
----
CREATE TRIGGER connection_total_up AFTER INSERT ON ike_sa
    REFERENCING NEW TABLE AS more FOR EACH STATEMENT EXECUTE FUNCTION cygnet_connection_total_up()
----
CREATE FUNCTION cygnet_connection_total_told() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE connection_total AS total SET longest_us = GREATEST(total.longest_us, told.longest_us)
    FROM (
        SELECT gateway, connection, MAX(closed_us - established_us) AS longest_us
        FROM after WHERE closed_us IS NOT NULL GROUP BY gateway, connection
    ) AS told
    WHERE total.gateway = told.gateway AND total.connection = told.connection AND total.longest_us < told.longest_us;
    RETURN NULL;
END $$
----
CREATE TRIGGER connection_total_told AFTER UPDATE ON ike_sa
    REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION cygnet_connection_total_told()
