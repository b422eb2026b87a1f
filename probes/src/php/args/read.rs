//! Reading them: the functions, then the slots, then whatever the slots point to, one
//! batch of reads for each step that is followed, whatever the number of calls.
//!
//! The slots follow the frame. Declared parameters come first; what a PHP function was
//! given beyond those is behind its variables and temporaries; a builtin has all in a row
//! (`ZEND_CALL_ARG` and `zend_copy_extra_args`, Zend/zend_compile.h, zend_execute.c).

use glasspool_abi::zend::{Layout, PhpBuild};

use super::chase::{Chase, follow};
use super::sensitive;
use super::{AllowList, Argument, Arguments, CallArguments, MAX_ARGUMENTS};
use crate::memory::{Batch, ReadError, Slice, TargetAddr, TargetMemory};
use crate::php::frames::Frame;
use crate::php::offsets::{Offsets, u32_at, u64_at};
use crate::php::walk::implausible;

/// Innermost calls whose arguments are looked at.
pub(in crate::php) const MAX_CALLS: usize = 32;
/// Most variables and temporaries of a function that are believed.
const MAX_SLOTS: u32 = 64 * 1024;
/// `ZEND_ACC_VARIADIC` and `ZEND_CALL_HAS_EXTRA_NAMED_PARAMS` (Zend/zend_compile.h).
const VARIADIC: u32 = 1 << 14;
const NAMED_EXTRAS: u32 = 1 << 27;
/// From this API number on a builtin's parameter names are no C strings (PHP 8.6).
const NAMES_CHANGED: u32 = 20_260_000;

/// A call whose arguments are wanted.
#[derive(Debug)]
pub(in crate::php) struct Call<'a> {
    pub(in crate::php) frame: &'a Frame,
    /// Address of its `zend_function`.
    pub(in crate::php) function: u64,
    /// The flags in its frame.
    pub(in crate::php) call_info: u32,
}

/// The arguments of each call, in order; `None` where they cannot be told. Calls beyond
/// [`MAX_CALLS`] are left out.
pub(in crate::php) fn read<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    calls: &[Call<'_>],
    wanted: &Arguments,
) -> Result<Vec<Option<CallArguments>>, ReadError> {
    let calls = &calls[..calls.len().min(MAX_CALLS)];
    let (Some(fields), Ok(offsets)) = (Fields::of(build), Offsets::new(&build.layout)) else {
        return Ok(vec![None; calls.len()]);
    };
    let allow = match wanted {
        Arguments::Off => return Ok(vec![None; calls.len()]),
        Arguments::Types => None,
        Arguments::Values(allow) => Some(&**allow).filter(|_| fields.values),
    };
    let heads = read_heads(mem, &fields, calls)?;
    let ignored = allow.is_none() || ignores_arguments(mem, build)?;
    let allow = allow.filter(|_| !ignored);
    let hidden = sensitive::read(
        mem,
        build,
        heads.iter().map(|head| head.map_or(0, |head| head.attributes)),
    )?;

    let mut batch = Batch::default();
    let mut found = Vec::new();
    for (index, (call, head)) in calls.iter().zip(&heads).enumerate() {
        let Some(head) = head else { continue };
        for position in 1..=head.passed.min(MAX_ARGUMENTS) {
            let slot = head.slot(&fields, call, position);
            let info = head.declared_at(&fields, position);
            let hidden = hidden[index].hides(head.parameter(position));
            found.push(Found {
                call: index,
                hidden,
                shown: hidden == Some(false)
                    && allow.is_some_and(|allow| allows(allow, call.frame, position)),
                slot: slot.map(|slot| (slot, batch.want(slot, fields.zval_size))),
                info: info.map(|info| batch.want(info, 8)),
            });
        }
    }
    mem.read_batch(&mut batch)?;
    let mut chases = Vec::with_capacity(found.len() * 2);
    for found in &found {
        let zval = found.slot.map_or(&[][..], |(_, slice)| batch.get(slice));
        chases.push(Chase::value(zval, found.shown, &fields));
        let name = found.info.and_then(|info| u64_at(batch.get(info), 0));
        chases.push(Chase::name(
            name,
            heads[found.call].is_some_and(|head| head.internal),
        ));
    }
    follow(mem, &mut chases, &fields, &offsets)?;
    let still = unchanged(mem, &found, &batch)?;

    let mut arguments: Vec<Option<CallArguments>> = heads
        .iter()
        .map(|head| {
            head.map(|head| CallArguments {
                list: Vec::new(),
                more: head.passed.saturating_sub(MAX_ARGUMENTS),
                named_extras: head.named_extras,
            })
        })
        .collect();
    for ((found, still), pair) in found.iter().zip(still).zip(chases.chunks_exact(2)) {
        let Some(call) = &mut arguments[found.call] else {
            continue;
        };
        let (value, name) = (&pair[0], &pair[1]);
        call.list.push(Argument {
            name: name.text.clone().filter(|name| !name.is_empty()),
            kind: match found.hidden {
                Some(true) => "SensitiveParameterValue".to_owned(),
                _ if !still => "?".to_owned(),
                // A length tells something of what must perhaps be hidden.
                None => value.bare_kind().to_owned(),
                Some(false) => value.kind(),
            },
            value: value.text.clone().filter(|_| still && found.shown),
        });
    }
    Ok(arguments)
}

fn allows(allow: &AllowList, frame: &Frame, position: usize) -> bool {
    allow.allows(frame.class.as_deref(), &frame.function, position)
}

/// `EG(exception_ignore_args)`; what is not known counts as set.
fn ignores_arguments<M: TargetMemory>(mem: &M, build: &PhpBuild) -> Result<bool, ReadError> {
    let addr = build
        .layout
        .eg_exception_ignore_args
        .and_then(|field| build.executor_globals.checked_add(u64::from(field)));
    let Some(addr) = addr else { return Ok(true) };
    let mut byte = [1];
    match mem.read(TargetAddr(addr), &mut byte) {
        Ok(()) => Ok(byte[0] != 0),
        Err(ReadError::Fault { .. }) => Ok(true),
        Err(whole) => Err(whole),
    }
}

/// Whether each slot still has what it had before it was followed.
fn unchanged<M: TargetMemory>(mem: &M, found: &[Found], before: &Batch) -> Result<Vec<bool>, ReadError> {
    let mut batch = Batch::default();
    let again: Vec<Option<(Slice, Slice)>> = found
        .iter()
        .map(|found| {
            found
                .slot
                .map(|(at, slice)| (slice, batch.want(at, before.get(slice).len())))
        })
        .collect();
    mem.read_batch(&mut batch)?;
    let same = |(old, new): (Slice, Slice)| !before.get(old).is_empty() && before.get(old) == batch.get(new);
    Ok(again.into_iter().map(|pair| pair.is_some_and(same)).collect())
}

/// One argument that was passed, and where to look for it.
#[derive(Debug)]
struct Found {
    /// Which call.
    call: usize,
    /// Whether the function wants it hidden; `None` if that cannot be told.
    hidden: Option<bool>,
    /// Whether its value is wanted and allowed.
    shown: bool,
    slot: Option<(TargetAddr, Slice)>,
    info: Option<Slice>,
}

/// The offsets that are needed, all of them known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    head_len: usize,
    passed: usize,
    first_slot: u64,
    flags: usize,
    declared: usize,
    arg_info: usize,
    /// From PHP 8.0 on.
    attributes: Option<usize>,
    last_var: usize,
    temporaries: usize,
    info_name: u64,
    info_size: u64,
    builtin_info_name: u64,
    builtin_info_size: u64,
    builtin_names: bool,
    pub(super) zval_size: usize,
    pub(super) zval_type: usize,
    pub(super) reference: u64,
    pub(super) object_class: u64,
    pub(super) class_name: u64,
    pub(super) array_count: usize,
    pub(super) string_len: usize,
    pub(super) string_val: usize,
    /// Whether values may be read at all.
    values: bool,
}

/// No struct of interest is larger.
const MAX_OFFSET: u32 = 4_096;

impl Fields {
    fn of(build: &PhpBuild) -> Option<Fields> {
        let layout: &Layout = &build.layout;
        let small = |field: Option<u32>| field.filter(|&field| field <= MAX_OFFSET);
        let at = |field| small(field).map(|field| field as usize);
        let far = |field| small(field).map(u64::from);
        let attributes = at(layout.func_attributes);
        let zval_size = at(layout.zval_size).filter(|&size| (16..=64).contains(&size))?;
        let ends = [
            at(layout.func_num_args)?,
            at(layout.func_arg_info)?,
            at(Some(layout.func_flags))?,
            at(layout.op_array_last_var)?,
            at(layout.op_array_temporaries)?,
            attributes.unwrap_or(0),
        ];
        Some(Fields {
            head_len: ends.into_iter().max()? + 8,
            passed: at(layout.ex_num_args)?,
            first_slot: far(Some(layout.ex_size))?.next_multiple_of(zval_size as u64),
            declared: ends[0],
            arg_info: ends[1],
            flags: ends[2],
            last_var: ends[3],
            temporaries: ends[4],
            attributes,
            info_name: far(layout.arg_info_name)?,
            info_size: far(layout.arg_info_size)?,
            builtin_info_name: far(layout.internal_arg_info_name)?,
            builtin_info_size: far(layout.internal_arg_info_size)?,
            builtin_names: build.api < NAMES_CHANGED,
            zval_type: at(layout.zval_type).filter(|&at| at + 4 <= zval_size)?,
            zval_size,
            reference: far(layout.reference_value)?,
            object_class: far(layout.object_class)?,
            class_name: far(Some(layout.class_name))?,
            array_count: at(layout.array_count)?,
            string_len: at(Some(layout.string_len))?,
            string_val: at(Some(layout.string_val))?,
            values: attributes.is_some() || build.api < sensitive::FIRST_WITH_ATTRIBUTES,
        })
    }
}

/// What matters of a call's function and frame.
#[derive(Debug, Clone, Copy)]
struct Head {
    internal: bool,
    passed: usize,
    named_extras: bool,
    declared: usize,
    variadic: bool,
    arg_info: u64,
    attributes: u64,
    /// Variables and temporaries of a PHP function.
    slots: u64,
}

fn read_heads<M: TargetMemory>(
    mem: &M,
    fields: &Fields,
    calls: &[Call<'_>],
) -> Result<Vec<Option<Head>>, ReadError> {
    let mut batch = Batch::default();
    let mut want = |base: u64, skip: usize, len| {
        let at = TargetAddr(base).plus(skip as u64)?;
        implausible(base).is_none().then(|| batch.want(at, len))
    };
    let slices: Vec<(Option<Slice>, Option<Slice>)> = calls
        .iter()
        .map(|call| {
            (
                want(call.function, 0, fields.head_len),
                want(call.frame.addr.0, fields.passed, 4),
            )
        })
        .collect();
    mem.read_batch(&mut batch)?;
    let head = |call: &Call<'_>, (function, passed): (Option<Slice>, Option<Slice>)| {
        let function = batch.get(function?);
        let word = |at| u32_at(function, at);
        let slots = if call.frame.internal {
            0
        } else {
            let count = |at| word(at).filter(|&count| count <= MAX_SLOTS);
            u64::from(count(fields.last_var)?) + u64::from(count(fields.temporaries)?)
        };
        Some(Head {
            internal: call.frame.internal,
            passed: u32_at(batch.get(passed?), 0)? as usize,
            named_extras: call.call_info & NAMED_EXTRAS != 0,
            declared: word(fields.declared)? as usize,
            variadic: word(fields.flags)? & VARIADIC != 0,
            arg_info: u64_at(function, fields.arg_info)?,
            attributes: match fields.attributes {
                Some(attributes) => u64_at(function, attributes)?,
                None => 0,
            },
            slots,
        })
    };
    Ok(calls
        .iter()
        .zip(slices)
        .map(|(call, slices)| head(call, slices))
        .collect())
}

impl Head {
    /// The declared parameter that the argument at `position` (from 1) belongs to; one
    /// more than there are if it belongs to none.
    fn parameter(&self, position: usize) -> usize {
        position.min(self.declared.saturating_add(1))
    }

    fn slot(&self, fields: &Fields, call: &Call<'_>, position: usize) -> Option<TargetAddr> {
        let index = position as u64 - 1;
        let index = if self.internal || position <= self.declared {
            index
        } else {
            index - self.declared as u64 + self.slots
        };
        let skip = index.checked_mul(fields.zval_size as u64)?;
        TargetAddr(call.frame.addr.0.checked_add(fields.first_slot)?).plus(skip)
    }

    /// Where the name of the parameter is.
    fn declared_at(&self, fields: &Fields, position: usize) -> Option<TargetAddr> {
        let parameter = self.parameter(position);
        let exists = parameter <= self.declared || self.variadic;
        if !exists || self.arg_info == 0 || implausible(self.arg_info).is_some() {
            return None;
        }
        let (name, size) = if self.internal {
            fields
                .builtin_names
                .then_some((fields.builtin_info_name, fields.builtin_info_size))?
        } else {
            (fields.info_name, fields.info_size)
        };
        let skip = size.checked_mul(parameter as u64 - 1)?.checked_add(name)?;
        TargetAddr(self.arg_info).plus(skip)
    }
}
