-- Version 5: how near its end a device's certificate was when that was last told. Never edited either.

ALTER TABLE devices ADD COLUMN certificate_told TEXT; -- 30d or 7d; NULL while nothing was told
