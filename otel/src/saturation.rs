//! What all workers of a full pool do, as one log record.
//!
//! Who is asked, and when, is not this room's business.

use std::fmt;
use std::time::SystemTime;

use opentelemetry::logs::{AnyValue, LogRecord, Severity};
use opentelemetry_sdk::logs::SdkLogRecord;

use crate::semconv::name;
use crate::slow::{cut_stacktrace, new_record};

/// A pool whose workers were all busy, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saturation {
    /// The pool.
    pub pool: String,
    /// Workers with a request under way.
    pub busy: usize,
    /// All its workers.
    pub workers: usize,
    /// Busy workers that could be looked at before their requests ended.
    pub seen: usize,
    /// Those that did the same, the largest group first.
    pub groups: Vec<Group>,
    /// Workers in groups that are left out.
    pub elsewhere: usize,
}

/// Workers with the same stack that waited for the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// How many.
    pub workers: usize,
    /// Innermost function, and the place in PHP code: `PDO::query /srv/Repo.php:42`.
    pub place: String,
    /// What they waited for, if they waited.
    pub wait: Option<String>,
    /// One frame per line, innermost first.
    pub stacktrace: String,
}

/// `38 in PDO::query /srv/Repo.php:42, waiting for tcp 10.0.3.7:3306`.
impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.workers, self.place)?;
        match &self.wait {
            Some(wait) => write!(f, ", waiting for {wait}"),
            None => Ok(()),
        }
    }
}

impl Saturation {
    /// The log record: `body` in words, the figures and groups as attributes, and the
    /// stack of the largest group.
    pub fn to_log_record(&self, body: &str, time: SystemTime) -> SdkLogRecord {
        let mut record = new_record();
        record.set_event_name(name::EVENT_SATURATED);
        record.set_timestamp(time);
        record.set_observed_timestamp(time);
        record.set_severity_number(Severity::Warn);
        record.set_severity_text("WARN");
        record.set_body(AnyValue::from(body.to_owned()));
        let number = |number: usize| AnyValue::Int(i64::try_from(number).unwrap_or(i64::MAX));
        record.add_attribute(name::PHP_POOL, self.pool.clone());
        record.add_attribute(name::PHP_SATURATION_BUSY, number(self.busy));
        record.add_attribute(name::PHP_SATURATION_WORKERS, number(self.workers));
        let groups = self.groups.iter().map(|group| AnyValue::from(group.to_string()));
        record.add_attribute(
            name::PHP_SATURATION_GROUPS,
            AnyValue::ListAny(Box::new(groups.collect())),
        );
        let stack = self.groups.iter().map(|group| &group.stacktrace);
        if let Some(stack) = stack.into_iter().find(|stack| !stack.is_empty()) {
            record.add_attribute(name::CODE_STACKTRACE, cut_stacktrace(stack));
        }
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(workers: usize, wait: Option<&str>, stacktrace: &str) -> Group {
        Group {
            workers,
            place: "PDO::query /srv/Repo.php:42".to_owned(),
            wait: wait.map(str::to_owned),
            stacktrace: stacktrace.to_owned(),
        }
    }

    #[test]
    fn the_record_has_the_figures_the_groups_and_the_stack_of_the_largest() {
        let saturation = Saturation {
            pool: "www".to_owned(),
            busy: 40,
            workers: 41,
            seen: 39,
            groups: vec![
                group(38, Some("tcp 10.0.3.7:3306"), "#0 PDO::query()\n#1 {main}"),
                group(1, None, "#0 {main}"),
            ],
            elsewhere: 0,
        };
        let record = saturation.to_log_record("pool www saturated", SystemTime::UNIX_EPOCH);
        assert_eq!(record.event_name(), Some("php.pool.saturated"));
        assert_eq!(record.severity_number(), Some(Severity::Warn));
        let attributes: Vec<_> = record
            .attributes_iter()
            .map(|(key, value)| (key.as_str(), value.clone()))
            .collect();
        let text = |text: &str| AnyValue::from(text.to_owned());
        let groups = [
            "38 in PDO::query /srv/Repo.php:42, waiting for tcp 10.0.3.7:3306",
            "1 in PDO::query /srv/Repo.php:42",
        ];
        let expected = [
            ("php.pool", text("www")),
            ("php.saturation.busy", AnyValue::Int(40)),
            ("php.saturation.workers", AnyValue::Int(41)),
            (
                "php.saturation.groups",
                AnyValue::ListAny(Box::new(groups.map(text).into())),
            ),
            ("code.stacktrace", text("#0 PDO::query()\n#1 {main}")),
        ];
        assert_eq!(attributes, expected);
    }
}
