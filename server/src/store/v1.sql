-- Version 1. Stores in the field were made by this very text: it is never edited, later versions come after it.
-- Times are UTC milliseconds since 1970.

CREATE TABLE devices (
    imei                TEXT PRIMARY KEY,
    app_id              BLOB,
    agent_version       TEXT NOT NULL,
    modem               TEXT NOT NULL,
    first_seen          INTEGER NOT NULL,
    last_seen           INTEGER NOT NULL,
    session_id          INTEGER NOT NULL,
    connected_at        INTEGER NOT NULL,
    address             TEXT NOT NULL,
    protocol            TEXT NOT NULL,
    tls                 TEXT NOT NULL,
    heartbeat_s         INTEGER,
    ended_at            INTEGER,             -- with ended_cause; NULL while the device is online
    ended_cause         TEXT,
    certificate_serial  TEXT,                -- the three of the certificate go together
    certificate_issuer  TEXT,
    certificate_expires INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    id          INTEGER PRIMARY KEY AUTOINCREMENT, -- so that the id of a deleted event is never given again
    at          INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    is_refusal  INTEGER NOT NULL,                  -- the two are kept in different numbers
    imei        TEXT,
    session_id  INTEGER,
    address     TEXT,
    certificate TEXT,
    cause       TEXT,
    text        TEXT
) STRICT;

CREATE INDEX events_of_device ON events (imei, id) WHERE imei IS NOT NULL;
CREATE INDEX events_by_age ON events (is_refusal, id);

CREATE TABLE sessions (
    next_id INTEGER NOT NULL                 -- no session had this id or a higher one
) STRICT;
INSERT INTO sessions VALUES (1);
