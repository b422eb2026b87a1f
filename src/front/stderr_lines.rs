//! Cuts what PHP writes to its error stream into lines.
//!
//! Several requests write at the same time; a line is written whole, so that they do not mix.

use std::io::Write;

/// A longer line is cut here.
const MAX_LINE_BYTES: usize = 8 * 1024;

/// The unfinished last line of one request's error stream.
#[derive(Debug)]
pub(super) struct StderrLines<W: Write> {
    line: Vec<u8>,
    out: W,
}

impl<W: Write> StderrLines<W> {
    /// Lines go to `out`, one write each.
    pub(super) fn new(out: W) -> Self {
        Self {
            line: Vec::new(),
            out,
        }
    }

    /// Takes the next part of the stream and writes the lines that it completes.
    pub(super) fn push(&mut self, text: &[u8]) {
        for part in text.split_inclusive(|&byte| byte == b'\n') {
            let mut rest = part;
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(MAX_LINE_BYTES - self.line.len()));
                self.line.extend_from_slice(now);
                rest = later;
                if self.line.ends_with(b"\n") || self.line.len() == MAX_LINE_BYTES {
                    self.finish();
                }
            }
        }
    }

    /// Writes what is left, with the newline that it lacks.
    pub(super) fn finish(&mut self) {
        if self.line.is_empty() {
            return;
        }
        if self.line.last() != Some(&b'\n') {
            self.line.push(b'\n');
        }
        // Where the errors of errors should go, nobody knows: a closed terminal must not end a request.
        self.out.write_all(&self.line).ok();
        self.line.clear();
    }
}

impl<W: Write> Drop for StderrLines<W> {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps each write apart.
    #[derive(Default)]
    struct Writes(Vec<String>);

    impl Write for &mut Writes {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(parts: &[&str]) -> Vec<String> {
        let mut writes = Writes::default();
        let mut lines = StderrLines::new(&mut writes);
        parts.iter().for_each(|part| lines.push(part.as_bytes()));
        drop(lines);
        writes.0
    }

    #[test]
    fn each_line_is_one_write() {
        assert_eq!(lines(&["a\nb", "c\n", "\n", "d"]), ["a\n", "bc\n", "\n", "d\n"]);
        assert!(lines(&["", ""]).is_empty());
    }

    #[test]
    fn an_endless_line_is_cut() {
        let long = "x".repeat(MAX_LINE_BYTES + 1);
        assert_eq!(
            lines(&[&long]),
            [format!("{}\n", "x".repeat(MAX_LINE_BYTES)), "x\n".to_owned()]
        );
    }
}
