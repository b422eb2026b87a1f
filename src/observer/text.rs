//! Text that a worker or a client wrote, made fit for one line of a log.

use std::fmt::{self, Write};

/// Shows text with its control characters escaped, so that nobody's request can forge a
/// log line or drive the terminal of whoever reads it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain<T>(pub(super) T);

impl<T: AsRef<str>> fmt::Display for Plain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.as_ref().chars() {
            match c {
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if c.is_control() => write!(f, "\\x{:02x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_gets_through() {
        let text = Plain("a\nb\x1b[31m\u{9b}é\0").to_string();
        assert_eq!(text, "a\\nb\\x1b[31m\\x9bé\\x00");
        let all: String = (0..0x100).filter_map(char::from_u32).collect();
        assert!(!Plain(all).to_string().chars().any(char::is_control));
    }
}
