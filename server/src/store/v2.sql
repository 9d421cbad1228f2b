-- Version 2: what operators set for single devices. Never edited either.

CREATE TABLE heartbeat_bounds (
    imei  TEXT PRIMARY KEY,                  -- no foreign key: the device's own row may still wait to be stored
    min_s INTEGER,                           -- NULL where the fleet's bound holds
    max_s INTEGER
) STRICT, WITHOUT ROWID;
