//! Reading `OTEL_*` variables by the rules of the OpenTelemetry specification
//! (`specification/configuration/sdk-environment-variables.md`, "Parsing empty value"
//! and the sections per type): empty is unset, numbers and enums that make no sense
//! are reported and ignored, enums are case-insensitive, only `true` is true.
//!
//! Pure: works on a map that the caller filled. Which variables exist and what
//! they mean is [`crate::options`].

use std::{cell::RefCell, collections::HashMap, fmt, time::Duration};

/// A variable that was ignored, or taken otherwise than it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Name of the variable.
    pub variable: String,
    /// What is wrong with it and what is done instead. Never contains the value of a
    /// header, which may be a secret.
    pub problem: String,
}

impl Warning {
    /// Whether it is about what workers go by: the sampler and the propagators.
    pub fn is_about_workers(&self) -> bool {
        self.variable.starts_with("OTEL_TRACES_SAMPLER") || self.variable == "OTEL_PROPAGATORS"
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.variable, self.problem)
    }
}

/// A duration given as 0 means "no limit" to the specification; nothing here may
/// wait without one.
const LONGEST: Duration = Duration::from_secs(3600);

/// The variables and the complaints about them so far.
#[derive(Debug)]
pub(crate) struct Env<'a> {
    map: &'a HashMap<String, String>,
    warnings: RefCell<Vec<Warning>>,
}

impl<'a> Env<'a> {
    pub(crate) fn new(map: &'a HashMap<String, String>) -> Env<'a> {
        Env {
            map,
            warnings: RefCell::default(),
        }
    }

    pub(crate) fn into_warnings(self) -> Vec<Warning> {
        self.warnings.into_inner()
    }

    pub(crate) fn warn(&self, variable: &str, problem: impl Into<String>) {
        let warning = Warning {
            variable: variable.into(),
            problem: problem.into(),
        };
        let mut warnings = self.warnings.borrow_mut();
        // General variables are asked for once per signal.
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// The value, without the blanks around it; empty counts as unset.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        let value = self.map.get(name)?.trim();
        (!value.is_empty()).then_some(value)
    }

    /// True only for `true`, in any case.
    pub(crate) fn flag(&self, name: &str) -> bool {
        let Some(value) = self.text(name) else {
            return false;
        };
        if !value.eq_ignore_ascii_case("true") && !value.eq_ignore_ascii_case("false") {
            self.warn(
                name,
                format!("{value:?} is neither true nor false; taken as false"),
            );
        }
        value.eq_ignore_ascii_case("true")
    }

    /// One of the words that `parse` knows, given to it in lower case.
    pub(crate) fn word<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>, known: &str) -> Option<T> {
        let value = self.text(name)?;
        let parsed = parse(&value.to_ascii_lowercase());
        if parsed.is_none() {
            self.warn(name, format!("{value:?} is not one of {known}; ignored"));
        }
        parsed
    }

    /// A whole number within `least..=most`.
    pub(crate) fn count(&self, name: &str, least: usize, most: usize) -> Option<usize> {
        let value = self.text(name)?;
        let parsed = value.parse().ok().filter(|n| (least..=most).contains(n));
        if parsed.is_none() {
            self.warn(
                name,
                format!("{value:?} is not a whole number from {least} to {most}; ignored"),
            );
        }
        parsed
    }

    /// A time limit in milliseconds; 0 is the longest that is allowed, one hour.
    pub(crate) fn millis(&self, name: &str) -> Option<Duration> {
        let limit = self.delay(name)?;
        Some(if limit.is_zero() { LONGEST } else { limit })
    }

    /// A wait in milliseconds, at most one hour; 0 is none.
    pub(crate) fn delay(&self, name: &str) -> Option<Duration> {
        let value = self.text(name)?;
        match value.parse::<u64>() {
            Ok(millis) => Some(Duration::from_millis(millis).min(LONGEST)),
            Err(_) => {
                self.warn(
                    name,
                    format!("{value:?} is not a whole number of milliseconds; ignored"),
                );
                None
            }
        }
    }

    /// A list `key=value,key=value`, values percent-decoded: the W3C baggage syntax
    /// that `OTEL_RESOURCE_ATTRIBUTES` and the headers use. One bad member spoils the
    /// list (the resource specification: "in case of any error … the entire
    /// environment variable value SHOULD be discarded").
    pub(crate) fn pairs(&self, name: &str) -> Option<Vec<(String, String)>> {
        let value = self.text(name)?;
        let pairs = value
            .split(',')
            .map(str::trim)
            .filter(|member| !member.is_empty())
            .map(|member| {
                let (key, value) = member.split_once('=')?;
                let key = percent_decode(key.trim())?;
                (!key.is_empty()).then_some((key, percent_decode(value.trim())?))
            })
            .collect::<Option<Vec<_>>>();
        if pairs.is_none() {
            self.warn(
                name,
                "not a list of key=value, percent-encoded and separated by commas; ignored",
            );
        }
        pairs
    }
}

/// Decodes `%41` to `A`; `None` for a broken escape or bytes that are not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        out.push(u8::try_from(high << 4 | low).expect("two hexadecimal digits make a byte"));
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect()
    }

    #[test]
    fn empty_is_unset_and_true_is_only_true() {
        let map = map(&[("A", " "), ("B", "TRUE"), ("C", "1"), ("D", "false")]);
        let env = Env::new(&map);
        assert_eq!(env.text("A"), None);
        assert!(env.flag("B"));
        assert!(!env.flag("C") && !env.flag("D") && !env.flag("E"));
        let warnings = env.into_warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_eq!(warnings[0].variable, "C");
    }

    #[test]
    fn bad_numbers_warn_and_are_ignored() {
        let map = map(&[
            ("A", "12"),
            ("B", "-1"),
            ("C", "1.5"),
            ("D", "0"),
            ("E", "99999999999999999999"),
        ]);
        let env = Env::new(&map);
        assert_eq!(env.count("A", 1, 100), Some(12));
        assert_eq!(env.count("D", 1, 100), None);
        assert_eq!(env.millis("B"), None);
        assert_eq!(env.millis("C"), None);
        assert_eq!(env.millis("D"), Some(LONGEST));
        assert_eq!(env.delay("D"), Some(Duration::ZERO));
        assert_eq!(env.millis("E"), None);
        assert_eq!(env.into_warnings().len(), 4);
    }

    #[test]
    fn a_list_is_decoded_or_refused_whole() {
        let map = map(&[
            ("A", "a=1, b=x%20y%2Cz ,,c="),
            ("B", "a=1,b"),
            ("C", "a=%4"),
            ("D", "=1"),
            ("E", "a=%ff"),
        ]);
        let env = Env::new(&map);
        let pair = |k: &str, v: &str| (k.to_string(), v.to_string());
        assert_eq!(
            env.pairs("A"),
            Some(vec![pair("a", "1"), pair("b", "x y,z"), pair("c", "")])
        );
        for bad in ["B", "C", "D", "E"] {
            assert_eq!(env.pairs(bad), None, "{bad}");
        }
        assert_eq!(env.into_warnings().len(), 4);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in ".{0,40}") {
            let encoded: String = text.bytes().map(|b| format!("%{b:02X}")).collect();
            prop_assert_eq!(percent_decode(&encoded), Some(text));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let map = map(&[("A", &text)]);
            let env = Env::new(&map);
            env.pairs("A");
            env.millis("A");
            env.count("A", 0, 9);
            env.flag("A");
        }
    }
}
