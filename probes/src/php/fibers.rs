//! Fibers that wait to be resumed: stacks of their own, which no chain leads to. They are
//! found among all objects of the process (`EG(objects_store)`,
//! Zend/zend_objects_API.h), and told by their class.
//!
//! A suspended fiber keeps the frame in which it will go on (`zend_fiber.execute_data`);
//! from there its chain goes out to the frame that the fiber began with.

use std::collections::HashSet;

use glasspool_abi::zend::PhpBuild;

use super::check;
use super::frames::{Stack, StackError, Want};
use super::offsets::{u32_at, u64_at};
use super::walk::implausible;
use crate::memory::{Batch, ReadError, Slice, TargetAddr, TargetMemory};

/// Objects that are looked at: those with the lowest handles, so the oldest mostly.
const MAX_OBJECTS: u32 = 256 * 1024;
/// Objects per batch of reads.
const CHUNK: usize = 4_096;
/// Fibers whose stacks are read.
const MAX_FIBERS: usize = 256;
/// `ZEND_FIBER_STATUS_SUSPENDED` (Zend/zend_fibers.h).
const SUSPENDED: u32 = 2;
/// No struct of interest is larger.
const MAX_OFFSET: u32 = 4_096;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Suspended {
    /// A stack per fiber, each ending in `{fiber}`.
    pub stacks: Vec<Stack>,
    /// Whether there were more objects or more fibers than are looked at.
    pub cut: bool,
}

/// Reads the stacks of the suspended fibers of a target that stands still. None before
/// PHP 8.1, nor where the layout does not say where to look.
///
/// Takes a read per some objects that lie together, 1 ms for 10,000 objects: for a dump,
/// not for every sample.
pub fn read_suspended<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    want: impl Into<Want>,
) -> Result<Suspended, StackError> {
    let want = want.into();
    let mut found = Suspended::default();
    let Some(fields) = Fields::of(build) else {
        return Ok(found);
    };
    let fibers = match fibers(mem, build, &fields, &mut found.cut) {
        Ok(fibers) => fibers,
        Err(ReadError::Fault { .. }) => return Ok(found),
        Err(whole) => return Err(whole.into()),
    };
    for frame in fibers {
        found.stacks.push(check::read_from(mem, build, &want, frame)?);
    }
    Ok(found)
}

/// The innermost frames of the suspended fibers.
fn fibers<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    fields: &Fields,
    cut: &mut bool,
) -> Result<Vec<u64>, ReadError> {
    let fault = |addr| ReadError::Fault {
        addr: TargetAddr(addr),
    };
    let store = build
        .executor_globals
        .checked_add(fields.store)
        .ok_or(fault(build.executor_globals))?;
    let mut header = vec![0; fields.top + 4];
    mem.read(TargetAddr(store), &mut header)?;
    let buckets = u64_at(&header, 0).ok_or(fault(store))?;
    let top = u32_at(&header, fields.top).ok_or(fault(store))?;
    *cut |= top > MAX_OBJECTS;
    let mut bytes = vec![0; top.min(MAX_OBJECTS) as usize * 8];
    let got = mem.read_prefix(TargetAddr(buckets), &mut bytes)?;
    bytes.truncate(got);
    let mut frames = Vec::new();
    let mut fiber_class = None;
    // Classes that are known to be others: there are few, however many objects.
    let mut others = HashSet::new();
    let objects: Vec<u64> = bytes.chunks_exact(8).filter_map(|at| u64_at(at, 0)).collect();
    for objects in objects.chunks(CHUNK) {
        // A free handle has its lowest bit set; 0 is the first, which none has.
        let objects = objects
            .iter()
            .copied()
            .filter(|&object| object != 0 && implausible(object).is_none());
        let mut batch = Batch::default();
        let wanted: Vec<(u64, Slice)> = objects
            .filter_map(|object| {
                let class = object.checked_add(fields.class)?;
                Some((object, batch.want(TargetAddr(class), 8)))
            })
            .collect();
        mem.read_batch(&mut batch)?;
        let mut of_class: Vec<u64> = Vec::new();
        for (object, slice) in wanted {
            let Some(class) = u64_at(batch.get(slice), 0) else {
                continue;
            };
            if fiber_class.is_none() && others.insert(class) && is_fiber(mem, build, fields, class)? {
                fiber_class = Some(class);
            }
            if fiber_class == Some(class) {
                of_class.push(object);
            }
        }
        for fiber in of_class {
            if let Some(frame) = suspended_frame(mem, fields, fiber)? {
                if frames.len() == MAX_FIBERS {
                    *cut = true;
                    return Ok(frames);
                }
                frames.push(frame);
            }
        }
    }
    Ok(frames)
}

/// Whether a class is `Fiber`, which is final.
fn is_fiber<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    fields: &Fields,
    class: u64,
) -> Result<bool, ReadError> {
    const NAME: &[u8] = b"Fiber";
    let read = || -> Result<bool, ReadError> {
        let name = pointer(mem, class, fields.class_name)?;
        let len = pointer(mem, name, u64::from(build.layout.string_len))?;
        let mut text = [0; NAME.len()];
        let val = TargetAddr(name).plus(u64::from(build.layout.string_val));
        mem.read(val.unwrap_or(TargetAddr(u64::MAX)), &mut text)?;
        Ok(len == NAME.len() as u64 && text == NAME)
    };
    match read() {
        Err(ReadError::Fault { .. }) => Ok(false),
        read => read,
    }
}

/// Where a fiber will go on, if it waits to be resumed. One that has itself resumed
/// another is on the current chain, and has a caller.
fn suspended_frame<M: TargetMemory>(mem: &M, fields: &Fields, fiber: u64) -> Result<Option<u64>, ReadError> {
    let read = || -> Result<Option<u64>, ReadError> {
        // The low half of eight bytes: what follows it is not of interest.
        let status = pointer(mem, fiber, fields.status)? & u64::from(u32::MAX);
        let caller = pointer(mem, fiber, fields.caller)?;
        let frame = pointer(mem, fiber, fields.frame)?;
        let waits = status == u64::from(SUSPENDED) && caller == 0;
        Ok(Some(frame).filter(|&frame| waits && frame != 0))
    };
    match read() {
        Err(ReadError::Fault { .. }) => Ok(None),
        read => read,
    }
}

fn pointer<M: TargetMemory>(mem: &M, base: u64, offset: u64) -> Result<u64, ReadError> {
    let mut bytes = [0; 8];
    mem.read(TargetAddr(base.wrapping_add(offset)), &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// The offsets that are needed, all of them known.
struct Fields {
    store: u64,
    top: usize,
    class: u64,
    class_name: u64,
    status: u64,
    caller: u64,
    frame: u64,
}

impl Fields {
    fn of(build: &PhpBuild) -> Option<Fields> {
        let layout = &build.layout;
        let field = |value: Option<u32>| value.filter(|&value| value <= MAX_OFFSET).map(u64::from);
        Some(Fields {
            store: field(layout.eg_objects_store)?,
            top: usize::try_from(field(layout.objects_store_top)?).ok()?,
            class: field(layout.object_class)?,
            class_name: field(Some(layout.class_name))?,
            status: field(layout.fiber_context)? + field(layout.fiber_status)?,
            caller: field(layout.fiber_caller)?,
            frame: field(layout.fiber_frame)?,
        })
    }
}
