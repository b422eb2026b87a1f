//! What quotes and `${NAME}` stand for; each function takes the rest of a line and gives what it leaves of it.

use super::is_blank;
use crate::config::effective::Environment;

/// Reads to the closing `"`; the opening one was taken. Only `\"` and `\\` are escapes; any other backslash is text.
/// `None` when a closing `"` or `}` is missing.
pub(super) fn double_quoted<'a>(
    mut rest: &'a str,
    environment: &Environment,
    text: &mut String,
) -> Option<&'a str> {
    loop {
        let c = rest.chars().next()?;
        let after = &rest[c.len_utf8()..];
        rest = match c {
            '"' => return Some(after),
            '\\' if after.starts_with(['"', '\\']) => {
                text.push_str(&after[..1]);
                &after[1..]
            }
            '$' if after.starts_with('{') => variable(rest, environment, text)?,
            _ => {
                text.push(c);
                after
            }
        };
    }
}

/// Expands `${NAME}` or `${NAME:-text}` at the start of `rest`. `None` when the closing `}` is missing.
pub(super) fn variable<'a>(rest: &'a str, environment: &Environment, text: &mut String) -> Option<&'a str> {
    let inner = rest.strip_prefix("${").unwrap_or(rest);
    let (reference, rest) = inner.split_once('}')?;
    let (name, fallback) = reference.split_once(":-").unwrap_or((reference, ""));
    let value = environment.get(name.trim_matches(is_blank)).map(String::as_str);
    text.push_str(value.filter(|value| !value.is_empty()).unwrap_or(fallback));
    Some(rest)
}
