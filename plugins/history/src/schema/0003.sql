-- Where a run's daemon lives.
ALTER TABLE boot ADD COLUMN host TEXT;
ALTER TABLE boot ADD COLUMN pid BIGINT;

-- Since when a delivery's receiver has not taken it; nothing as long as nobody tried.
ALTER TABLE delivery ADD COLUMN failing_us BIGINT;

-- What ended for one cause or another. Nearly all of a long past was replaced by a rekey, which is found along time.
CREATE INDEX child_sa_cause ON child_sa (gateway, cause, installed_us) WHERE cause <> 'rekeyed';
CREATE INDEX ike_sa_cause ON ike_sa (gateway, cause, established_us) WHERE cause <> 'rekeyed';
