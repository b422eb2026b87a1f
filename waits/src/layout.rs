//! The offsets of one build of PHP as the programs want them.

use glasspool_abi::zend::PhpBuild;

use crate::kernel::Layout;
use crate::types;
use crate::{RegisterError, WorkerId};

/// The layout of a build, or which field is beyond what the programs read at once. They
/// mask such offsets, and so would read another field's bytes.
pub(crate) fn layout(worker: WorkerId, build: &PhpBuild) -> Result<Layout, RegisterError> {
    let layout = &build.layout;
    let (frame, function) = (types::FRAME_READ, types::FUNCTION_READ);
    let head = types::FUNCTION_HEAD;
    let fields = [
        ("zend_execute_data.opline", layout.ex_opline, frame),
        ("zend_execute_data.func", layout.ex_func, frame),
        ("zend_execute_data.prev_execute_data", layout.ex_prev, frame),
        ("zend_function.function_name", layout.func_name, head),
        ("zend_function.scope", layout.func_scope, head),
        ("zend_op_array.filename", layout.op_array_filename, function),
    ];
    let outside = fields
        .into_iter()
        .find(|(_, offset, reach)| !offset.is_multiple_of(8) || offset.saturating_add(8) > *reach)
        .or_else(|| {
            let kind = ("zend_function.type", layout.func_type, head);
            (layout.func_type >= head).then_some(kind)
        })
        .or_else(|| {
            let flags = ("zend_function.common.fn_flags", layout.func_flags, head - 4);
            (!layout.func_flags.is_multiple_of(4) || layout.func_flags > head - 4).then_some(flags)
        })
        .or_else(|| {
            let text = (
                "zend_string.val",
                layout.string_val,
                layout.string_len.saturating_add(8),
            );
            (layout.string_val != text.2).then_some(text)
        });
    if let Some((field, offset, reach)) = outside {
        return Err(RegisterError::Layout {
            worker,
            php: build.version.clone(),
            field,
            offset,
            reach,
        });
    }
    let (lasting, passing) = flags(&build.version);
    Ok([
        layout.ex_opline,
        layout.ex_func,
        layout.ex_prev,
        layout.func_type,
        layout.func_name,
        layout.func_scope,
        layout.op_array_filename,
        layout.op_lineno,
        layout.class_name,
        layout.string_len,
        layout.func_flags,
        lasting,
        passing,
        0,
    ])
}

/// What the flags of a function are that stays as it is for as long as a request, so that it
/// is looked at only once in there: those that it must have, and those that it must not.
/// Functions in opcache's shared memory are immutable, and nothing there is used again while
/// a request runs (ext/opcache/ZendAccelerator.c, `accel_is_inactive`). Closures are copies on
/// the heap, and a trampoline is one for many calls. The bits are those of Zend/zend_compile.h
/// in these versions; of others nothing is known.
fn flags(version: &str) -> (u32, u32) {
    const IMMUTABLE: u32 = 1 << 7;
    const CALL_VIA_TRAMPOLINE: u32 = 1 << 18;
    const CLOSURE: u32 = 1 << 22;
    if ["8.1.", "8.2.", "8.3.", "8.4."]
        .iter()
        .any(|known| version.starts_with(known))
    {
        (IMMUTABLE, CALL_VIA_TRAMPOLINE | CLOSURE)
    } else {
        (0, 0)
    }
}
