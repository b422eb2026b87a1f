//! What PHP says of itself (`php/facts.php`).

use serde_json::{Map, Value};

use crate::BenchError;

/// Version, SAPI, extensions, opcache and INI values, as JSON.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
#[serde(transparent)]
pub struct Facts(Map<String, Value>);

impl Facts {
    /// From an answer with headers.
    pub(super) fn parse(answer: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(answer).ok()?;
        let (_, body) = text.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok().map(Self)
    }

    /// PHP's version.
    pub fn version(&self) -> &str {
        self.0.get("version").and_then(Value::as_str).unwrap_or("unknown")
    }

    /// Whether PHP is the same in both, with opcache on.
    ///
    /// # Errors
    /// [`BenchError::Unequal`] with what differs.
    pub fn check_equal(stock: &Self, candidate: &Self) -> Result<(), BenchError> {
        if stock.0.get("opcache") != Some(&Value::Bool(true)) {
            return Err(BenchError::Unequal(
                "nothing, but opcache is off: is php8.2-opcache installed?".to_owned(),
            ));
        }
        let names = stock
            .0
            .keys()
            .chain(candidate.0.keys().filter(|name| !stock.0.contains_key(*name)));
        let different = names.filter(|name| stock.0.get(*name) != candidate.0.get(*name));
        let shown = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
        let words: Vec<String> = different
            .map(|name| {
                format!(
                    "{name}: {} (stock), {}",
                    shown(stock.0.get(name)),
                    shown(candidate.0.get(name))
                )
            })
            .collect();
        if words.is_empty() {
            Ok(())
        } else {
            Err(BenchError::Unequal(words.join("; ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(body: &str) -> Facts {
        Facts::parse(format!("Content-type: text/html\r\n\r\n{body}").as_bytes()).unwrap()
    }

    #[test]
    fn a_difference_is_named() {
        let stock = facts(r#"{"version":"8.2.36","opcache":true,"extensions":["a","b"]}"#);
        assert!(Facts::check_equal(&stock, &stock).is_ok());
        let other = facts(r#"{"version":"8.2.36","opcache":true,"extensions":["a"],"more":1}"#);
        let text = Facts::check_equal(&stock, &other).unwrap_err().to_string();
        assert!(
            text.contains(r#"extensions: ["a","b"] (stock), ["a"]"#) && text.contains("more: nothing"),
            "{text}"
        );
        assert!(Facts::check_equal(&facts("{}"), &facts("{}")).is_err());
        assert!(Facts::parse(b"\r\n\r\nno json").is_none());
    }
}
