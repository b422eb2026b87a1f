//! What a status request asks for: GET variables of the right names, whatever their
//! values.
//!
//! php-fpm 8.2 also takes a name that is only the beginning of a keyword (`?h` for
//! html); later ones, and we, want the whole word.

use crate::worker::script::percent_decoded;

/// How the status page looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A line for each figure.
    Text,
    /// A table.
    Html,
    /// An element for each figure.
    Xml,
    /// One object.
    Json,
    /// The exposition format of OpenMetrics 1.0.
    OpenMetrics,
}

/// A format, with or without the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) format: Format,
    pub(crate) full: bool,
}

impl Asked {
    /// Reads QUERY_STRING. Of several formats the first in php-fpm's order wins, not
    /// the first in the query.
    pub(crate) fn read(query: &[u8]) -> Asked {
        let keys: Vec<Vec<u8>> = query.split(|b| *b == b'&').map(key).collect();
        let has = |name: &str| keys.iter().any(|k| k == name.as_bytes());
        let format = [
            ("html", Format::Html),
            ("xml", Format::Xml),
            ("json", Format::Json),
            ("openmetrics", Format::OpenMetrics),
        ]
        .into_iter()
        .find_map(|(name, format)| has(name).then_some(format));
        Asked {
            format: format.unwrap_or(Format::Text),
            full: has("full"),
        }
    }
}

/// The name that PHP gives the GET variable of `name=value`: decoded, without leading
/// spaces, and of `name[…]` only the name.
fn key(pair: &[u8]) -> Vec<u8> {
    let name = pair.split(|b| *b == b'=').next().unwrap_or_default();
    let spaced: Vec<u8> = name.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    let mut key = percent_decoded(&spaced).trim_ascii_start().to_vec();
    if let Some(open) = key.iter().position(|b| *b == b'[')
        && key[open..].contains(&b']')
    {
        key.truncate(open);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_whatever_their_values() {
        let cases: &[(&str, Format, bool)] = &[
            ("", Format::Text, false),
            ("json", Format::Json, false),
            ("a=1&full=0&xml=", Format::Xml, true),
            ("json&html", Format::Html, false),
            ("openmetrics&full", Format::OpenMetrics, true),
            ("%6ason&+full", Format::Json, true),
            ("json[]=1", Format::Json, false),
            ("json[", Format::Text, false),
            ("JSON&h&jso&ful&fulls&xml.x&q=html", Format::Text, false),
            ("%&%4&=&&[]&%zz=full", Format::Text, false),
        ];
        for (query, format, full) in cases {
            let expected = Asked {
                format: *format,
                full: *full,
            };
            assert_eq!(Asked::read(query.as_bytes()), expected, "{query}");
        }
    }
}
