//! Local time as strftime(3) writes it in the C locale, whatever locale or time zone a
//! script has set for itself. A text is made once a second.

use jiff::Timestamp;
use jiff::fmt::strtime::{BrokenDownTime, Config, PosixCustom};
use jiff::tz::TimeZone;

/// The time in one form.
#[derive(Debug)]
pub(super) struct TimeText {
    format: String,
    second: Option<u64>,
    text: Vec<u8>,
}

impl TimeText {
    pub(super) fn new(format: &str) -> TimeText {
        TimeText {
            format: format.to_owned(),
            second: None,
            text: Vec::new(),
        }
    }

    /// The text for a time in seconds since the Unix epoch.
    pub(super) fn at(&mut self, unix_s: u64, zone: &TimeZone) -> &[u8] {
        if self.second != Some(unix_s) {
            self.second = Some(unix_s);
            self.text.clear();
            let seconds = i64::try_from(unix_s).unwrap_or(0);
            let time = Timestamp::from_second(seconds).unwrap_or_default();
            let time = BrokenDownTime::from(&time.to_zoned(zone.clone()));
            // What is no conversion stays as it is written, as with strftime(3).
            let config = Config::new().custom(PosixCustom::new()).lenient(true);
            if time
                .format_with_config(&config, &self.format, &mut self.text)
                .is_err()
            {
                self.text.clear();
            }
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_its_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let mut text = TimeText::new("%d/%b/%Y:%H:%M:%S %z");
        assert_eq!(text.at(1_700_000_000, &zone), b"15/Nov/2023:00:13:20 +0200");
        assert_eq!(text.at(1_700_000_001, &zone), b"15/Nov/2023:00:13:21 +0200");
        let mut text = TimeText::new("%a %c|%s|%!");
        assert_eq!(
            String::from_utf8_lossy(text.at(1_700_000_000, &zone)),
            "Wed Wed Nov 15 00:13:20 2023|1700000000|%!"
        );
    }
}
