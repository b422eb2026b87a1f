//! From a copy of the stack to frames, with framehop. Modules are added when an address
//! in them is first seen: a PHP has 130 files mapped, a stack is in three or four.

use std::cell::Cell;
use std::sync::Arc;

use framehop::{
    CacheNative, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind, UnwindRegsNative,
    Unwinder as _, UnwinderNative,
};
use glasspool_abi::Pid;

use super::maps::{Mapping, Maps, printable};
use super::module::{Module, Modules};
use super::{End, MAX_FRAMES, NativeFrame, NativeStack, Seams, StackCopy, Start, UNKNOWN_FRAME};
use crate::memory::{TargetAddr, TargetMemory};
use crate::rights::Obstacle;

type Bytes = Arc<[u8]>;

/// Unwinds the stacks of one process. Keeps what it learns: the first stack takes some
/// milliseconds, later ones some microseconds.
pub struct Unwinder {
    pid: Pid,
    maps: Option<Arc<Maps>>,
    loaded: Vec<Loaded>,
    framehop: UnwinderNative<Bytes, MayAllocateDuringUnwind>,
    rules: CacheNative<MayAllocateDuringUnwind>,
}

/// A module in the address space of the process.
#[derive(Debug, Clone)]
struct Loaded {
    mapping: Mapping,
    /// What was added to the addresses of the file.
    bias: u64,
    name: Arc<str>,
    module: Arc<Module>,
}

impl std::fmt::Debug for Unwinder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unwinder")
            .field("pid", &self.pid)
            .field("loaded", &self.loaded.len())
            .finish_non_exhaustive()
    }
}

impl Unwinder {
    /// For process `pid`. Reads nothing yet.
    #[must_use]
    pub fn new(pid: Pid) -> Unwinder {
        Unwinder {
            pid,
            maps: None,
            loaded: Vec::new(),
            framehop: UnwinderNative::new(),
            rules: CacheNative::new(),
        }
    }

    /// For no process, with one object file at `start`, and no code anywhere else.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn of_file(module: Module, start: u64) -> Unwinder {
        let mut unwinder = Unwinder::new(Pid(0));
        let len = (module.range.end - module.range.start).min(1 << 32);
        let mapping = Mapping {
            start,
            end: start.saturating_add(len),
            offset: 0,
            executable: true,
            file: String::new(),
            path: String::new(),
        };
        let bias = start.wrapping_sub(module.range.start);
        unwinder.add(mapping, bias, "file".into(), Arc::new(module));
        unwinder
    }

    /// Unwinds a copy of the stack. `mem` is read for build-ids only; `seams` are of the
    /// PHP stack that was read at the same moment, to name builtins.
    pub fn unwind<M: TargetMemory>(
        &mut self,
        modules: &mut Modules,
        mem: &M,
        copy: &StackCopy,
        seams: Seams,
    ) -> NativeStack {
        let mut frames = Vec::new();
        let end = self
            .walk(modules, mem, copy, &seams, &mut frames)
            .unwrap_or_else(|end| end);
        NativeStack { frames, end, seams }
    }

    /// An end is a result like any other; `?` leaves early with one.
    fn walk<M: TargetMemory>(
        &mut self,
        modules: &mut Modules,
        mem: &M,
        copy: &StackCopy,
        seams: &Seams,
        frames: &mut Vec<NativeFrame>,
    ) -> Result<End, End> {
        let mut registers = registers(&copy.start);
        let mut address = FrameAddress::from_instruction_pointer(copy.start.instruction);
        // PHP frames that a native one was found for already are not looked for again.
        let mut next_seam = 0;
        let beyond = Cell::new(0);
        let mut read_stack = |addr| copy.word(addr).ok_or_else(|| beyond.set(addr));
        while frames.len() < MAX_FRAMES {
            let pc = address.address();
            // A return address is the instruction after a call, which may belong to the
            // next function already.
            let lookup = address.address_for_lookup();
            let loaded = self.loaded_at(modules, mem, lookup)?;
            let in_file = lookup.wrapping_sub(loaded.bias);
            let start = loaded
                .module
                .function_start(in_file)
                .map(|start| TargetAddr(start.wrapping_add(loaded.bias)));
            let builtin = start.and_then(|start| seams.find(next_seam, start));
            if let Some((index, _)) = builtin {
                next_seam = index + 1;
            }
            frames.push(NativeFrame {
                pc: TargetAddr(pc),
                module: Arc::clone(&loaded.name),
                bias: TargetAddr(loaded.bias),
                start,
                symbol: loaded.module.symbol(in_file),
                source: loaded.module.source(in_file),
                builtin: builtin.map(|(index, name)| (index, name.to_owned())),
            });
            if start.is_none() {
                // framehop would go on by the frame pointer, which PHP does not keep.
                return Err(End::NoUnwindInfo {
                    pc: TargetAddr(pc),
                    module: Arc::clone(&loaded.name),
                });
            }
            let caller =
                self.framehop
                    .unwind_frame(address, &mut registers, &mut self.rules, &mut read_stack);
            address = match caller {
                Ok(None) => return Ok(End::Root),
                Ok(Some(caller)) => match FrameAddress::from_return_address(caller) {
                    Some(caller) => caller,
                    None => return Ok(End::Root),
                },
                Err(framehop::Error::CouldNotReadStack(_)) if is_unknown(beyond.get()) => {
                    return Err(End::NoFramePointer {
                        pc: TargetAddr(pc),
                        module: frames
                            .last()
                            .map_or_else(|| "".into(), |frame| Arc::clone(&frame.module)),
                    });
                }
                Err(framehop::Error::CouldNotReadStack(_)) => {
                    return Err(End::Copied {
                        bytes: copy.bytes.len(),
                    });
                }
                Err(error) => {
                    return Err(End::Broken {
                        pc: TargetAddr(pc),
                        why: error.to_string(),
                    });
                }
            };
        }
        Ok(End::Limit)
    }

    /// The module with code at `pc`; added if this is its first address.
    fn loaded_at<M: TargetMemory>(
        &mut self,
        modules: &mut Modules,
        mem: &M,
        pc: u64,
    ) -> Result<&Loaded, End> {
        let known = |loaded: &Loaded| (loaded.mapping.start..loaded.mapping.end).contains(&pc);
        if let Some(index) = self.loaded.iter().position(known) {
            return Ok(&self.loaded[index]);
        }
        let (maps, mapping) = self.mapping_at(pc)?;
        let no_file = |why| End::NoFile {
            path: printable(&mapping.path),
            why,
        };
        let module = modules.load(self.pid, mem, &maps, &mapping).map_err(no_file)?;
        let name: Arc<str> = mapping.base_name().into();
        let bias = module.bias(&mapping).ok_or_else(|| End::NoUnwindInfo {
            pc: TargetAddr(pc),
            module: Arc::clone(&name),
        })?;
        Ok(self.add(mapping, bias, name, module))
    }

    fn add(&mut self, mapping: Mapping, bias: u64, name: Arc<str>, module: Arc<Module>) -> &Loaded {
        self.framehop.add_module(framehop::Module::new(
            mapping.path.clone(),
            module.range.start.wrapping_add(bias)..module.range.end.wrapping_add(bias),
            bias,
            sections(&module),
        ));
        self.loaded.push(Loaded {
            mapping,
            bias,
            name,
            module,
        });
        &self.loaded[self.loaded.len() - 1]
    }

    /// The mapping with code at `pc`. An address in none makes it look again, once:
    /// PHP may have loaded a library since.
    fn mapping_at(&mut self, pc: u64) -> Result<(Arc<Maps>, Mapping), End> {
        if let Some(maps) = &self.maps
            && let Some(mapping) = maps.code_at(pc)
        {
            return Ok((Arc::clone(maps), mapping.clone()));
        }
        let maps = Maps::read(self.pid).map(Arc::new).map_err(|error| End::NoMaps {
            pid: self.pid,
            why: Obstacle::behind(self.pid, &error),
        })?;
        let mapping = maps.code_at(pc).cloned();
        let found = mapping.map(|mapping| (Arc::clone(&maps), mapping));
        self.maps = Some(maps);
        found.ok_or(End::NoModule { pc: TargetAddr(pc) })
    }
}

/// Whether an address was reckoned from a frame pointer that is not known.
fn is_unknown(addr: u64) -> bool {
    addr.abs_diff(UNKNOWN_FRAME) < 1 << 32
}

fn sections(module: &Module) -> ExplicitModuleSectionInfo<Bytes> {
    let range =
        |section: &Option<super::module::Section>| section.as_ref().map(|section| section.range.clone());
    let bytes =
        |section: &Option<super::module::Section>| section.as_ref().map(|section| Arc::clone(&section.bytes));
    ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: module.text.clone(),
        got_svma: module.got.clone(),
        eh_frame_svma: range(&module.eh_frame),
        eh_frame: bytes(&module.eh_frame),
        eh_frame_hdr_svma: range(&module.eh_frame_hdr),
        eh_frame_hdr: bytes(&module.eh_frame_hdr),
        ..Default::default()
    }
}

#[cfg(target_arch = "x86_64")]
fn registers(start: &Start) -> UnwindRegsNative {
    UnwindRegsNative::new(start.instruction, start.stack, start.frame)
}

#[cfg(target_arch = "aarch64")]
fn registers(start: &Start) -> UnwindRegsNative {
    UnwindRegsNative::new(start.link, start.stack, start.frame)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use proptest::prelude::*;

    use super::*;
    use crate::memory::MemFd;
    use crate::native::FileError;

    fn own() -> Pid {
        Pid(std::process::id().try_into().unwrap())
    }

    fn code() -> u64 {
        let here: fn() -> u64 = code;
        here as usize as u64
    }

    proptest! {
        #[test]
        fn no_stack_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..2048), skip in 0_u64..4096) {
            let mem = MemFd::new(File::open("/proc/self/mem").unwrap());
            let start = Start { instruction: code() + skip, stack: 0x7000_0000, frame: 0x7000_0010, link: code() };
            let copy = StackCopy { start, bytes };
            let mut unwinder = Unwinder::new(own());
            let stack = unwinder.unwind(&mut Modules::new(), &mem, &copy, Seams::default());
            prop_assert!(stack.frames.len() <= MAX_FRAMES);
        }
    }

    #[test]
    fn a_stack_that_returns_to_one_place_for_ever_is_cut() {
        let mem = MemFd::new(File::open("/proc/self/mem").unwrap());
        let bytes: Vec<u8> = (0..3000).flat_map(|_| (code() + 4).to_le_bytes()).collect();
        let start = Start {
            instruction: code() + 4,
            stack: 0x7000_0000,
            frame: 0x7000_0010,
            link: code(),
        };
        let stack = Unwinder::new(own()).unwind(
            &mut Modules::new(),
            &mem,
            &StackCopy { start, bytes },
            Seams::default(),
        );
        assert!(
            matches!(stack.end, End::Limit | End::Copied { .. } | End::Broken { .. }),
            "{:?}",
            stack.end
        );
        assert!(stack.frames.len() <= MAX_FRAMES);
    }

    #[test]
    fn code_in_no_file_and_a_process_that_is_gone_have_their_ends() {
        let mem = MemFd::new(File::open("/proc/self/mem").unwrap());
        let start = Start {
            instruction: 16,
            stack: 0,
            frame: 0,
            link: 0,
        };
        let copy = StackCopy {
            start,
            bytes: Vec::new(),
        };
        let nowhere = Unwinder::new(own()).unwind(&mut Modules::new(), &mem, &copy, Seams::default());
        assert_eq!(nowhere.end, End::NoModule { pc: TargetAddr(16) });
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid(child.id().try_into().unwrap());
        child.wait().unwrap();
        let gone = Unwinder::new(pid).unwind(&mut Modules::new(), &mem, &copy, Seams::default());
        assert_eq!(
            gone.end,
            End::NoMaps {
                pid,
                why: Obstacle::Gone
            }
        );
        let end = End::NoFile {
            path: "/x".to_owned(),
            why: FileError::Replaced,
        };
        assert_eq!(
            end.to_string(),
            "cannot read /x: it was replaced since the process started"
        );
    }
}
