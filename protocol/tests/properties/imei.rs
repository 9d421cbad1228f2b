//! IMEIs and their URNs.

use moorline_protocol::{Imei, ImeiError};
use proptest::prelude::*;

/// 14 digits with their check digit, found by trying: only one of the ten is right.
fn imei() -> impl Strategy<Value = Imei> {
    (1..100_000_000_000_000_u64).prop_map(|body| {
        let mut right = (0..10).filter_map(|digit| Imei::try_from(body * 10 + digit).ok());
        let imei = right.next().expect("one check digit is right");
        assert_eq!(right.next(), None, "two check digits are right for {body}");
        imei
    })
}

proptest! {
    #![proptest_config(crate::cases())]

    #[test]
    fn text_and_number_name_the_same(imei in imei()) {
        prop_assert_eq!(imei.to_string().len(), 15);
        prop_assert_eq!(imei.to_string().parse(), Ok(imei));
        prop_assert_eq!(Imei::try_from(imei.as_u64()), Ok(imei));
    }

    #[test]
    fn urn_comes_back_as_the_same(imei in imei()) {
        prop_assert_eq!(Imei::from_urn(&imei.urn()), Ok(imei));
        prop_assert_eq!(Imei::from_urn(&imei.urn().to_uppercase()), Ok(imei));
        prop_assert_eq!(u64::from(imei.tac()) * 1_000_000 + u64::from(imei.serial()), imei.as_u64() / 10);
    }

    /// What the check digit is for (TS 23.003 annex B).
    #[test]
    fn one_wrong_digit_is_noticed(imei in imei(), place in 0..15_u32, by in 1..10_u64) {
        let power = 10_u64.pow(place);
        let digit = imei.as_u64() / power % 10;
        let wrong = imei.as_u64() - digit * power + (digit + by) % 10 * power;
        let noticed = matches!(Imei::try_from(wrong), Err(ImeiError::CheckDigit { .. } | ImeiError::AllZeros));
        prop_assert!(noticed, "{wrong}");
    }

    #[test]
    fn any_text_is_an_imei_or_a_fault(
        text in prop_oneof![any::<String>(), "[0-9]{0,20}", "(?i)urn:gsma:imei:[0-9]{7,9}-[0-9;-]{5,9}.{0,9}"],
        number in any::<u64>(),
    ) {
        if let Ok(imei) = text.parse::<Imei>() {
            prop_assert_eq!(imei.to_string(), text.as_str());
        }
        if let Ok(imei) = Imei::from_urn(&text) {
            let spare_left_out = imei.urn().len() - 1;
            prop_assert!(text.to_lowercase().starts_with(&imei.urn()[..spare_left_out]));
        }
        if let Ok(imei) = Imei::try_from(number) {
            prop_assert_eq!(imei.as_u64(), number);
        }
    }
}
