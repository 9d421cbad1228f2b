//! `moorlinectl heartbeat`: bounds what one device is granted, and shows the device as it is then.

use std::io::Write;
use std::time::Duration;

use moorline_config::parse_duration;
use serde_json::json;

use super::client::Client;
use super::failure::Failure;
use super::{Heartbeat, write_device};

pub(super) fn set(
    client: &Client,
    wanted: &Heartbeat,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let path = format!("/api/devices/{}/heartbeat", wanted.imei);
    let device = if wanted.clear {
        client.delete(&path)?
    } else {
        client.put(&path, &json!({"min_s": wanted.min, "max_s": wanted.max}))?
    };
    write_device(&device, json, out)
}

/// A duration as in configuration files, in the whole seconds that the wire has.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let duration = parse_duration(text).map_err(|fault| fault.to_string())?;
    let whole = duration == Duration::from_secs(duration.as_secs());
    if whole { Ok(duration.as_secs()) } else { Err("it has to be whole seconds".to_owned()) }
}
