//! The samples of one request, taken together: where its time went. On the span itself,
//! as backends show events folded away and do not search them. Samples are the looks at a
//! slow request, and those of the CPU's clock while it runs on one.

use opentelemetry::{Array, KeyValue, StringValue, Value};

use crate::semconv::name;
use crate::slow::{Cause, SlowEvent};

/// Places that are told at most.
const MOST_FRAMES: usize = 5;

/// Where a request was each time that a CPU's clock found it there, since it was past its
/// limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OnCpu {
    /// How often it was found.
    pub samples: u64,
    /// How often in which [`place`], in any order; of some samples none is known.
    pub places: Vec<(String, u64)>,
}

impl OnCpu {
    /// The attributes of the span; none of a request that was never found.
    pub(crate) fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = Vec::new();
        if self.samples > 0 {
            attributes.push(KeyValue::new(name::PHP_CPU_SAMPLES, int(self.samples)));
            let top = top_frames(self.places.clone(), self.samples);
            push_texts(&mut attributes, name::PHP_CPU_TOP_FRAMES, top);
        }
        attributes
    }
}

/// The attributes of the span: the place and the wait of one sample (that of the end if
/// the request was killed or crashed, else the first), then the shares over all.
pub(crate) fn attributes(samples: &[SlowEvent]) -> Vec<KeyValue> {
    let mut attributes = Vec::new();
    let end = samples.iter().rfind(|sample| sample.cause != Cause::Slow);
    let Some(telling) = end.or(samples.first()) else {
        return attributes;
    };
    let skipped = samples.iter().map(|sample| u64::from(sample.skipped)).sum();
    if skipped > 0 {
        attributes.push(KeyValue::new(name::PHP_SLOW_SKIPPED, int(skipped)));
    }
    for (key, value) in [
        (name::CODE_FUNCTION_NAME, &telling.function),
        (name::CODE_FILE_PATH, &telling.file),
        (name::PHP_WAIT, &telling.wait),
    ] {
        if let Some(value) = value {
            attributes.push(KeyValue::new(key, value.clone()));
        }
    }
    if let Some(line) = telling.line {
        attributes.push(KeyValue::new(name::CODE_LINE_NUMBER, i64::from(line)));
    }
    // A crash is a moment that says nothing of where the time went.
    let of_time: Vec<&SlowEvent> = samples
        .iter()
        .filter(|sample| !matches!(sample.cause, Cause::Crashed(_)))
        .collect();
    if of_time.is_empty() {
        return attributes;
    }
    let whole = of_time.len() as u64;
    attributes.push(KeyValue::new(name::PHP_SLOW_SAMPLES, int(whole)));
    let frames = counts(of_time.iter().filter_map(|sample| top_frame(sample)));
    let frames = top_frames(frames, whole);
    push_texts(&mut attributes, name::PHP_SLOW_TOP_FRAMES, frames);
    let waits = most_first(counts(of_time.iter().map(|sample| kind(sample).to_owned())));
    let waits = waits.iter().map(|(kind, count)| {
        let share = percent(*count, whole);
        format!("{kind} {share} ({count} of {whole})")
    });
    push_texts(&mut attributes, name::PHP_SLOW_WAITS, waits.collect());
    attributes
}

/// A function, and the line of PHP that it is or was called from: `PDO::query
/// /srv/Repo.php:42`.
pub fn place(function: &str, file: Option<&str>, line: Option<u32>) -> String {
    match (file, line) {
        (Some(file), Some(line)) => format!("{function} {file}:{line}"),
        (Some(file), None) => format!("{function} {file}"),
        (None, _) => function.to_owned(),
    }
}

/// `None` if the stack could not be read.
fn top_frame(sample: &SlowEvent) -> Option<String> {
    let function = sample.function.as_ref()?;
    Some(place(function, sample.file.as_deref(), sample.line))
}

/// The kind of wait, `running` for none, `unknown` if nothing could be seen.
fn kind(sample: &SlowEvent) -> &'static str {
    match (sample.waiting.class, &sample.wait, &sample.function) {
        (Some(class), _, _) => class,
        (None, Some(_), _) => "other",
        (None, None, Some(_)) => "running",
        (None, None, None) => "unknown",
    }
}

/// How often each comes.
fn counts(all: impl Iterator<Item = String>) -> Vec<(String, u64)> {
    let mut counts: Vec<(String, u64)> = Vec::new();
    for one in all {
        match counts.iter_mut().find(|(known, _)| *known == one) {
            Some((_, count)) => *count += 1,
            None => counts.push((one, 1)),
        }
    }
    counts
}

/// The most frequent first, equal ones in their order.
fn most_first(mut counts: Vec<(String, u64)>) -> Vec<(String, u64)> {
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

/// Each of the most frequent places, with its share.
fn top_frames(places: Vec<(String, u64)>, whole: u64) -> Vec<String> {
    let places = most_first(places).into_iter().take(MOST_FRAMES);
    places
        .map(|(place, count)| format!("{place} {}", percent(count, whole)))
        .collect()
}

/// Rounded to the nearest whole.
fn percent(part: u64, whole: u64) -> String {
    let whole = u128::from(whole.max(1));
    format!("{}%", (u128::from(part) * 200 + whole) / (2 * whole))
}

fn push_texts(attributes: &mut Vec<KeyValue>, key: &'static str, texts: Vec<String>) {
    if !texts.is_empty() {
        let texts = texts.into_iter().map(StringValue::from).collect();
        attributes.push(KeyValue::new(key, Value::Array(Array::String(texts))));
    }
}

fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slow::tests::{query, slow};

    fn value(attributes: &[KeyValue], key: &str) -> Option<String> {
        let mut found = attributes.iter().filter(|kv| kv.key.as_str() == key);
        let value = found.next().map(|kv| kv.value.to_string());
        assert_eq!(found.next(), None, "{key} is there twice");
        value
    }

    #[test]
    fn shares_are_of_all_samples_and_the_largest_comes_first() {
        let running = SlowEvent {
            function: Some("md5".into()),
            wait: None,
            waiting: crate::slow::Waiting::default(),
            ..slow()
        };
        let late = SlowEvent {
            skipped: 2,
            ..query()
        };
        let attributes = attributes(&[slow(), query(), query(), late, running, query()]);
        assert_eq!(value(&attributes, name::PHP_SLOW_SAMPLES).as_deref(), Some("6"));
        assert_eq!(value(&attributes, name::PHP_SLOW_SKIPPED).as_deref(), Some("2"));
        // The first tells what the whole request is searched by.
        assert_eq!(
            value(&attributes, name::CODE_FUNCTION_NAME).as_deref(),
            Some("sleep")
        );
        assert_eq!(
            value(&attributes, name::PHP_SLOW_TOP_FRAMES).as_deref(),
            Some("[\"PDO::query /srv/Repo.php:42 67%\",\"sleep /srv/a.php:3 17%\",\"md5 /srv/a.php:3 17%\"]")
        );
        assert_eq!(
            value(&attributes, name::PHP_SLOW_WAITS).as_deref(),
            Some("[\"network 67% (4 of 6)\",\"sleep 17% (1 of 6)\",\"running 17% (1 of 6)\"]")
        );
    }

    #[test]
    fn the_last_look_tells_more_than_the_first() {
        let killed = SlowEvent {
            cause: Cause::Terminated("request_terminate_timeout".into()),
            ..query()
        };
        let attributes = attributes(&[slow(), killed]);
        assert_eq!(
            value(&attributes, name::CODE_FUNCTION_NAME).as_deref(),
            Some("PDO::query")
        );
        assert_eq!(value(&attributes, name::PHP_SLOW_SAMPLES).as_deref(), Some("2"));
    }

    #[test]
    fn a_crash_has_a_place_and_no_shares() {
        let crashed = SlowEvent {
            cause: Cause::Crashed("SIGSEGV".into()),
            ..slow()
        };
        let attributes = attributes(&[crashed]);
        assert_eq!(value(&attributes, name::CODE_LINE_NUMBER).as_deref(), Some("3"));
        for absent in [
            name::PHP_SLOW_SAMPLES,
            name::PHP_SLOW_TOP_FRAMES,
            name::PHP_SLOW_WAITS,
        ] {
            assert_eq!(value(&attributes, absent), None);
        }
    }

    #[test]
    fn looks_of_a_cpus_clock_are_told_by_their_places() {
        let repo = place("Db\\Repo::find", Some("/srv/db.php"), Some(42));
        let main = place("{main}", Some("/srv/index.php"), None);
        let on_cpu = OnCpu {
            samples: 8,
            places: vec![(main, 1), (repo, 5), (place("md5", None, Some(3)), 1)],
        };
        let attributes = on_cpu.attributes();
        assert_eq!(value(&attributes, "php.cpu.samples").as_deref(), Some("8"));
        assert_eq!(
            value(&attributes, "php.cpu.top_frames").as_deref(),
            // Of one sample no place is known.
            Some("[\"Db\\Repo::find /srv/db.php:42 63%\",\"{main} /srv/index.php 13%\",\"md5 13%\"]")
        );
        assert!(OnCpu::default().attributes().is_empty());
        let many = OnCpu {
            samples: u64::MAX,
            places: (0..9).map(|line| (line.to_string(), u64::MAX)).collect(),
        };
        let frames = value(&many.attributes(), name::PHP_CPU_TOP_FRAMES).unwrap_or_default();
        assert_eq!(frames.matches("100%").count(), MOST_FRAMES, "{frames}");
    }

    #[test]
    fn places_are_few_and_what_could_not_be_seen_is_said() {
        let mut samples: Vec<SlowEvent> = (1..20)
            .map(|line| SlowEvent {
                line: Some(line),
                ..slow()
            })
            .collect();
        samples.push(SlowEvent::default());
        let attributes = attributes(&samples);
        let frames = value(&attributes, name::PHP_SLOW_TOP_FRAMES).unwrap_or_default();
        assert_eq!(frames.matches("5%").count(), MOST_FRAMES, "{frames}");
        let waits = value(&attributes, name::PHP_SLOW_WAITS).unwrap_or_default();
        assert!(
            waits.contains("sleep 95% (19 of 20)") && waits.contains("unknown 5% (1 of 20)"),
            "{waits}"
        );
        assert!(super::attributes(&[]).is_empty());
    }
}
