//! The yardstick of a look: the way of phpspy and others, a system call (process_vm_readv(2)) for every struct and
//! every string, frame by frame. Own code, as simple as that way allows, without any check of what it reads. It knows
//! the same of each frame: function, class, file, line.

use std::io::IoSliceMut;

use glasspool_probes::Process as Target;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// Longest name that is read.
const NAME: usize = 256;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) function: String,
    pub(super) class: String,
    pub(super) file: String,
    pub(super) line: u32,
}

/// Reads the stack of a process that stands still; `None` if anything is not readable.
pub(super) fn read(target: &Target, max_frames: usize) -> Option<Vec<Frame>> {
    let words = Words(Pid::from_raw(target.pid().0));
    let build = target.build();
    let layout = &build.layout;
    let at = |base: u64, field: u32| base.checked_add(field.into());
    let mut frames = Vec::new();
    let mut frame = words.word(at(build.executor_globals, layout.eg_current_execute_data)?)?;
    while frame != 0 && frames.len() < max_frames {
        // `zend_execute_data`, then the function, each in one read.
        let data: [u8; 80] = words.bytes(frame)?;
        let field = |at: u32| Some(u64::from_le_bytes(*data.get(at as usize..)?.first_chunk()?));
        let (opline, function, caller) = (
            field(layout.ex_opline)?,
            field(layout.ex_func)?,
            field(layout.ex_prev)?,
        );
        frame = caller;
        if function == 0 {
            continue;
        }
        let code: [u8; 192] = words.bytes(function)?;
        let field = |at: u32| Some(u64::from_le_bytes(*code.get(at as usize..)?.first_chunk()?));
        let user = *code.get(layout.func_type as usize)? != 1;
        let class = match field(layout.func_scope)? {
            0 => 0,
            class => words.word(at(class, layout.class_name)?)?,
        };
        let line = match user {
            true => words.word(at(opline, layout.op_lineno)?)? & u64::from(u32::MAX),
            false => 0,
        };
        let file = if user { field(layout.op_array_filename)? } else { 0 };
        let text = |addr| words.text(addr, layout.string_len, layout.string_val);
        frames.push(Frame {
            function: text(field(layout.func_name)?)?,
            class: text(class)?,
            file: text(file)?,
            line: u32::try_from(line).ok()?,
        });
    }
    Some(frames)
}

struct Words(Pid);

impl Words {
    fn read(&self, addr: u64, buf: &mut [u8]) -> Option<()> {
        let remote = RemoteIoVec {
            base: usize::try_from(addr).ok()?,
            len: buf.len(),
        };
        let wanted = buf.len();
        let got = process_vm_readv(self.0, &mut [IoSliceMut::new(buf)], &[remote]).ok()?;
        (got == wanted).then_some(())
    }

    fn bytes<const N: usize>(&self, addr: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.read(addr, &mut bytes)?;
        Some(bytes)
    }

    fn word(&self, addr: u64) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(addr)?))
    }

    /// A `zend_string`: its length first, then so many bytes. Nothing for null.
    fn text(&self, addr: u64, len: u32, val: u32) -> Option<String> {
        if addr == 0 {
            return Some(String::new());
        }
        let len = usize::try_from(self.word(addr.checked_add(len.into())?)?).ok()?;
        let mut bytes = vec![0; len.min(NAME)];
        self.read(addr.checked_add(val.into())?, &mut bytes)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}
