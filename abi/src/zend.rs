//! Where an engine's PHP keeps what a stack reader needs.
//!
//! The C shim prints its own `offsetof` table (`sapi/shim/layout.c`) as pairs of
//! name and value; [`Layout::from_entries`] gathers them. So a layout always comes
//! from the very headers that the engine object was compiled against.

use serde::{Deserialize, Serialize};

macro_rules! layout {
    ($($(#[$doc:meta])* $field:ident = $name:literal,)*) => {
        /// Offsets in bytes from the start of the named struct, and sizes in bytes,
        /// of one PHP build on this machine.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Layout {
            $($(#[$doc])* pub $field: u32,)*
        }

        impl Layout {
            /// Gathers the shim's pairs. A missing name is an error that says which,
            /// so that a feature is never fed with a neighbour version's value.
            pub fn from_entries<'a>(
                entries: impl IntoIterator<Item = (&'a str, u32)>,
            ) -> Result<Layout, MissingOffset> {
                $(let mut $field: Option<u32> = None;)*
                for (name, value) in entries {
                    match name {
                        $($name => $field = Some(value),)*
                        _ => {}
                    }
                }
                Ok(Layout { $($field: $field.ok_or(MissingOffset($name))?,)* })
            }

            /// The names [`Layout::from_entries`] asks for, in order.
            pub const NAMES: &'static [&'static str] = &[$($name,)*];
        }
    };
}

layout! {
    /// `zend_executor_globals.current_execute_data`, pointer to the innermost frame.
    eg_current_execute_data = "zend_executor_globals.current_execute_data",
    /// `zend_executor_globals.vm_stack`, pointer to the current VM stack page.
    eg_vm_stack = "zend_executor_globals.vm_stack",
    /// `zend_executor_globals.vm_stack_top`, end of the used part of that page.
    eg_vm_stack_top = "zend_executor_globals.vm_stack_top",
    /// `zend_executor_globals.vm_stack_end`, end of that page.
    eg_vm_stack_end = "zend_executor_globals.vm_stack_end",
    /// `zend_execute_data.opline`.
    ex_opline = "zend_execute_data.opline",
    /// `zend_execute_data.func`.
    ex_func = "zend_execute_data.func",
    /// `zend_execute_data.This` (a zval; value first).
    ex_this = "zend_execute_data.This",
    /// `zend_execute_data.This.u1.type_info`, the call info flags.
    ex_call_info = "zend_execute_data.This.u1.type_info",
    /// `zend_execute_data.prev_execute_data`.
    ex_prev = "zend_execute_data.prev_execute_data",
    /// Size of `zend_execute_data`.
    ex_size = "sizeof zend_execute_data",
    /// `zend_function.type`, one byte: 1 internal, 2 user, 4 eval.
    func_type = "zend_function.type",
    /// `zend_function.common.fn_flags`.
    func_flags = "zend_function.common.fn_flags",
    /// `zend_function.common.function_name`, a `zend_string *` or null.
    func_name = "zend_function.common.function_name",
    /// `zend_function.common.scope`, a `zend_class_entry *` or null.
    func_scope = "zend_function.common.scope",
    /// `zend_op_array.opcodes`.
    op_array_opcodes = "zend_op_array.opcodes",
    /// `zend_op_array.last`, number of opcodes.
    op_array_last = "zend_op_array.last",
    /// `zend_op_array.filename`, a `zend_string *`.
    op_array_filename = "zend_op_array.filename",
    /// `zend_op_array.line_start`.
    op_array_line_start = "zend_op_array.line_start",
    /// Size of `zend_op_array`.
    op_array_size = "sizeof zend_op_array",
    /// Size of `zend_internal_function`.
    internal_function_size = "sizeof zend_internal_function",
    /// `zend_op.lineno`.
    op_lineno = "zend_op.lineno",
    /// Size of `zend_op`.
    op_size = "sizeof zend_op",
    /// `zend_class_entry.name`, a `zend_string *`.
    class_name = "zend_class_entry.name",
    /// `zend_string.len`.
    string_len = "zend_string.len",
    /// `zend_string.val`, the first byte.
    string_val = "zend_string.val",
}

/// An engine's table lacks a name this version of Glasspool needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the engine object does not say where {0} is (build it again from the same source as this program)")]
pub struct MissingOffset(pub &'static str);

/// What an engine says of the PHP inside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhpBuild {
    /// For example `8.2.36`.
    pub version: String,
    /// `ZEND_MODULE_API_NO`, for example 20220829.
    pub api: u32,
    /// Whether it is a ZTS build.
    pub zts: bool,
    /// Address of `executor_globals` in the engine and in every worker forked from it.
    pub executor_globals: u64,
    /// The offsets.
    pub layout: Layout,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_name_is_named() {
        let all: Vec<(&str, u32)> = Layout::NAMES.iter().copied().zip(1..).collect();
        assert_eq!(
            Layout::from_entries(all.clone()).expect("complete").string_val,
            25
        );
        let (last, rest) = all.split_last().expect("not empty");
        assert_eq!(
            Layout::from_entries(rest.iter().copied()),
            Err(MissingOffset(last.0))
        );
    }
}
