//! Where an engine's PHP keeps what a stack reader needs.
//!
//! The C shim prints its own `offsetof` table (`sapi/shim/layout.c`) as pairs of
//! name and value; [`Layout::from_entries`] gathers them. So a layout always comes
//! from the very headers that the engine object was compiled against.

use serde::{Deserialize, Serialize};

macro_rules! layout {
    (
        required { $($(#[$doc:meta])* $field:ident = $name:literal,)* }
        optional { $($(#[$odoc:meta])* $ofield:ident = $oname:literal,)* }
    ) => {
        /// Offsets in bytes from the start of the named struct, and sizes in bytes,
        /// of one PHP build on this machine.
        ///
        /// What every reader needs is a number; what only a feature needs may be blank,
        /// because this PHP does not have it or because nobody has determined it. A
        /// blank turns the feature off.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Layout {
            $($(#[$doc])* pub $field: u32,)*
            $($(#[$odoc])* pub $ofield: Option<u32>,)*
        }

        impl Layout {
            /// Gathers the shim's pairs. A missing name is an error that says which,
            /// so that a feature is never fed with a neighbour version's value; a
            /// missing [`Layout::OPTIONAL_NAMES`] is a blank.
            pub fn from_entries<'a>(
                entries: impl IntoIterator<Item = (&'a str, u32)>,
            ) -> Result<Layout, MissingOffset> {
                $(let mut $field: Option<u32> = None;)*
                $(let mut $ofield: Option<u32> = None;)*
                for (name, value) in entries {
                    match name {
                        $($name => $field = Some(value),)*
                        $($oname => $ofield = Some(value),)*
                        _ => {}
                    }
                }
                Ok(Layout {
                    $($field: $field.ok_or(MissingOffset($name))?,)*
                    $($ofield,)*
                })
            }

            /// The names [`Layout::from_entries`] asks for, in order.
            pub const NAMES: &'static [&'static str] = &[$($name,)*];

            /// The names it takes if they are there.
            pub const OPTIONAL_NAMES: &'static [&'static str] = &[$($oname,)*];
        }
    };
}

layout! {
    required {
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
    optional {
        /// `zend_executor_globals.function_table`, pointer to the table of all functions.
        eg_function_table = "zend_executor_globals.function_table",
        /// `zend_executor_globals.objects_store`, all objects, by handle.
        eg_objects_store = "zend_executor_globals.objects_store",
        /// `zend_executor_globals.exception_ignore_args`, one byte: the
        /// configuration wants no argument values in backtraces.
        eg_exception_ignore_args = "zend_executor_globals.exception_ignore_args",
        /// `zend_objects_store.top`, number of handles ever used, 32 bits. The pointer
        /// to the objects comes first in the struct.
        objects_store_top = "zend_objects_store.top",
        /// `zend_execute_data.This.u2.num_args`, number of arguments passed.
        ex_num_args = "zend_execute_data.This.u2.num_args",
        /// `zend_execute_data.extra_named_params`, a `zend_array *`, valid only with a flag.
        ex_extra_named_params = "zend_execute_data.extra_named_params",
        /// `zend_function.common.num_args`, number of declared arguments, without a
        /// variadic one.
        func_num_args = "zend_function.common.num_args",
        /// `zend_function.common.arg_info`, pointer to the declared arguments.
        func_arg_info = "zend_function.common.arg_info",
        /// `zend_function.common.attributes`, a `zend_array *` or null. PHP 8.
        func_attributes = "zend_function.common.attributes",
        /// `zend_op_array.last_var`, number of compiled variables.
        op_array_last_var = "zend_op_array.last_var",
        /// `zend_op_array.T`, number of temporaries.
        op_array_temporaries = "zend_op_array.T",
        /// `zend_internal_function.handler`, pointer to the C function.
        internal_function_handler = "zend_internal_function.handler",
        /// `zend_arg_info.name`, a `zend_string *`.
        arg_info_name = "zend_arg_info.name",
        /// Size of `zend_arg_info`.
        arg_info_size = "sizeof zend_arg_info",
        /// `zend_internal_arg_info.name`, a `const char *` up to PHP 8.5.
        internal_arg_info_name = "zend_internal_arg_info.name",
        /// Size of `zend_internal_arg_info`.
        internal_arg_info_size = "sizeof zend_internal_arg_info",
        /// `zend_attribute.lcname`, a `zend_string *`.
        attribute_lcname = "zend_attribute.lcname",
        /// `zend_attribute.offset`, 32 bits: 0, or the argument's number from 1.
        attribute_offset = "zend_attribute.offset",
        /// `zend_array.arData`, pointer to the elements.
        array_data = "zend_array.arData",
        /// `zend_array.u.flags`, 32 bits.
        array_flags = "zend_array.u.flags",
        /// `zend_array.nNumUsed`, elements with gaps, 32 bits.
        array_used = "zend_array.nNumUsed",
        /// `zend_array.nNumOfElements`, elements, 32 bits.
        array_count = "zend_array.nNumOfElements",
        /// `Bucket.key`, a `zend_string *` or null. The value comes first.
        bucket_key = "Bucket.key",
        /// Size of `Bucket`.
        bucket_size = "sizeof Bucket",
        /// `zval.u1.type_info`, the type in its first byte. The value comes first.
        zval_type = "zval.u1.type_info",
        /// Size of `zval`.
        zval_size = "sizeof zval",
        /// `zend_reference.val`, a zval.
        reference_value = "zend_reference.val",
        /// `zend_object.ce`, a `zend_class_entry *`.
        object_class = "zend_object.ce",
        /// `zend_generator.execute_data`, a `zend_execute_data *`, null at the end.
        generator_frame = "zend_generator.execute_data",
        /// `zend_generator.node`, of which the first field is `parent`, the
        /// generator that it delegates to.
        generator_parent = "zend_generator.node",
        /// `zend_generator.execute_fake`, the placeholder of `yield from`.
        generator_placeholder = "zend_generator.execute_fake",
        /// `zend_fiber_context.status`, 32 bits, from the start of the context.
        fiber_status = "zend_fiber_context.status",
        /// `zend_fiber.context`, a `zend_fiber_context`.
        fiber_context = "zend_fiber.context",
        /// `zend_fiber.caller`, who resumed it; null while it is suspended.
        fiber_caller = "zend_fiber.caller",
        /// `zend_fiber.execute_data`, where a suspended fiber will go on.
        fiber_frame = "zend_fiber.execute_data",
        /// `sapi_globals_struct.request_info.request_method`, a `char *`.
        sg_request_method = "sapi_globals_struct.request_info.request_method",
        /// `sapi_globals_struct.request_info.query_string`, a `char *`.
        sg_query_string = "sapi_globals_struct.request_info.query_string",
        /// `sapi_globals_struct.request_info.path_translated`, a `char *`.
        sg_path_translated = "sapi_globals_struct.request_info.path_translated",
        /// `sapi_globals_struct.request_info.request_uri`, a `char *`.
        sg_request_uri = "sapi_globals_struct.request_info.request_uri",
        /// `sapi_globals_struct.global_request_time`, a `double`: when the request began,
        /// seconds since 1970, wall clock; 0 until PHP has asked for it.
        sg_request_time = "sapi_globals_struct.global_request_time",
    }
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

    #[test]
    fn an_optional_name_that_is_missing_is_blank() {
        let required = Layout::NAMES.iter().copied().zip(1..);
        let layout = Layout::from_entries(required.chain([("zend_generator.node", 152)])).expect("complete");
        assert_eq!(layout.generator_parent, Some(152));
        assert_eq!(layout.generator_frame, None);
    }
}
