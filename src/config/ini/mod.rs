//! php-fpm's configuration dialect, one physical line at a time, as php-fpm itself reads it.
//!
//! The facts are those of PHP's INI language in its normal mode (php-src `Zend/zend_ini_scanner.l`), applied to each
//! line alone: a value cannot continue on the next line. This room knows syntax only; which names exist is the
//! business of `directives`.
//!
//! Deliberately refused here though PHP takes it, because PHP's answer is never what was meant:
//! - an unquoted operator between words (`a&b` is 0 there); with integers and `E_*` it computes, see [`expression`];
//! - a quote that is never closed, text after `]`, a section without a name or with a control character in it;
//! - constants of PHP (`PHP_VERSION`): this process has no PHP to ask. `E_*` are known. For the same reason `${NAME}`
//!   is looked up in the environment and not among PHP's INI entries.
//!
//! Deliberately more: `${NAME:-text}` gives the text when NAME is unset or empty, as PHP 8.3 does and 8.2 does not.

mod brackets;
mod expand;
pub(super) mod expression;
mod value;

use super::effective::Environment;
use super::error::{Fault, Shown};

/// Longest line, in bytes. The longest real ones are lists of disabled functions, a few kilobytes.
pub(super) const MAX_LINE_BYTES: usize = 64 * 1024;

/// Longest pool name, in bytes. It is repeated wherever `$pool` stands, so it must not be long.
const MAX_SECTION_BYTES: usize = 100;

/// What one line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement {
    /// `[name]`
    Section(String),
    /// `name = value`
    Scalar { name: String, value: String },
    /// `name[key] = value`; the key may be empty.
    Array {
        name: String,
        key: String,
        value: String,
    },
}

/// Reads one line without its line end; `None` is an empty line or a comment.
pub(super) fn parse_line(line: &[u8], environment: &Environment) -> Result<Option<Statement>, Fault> {
    if line.len() > MAX_LINE_BYTES {
        return Err(Fault::LongLine {
            limit: MAX_LINE_BYTES,
        });
    }
    if line.contains(&0) {
        return Err(Fault::Nul);
    }
    let text = String::from_utf8_lossy(line);
    let statement = statement(text.trim_matches(is_blank), environment)?;
    // Comments may be in any encoding. Elsewhere the replacement character tells that a byte was lost.
    match (std::str::from_utf8(line), &statement) {
        (Err(e), Some(statement)) if statement.contains(char::REPLACEMENT_CHARACTER) => Err(Fault::NotUtf8 {
            offset: e.valid_up_to(),
        }),
        _ => Ok(statement),
    }
}

fn statement(text: &str, environment: &Environment) -> Result<Option<Statement>, Fault> {
    if text.is_empty() || text.starts_with(';') {
        return Ok(None);
    }
    match text.strip_prefix('[') {
        Some(rest) => section(rest, environment)
            .map(Some)
            .ok_or_else(|| Fault::Section {
                found: Shown::from(text),
            }),
        None => entry(text, environment).map(Some),
    }
}

impl Statement {
    fn contains(&self, c: char) -> bool {
        match self {
            Self::Section(name) => name.contains(c),
            Self::Scalar { name, value } => name.contains(c) || value.contains(c),
            Self::Array { name, key, value } => [name, key, value].iter().any(|text| text.contains(c)),
        }
    }
}

fn section(rest: &str, environment: &Environment) -> Option<Statement> {
    let (name, after) = brackets::parse(rest, environment)?;
    let after = after.trim_start_matches(is_blank);
    // The name becomes part of messages, process titles and metric labels.
    let fits = |c: char| !c.is_control() && (c == ' ' || !c.is_whitespace()) && !"\"'$;[]\\".contains(c);
    let alone = after.is_empty() || after.starts_with(';');
    let sized = (1..=MAX_SECTION_BYTES).contains(&name.len());
    (alone && sized && name.chars().all(fits)).then_some(Statement::Section(name))
}

fn entry(text: &str, environment: &Environment) -> Result<Statement, Fault> {
    let end = text.find(is_not_label).unwrap_or(text.len());
    let (name, rest) = (text[..end].trim_end_matches(is_blank), &text[end..]);
    if name.is_empty() || is_value_word(name) {
        return Err(Fault::Name {
            found: Shown::from(text),
        });
    }
    if let Some(inner) = rest.strip_prefix('[') {
        return array(name, inner, environment);
    }
    match rest.chars().next() {
        Some('=') => {
            let value = value::parse(name, &rest[1..], environment)?;
            Ok(Statement::Scalar {
                name: name.to_owned(),
                value,
            })
        }
        None | Some(';') => {
            let hint = if name.starts_with('#') {
                "comments start with ';'"
            } else {
                "write 'name = value'"
            };
            Err(Fault::NoValue {
                name: Shown::from(name),
                hint,
            })
        }
        Some(_) => Err(Fault::Name {
            found: Shown::from(text),
        }),
    }
}

fn array(name: &str, inner: &str, environment: &Environment) -> Result<Statement, Fault> {
    let fault = || Fault::Array {
        name: Shown::from(name),
        found: Shown::from(inner),
    };
    let (key, rest) = brackets::parse(inner, environment).ok_or_else(fault)?;
    let value = rest
        .trim_start_matches(is_blank)
        .strip_prefix('=')
        .ok_or_else(fault)?;
    let value = value::parse(name, value, environment)?;
    Ok(Statement::Array {
        name: name.to_owned(),
        key,
        value,
    })
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// The characters that cannot be part of a name (`LABEL_CHAR` of php-src `Zend/zend_ini_scanner.l`).
fn is_not_label(c: char) -> bool {
    "=;&|^$~(){}!\"[]".contains(c) || c.is_control() && c != '\t'
}

/// Words that PHP's scanner turns into values, so that they can neither be names nor parts of longer values.
fn is_value_word(word: &str) -> bool {
    bool_word(word).is_some()
}

/// What an unquoted word that is a whole value becomes, in any case.
fn bool_word(word: &str) -> Option<&'static str> {
    let any = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
    if any(&["yes", "on", "true"]) {
        Some("1")
    } else if any(&["no", "off", "false", "none", "null"]) {
        Some("")
    } else {
        None
    }
}
