//! Reads `glasspool.toml` and words its mistakes: where, what was found, what is allowed.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Overlay;
use crate::config::error::{ConfigError, Fault, Place, Shown};

/// Largest `glasspool.toml`; a thousand pools stay far below.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A file and its text, to turn a byte range into a place.
#[derive(Debug)]
pub(in crate::config) struct Source {
    file: PathBuf,
    text: String,
}

impl Source {
    pub(in crate::config) fn place(&self, span: Option<Range<usize>>) -> Place {
        let start = span.map_or(0, |span| span.start).min(self.text.len());
        let before = String::from_utf8_lossy(&self.text.as_bytes()[..start]);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Place {
            file: self.file.as_path().into(),
            line,
            column: Some(column),
        }
    }
}

/// Reads the file, or gives `None` when it does not exist and need not.
pub(in crate::config) fn read(path: &Path, required: bool) -> Result<Option<(Overlay, Source)>, ConfigError> {
    let opened = match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !required => return Ok(None),
        opened => opened.map_err(|e| ConfigError::open(path, None, e))?,
    };
    let mut bytes = Vec::new();
    opened
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| ConfigError::open(path, None, e))?;
    if bytes.len() as u64 > MAX_BYTES {
        let fault = Fault::TooLarge {
            what: "glasspool.toml",
            limit: MAX_BYTES,
        };
        return Err(ConfigError::at(&Place::line(path, 1), fault));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = valid.iter().rev().take_while(|byte| **byte != b'\n').count();
        ConfigError::at(&Place::line(path, line), Fault::NotUtf8 { offset: column })
    })?;
    let source = Source {
        file: path.to_path_buf(),
        text,
    };
    let parsed = toml::from_str::<Overlay>(&source.text);
    let overlay = parsed.map_err(|e| ConfigError::at(&source.place(e.span()), fault(e.message())))?;
    Ok(Some((overlay, source)))
}

/// serde words an unknown key as "unknown field `x`, expected one of `a`, `b`" (`serde::de::Error::unknown_field`);
/// the nearest of these names is what the operator wants to read.
fn fault(message: &str) -> Fault {
    let names =
        |part: &str| -> Vec<String> { part.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let unknown = message
        .strip_prefix("unknown field ")
        .and_then(|rest| rest.split_once(", expected "));
    let Some((found, known)) = unknown else {
        // TOML syntax mistakes come with further lines; the first two say what and what else is allowed.
        let reason = message.lines().take(2).collect::<Vec<_>>().join(", ");
        return Fault::Toml {
            reason: Shown::sentence(&reason),
        };
    };
    let key = found.trim_matches('`');
    let known = names(known);
    let short: String = key.chars().take(100).flat_map(char::to_lowercase).collect();
    let similar = known
        .iter()
        .map(|name| (strsim::jaro_winkler(&short, name), name));
    let nearest = similar
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(score, _)| *score >= 0.75);
    let nearest = nearest.map_or(String::new(), |(_, name)| format!(" (did you mean '{name}'?)"));
    Fault::UnknownKey {
        key: Shown::from(key),
        nearest: Shown::from(nearest.as_str()),
        allowed: Shown::sentence(&format!(", allowed are {}", known.join(", "))),
    }
}

/// Refuses `[pool.NAME]`, and `pool` of a rule, for a name that is not among `pools`.
pub(in crate::config) fn refuse_unknown_pools(
    overlay: &Overlay,
    source: &Source,
    pools: &[&str],
    fpm_conf: &Path,
) -> Result<(), ConfigError> {
    let known = |name: &str| pools.iter().any(|pool| pool.eq_ignore_ascii_case(name));
    let (file, all) = (Shown::from(fpm_conf), Shown::sentence(&pools.join(", ")));
    let refuse = |name: &toml::Spanned<String>, fault: fn(Shown, Shown, Shown) -> Fault| {
        let fault = fault(Shown::from(name.get_ref().as_str()), file.clone(), all.clone());
        Err(ConfigError::at(&source.place(Some(name.span())), fault))
    };
    if let Some(name) = overlay.pools.keys().find(|key| !known(key.get_ref())) {
        return refuse(name, |pool, file, known| Fault::UnknownPool { pool, file, known });
    }
    let mut of_rules = overlay.trace.rules.iter().filter_map(|rule| rule.pool.as_ref());
    if let Some(name) = of_rules.find(|name| !known(name.get_ref())) {
        return refuse(name, |pool, file, known| Fault::RuleOfUnknownPool {
            pool,
            file,
            known,
        });
    }
    Ok(())
}
