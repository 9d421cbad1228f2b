//! A program's configuration as a tale changes it: dotted keys over what the rig sets by itself.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// The settings of one configuration file. All of them are strings, but for `true` and `false`: no other kind is needed to
/// put a program to work.
#[derive(Clone, Debug, Default)]
pub struct Settings(BTreeMap<String, BTreeMap<String, String>>);

impl Settings {
    /// Sets `section.key`; the last one set is the one that counts.
    ///
    /// # Panics
    /// When the key names no section.
    pub fn set(&mut self, key: &str, value: impl fmt::Display) {
        let (section, key) = key.split_once('.').expect("every setting is in a section");
        self.0.entry(section.to_owned()).or_default().insert(key.to_owned(), value.to_string());
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
                if matches!(value.as_str(), "true" | "false") {
                    writeln!(f, "{key} = {value}")?;
                    continue;
                }
                write!(f, "{key} = \"")?;
                for c in value.chars() {
                    match c {
                        '"' | '\\' => write!(f, "\\{c}")?,
                        _ => f.write_char(c)?,
                    }
                }
                f.write_str("\"\n")?;
            }
        }
        Ok(())
    }
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
    fn quotes_and_backslashes_stay_what_they_are() {
        let mut settings = Settings::default();
        settings.set("store.path", r#"/tmp/a "b"\c"#);
        assert_eq!(settings.to_string(), "[store]\npath = \"/tmp/a \\\"b\\\"\\\\c\"\n");
    }
}
