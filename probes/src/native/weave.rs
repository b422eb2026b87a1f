//! PHP frames and native ones as one stack.
//!
//! PHP's virtual machine runs PHP functions that call each other in one native call of
//! `execute_ex`, which therefore stands for a run of PHP frames: from the one that calls
//! out, to the one that C code called (`ZEND_CALL_TOP`). A builtin stands for itself:
//! its native frame is the one whose function is the builtin's handler. All that is
//! native and further in belongs to it.

use super::{NativeFrame, NativeStack};
use crate::php::frames::{Frame, Stack};

/// The virtual machine's loop.
const MACHINE: &str = "execute_ex";
/// What C code calls PHP functions with: `usort`, autoloading, destructors.
const CALLBACKS: [&str; 2] = ["zend_call_function", "zend_call_known_function"];

/// One frame of the joined stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WovenFrame {
    /// What it is.
    pub what: Woven,
    /// The native frame. `None` for PHP frames of which there is none of their own (all
    /// but builtins), or none is known.
    pub native: Option<NativeFrame>,
}

/// What a frame of the joined stack is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Woven {
    /// A PHP frame.
    Php(Box<Frame>),
    /// A native one.
    Native,
    /// A native one that calls back into PHP: what is further in was called by C code.
    Callback,
}

/// Joins both stacks, innermost first. Every PHP frame is in the result once and in its
/// order, whatever the native stack is; `native` must have been read with the seams of
/// `php`, at the same moment.
#[must_use]
pub fn weave(php: &Stack, native: &NativeStack) -> Vec<WovenFrame> {
    let mut weaver = Weaver {
        php,
        native,
        next: 0,
        woven: Vec::with_capacity(php.frames.len() + native.frames.len()),
    };
    for frame in &native.frames {
        let symbol = frame.symbol.as_deref();
        match &frame.builtin {
            Some((index, _)) if *index >= weaver.next && *index < php.frames.len() => {
                weaver.php_until(*index);
                weaver.php(Some(frame));
            }
            _ if symbol == Some(MACHINE) => weaver.run(frame),
            _ if symbol.is_some_and(|symbol| CALLBACKS.contains(&symbol)) => {
                weaver.native(Woven::Callback, frame);
            }
            _ => weaver.native(Woven::Native, frame),
        }
    }
    // A fiber has a native stack of its own, and code of the JIT ends it early.
    weaver.php_until(php.frames.len());
    weaver.woven
}

struct Weaver<'a> {
    php: &'a Stack,
    native: &'a NativeStack,
    /// The innermost PHP frame that is not in the result yet.
    next: usize,
    woven: Vec<WovenFrame>,
}

impl Weaver<'_> {
    /// The PHP frames that one `execute_ex` stands for.
    fn run(&mut self, frame: &NativeFrame) {
        // Builtins whose native frame was not recognised.
        while self.php.frames.get(self.next).is_some_and(|frame| frame.internal) {
            self.php(None);
        }
        if self.next == self.php.frames.len() {
            // It runs, and has no frame yet or any more.
            return self.native(Woven::Native, frame);
        }
        while self
            .php
            .frames
            .get(self.next)
            .is_some_and(|frame| !frame.internal)
        {
            let top = self.native.seams.0.get(self.next).is_some_and(|seam| seam.top);
            self.php(None);
            if top {
                break;
            }
        }
    }

    fn php_until(&mut self, end: usize) {
        while self.next < end {
            self.php(None);
        }
    }

    fn php(&mut self, native: Option<&NativeFrame>) {
        if let Some(frame) = self.php.frames.get(self.next) {
            self.woven.push(WovenFrame {
                what: Woven::Php(Box::new(frame.clone())),
                native: native.cloned(),
            });
        }
        self.next += 1;
    }

    fn native(&mut self, what: Woven, frame: &NativeFrame) {
        self.woven.push(WovenFrame {
            what,
            native: Some(frame.clone()),
        });
    }
}

impl std::fmt::Display for WovenFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.what, &self.native) {
            (Woven::Php(frame), _) => match (&frame.file, frame.line) {
                (Some(file), Some(line)) => write!(f, "{} {file}:{line}", frame.php_name()),
                _ => f.write_str(&frame.php_name()),
            },
            (Woven::Callback, Some(native)) => write!(f, "{native} (calls back into PHP)"),
            (_, Some(native)) => native.fmt(f),
            (_, None) => Ok(()),
        }
    }
}
