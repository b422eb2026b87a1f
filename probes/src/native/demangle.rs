//! Names of C++ and Rust functions as their authors wrote them.

use std::fmt::{self, Write};

use cpp_demangle::{DemangleOptions, ParseOptions, Symbol};

/// Longest result, in bytes. A mangled name refers back to its own parts, so that a short
/// one can stand for a name of any length.
const MAX_NAME: usize = 512;
/// Templates in templates; enough for the standard library, and little of a stack.
const MAX_DEPTH: u32 = 64;

/// The name as it was written; the name as it is if it is no mangled one.
pub(super) fn demangled(name: &str) -> String {
    let written = if name.starts_with("_Z") && !is_rust(name) {
        cpp(name)
    } else if name.starts_with("_R") || is_rust(name) {
        let mut text = Capped::default();
        // Without the hash that old names end with.
        rustc_demangle::try_demangle(name)
            .ok()
            .and_then(|name| write!(text, "{name:#}").ok())
            .map(|()| text.0)
    } else {
        None
    };
    written.unwrap_or_else(|| name.to_owned())
}

/// The older kind of Rust's names is one of C++ with a hash in the end.
fn is_rust(name: &str) -> bool {
    let hash = name.strip_suffix('E').and_then(|name| name.rsplit_once("17h"));
    hash.is_some_and(|(_, hash)| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn cpp(name: &str) -> Option<String> {
    let parsing = ParseOptions::default().recursion_limit(MAX_DEPTH);
    let symbol = Symbol::new_with_options(name, &parsing).ok()?;
    let mut text = Capped::default();
    let options = DemangleOptions::default().no_params().recursion_limit(MAX_DEPTH);
    symbol.structured_demangle(&mut text, &options).ok()?;
    Some(text.0)
}

/// Text that refuses to become longer than a name should be.
#[derive(Debug, Default)]
struct Capped(String);

impl Write for Capped {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_NAME {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_they_were_written() {
        for (mangled, written) in [
            ("poll", "poll"),
            ("_php_stream_fill_read_buffer", "_php_stream_fill_read_buffer"),
            (
                "_ZN6icu_7213UnicodeString6appendEDs",
                "icu_72::UnicodeString::append",
            ),
            (
                "_ZNSt6vectorIiSaIiEE9push_backERKi",
                "std::vector<int, std::allocator<int> >::push_back",
            ),
            ("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write"),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("_Znonsense", "_Znonsense"),
            ("_R", "_R"),
            ("_Z", "_Z"),
        ] {
            assert_eq!(demangled(mangled), written);
        }
    }

    #[test]
    fn a_short_name_that_stands_for_an_endless_one_is_left_as_it_is() {
        // Each argument is a pair of the one before it, twice: 2 to the power of 40 names.
        let mut name = "_Z1f1aS_".to_owned();
        let mut pairs = String::from("1pI1aS0_E");
        for _ in 0..40 {
            pairs = format!("1pI{pairs}S1_E");
        }
        name.push_str(&pairs);
        assert!(demangled(&name).len() <= MAX_NAME.max(name.len()));
        let deep = format!("_Z1f{}i", "P".repeat(5_000));
        assert_eq!(demangled(&deep), deep);
    }
}
