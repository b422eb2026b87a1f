//! `[logs]`: forms of the logs that php-fpm has no words for. What is not said here keeps
//! php-fpm's own form.

use serde::Deserialize;

use crate::config::access_format;

/// `[logs]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logs {
    /// The error log, if it is a file.
    pub error_format: LogForm,
    /// Access logs of all pools.
    pub access_format: Option<AccessForm>,
    /// Slow logs of all pools.
    pub slow_format: LogForm,
}

/// What an entry of a log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogForm {
    /// Text as php-fpm writes it.
    #[default]
    PhpFpm,
    /// One JSON object a line.
    Json,
}

/// What a line of an access log is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum AccessForm {
    /// A JSON object.
    Json,
    /// Text by php-fpm's codes and our own, already checked.
    Codes(String),
}

impl TryFrom<String> for AccessForm {
    type Error = String;

    fn try_from(text: String) -> Result<AccessForm, String> {
        if text == "json" {
            return Ok(AccessForm::Json);
        }
        if !text.contains('%') {
            return Err(format!(
                "expected \"json\", or a format with codes such as \"%R %t %s %{{trace_id}}x\", found {text:?}"
            ));
        }
        access_format::check_with_ours(&text)?;
        Ok(AccessForm::Codes(text))
    }
}
