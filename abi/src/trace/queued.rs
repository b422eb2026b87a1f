//! How long a request waited for a worker, by what a web server or load balancer says of
//! the time at which it took the request.

use super::trim_blanks;

/// A start of waiting further back than this is a mistake.
const LONGEST_QUEUE_NS: u64 = 3600 * 1_000_000_000;
/// How far a proxy's clock may be ahead of ours.
const CLOCK_SKEW_NS: u64 = 1_000_000_000;

/// How long a request had waited, in nanoseconds, by the time at which a proxy or web
/// server says that it took it (`X-Request-Start`, `X-Queue-Start`): with or without `t=`,
/// since 1970 in seconds, milliseconds, microseconds or nanoseconds, told apart by their
/// number of digits. `None` for nonsense, for more than an hour, and for a time that is
/// more than a second ahead of `now_unix_ns`.
pub fn queued_ns(said: &[u8], now_unix_ns: u64) -> Option<u64> {
    let text = trim_blanks(said);
    let text = text.strip_prefix(b"t=").unwrap_or(text);
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    // Times from 2001 to 2286.
    let unit_ns: u64 = match whole.len() {
        10 => 1_000_000_000,
        13 => 1_000_000,
        16 => 1_000,
        19 => 1,
        _ => return None,
    };
    let since = number(whole)?.checked_mul(unit_ns)?;
    let (mut rest, mut unit) = (0, unit_ns);
    for digit in fraction {
        unit /= 10;
        rest += unit * decimal(*digit)?;
    }
    let since = since.checked_add(rest)?;
    if since > now_unix_ns.saturating_add(CLOCK_SKEW_NS) {
        return None;
    }
    Some(now_unix_ns.saturating_sub(since)).filter(|queued| *queued <= LONGEST_QUEUE_NS)
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |sum, digit| {
        sum.checked_mul(10)?.checked_add(decimal(*digit)?)
    })
}

fn decimal(digit: u8) -> Option<u64> {
    char::from(digit).to_digit(10).map(u64::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_of_queueing() {
        const NOW: u64 = 1_700_000_000_500_000_000;
        for (text, expected) in [
            ("t=1700000000.250", Some(250_000_000)),
            ("1700000000", Some(500_000_000)),
            ("t=1700000000250", Some(250_000_000)),
            ("t=1700000000250000", Some(250_000_000)),
            (" t=1700000000250000000 ", Some(250_000_000)),
            // A clock that is a little ahead, and one that is much ahead.
            ("t=1700000001.000", Some(0)),
            ("t=1700000002.000", None),
            ("t=1699990000", None),
            ("t=", None),
            ("", None),
            ("t=-1", None),
            ("t=17000000x0", None),
            ("t=1700000000.x", None),
            ("t=99999999999999999999", None),
            ("t=9999999999999999", None),
        ] {
            assert_eq!(queued_ns(text.as_bytes(), NOW), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..40), now in any::<u64>()) {
            prop_assert!(queued_ns(&text, now).is_none_or(|queued| queued <= LONGEST_QUEUE_NS));
        }
    }
}
