//! IMEIs and their URNs: what is read is shown the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moorline_protocol::Imei;

fuzz_target!(|text: &str| {
    if let Ok(imei) = text.parse::<Imei>() {
        assert_eq!(imei.to_string(), text);
    }
    if let Ok(imei) = Imei::from_urn(text) {
        assert_eq!(Imei::from_urn(&imei.urn()), Ok(imei));
        assert_eq!(imei.to_string().parse(), Ok(imei));
    }
});
