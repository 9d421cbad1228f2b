//! What sessions and events cost with one, two and three servers that share a fleet, beside a server alone.

use crate::failure::Failure;

/// The table.
///
/// # Errors
/// A device is not served.
pub fn costs(_devices: u32) -> Result<String, Failure> {
    Ok(String::new())
}
