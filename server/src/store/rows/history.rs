//! Rows of what is kept over time.

use moorline_protocol::{Imei, Status};
use rusqlite::{Connection, Row, Transaction, named_params, params};

use super::{Result, Text, parsed, strange};
use crate::store::history::{HOUR_MS, Hour, Report, Slot, Span};

/// In the place of the device's last report, and into its hour.
pub(in crate::store) fn put_report(transaction: &Transaction<'_>, imei: Imei, report: &Report) -> Result<()> {
    let Report { status, at_ms } = report;
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO reports VALUES (:imei, :at, :signal_dbm, :registration, :operator, :uptime_s, \
             :memory_kb, :load, :temperature)",
        )?
        .execute(named_params! {
            ":imei": Text(imei),
            ":at": at_ms,
            ":signal_dbm": status.signal_dbm,
            ":registration": status.registration,
            ":operator": status.operator.as_deref(),
            ":uptime_s": status.uptime_s,
            ":memory_kb": status.memory_kb,
            ":load": status.load,
            ":temperature": status.temperature,
        })?;
    transaction
        .prepare_cached(
            "INSERT INTO hours VALUES (:imei, :hour, :at, :signal_dbm, :signal_dbm, :signal_dbm, :operator, :memory_kb, \
             :load, :temperature) \
             ON CONFLICT (imei, hour) DO UPDATE SET at = excluded.at, \
             signal_dbm = coalesce(excluded.signal_dbm, signal_dbm), \
             signal_min = min(coalesce(signal_min, excluded.signal_min), coalesce(excluded.signal_min, signal_min)), \
             signal_max = max(coalesce(signal_max, excluded.signal_max), coalesce(excluded.signal_max, signal_max)), \
             operator = excluded.operator, memory_kb = excluded.memory_kb, load = excluded.load, \
             temperature = excluded.temperature",
        )?
        .execute(named_params! {
            ":imei": Text(imei),
            ":hour": Hour::number(*at_ms),
            ":at": at_ms,
            ":signal_dbm": status.signal_dbm,
            ":operator": status.operator.as_deref(),
            ":memory_kb": status.memory_kb,
            ":load": status.load,
            ":temperature": status.temperature,
        })
        .map(drop)
}

pub(in crate::store) fn report(row: &Row<'_>) -> Result<(Imei, Report)> {
    let operator: Option<Box<str>> = row.get("operator")?;
    let operator = operator.map(|text| text.parse().map_err(|_| strange("operator", &text))).transpose()?;
    let status = Status {
        signal_dbm: row.get("signal_dbm")?,
        registration: row.get("registration")?,
        operator,
        uptime_s: row.get("uptime_s")?,
        memory_kb: row.get("memory_kb")?,
        load: row.get("load")?,
        temperature: row.get("temperature")?,
    };
    Ok((parsed(row, "imei")?, Report { status, at_ms: row.get("at")? }))
}

pub(in crate::store) fn hours(connection: &Connection, imei: Imei, since_ms: i64) -> Result<Vec<Hour>> {
    connection
        .prepare_cached("SELECT * FROM hours WHERE imei = ?1 AND hour >= ?2 ORDER BY hour")?
        .query_map(params![Text(imei), Hour::number(since_ms)], hour)?
        .collect()
}

fn hour(row: &Row<'_>) -> Result<Hour> {
    let (last, min, max): (Option<i16>, _, _) =
        (row.get("signal_dbm")?, row.get("signal_min")?, row.get("signal_max")?);
    Ok(Hour {
        at_ms: row.get("at")?,
        signal: last.zip(min).zip(max).map(|((last, min), max)| Span { last, min, max }),
        operator: row.get("operator")?,
        memory_kb: row.get("memory_kb")?,
        load: row.get("load")?,
        temperature: row.get("temperature")?,
    })
}

/// Into those of the same five minutes that are there already.
pub(in crate::store) fn put_slot(transaction: &Transaction<'_>, slot: Slot) -> Result<()> {
    let Slot { at_ms, online, came, went, refused } = slot;
    transaction
        .prepare_cached(
            "INSERT INTO slots VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (at) DO UPDATE SET online = excluded.online, \
             came = came + excluded.came, went = went + excluded.went, refused = refused + excluded.refused",
        )?
        .execute(params![at_ms, i64::try_from(online).unwrap_or(i64::MAX), came, went, refused])
        .map(drop)
}

pub(in crate::store) fn slots(connection: &Connection, since_ms: i64) -> Result<Vec<Slot>> {
    connection
        .prepare_cached("SELECT at, online, came, went, refused FROM slots WHERE at >= ?1 ORDER BY at")?
        .query_map([since_ms], |row| {
            let online = usize::try_from(row.get::<_, i64>(1)?).unwrap_or(usize::MAX);
            Ok(Slot {
                at_ms: row.get(0)?,
                online,
                came: row.get(2)?,
                went: row.get(3)?,
                refused: row.get(4)?,
            })
        })?
        .collect()
}

/// Takes away what is older than this, at most so many rows of a kind; a device's last report stays.
pub(in crate::store) fn prune(transaction: &Transaction<'_>, before_ms: i64, most: i64) -> Result<()> {
    transaction
        .prepare_cached(
            "DELETE FROM hours WHERE (imei, hour) IN (SELECT imei, hour FROM hours WHERE hour < ?1 ORDER BY hour LIMIT ?2)",
        )?
        .execute([before_ms.div_euclid(HOUR_MS), most])?;
    transaction
        .prepare_cached(
            "DELETE FROM slots WHERE at IN (SELECT at FROM slots WHERE at < ?1 ORDER BY at LIMIT ?2)",
        )?
        .execute([before_ms, most])
        .map(drop)
}
