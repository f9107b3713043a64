-- Events by the kind of their cause. Taken from the text: reading JSON would cost each event that is written more, and refuse some.
CREATE INDEX event_cause ON event (gateway, split_part(split_part(data, '"cause":{"kind":"', 2), '"', 1), time_us)
    WHERE strpos(data, '"cause":{"kind":"') > 0
