//! Arbitrary text as a php-fpm.conf: nothing panics, each refusal is one line that names its line, and what a
//! message quotes of the text is bounded.

#![no_main]

use std::sync::LazyLock;

use glasspool::config::{Environment, fuzzing};
use libfuzzer_sys::fuzz_target;

/// No message is longer: a sentence quotes at most 600 characters, of up to ten bytes each once escaped, and names
/// up to three texts.
const MAX_MESSAGE_BYTES: usize = 8 * 1024;

static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    [("A", "one two"), ("B", ""), ("C", "a\nb"), ("YES", "yes")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
});

fuzz_target!(|data: &[u8]| {
    for refused in fuzzing::read(data, &ENVIRONMENT) {
        let message = refused.to_string();
        assert!(message.starts_with("[fuzz:"), "{message}");
        assert!(!message.contains('\n'), "{message:?}");
        assert!(message.len() <= MAX_MESSAGE_BYTES, "{} bytes", message.len());
    }
});
