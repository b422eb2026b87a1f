//! Whether the offsets fit the very process, before anything read by them is believed.
//!
//! The first test works for a process that runs nothing at the moment: the table of all
//! functions begins with PHP's own, of which the key in the table and the name in the
//! function are the same. It takes eight offsets to be right for that. The second is
//! on the first stack that is seen.

use glasspool_abi::zend::{Layout, PhpBuild};

use crate::memory::{ReadError, TargetAddr, TargetMemory};
use crate::php::frames::{How, Kind, Partial, Stack};

/// Functions that are looked at; some may have been disabled, which leaves a gap.
const MAX_LOOKED: u64 = 16;
/// How many must agree.
const MIN_AGREED: u32 = 4;
/// PHP's own first functions have names like `zend_version` and `get_object_vars`.
const MAX_NAME: u64 = 64;
/// `IS_PTR`, the type of the table's values (Zend/zend_types.h): 14 in PHP 7.4, 13 since.
const IS_PTR: [u8; 2] = [13, 14];

/// Why the first test failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A read failed.
    Memory(ReadError),
    /// What was read is not what it should be.
    Nonsense(String),
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        Failure::Memory(error)
    }
}

/// Looks at the first functions of the process's table.
pub(crate) fn functions(mem: &impl TargetMemory, build: &PhpBuild) -> Result<(), Failure> {
    let nonsense = |why: &str| Failure::Nonsense(why.to_owned());
    let Fields {
        table,
        data,
        used,
        key,
        bucket,
        zval_type,
    } = Fields::of(&build.layout).ok_or_else(|| nonsense("the offsets are not known"))?;
    let table = pointer(mem, build.executor_globals, table)?;
    // A worker that has not served a request yet: the pointer is set when one starts
    // (`init_executor`, Zend/zend_execute_API.c). The second test is left.
    if table == 0 {
        return Ok(());
    }
    let count = u64::from(number(mem, table, used)?);
    if !(100..1_000_000).contains(&count) {
        return Err(nonsense("the table of functions has an impossible size"));
    }
    let data = pointer(mem, table, data)?;
    let mut agreed = 0;
    for index in 0..count.min(MAX_LOOKED) {
        let at = data.wrapping_add(index * bucket);
        let mut kind = [0];
        mem.read(TargetAddr(at.wrapping_add(zval_type)), &mut kind)?;
        if !IS_PTR.contains(&kind[0]) {
            continue;
        }
        let function = pointer(mem, at, 0)?;
        mem.read(
            TargetAddr(function.wrapping_add(u64::from(build.layout.func_type))),
            &mut kind,
        )?;
        let name = pointer(mem, function, u64::from(build.layout.func_name))?;
        let key = text(mem, &build.layout, pointer(mem, at, key)?)?;
        let name = text(mem, &build.layout, name)?;
        if kind != [1] || name != key {
            return Err(Failure::Nonsense(format!(
                "the function in place {index} of the table is not what the table says"
            )));
        }
        agreed += 1;
    }
    if agreed < MIN_AGREED {
        return Err(nonsense("the table of functions does not begin with PHP's own"));
    }
    Ok(())
}

/// What the test needs of the layout.
struct Fields {
    table: u64,
    data: u64,
    used: u64,
    key: u64,
    bucket: u64,
    zval_type: u64,
}

impl Fields {
    fn of(layout: &Layout) -> Option<Fields> {
        let field = |value: Option<u32>| value.map(u64::from);
        Some(Fields {
            table: field(layout.eg_function_table)?,
            data: field(layout.array_data)?,
            used: field(layout.array_used)?,
            key: field(layout.bucket_key)?,
            bucket: field(layout.bucket_size)?,
            zval_type: field(layout.zval_type)?,
        })
    }
}

/// What a stack says of the offsets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They fit.
    Sane,
    /// Nothing: the process ran no PHP, or was not seen whole.
    Nothing,
    /// They do not fit.
    Insane(String),
}

/// Judges the first stack of a process.
pub(super) fn judge(stack: &Stack) -> Verdict {
    let insane = |why: String| Verdict::Insane(why);
    match &stack.how {
        How::Partial(Partial::Broken { frames, defect }) => {
            return insane(format!("its stack breaks after {frames} frames: {defect}"));
        }
        // Torn ends are to be expected of a process that runs.
        How::Partial(_) => return Verdict::Nothing,
        How::Exact | How::Checked { .. } | How::Stopped { .. } => {}
    }
    let Some(last) = stack.frames.last() else {
        return Verdict::Nothing;
    };
    for frame in &stack.frames {
        let name = frame.qualified_name();
        // PHP's own names are ASCII; those of an application may be in any encoding.
        if frame.function.is_empty()
            || frame.function == "???"
            || (frame.internal && !name.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return insane(format!("a function is named {name:?}"));
        }
        if !frame.internal && (frame.file.as_deref().is_none_or(str::is_empty) || frame.line == Some(0)) {
            return insane(format!("{name} has no file or no line"));
        }
    }
    if last.kind == Kind::Main {
        Verdict::Sane
    } else {
        // Cut, or called by PHP itself: a shutdown function, a destructor.
        Verdict::Nothing
    }
}

fn pointer(mem: &impl TargetMemory, base: u64, offset: u64) -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    mem.read(TargetAddr(base.wrapping_add(offset)), &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn number(mem: &impl TargetMemory, base: u64, offset: u64) -> Result<u32, Failure> {
    let mut bytes = [0; 4];
    mem.read(TargetAddr(base.wrapping_add(offset)), &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// The lower-case name in a `zend_string`.
fn text(mem: &impl TargetMemory, layout: &Layout, string: u64) -> Result<String, Failure> {
    let len = pointer(mem, string, u64::from(layout.string_len))?;
    let len = usize::try_from(len.min(MAX_NAME)).unwrap_or(0);
    let mut bytes = vec![0; len];
    mem.read(
        TargetAddr(string.wrapping_add(u64::from(layout.string_val))),
        &mut bytes,
    )?;
    let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let name = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_\\".contains(&byte));
    if name {
        Ok(text)
    } else {
        Err(Failure::Nonsense(format!("a function is named {text:?}")))
    }
}
