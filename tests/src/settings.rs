//! A program's configuration as a tale changes it: dotted keys over what the rig sets by itself.

use std::collections::BTreeMap;
use std::fmt;

/// The settings of one configuration file, each value as the file has it: most are strings, but for numbers and for `true` and
/// `false`.
#[derive(Clone, Debug, Default)]
pub struct Settings(BTreeMap<String, BTreeMap<String, String>>);

impl Settings {
    /// Sets `section.key`; the last one set is the one that counts.
    ///
    /// # Panics
    /// When the key names no section.
    pub fn set(&mut self, key: &str, value: impl fmt::Display) {
        let value = value.to_string();
        self.put(key, if matches!(value.as_str(), "true" | "false") { value } else { quoted(&value) });
    }

    /// The same for a number.
    ///
    /// # Panics
    /// When the key names no section.
    pub fn set_number(&mut self, key: &str, value: u64) {
        self.put(key, value.to_string());
    }

    /// The same for a list of strings.
    ///
    /// # Panics
    /// When the key names no section.
    pub fn set_list(&mut self, key: &str, values: &[String]) {
        let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
        self.put(key, format!("[{}]", values.join(", ")));
    }

    fn put(&mut self, key: &str, value: String) {
        let (section, key) = key.split_once('.').expect("every setting is in a section");
        self.0.entry(section.to_owned()).or_default().insert(key.to_owned(), value);
    }

    /// Leaves `section.key` out again.
    pub fn unset(&mut self, key: &str) {
        if let Some((section, key)) = key.split_once('.')
            && let Some(settings) = self.0.get_mut(section)
        {
            settings.remove(key);
        }
    }
}

/// The file's text.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (section, settings) in &self.0 {
            writeln!(f, "[{section}]")?;
            for (key, value) in settings {
                writeln!(f, "{key} = {value}")?;
            }
        }
        Ok(())
    }
}

/// A TOML string.
fn quoted(value: &str) -> String {
    let mut text = String::from('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_setting_of_a_key_counts() {
        let mut settings = Settings::default();
        settings.set("session.classic_idle", "1m");
        settings.set("listen.devices", "127.0.0.1:0");
        settings.set("session.classic_idle", "2s");
        assert_eq!(
            settings.to_string(),
            "[listen]\ndevices = \"127.0.0.1:0\"\n[session]\nclassic_idle = \"2s\"\n"
        );
    }

    #[test]
    fn switches_are_no_strings() {
        let mut settings = Settings::default();
        settings.set("clock.set", true);
        assert_eq!(settings.to_string(), "[clock]\nset = true\n");
    }

    #[test]
    fn numbers_are_no_strings() {
        let mut settings = Settings::default();
        settings.set("modem.baud", "off");
        settings.set_number("modem.baud", 115_200);
        assert_eq!(settings.to_string(), "[modem]\nbaud = 115200\n");
    }

    #[test]
    fn quotes_and_backslashes_stay_what_they_are() {
        let mut settings = Settings::default();
        settings.set("store.path", r#"/tmp/a "b"\c"#);
        assert_eq!(settings.to_string(), "[store]\npath = \"/tmp/a \\\"b\\\"\\\\c\"\n");
    }
}
