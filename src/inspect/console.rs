//! Where the commands write, and what may be written there.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags};

/// The two streams of a command.
pub struct Console<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// What went wrong, and progress.
    pub err: &'a mut dyn Write,
    /// Whether a person looks at `out`.
    pub out_is_terminal: bool,
    /// Whether a person looks at `err`.
    pub err_is_terminal: bool,
    /// Whether what stands there already can be written over: not on `TERM=dumb`.
    pub out_is_screen: bool,
    /// Whether `out` may have colours.
    pub colour: bool,
    /// What `out` writes to, where that can be asked whether anybody reads it.
    pub sink: Option<BorrowedFd<'a>>,
}

impl<'a> Console<'a> {
    /// Writers of which nothing is known: no colours, no progress.
    pub fn plain(out: &'a mut dyn Write, err: &'a mut dyn Write) -> Console<'a> {
        Console {
            out,
            err,
            out_is_terminal: false,
            err_is_terminal: false,
            out_is_screen: false,
            colour: false,
            sink: None,
        }
    }

    /// Writers that stand for this process's own standard output and standard error.
    /// Colours only on a terminal that has some, and not where `NO_COLOR` is set
    /// (<https://no-color.org>).
    pub fn standard(out: &'a mut dyn Write, err: &'a mut dyn Write) -> Console<'a> {
        let out_is_terminal = io::stdout().is_terminal();
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Console {
            out,
            err,
            out_is_terminal,
            err_is_terminal: io::stderr().is_terminal(),
            out_is_screen: out_is_terminal && !dumb,
            colour: out_is_terminal && !set("NO_COLOR") && !dumb,
            sink: Some(rustix::stdio::stdout()),
        }
    }

    /// Waits until there is something to read, or nobody reads what is written: then false.
    ///
    /// # Errors
    /// As of poll(2).
    pub(super) fn wait(&self, source: impl AsFd) -> io::Result<bool> {
        let source = PollFd::new(&source, PollFlags::IN);
        // Errors are told without being asked for: a pipe without a reader is one.
        let sink = self
            .sink
            .map(|sink| PollFd::from_borrowed_fd(sink, PollFlags::empty()));
        let mut both: Vec<_> = [source].into_iter().chain(sink).collect();
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut both, None))?;
        Ok(both.get(1).is_none_or(|sink| sink.revents().is_empty()))
    }

    /// One line on standard error. Where that is gone, so is whoever would read it.
    pub(super) fn complain(&mut self, message: impl fmt::Display) {
        writeln!(self.err, "glasspool: {message}").unwrap_or_default();
    }

    /// Part of a line on standard error that will be written over.
    pub(super) fn progress(&mut self, text: &str) {
        write!(self.err, "{text}").unwrap_or_default();
        self.err.flush().unwrap_or_default();
    }

    /// Writes a result. A reader that has gone away, as of `| head`, is no failure.
    ///
    /// # Errors
    /// Any other failure to write.
    pub(super) fn result(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.out.write_all(bytes).and_then(|()| self.out.flush()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

impl fmt::Debug for Console<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("out_is_terminal", &self.out_is_terminal)
            .field("out_is_screen", &self.out_is_screen)
            .field("err_is_terminal", &self.err_is_terminal)
            .field("colour", &self.colour)
            .finish_non_exhaustive()
    }
}

/// Text of another process with its control characters escaped, so that nobody's URL can
/// drive the terminal of whoever looks.
pub(super) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible_mark(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Characters that reorder or hide their neighbours (Unicode Standard Annex #9, and the
/// separators that some terminals treat as line ends).
fn is_invisible_mark(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_another_process_drives_the_terminal() {
        assert_eq!(plain("/a\x1b[2J\u{9b}1m\n"), "/a\\u{1b}[2J\\u{9b}1m\\n");
        assert_eq!(plain("/\u{202e}gpj"), "/\\u{202e}gpj");
        assert_eq!(plain("/é/日本?q='\"\\"), "/é/日本?q='\"\\");
    }

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let mut err = Vec::new();
        let mut gone = Gone;
        assert!(Console::plain(&mut gone, &mut err).result(b"x").is_ok());
    }
}
