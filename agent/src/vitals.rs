//! How the device itself is: what its reports to the server say beside the line. Read from /proc and /sys when a report
//! goes out; what this kernel does not tell is left out.

use std::fs;

use moorline_protocol::Status;

/// A report that says nothing of the line yet.
#[must_use]
pub fn read() -> Status {
    Status {
        uptime_s: text("/proc/uptime").and_then(|text| whole(&text)),
        memory_kb: text("/proc/meminfo").and_then(|text| available(&text)),
        load: text("/proc/loadavg").and_then(|text| hundredths(&text)),
        temperature: text("/sys/class/thermal/thermal_zone0/temp").and_then(|text| tenths(&text)),
        ..Status::default()
    }
}

fn text(file: &str) -> Option<String> {
    fs::read_to_string(file).ok()
}

/// `12345.67 …` as 12345.
fn whole(text: &str) -> Option<u32> {
    text.split(['.', ' ', '\n']).next()?.parse().ok()
}

/// `MemAvailable:  123456 kB`.
fn available(text: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// `0.42 …` as 42.
fn hundredths(text: &str) -> Option<u16> {
    let (whole, rest) = text.split_once('.')?;
    whole.parse::<u16>().ok()?.checked_mul(100)?.checked_add(rest.get(..2)?.parse().ok()?)
}

/// Thousandths of a degree as tenths.
fn tenths(text: &str) -> Option<i16> {
    text.trim().parse::<i32>().ok().and_then(|thousandths| (thousandths / 100).try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_texts_are_read() {
        assert_eq!(whole("350735.47 234388.90\n"), Some(350_735));
        assert_eq!(available("MemTotal: 512000 kB\nMemAvailable:   210344 kB\n"), Some(210_344));
        assert_eq!(hundredths("1.07 0.40 0.30 1/123 456\n"), Some(107));
        assert_eq!((tenths("48312\n"), tenths("-5000\n")), (Some(483), Some(-50)));
    }

    #[test]
    fn other_texts_are_left_out() {
        for text in ["", "x", ".", "1.", "9999999999999", "700.00"] {
            assert_eq!((available(text), hundredths(text)), (None, None), "{text}");
        }
        assert_eq!((whole(""), tenths("9999999999")), (None, None));
    }

    #[test]
    fn this_device_tells_something() {
        let status = read();
        assert!(status.uptime_s.is_some() && status.memory_kb.is_some() && status.load.is_some());
    }
}
