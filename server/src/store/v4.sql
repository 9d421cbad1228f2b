-- Version 4: how devices and the fleet were over time. Never edited either.

CREATE TABLE reports (                       -- what each device last told of itself
    imei         TEXT PRIMARY KEY,
    at           INTEGER NOT NULL,
    signal_dbm   INTEGER,
    registration INTEGER,
    operator     TEXT,
    uptime_s     INTEGER,
    memory_kb    INTEGER,
    load         INTEGER,                    -- hundredths
    temperature  INTEGER                     -- tenths of a degree Celsius
) STRICT, WITHOUT ROWID;

CREATE TABLE hours (                         -- of a device's reports within an hour: the last, and the span of its signal
    imei        TEXT NOT NULL,
    hour        INTEGER NOT NULL,            -- hours since 1970
    at          INTEGER NOT NULL,
    signal_dbm  INTEGER,
    signal_min  INTEGER,
    signal_max  INTEGER,
    operator    TEXT,
    memory_kb   INTEGER,
    load        INTEGER,
    temperature INTEGER,
    PRIMARY KEY (imei, hour)
) STRICT, WITHOUT ROWID;
CREATE INDEX hours_by_age ON hours (hour);

CREATE TABLE slots (                         -- the fleet's five minutes
    at      INTEGER PRIMARY KEY,             -- when they began
    online  INTEGER NOT NULL,                -- at their end
    came    INTEGER NOT NULL,
    went    INTEGER NOT NULL,
    refused INTEGER NOT NULL
) STRICT;
