//! The text between `[` and `]`: the name of a section, or the key of an array.
//!
//! As in PHP (`SECTION_VALUE_CHARS` of php-src `Zend/zend_ini_scanner.l`): plain text, quoted pieces and `${NAME}` one
//! after the other. Operators and words such as `yes` mean nothing here.

use super::{expand, is_blank};
use crate::config::effective::Environment;

/// Reads up to the closing bracket: the text, and what follows the bracket. `None` when it is not closed, or has a
/// character that only quotes make text.
pub(super) fn parse<'a>(text: &'a str, environment: &Environment) -> Option<(String, &'a str)> {
    let mut value = String::new();
    // Blanks at the end are dropped only where they are not quoted.
    let mut kept = 0;
    let mut rest = text.trim_start_matches(is_blank);
    loop {
        let c = rest.chars().next()?;
        let after = &rest[c.len_utf8()..];
        rest = match c {
            ']' => {
                value.truncate(kept.max(value.trim_end_matches(is_blank).len()));
                return Some((value, after));
            }
            '\'' => {
                let (quoted, rest) = after.split_once('\'')?;
                value.push_str(quoted);
                kept = value.len();
                rest
            }
            '"' => {
                let (quoted, rest) = double_quoted(after, environment)?;
                value.push_str(&quoted);
                kept = value.len();
                rest
            }
            '$' if after.starts_with('{') => {
                let rest = expand::variable(rest, environment, &mut value)?;
                kept = value.len();
                rest
            }
            ';' | '\\' | '[' => return None,
            _ => {
                value.push(c);
                after
            }
        };
    }
}

fn double_quoted<'a>(text: &'a str, environment: &Environment) -> Option<(String, &'a str)> {
    let mut value = String::new();
    let rest = expand::double_quoted(text, environment, &mut value)?;
    Some((value, rest))
}
