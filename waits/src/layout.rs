//! The offsets of one build of PHP as the programs want them.

use glasspool_abi::zend::PhpBuild;

use crate::types;
use crate::{RegisterError, WorkerId};

/// `struct gp_layout`, in its order.
pub(crate) type Layout = [u32; types::LAYOUT_BYTES as usize / 4];

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
    ])
}
