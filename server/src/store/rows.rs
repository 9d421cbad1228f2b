//! Rows of the database as records, and back. It knows the columns, not the connections.

pub(super) mod history;

use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;

use moorline_protocol::Imei;
use rusqlite::types::{FromSql, FromSqlError, ToSqlOutput, Type};
use rusqlite::{Row, ToSql, Transaction, named_params};

use super::record::{Credential, Device, Ended, Event, Kind, LastSession, StoredEvent};
use super::settings::{Hold, HoldKind, Settings};
use crate::expiry::Remaining;
use crate::session::{Bounds, Dialect};

type Result<T> = rusqlite::Result<T>;

pub(super) fn put_device(transaction: &Transaction<'_>, device: &Device) -> Result<()> {
    let Device { session, certificate, .. } = device;
    let ended = session.ended.as_ref();
    let certificate = certificate.as_ref();
    let told = certificate.map(|certificate| certificate.told).filter(|told| *told != Remaining::Later);
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO devices VALUES (:imei, :app_id, :agent_version, :modem, :first_seen, :last_seen, \
             :session_id, :connected_at, :address, :protocol, :tls, :heartbeat_s, :ended_at, :ended_cause, \
             :certificate_serial, :certificate_issuer, :certificate_expires, :certificate_told)",
        )?
        .execute(named_params! {
            ":imei": Text(device.imei),
            ":app_id": device.app_id,
            ":agent_version": device.agent_version,
            ":modem": device.modem,
            ":first_seen": device.first_seen_ms,
            ":last_seen": device.last_seen_ms,
            ":session_id": session.id.cast_signed(),
            ":connected_at": session.connected_at_ms,
            ":address": Text(session.address),
            ":protocol": session.dialect.as_str(),
            ":tls": session.tls,
            ":heartbeat_s": session.heartbeat_s,
            ":ended_at": ended.map(|ended| ended.at_ms),
            ":ended_cause": ended.map(|ended| &ended.cause),
            ":certificate_serial": certificate.map(|certificate| &certificate.serial),
            ":certificate_issuer": certificate.map(|certificate| &certificate.issuer),
            ":certificate_expires": certificate.map(|certificate| certificate.not_after_ms),
            ":certificate_told": told.map(Remaining::as_str),
        })
        .map(drop)
}

pub(super) fn device(row: &Row<'_>) -> Result<Device> {
    Ok(Device {
        imei: parsed(row, "imei")?,
        app_id: row.get("app_id")?,
        agent_version: row.get("agent_version")?,
        modem: row.get("modem")?,
        first_seen_ms: row.get("first_seen")?,
        last_seen_ms: row.get("last_seen")?,
        session: LastSession {
            id: row.get::<_, i64>("session_id")?.cast_unsigned(),
            connected_at_ms: row.get("connected_at")?,
            address: parsed(row, "address")?,
            dialect: named(row, "protocol", dialect)?,
            tls: row.get("tls")?,
            heartbeat_s: row.get("heartbeat_s")?,
            ended: both(row, "ended_at", "ended_cause")?.map(|(at_ms, cause)| Ended { at_ms, cause }),
        },
        certificate: certificate(row)?,
    })
}

fn certificate(row: &Row<'_>) -> Result<Option<Credential>> {
    let named: Option<(Box<str>, Arc<str>)> = both(row, "certificate_serial", "certificate_issuer")?;
    let expires: Option<i64> = row.get("certificate_expires")?;
    let told = match row.get::<_, Option<Box<str>>>("certificate_told")? {
        Some(name) => Remaining::from_name(&name).ok_or_else(|| strange("certificate_told", &name))?,
        None => Remaining::Later,
    };
    Ok(named.zip(expires).map(|((serial, issuer), not_after_ms)| Credential {
        serial,
        issuer,
        not_after_ms,
        told,
    }))
}

/// A revision that is not newer than the one there leaves it alone.
pub(super) fn put_settings(transaction: &Transaction<'_>, imei: Imei, settings: &Settings) -> Result<()> {
    let Settings { revision, hold, label, added_ms, bounds: Bounds { min_s, max_s } } = settings;
    let hold = hold.as_ref();
    transaction
        .prepare_cached(
            "INSERT INTO settings VALUES (:imei, :revision, :hold, :hold_since, :hold_reason, :label, :added, :min_s, :max_s) \
             ON CONFLICT (imei) DO UPDATE SET revision = excluded.revision, hold = excluded.hold, \
             hold_since = excluded.hold_since, hold_reason = excluded.hold_reason, label = excluded.label, \
             added = excluded.added, min_s = excluded.min_s, max_s = excluded.max_s \
             WHERE excluded.revision > settings.revision",
        )?
        .execute(named_params! {
            ":imei": Text(imei),
            ":revision": revision,
            ":hold": hold.map(|hold| hold.kind.as_str()),
            ":hold_since": hold.map(|hold| hold.since_ms),
            ":hold_reason": hold.map(|hold| &hold.reason),
            ":label": label,
            ":added": added_ms,
            ":min_s": min_s.map(NonZeroU32::get),
            ":max_s": max_s.map(NonZeroU32::get),
        })
        .map(drop)
}

pub(super) fn settings(row: &Row<'_>) -> Result<(Imei, Settings)> {
    let bound =
        |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<u32>>(column)?.and_then(NonZeroU32::new));
    let settings = Settings {
        revision: row.get("revision")?,
        hold: hold(row)?,
        label: row.get("label")?,
        added_ms: row.get("added")?,
        bounds: Bounds { min_s: bound("min_s")?, max_s: bound("max_s")? },
    };
    Ok((parsed(row, "imei")?, settings))
}

fn hold(row: &Row<'_>) -> Result<Option<Hold>> {
    let Some((since_ms, reason)) = both(row, "hold_since", "hold_reason")? else { return Ok(None) };
    let of_name = |name: &str| HoldKind::ALL.into_iter().find(|kind| kind.as_str() == name);
    Ok(Some(Hold { kind: named(row, "hold", of_name)?, since_ms, reason }))
}

/// Under this id, or the next one. Returns whether it was not there yet.
pub(super) fn put_event(transaction: &Transaction<'_>, event: &Event, id: Option<i64>) -> Result<bool> {
    let added = transaction
        .prepare_cached(
            "INSERT OR IGNORE INTO events (id, at, kind, is_refusal, imei, session_id, address, certificate, cause, text) \
             VALUES (:id, :at, :kind, :is_refusal, :imei, :session_id, :address, :certificate, :cause, :text)",
        )?
        .execute(named_params! {
            ":id": id,
            ":at": event.at_ms,
            ":kind": event.kind.as_str(),
            ":is_refusal": event.kind.is_refusal(),
            ":imei": event.imei.map(Text),
            ":session_id": event.session_id.map(u64::cast_signed),
            ":address": event.address.map(Text),
            ":certificate": event.certificate,
            ":cause": event.cause,
            ":text": event.text,
        })?;
    Ok(added > 0)
}

pub(super) fn event(row: &Row<'_>) -> Result<StoredEvent> {
    Ok(StoredEvent {
        id: row.get("id")?,
        event: Event {
            at_ms: row.get("at")?,
            kind: named(row, "kind", Kind::from_name)?,
            imei: parsed_if_there(row, "imei")?,
            session_id: row.get::<_, Option<i64>>("session_id")?.map(i64::cast_unsigned),
            address: parsed_if_there(row, "address")?,
            certificate: row.get("certificate")?,
            cause: row.get("cause")?,
            text: row.get("text")?,
        },
    })
}

/// A value that is stored as its text.
pub(super) struct Text<T>(pub(super) T);

impl<T: ToString> ToSql for Text<T> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(self.0.to_string().into())
    }
}

fn dialect(name: &str) -> Option<Dialect> {
    [Dialect::Native, Dialect::Classic].into_iter().find(|dialect| dialect.as_str() == name)
}

fn parsed<T: FromStr>(row: &Row<'_>, column: &'static str) -> Result<T> {
    named(row, column, |text| text.parse().ok())
}

fn parsed_if_there<T: FromStr>(row: &Row<'_>, column: &'static str) -> Result<Option<T>> {
    let there: Option<Box<str>> = row.get(column)?;
    there.map(|text| text.parse().map_err(|_| strange(column, &text))).transpose()
}

fn named<T>(row: &Row<'_>, column: &'static str, of_name: impl FnOnce(&str) -> Option<T>) -> Result<T> {
    let text: Box<str> = row.get(column)?;
    of_name(&text).ok_or_else(|| strange(column, &text))
}

fn both<A: FromSql, B: FromSql>(
    row: &Row<'_>,
    first: &'static str,
    second: &'static str,
) -> Result<Option<(A, B)>> {
    Ok(row.get::<_, Option<A>>(first)?.zip(row.get::<_, Option<B>>(second)?))
}

/// Somebody else wrote to the file: this program stores no such text.
fn strange(column: &'static str, text: &str) -> rusqlite::Error {
    let why = format!("column {column} holds \"{}\"", text.escape_debug());
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, FromSqlError::Other(why.into()).into())
}
