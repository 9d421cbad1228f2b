//! Whether a device has a text in what is known of it. A whole fleet is looked through while somebody waits, so a field that
//! cannot hold the text is not written out, and none of them is put on the heap.

use std::fmt::{Display, Write as _};

use moorline_protocol::Imei;

use crate::store::{Device, Settings};

/// The longest field that is written out to be looked through: an IPv6 address with its zone and port.
const LONGEST: usize = 64;

/// A text that is looked for.
pub(super) struct Search<'t> {
    /// In lower case.
    text: &'t str,
    /// All of it can stand in an IMEI, in an address, in an application id or in a serial.
    in_imei: bool,
    in_address: bool,
    in_id: bool,
    in_serial: bool,
}

impl<'t> Search<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let consists_of = |also: &str, digit: fn(&char) -> bool| {
            text.chars().all(|letter| digit(&letter) || also.contains(letter))
        };
        Self {
            text,
            in_imei: consists_of("", char::is_ascii_digit),
            in_address: consists_of(".:[]%", char::is_ascii_hexdigit),
            in_id: consists_of("-", char::is_ascii_hexdigit),
            in_serial: consists_of("", char::is_ascii_hexdigit),
        }
    }

    pub(super) fn finds(
        &self,
        imei: Imei,
        device: Option<&Device>,
        operator: Option<&str>,
        settings: Option<&Settings>,
    ) -> bool {
        let label = settings.and_then(|settings| settings.label.as_deref());
        (self.in_imei && self.is_in_shown(imei))
            || label.is_some_and(|label| self.is_in(label))
            || operator.is_some_and(|operator| self.is_in(operator))
            || device.is_some_and(|device| self.is_in_device(device))
    }

    fn is_in_device(&self, device: &Device) -> bool {
        let serial = device.certificate.as_ref().map(|certificate| &certificate.serial);
        self.is_in(&device.agent_version)
            || self.is_in(&device.modem)
            || (self.in_address && self.is_in_shown(device.session.address))
            || (self.in_id && device.app_id_text().is_some_and(|id| id.contains(self.text)))
            || (self.in_serial && serial.is_some_and(|serial| self.is_in(serial)))
    }

    fn is_in(&self, field: &str) -> bool {
        if !field.is_ascii() {
            return field.to_lowercase().contains(self.text);
        }
        let (field, text) = (field.as_bytes(), self.text.as_bytes());
        let Some(first) = text.first() else { return true };
        // Most places differ in their first letter already.
        let begins = |part: &[u8]| part.first().is_some_and(|letter| letter.to_ascii_lowercase() == *first);
        field.windows(text.len()).any(|part| begins(part) && part.eq_ignore_ascii_case(text))
    }

    fn is_in_shown(&self, field: impl Display) -> bool {
        let mut shown = heapless::String::<LONGEST>::new();
        write!(shown, "{field}").is_ok() && shown.contains(self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::{device, imei};

    #[test]
    fn every_field_is_looked_through_whatever_its_case() {
        let known = device(2);
        let settings = Settings { label: Some("Hafenkran ÄÖÜ".into()), ..Settings::default() };
        let finds =
            |text: &str| Search::new(text).finds(imei(2), Some(&known), Some("262-01"), Some(&settings));
        for text in [
            "",
            "8697",
            "3821",
            "quectel ec25",
            "0.1.0",
            "127.0.0.1:4000",
            ":4000",
            "0202-0202",
            "0a",
            "hafenkran",
            "äöü",
            "262-01",
        ] {
            assert!(finds(text), "{text}");
        }
        for text in ["quectel  ec25", "8697310524038210", "sim7000", "ß", "%", "\0"] {
            assert!(!finds(text), "{text}");
        }
    }

    #[test]
    fn device_that_never_came_is_found_by_imei_and_label() {
        let settings = Settings { label: Some("Crane".into()), ..Settings::default() };
        assert!(Search::new("869731").finds(imei(2), None, None, None));
        assert!(Search::new("crane").finds(imei(2), None, None, Some(&settings)));
        assert!(!Search::new("crane").finds(imei(2), None, None, None));
    }
}
