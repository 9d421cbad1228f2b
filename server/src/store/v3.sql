-- Version 3: all that is decided of single devices, which had been heartbeat_bounds alone. Never edited either.

CREATE TABLE settings (
    imei        TEXT PRIMARY KEY,            -- no foreign key: the device's own row may still wait, or never come
    revision    INTEGER NOT NULL,            -- a lower one never takes the place of a higher one
    hold        TEXT,                        -- blocked or quarantined; the three of it go together
    hold_since  INTEGER,
    hold_reason TEXT,
    label       TEXT,
    added       INTEGER,
    min_s       INTEGER,                     -- NULL where the fleet's bound holds
    max_s       INTEGER
) STRICT, WITHOUT ROWID;

INSERT INTO settings (imei, revision, min_s, max_s) SELECT imei, 1, min_s, max_s FROM heartbeat_bounds;
DROP TABLE heartbeat_bounds;
