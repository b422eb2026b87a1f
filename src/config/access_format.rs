//! Whether an `access.format` can be written: php-fpm's rules and words. What the codes stand for is the business of
//! the worker that writes the line.

use super::error::Shown;

/// Longest `%{…}`, in bytes: php-fpm keeps it in a buffer of so many.
const MAX_MODIFIER_BYTES: usize = 128;

const CPU: [&str; 3] = ["total", "user", "system"];
/// With the misspelling that php-fpm had first and still takes.
const DURATION: [&str; 7] = [
    "seconds",
    "milli",
    "mili",
    "milliseconds",
    "miliseconds",
    "micro",
    "microseconds",
];
/// What `%{…}x` stands for, which php-fpm does not know.
const OURS: [&str; 13] = [
    "trace_id",
    "span_id",
    "queue_time",
    "on_cpu",
    "runqueue",
    "blocked",
    "blocked_network",
    "blocked_disk",
    "blocked_lock",
    "blocked_sleep",
    "blocked_pipe",
    "blocked_other",
    "waits",
];
const MEMORY: [&str; 5] = ["bytes", "kilo", "kilobytes", "mega", "megabytes"];

/// Looks for the first code in `format` that cannot be written. A `%` at the end is nothing, as in php-fpm.
///
/// # Errors
/// php-fpm's warning about it.
pub fn check(format: &str) -> Result<(), String> {
    check_each(format, false)
}

/// The same for a format of `glasspool.toml`, which may also have `%{…}x`: ids and times.
///
/// # Errors
/// What is wrong, in the same words.
pub fn check_with_ours(format: &str) -> Result<(), String> {
    check_each(format, true)
}

fn check_each(format: &str, with_ours: bool) -> Result<(), String> {
    let mut rest = format;
    while let Some((_, code)) = rest.split_once('%') {
        rest = one(code, with_ours)?;
    }
    Ok(())
}

/// Checks the code that follows a `%` and gives what comes after it.
fn one(mut code: &str, with_ours: bool) -> Result<&str, String> {
    // Of several modifiers the last one counts, and an empty one is none.
    let mut modifier = "";
    while let Some(inner) = code.strip_prefix('{') {
        (modifier, code) = inner
            .split_once('}')
            .ok_or("missing closing embrace in the access.format")?;
    }
    let Some(letter) = code.chars().next() else {
        return Ok(code);
    };
    // Both end in a line of the log.
    let shown = Shown::from(&*letter.to_string());
    if modifier.len() > MAX_MODIFIER_BYTES {
        return Err(format!(
            "the embraced text of %{shown} in the access.format is longer than {MAX_MODIFIER_BYTES} bytes"
        ));
    }
    let among = |words: &[&str], warning: &str| {
        let known = modifier.is_empty() || words.iter().any(|word| word.eq_ignore_ascii_case(modifier));
        if known {
            Ok(())
        } else {
            Err(format!("{warning} ('{}')", Shown::from(modifier)))
        }
    };
    match letter {
        't' | 'T' => Ok(()),
        'C' => among(
            &CPU,
            "only 'total', 'user' or 'system' are allowed as a modifier for %C",
        ),
        'd' => among(
            &DURATION,
            "only 'seconds', 'milli', 'milliseconds', 'micro' or 'microseconds' are allowed as a modifier for %d",
        ),
        'M' => among(
            &MEMORY,
            "only 'bytes', 'kilo', 'kilobytes', 'mega' or 'megabytes' are allowed as a modifier for %M",
        ),
        'x' if with_ours && !modifier.is_empty() => among(
            &OURS,
            &format!("only {} are allowed as a modifier for %x", ours()),
        ),
        'x' if with_ours => Err(format!("one of {} must be set between embraces for %x", ours())),
        'e' if modifier.is_empty() => {
            Err("the name of the environment variable must be set between embraces for %e".to_owned())
        }
        'o' if modifier.is_empty() => {
            Err("the name of the header must be set between embraces for %o".to_owned())
        }
        'e' | 'o' => Ok(()),
        '%' | 'f' | 'l' | 'm' | 'n' | 'p' | 'P' | 'q' | 'Q' | 'r' | 'R' | 's' | 'u' => {
            if modifier.is_empty() {
                Ok(())
            } else {
                Err(format!("embrace is not allowed for modifier %{shown}"))
            }
        }
        _ => Err(format!("Invalid token in the access.format (%{shown})")),
    }?;
    Ok(&code[letter.len_utf8()..])
}

/// The words of `%x`, for people.
fn ours() -> String {
    let words = OURS.map(|word| format!("'{word}'"));
    words.join(", ")
}
