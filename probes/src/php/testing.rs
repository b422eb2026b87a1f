//! A made-up PHP process for unit tests: frames, functions and strings at chosen
//! addresses of an [`Image`], with the real offsets of PHP 8.2.

use glasspool_abi::zend::{Layout, PhpBuild};

use super::layouts;
use super::walk::CALL_TOP;
use crate::memory::{Image, TargetAddr};

pub(crate) const GLOBALS: u64 = 0x55_0000_0000;
pub(crate) const VM_STACK: u64 = 0x7f_0000_0000;
pub(crate) const HEAP: u64 = 0x7f_1000_0000;
/// Spare bytes behind the VM stack's used part and the heap.
const SIZE: usize = 512 * 1024;

/// PHP 8.2, NTS, 64-bit (`offsetof` over the headers of Debian's php8.2-dev).
pub(crate) fn layout() -> Layout {
    layouts::layout((8, 2), false).expect("a version that is supported")
}

pub(crate) fn build() -> PhpBuild {
    PhpBuild {
        version: "8.2.36".to_owned(),
        api: 20_220_829,
        zts: false,
        executor_globals: GLOBALS,
        layout: layout(),
    }
}

/// What to put into a made-up function.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Code<'a> {
    pub(crate) kind: u8,
    pub(crate) name: Option<&'a str>,
    pub(crate) class: Option<&'a str>,
}

pub(crate) const MAIN: Code<'_> = Code {
    kind: 2,
    name: None,
    class: None,
};

pub(crate) fn user(name: &str) -> Code<'_> {
    Code {
        kind: 2,
        name: Some(name),
        class: None,
    }
}

pub(crate) fn builtin(name: &str) -> Code<'_> {
    Code {
        kind: 1,
        name: Some(name),
        class: None,
    }
}

/// A process under construction. Frames are pushed as PHP would call them.
#[derive(Debug, Clone)]
pub(crate) struct Fake {
    pub(crate) image: Image,
    heap: u64,
    top: u64,
    /// The frame pushed last.
    pub(crate) current: u64,
}

impl Fake {
    pub(crate) fn new() -> Fake {
        let mut image = Image::new();
        image.map(TargetAddr(GLOBALS), vec![0; 1800]);
        image.map(TargetAddr(VM_STACK), vec![0; SIZE]);
        image.map(TargetAddr(HEAP), vec![0; SIZE]);
        Fake {
            image,
            heap: HEAP,
            top: VM_STACK + 32,
            current: 0,
        }
    }

    /// Fills in the executor globals.
    pub(crate) fn finish(mut self) -> Image {
        self.publish();
        self.image
    }

    pub(crate) fn publish(&mut self) {
        self.put(GLOBALS + 456, self.top);
        self.put(GLOBALS + 472, VM_STACK);
        self.put(GLOBALS + 488, self.current);
    }

    pub(crate) fn put(&mut self, addr: u64, value: u64) {
        assert!(
            self.image.write(TargetAddr(addr), &value.to_le_bytes()),
            "{addr:#x} is not mapped"
        );
    }

    fn put32(&mut self, addr: u64, value: u32) {
        assert!(self.image.write(TargetAddr(addr), &value.to_le_bytes()));
    }

    pub(crate) fn alloc(&mut self, bytes: u64) -> u64 {
        let at = self.heap;
        self.heap += bytes.next_multiple_of(16);
        at
    }

    pub(crate) fn string(&mut self, text: &str) -> u64 {
        let at = self.alloc(24 + text.len() as u64 + 1);
        self.put(at + 16, text.len() as u64);
        assert!(self.image.write(TargetAddr(at + 24), text.as_bytes()));
        at
    }

    /// A function of ten opcodes on the lines `line..line + 10`, in `/app/NAME.php`.
    pub(crate) fn function(&mut self, code: Code<'_>, line: u32) -> u64 {
        let at = self.alloc(248);
        assert!(self.image.write(TargetAddr(at), &[code.kind]));
        if let Some(name) = code.name {
            let name = self.string(name);
            self.put(at + 8, name);
        }
        if let Some(class) = code.class {
            let entry = self.alloc(504);
            let name = self.string(class);
            self.put(entry + 8, name);
            self.put(at + 16, entry);
        }
        if code.kind != 1 {
            let opcodes = self.alloc(320);
            for index in 0..10 {
                self.put32(opcodes + u64::from(index) * 32 + 24, line + index);
            }
            let file = self.string(&format!("/app/{}.php", code.name.unwrap_or("index")));
            self.put(at + 88, opcodes);
            self.put32(at + 80, 10);
            self.put(at + 152, file);
            self.put32(at + 160, line);
        }
        at
    }

    /// Calls `func` from the current frame, on the VM stack; its position is at its
    /// third opcode.
    pub(crate) fn call(&mut self, func: u64) -> u64 {
        let at = self.top;
        self.top += 96;
        self.call_at(at, func);
        at
    }

    /// The same with the frame anywhere.
    pub(crate) fn call_at(&mut self, at: u64, func: u64) {
        let opcodes = if func == 0 { 0 } else { self.get(func + 88) };
        self.put(at, if opcodes == 0 { 0 } else { opcodes + 2 * 32 });
        self.put(at + 24, func);
        self.put32(at + 40, if self.current == 0 { CALL_TOP } else { 0 });
        self.put(at + 48, self.current);
        self.current = at;
    }

    /// Returns from the innermost call.
    pub(crate) fn pop(&mut self) {
        self.top = self.current;
        self.current = self.get(self.current + 48);
    }

    pub(crate) fn set_call_info(&mut self, frame: u64, flags: u32) {
        self.put32(frame + 40, flags);
    }

    pub(crate) fn get(&self, addr: u64) -> u64 {
        use crate::memory::TargetMemory;
        let mut bytes = [0; 8];
        self.image.read(TargetAddr(addr), &mut bytes).expect("mapped");
        u64::from_le_bytes(bytes)
    }
}
