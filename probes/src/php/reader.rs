//! One read of a stack, step by step, with buffers that go from one try to the next.

use glasspool_abi::zend::PhpBuild;

use super::args::Arguments;
use super::decode::Decoded;
use super::frames::{Defect, MAX_FRAMES, StackError, Want};
use super::gather::{Batches, Gathered, Innermost, gather};
use super::offsets::Offsets;
use super::regions::Regions;
use super::walk::{Walk, unchanged, walk, walk_from};
use crate::memory::TargetMemory;

/// What a read needs besides the target.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    build: &'a PhpBuild,
    want: Want,
    offsets: Offsets,
    regions: Regions,
    batches: Batches,
}

/// What was read. Its bytes are in the [`Reader`] that read it, until that reads again.
#[derive(Debug)]
pub(super) struct Raw {
    gathered: Gathered,
    /// Arguments are told by the names of functions: then the frames are made at once.
    with_arguments: Option<Decoded>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(build: &'a PhpBuild, want: Want) -> Result<Reader<'a>, StackError> {
        Ok(Reader {
            build,
            want,
            offsets: Offsets::new(&build.layout)?,
            regions: Regions::default(),
            batches: Batches::default(),
        })
    }

    /// With buffers that are large enough for most stacks: reading one then meets neither
    /// the allocator nor a page fault. Takes about 50 us.
    pub(super) fn with_room(build: &'a PhpBuild, want: Want) -> Result<Reader<'a>, StackError> {
        Ok(Reader {
            regions: Regions::with_room(),
            batches: Batches::with_room(),
            ..Reader::new(build, want)?
        })
    }

    /// The chain of the current frame.
    pub(super) fn walk<M: TargetMemory>(&mut self, mem: &M) -> Result<Walk, StackError> {
        let frames = self.want.max_frames.min(MAX_FRAMES);
        self.walk_to(mem, frames)
    }

    /// The same, of as many frames as there may be.
    pub(super) fn walk_all<M: TargetMemory>(&mut self, mem: &M) -> Result<Walk, StackError> {
        self.walk_to(mem, MAX_FRAMES)
    }

    fn walk_to<M: TargetMemory>(&mut self, mem: &M, frames: usize) -> Result<Walk, StackError> {
        walk(mem, self.build, &self.offsets, frames, &mut self.regions)
    }

    /// The chain of another frame.
    pub(super) fn walk_from<M: TargetMemory>(&mut self, mem: &M, innermost: u64) -> Result<Walk, StackError> {
        let frames = self.want.max_frames.min(MAX_FRAMES);
        walk_from(mem, self.build, &self.offsets, innermost, frames)
    }

    /// Whether the target still has this chain.
    pub(super) fn is_unchanged<M: TargetMemory>(&mut self, mem: &M, walk: &Walk) -> Result<bool, StackError> {
        unchanged(mem, self.build, &self.offsets, walk, &mut self.regions)
    }

    /// All that is to be told of a chain.
    pub(super) fn gather<M: TargetMemory>(
        &mut self,
        mem: &M,
        walk: &Walk,
        innermost: Innermost,
    ) -> Result<Raw, StackError> {
        let gathered = gather(mem, &self.offsets, walk, innermost, &mut self.batches)?;
        let with_arguments = if self.want.arguments == Arguments::Off {
            None
        } else {
            let mut decoded = gathered.finish(&self.offsets, &self.batches);
            decoded.read_arguments(mem, self.build, walk, &self.want.arguments)?;
            Some(decoded)
        };
        Ok(Raw {
            gathered,
            with_arguments,
        })
    }

    /// The frames. Reads nothing of the target.
    pub(super) fn decode(&self, raw: Raw) -> Decoded {
        match raw.with_arguments {
            Some(decoded) => decoded,
            None => self.decode_frames(&raw),
        }
    }

    /// The same without arguments.
    pub(super) fn decode_frames(&self, raw: &Raw) -> Decoded {
        raw.gathered.finish(&self.offsets, &self.batches)
    }
}

impl Raw {
    /// What is wrong with it, as far as it is known without a look at the texts.
    pub(super) fn defect(&self) -> Option<Defect> {
        self.gathered.broken.or(self.gathered.suspicious)
    }
}
