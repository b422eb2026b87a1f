//! The operator's own text, made fit for messages.

use std::fmt;
use std::path::Path;

/// Longest excerpt of the operator's text in a message, in characters.
const SHOWN_CHARS: usize = 120;

/// A piece of the operator's text made fit for one line of a log: control characters escaped, length bounded.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    /// A sentence that may quote the operator's text, so several times as long as an excerpt.
    pub(in crate::config) fn sentence(text: &str) -> Self {
        Self::bounded(text, 5 * SHOWN_CHARS)
    }

    fn bounded(text: &str, limit: usize) -> Self {
        let mut shown = String::new();
        for (count, c) in text.chars().enumerate() {
            if count == limit {
                shown.push('…');
                break;
            }
            if c.is_control() {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        Self(shown)
    }
}

impl From<&str> for Shown {
    fn from(text: &str) -> Self {
        Self::bounded(text, SHOWN_CHARS)
    }
}

impl From<&Path> for Shown {
    fn from(path: &Path) -> Self {
        // A path is worth its full length, which PATH_MAX bounds where it exists.
        Self::bounded(&path.to_string_lossy(), 4096)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0)
    }
}

/// The nearest known name, if one is near.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nearest(Option<&'static str>);

impl Nearest {
    /// Below this Jaro-Winkler similarity (0 to 1) a suggestion misleads more than it helps.
    const SIMILAR: f64 = 0.8;

    pub(in crate::config) fn among(name: &str, known: impl IntoIterator<Item = &'static str>) -> Self {
        // The comparison is quadratic, so a hostile name is cut first.
        let name: String = name
            .chars()
            .take(SHOWN_CHARS)
            .flat_map(char::to_lowercase)
            .collect();
        let scored = known
            .into_iter()
            .map(|known| (strsim::jaro_winkler(&name, known), known));
        let best = scored.max_by(|a, b| a.0.total_cmp(&b.0));
        Self(
            best.filter(|(score, _)| *score >= Self::SIMILAR)
                .map(|(_, known)| known),
        )
    }

    /// What to ask the operator.
    pub(in crate::config) fn question(&self) -> Option<String> {
        self.0.map(|name| format!("did you mean '{name}'?"))
    }
}
