//! `route_from_controller`: `true`, `false`, or patterns of classes.

use std::fmt;

use glasspool_abi::control::ControllerPattern;
use glasspool_abi::trace::sampling::{Glob, PATTERN_BYTES};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// Most patterns in a list.
const MOST_PATTERNS: usize = 64;

/// What `true` stands for: the usual names, but not those of frameworks' own classes, which
/// every request passes.
const USUAL: [&str; 12] = [
    r"!Illuminate\*",
    r"!Symfony\*",
    r"!yii\*",
    r"!Cake\*",
    r"!CodeIgniter\*",
    r"!Laminas\*",
    r"!Mezzio\*",
    r"!Slim\*",
    r"!Magento\Framework\*",
    "*Controller",
    "*Action",
    "*Handler",
];

/// See the module.
pub(super) fn patterns<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Vec<ControllerPattern>>, D::Error> {
    struct Said;

    impl<'de> Visitor<'de> for Said {
        type Value = Vec<ControllerPattern>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true, false, or a list of classes such as [\"*Controller\"]")
        }

        fn visit_bool<E: Error>(self, usual: bool) -> Result<Self::Value, E> {
            let usual = if usual { &USUAL[..] } else { &[] };
            usual.iter().map(|text| pattern(text)).collect()
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut patterns = Vec::new();
            while let Some(text) = list.next_element::<String>()? {
                if patterns.len() == MOST_PATTERNS {
                    return Err(A::Error::custom(format!(
                        "at most {MOST_PATTERNS} patterns are allowed"
                    )));
                }
                patterns.push(pattern(&text)?);
            }
            Ok(patterns)
        }
    }

    from.deserialize_any(Said).map(Some)
}

/// A leading backslash says nothing: names of classes are written with and without.
fn pattern<E: Error>(text: &str) -> Result<ControllerPattern, E> {
    let (excluded, class) = match text.strip_prefix('!') {
        Some(class) => (true, class),
        None => (false, text),
    };
    let class = Glob::of_names(class.strip_prefix('\\').unwrap_or(class)).map_err(|_| {
        E::custom(format!(
            "{text:?}: a pattern of classes has 1 to {PATTERN_BYTES} bytes and no blanks or control characters"
        ))
    })?;
    Ok(ControllerPattern { class, excluded })
}
