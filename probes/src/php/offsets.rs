//! The engine's layout with every span bounded, so that no offset can make the
//! reader allocate much or index outside of what it has read.

use glasspool_abi::zend::Layout;

use super::frames::StackError;

/// `zend_executor_globals` has 2,200 bytes in PHP 8.6.
const MAX_GLOBALS: usize = 16 * 1024;
/// The largest other struct of interest, `zend_class_entry`, has 528.
const MAX_STRUCT: usize = 4 * 1024;

/// One field: where it begins in the bytes that are read for its struct.
pub(super) type At = usize;

/// What is read of each struct, and where its fields are in there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offsets {
    /// First byte of interest in `zend_executor_globals`, from its start.
    pub(super) globals_start: u64,
    pub(super) globals_len: usize,
    pub(super) current: At,
    pub(super) vm_stack: At,
    pub(super) vm_stack_top: At,

    /// `zend_execute_data`.
    pub(super) frame_len: usize,
    pub(super) opline: At,
    pub(super) func: At,
    pub(super) this: At,
    pub(super) call_info: At,
    pub(super) prev: At,

    /// `zend_function`: internal ones are shorter than what is read.
    pub(super) function_len: usize,
    pub(super) function_type: At,
    pub(super) function_name: At,
    pub(super) scope: At,
    pub(super) opcodes: At,
    pub(super) opcode_count: At,
    pub(super) filename: At,
    pub(super) line_start: At,

    pub(super) op_len: usize,
    pub(super) op_line: At,
    pub(super) class_name: At,
    pub(super) string_len: At,
    pub(super) string_val: At,

    /// `zend_internal_function.handler`.
    pub(super) handler: Option<At>,
    pub(super) generator: Option<Generator>,
}

/// What is read of a `zend_generator`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Generator {
    /// First byte of interest, and how many.
    pub(super) start: u64,
    pub(super) len: usize,
    pub(super) frame: At,
    pub(super) parent: At,
    /// From the start of the struct.
    pub(super) placeholder: u64,
}

impl Offsets {
    pub(super) fn new(layout: &Layout) -> Result<Offsets, StackError> {
        let globals = [
            layout.eg_current_execute_data,
            layout.eg_vm_stack,
            layout.eg_vm_stack_top,
        ];
        let start = globals.into_iter().min().unwrap_or(0);
        let globals_len = span(
            &globals.map(|at| at - start),
            8,
            MAX_GLOBALS,
            "zend_executor_globals",
        )?;
        let frame = [
            layout.ex_opline,
            layout.ex_func,
            layout.ex_prev,
            layout.ex_this,
            layout.ex_call_info,
        ];
        let function = [
            layout.func_type,
            layout.func_name,
            layout.func_scope,
            layout.op_array_opcodes,
            layout.op_array_last,
            layout.op_array_filename,
            layout.op_array_line_start,
        ];
        let frame_len = span(&frame, 8, MAX_STRUCT, "zend_execute_data")?;
        let function_len = span(&function, 8, MAX_STRUCT, "zend_function")?;
        let op_len = span(&[layout.op_size], 0, MAX_STRUCT, "zend_op")?;
        let op_line = span(&[layout.op_lineno], 0, MAX_STRUCT, "zend_op.lineno")?;
        if op_line + 4 > op_len {
            return Err(StackError::Layout {
                name: "sizeof zend_op",
            });
        }
        let at = |value: u32| value as usize;
        Ok(Offsets {
            globals_start: u64::from(start),
            globals_len,
            current: at(layout.eg_current_execute_data - start),
            vm_stack: at(layout.eg_vm_stack - start),
            vm_stack_top: at(layout.eg_vm_stack_top - start),
            frame_len,
            opline: at(layout.ex_opline),
            func: at(layout.ex_func),
            this: at(layout.ex_this),
            call_info: at(layout.ex_call_info),
            prev: at(layout.ex_prev),
            function_len,
            function_type: at(layout.func_type),
            function_name: at(layout.func_name),
            scope: at(layout.func_scope),
            opcodes: at(layout.op_array_opcodes),
            opcode_count: at(layout.op_array_last),
            filename: at(layout.op_array_filename),
            line_start: at(layout.op_array_line_start),
            op_len,
            op_line,
            class_name: span(&[layout.class_name], 0, MAX_STRUCT, "zend_class_entry.name")?,
            string_len: span(&[layout.string_len], 0, MAX_STRUCT, "zend_string.len")?,
            string_val: span(&[layout.string_val], 0, MAX_STRUCT, "zend_string.val")?,
            handler: layout
                .internal_function_handler
                .map(|handler| {
                    span(
                        &[handler],
                        0,
                        function_len.saturating_sub(8),
                        "zend_internal_function",
                    )
                })
                .transpose()?,
            generator: Generator::new(layout)?,
        })
    }
}

impl Generator {
    fn new(layout: &Layout) -> Result<Option<Generator>, StackError> {
        let (Some(frame), Some(parent), Some(placeholder)) = (
            layout.generator_frame,
            layout.generator_parent,
            layout.generator_placeholder,
        ) else {
            return Ok(None);
        };
        let start = frame.min(parent);
        let fields = [frame - start, parent - start];
        span(&[placeholder, start], 0, MAX_STRUCT, "zend_generator")?;
        Ok(Some(Generator {
            start: u64::from(start),
            len: span(&fields, 8, MAX_STRUCT, "zend_generator")?,
            frame: fields[0] as usize,
            parent: fields[1] as usize,
            placeholder: u64::from(placeholder),
        }))
    }
}

/// The bytes to read so that every field (its last one `width` bytes long) is in them.
pub(super) fn span(
    fields: &[u32],
    width: usize,
    max: usize,
    name: &'static str,
) -> Result<usize, StackError> {
    let last = fields.iter().copied().max().unwrap_or(0) as usize;
    if last > max {
        Err(StackError::Layout { name })
    } else {
        Ok(last + width)
    }
}

/// The little-endian pointer at `at`, or `None` if the bytes end before it.
pub(super) fn u64_at(bytes: &[u8], at: At) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The same for a 32-bit number.
pub(super) fn u32_at(bytes: &[u8], at: At) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
