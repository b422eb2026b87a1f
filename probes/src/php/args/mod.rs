//! What calls were made with.
//!
//! Names and types say enough to recognise a call and tell no secrets; they are what is
//! read by default. Values are read only of the functions and positions that the caller
//! lists, and each of these still takes a value away:
//!
//! - the process's own `zend.exception_ignore_args`, which Debian's configuration sets;
//! - `#[SensitiveParameter]`, and attributes that cannot be read or whose layout is not
//!   known: a lookup that finds nothing because a struct has grown must not print a
//!   password;
//! - a slot that changed while its value was read.
//!
//! What is left is escaped, cut and redacted ([`super::redact`]). A function may have
//! assigned to its parameters: these are their values now, not those that were passed.

mod chase;
mod read;
mod sensitive;

use std::fmt;
use std::sync::Arc;

pub(super) use read::{Call, MAX_CALLS, read};

/// Arguments of one call that are looked at; the others are counted.
pub const MAX_ARGUMENTS: usize = 8;

/// What is told of the arguments of calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Arguments {
    /// Nothing. Saves about five reads per stack.
    Off,
    /// Names and types, of the innermost 32 calls.
    #[default]
    Types,
    /// The same, and the values that the list allows.
    Values(Arc<AllowList>),
}

/// The functions and positions whose argument values may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowList {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    class: Option<String>,
    function: String,
    position: usize,
}

/// An entry that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} does not name an argument (write FUNCTION#POSITION or CLASS::METHOD#POSITION, the first is 1)"
)]
pub struct BadEntry(pub String);

/// The arguments of one call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallArguments {
    /// The first [`MAX_ARGUMENTS`], in the order of the call.
    pub list: Vec<Argument>,
    /// How many more were passed by position.
    pub more: usize,
    /// Whether others were passed by names that the function does not declare.
    pub named_extras: bool,
}

/// One argument. Strings are bounded and hold no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// As declared, without `$`. `None` if it is more than the function declares.
    pub name: Option<String>,
    /// `int`, `string(41)` (bytes), `array(3)` (elements), a class; with `&` if it was
    /// passed by reference; `unset`; `?` if unreadable. `SensitiveParameterValue`, as in
    /// PHP's own backtraces, where the function wants it hidden.
    pub kind: String,
    /// The value, if it may be shown: `42`, `"SELECT …"`.
    pub value: Option<String>,
}

// === impl AllowList ===

impl AllowList {
    /// Reads entries such as `file_get_contents#1` and `PDO::query#1`. A method is named
    /// by the class that declares it.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<AllowList, BadEntry> {
        let entries = entries.into_iter().map(Entry::parse);
        Ok(AllowList {
            entries: entries.collect::<Result<_, _>>()?,
        })
    }

    /// Whether a value may be shown. As everywhere in PHP, the case of names does not
    /// matter.
    fn allows(&self, class: Option<&str>, function: &str, position: usize) -> bool {
        self.entries.iter().any(|entry| {
            let same_class = match (&entry.class, class) {
                (None, None) => true,
                (Some(entry), Some(class)) => entry.eq_ignore_ascii_case(class),
                _ => false,
            };
            same_class && entry.position == position && entry.function.eq_ignore_ascii_case(function)
        })
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Entry, BadEntry> {
        let bad = || BadEntry(text.to_owned());
        let (name, position) = text.trim().rsplit_once('#').ok_or_else(bad)?;
        let (class, function) = match name.rsplit_once("::") {
            Some((class, function)) => (Some(class.trim_start_matches('\\')), function),
            None => (None, name.trim_start_matches('\\')),
        };
        let position = position.parse().ok().filter(|&position| position > 0);
        let named = !function.is_empty() && class != Some("");
        Ok(Entry {
            class: class.map(str::to_owned),
            function: function.to_owned(),
            position: position.filter(|_| named).ok_or_else(bad)?,
        })
    }
}

// === impl CallArguments ===

impl fmt::Display for CallArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for argument in &self.list {
            write!(f, "{separator}{argument}")?;
            separator = ", ";
        }
        if self.more > 0 {
            write!(f, "{separator}…{} more", self.more)?;
            separator = ", ";
        }
        if self.named_extras {
            write!(f, "{separator}…named")?;
        }
        Ok(())
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}: ")?;
        }
        f.write_str(self.value.as_ref().unwrap_or(&self.kind))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
