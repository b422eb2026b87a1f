//! What PHP reports as errors, and which of them a request is remembered by.

use glasspool_abi::record::Text;

/// An error as PHP reports it.
#[derive(Debug)]
pub(crate) struct PhpError<'a> {
    pub(crate) kind: i32,
    pub(crate) message: &'a [u8],
    pub(crate) file: &'a [u8],
    pub(crate) line: u32,
}

/// E_ERROR, E_PARSE, E_CORE_ERROR, E_COMPILE_ERROR, E_USER_ERROR, E_RECOVERABLE_ERROR.
const FATAL: i32 = 1 | 4 | 16 | 64 | 256 | 4096;

/// The worst error of a request, kept for its record.
#[derive(Debug, Default)]
pub(crate) struct KeptError {
    pub(crate) kind: i32,
    pub(crate) message: Vec<u8>,
    pub(crate) file: Vec<u8>,
    pub(crate) line: u32,
}

impl KeptError {
    /// Keeps the first fatal error, else the latest error.
    pub(crate) fn keep(kept: &mut Option<KeptError>, error: &PhpError<'_>) {
        if kept.as_ref().is_some_and(KeptError::is_fatal) {
            return;
        }
        let kept = kept.get_or_insert_default();
        (kept.kind, kept.line) = (error.kind, error.line);
        copy_cut(&mut kept.message, error.message, Text::ErrorMessage);
        copy_cut(&mut kept.file, error.file, Text::ErrorFile);
    }

    pub(crate) fn is_fatal(&self) -> bool {
        self.kind & FATAL != 0
    }

    /// The class of an uncaught exception, else PHP's name of the level.
    pub(crate) fn type_name(&self) -> &[u8] {
        if let Some(rest) = self.message.strip_prefix(b"Uncaught ") {
            let end = rest
                .iter()
                .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'\\' | 0x80..)));
            let class = &rest[..end.unwrap_or(rest.len())];
            if !class.is_empty() {
                return class;
            }
        }
        match self.kind {
            1 => b"E_ERROR",
            2 => b"E_WARNING",
            4 => b"E_PARSE",
            8 => b"E_NOTICE",
            16 => b"E_CORE_ERROR",
            32 => b"E_CORE_WARNING",
            64 => b"E_COMPILE_ERROR",
            128 => b"E_COMPILE_WARNING",
            256 => b"E_USER_ERROR",
            512 => b"E_USER_WARNING",
            1024 => b"E_USER_NOTICE",
            2048 => b"E_STRICT",
            4096 => b"E_RECOVERABLE_ERROR",
            8192 => b"E_DEPRECATED",
            16384 => b"E_USER_DEPRECATED",
            _ => b"unknown",
        }
    }
}

fn copy_cut(into: &mut Vec<u8>, text: &[u8], kind: Text) {
    into.clear();
    into.extend_from_slice(&text[..text.len().min(kind.max_bytes())]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uncaught_exception_is_named_by_its_class() {
        let error = |kind, message: &[u8]| KeptError {
            kind,
            message: message.to_vec(),
            ..KeptError::default()
        };
        assert_eq!(
            error(1, b"Uncaught App\\Oops: no in /a.php:3").type_name(),
            b"App\\Oops"
        );
        assert_eq!(error(1, b"Allowed memory size").type_name(), b"E_ERROR");
        assert_eq!(error(4, b"Uncaught ").type_name(), b"E_PARSE");
    }
}
