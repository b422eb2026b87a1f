/* Where this PHP keeps what a stack reader needs: offsetof() of the headers this
 * object is compiled against, by the names of abi::zend::Layout. */
#include <php.h>
#include <SAPI.h>
#include <zend_compile.h>
#include <zend_generators.h>
#include <zend_globals.h>
#include <zend_objects_API.h>
#if PHP_VERSION_ID >= 80000
#include <zend_attributes.h>
#endif
#if PHP_VERSION_ID >= 80100
#include <zend_fibers.h>
#endif

#include "glasspool.h"

#define FIELD(type, member) { #type "." #member, (uint32_t)offsetof(type, member) }
#define PART(type, text, member) { #type "." text, (uint32_t)offsetof(type, member) }
#define SIZE(type) { "sizeof " #type, (uint32_t)sizeof(type) }

static const gp_offset offsets[] = {
	FIELD(zend_executor_globals, current_execute_data),
	FIELD(zend_executor_globals, vm_stack),
	FIELD(zend_executor_globals, vm_stack_top),
	FIELD(zend_executor_globals, vm_stack_end),
	FIELD(zend_execute_data, opline),
	FIELD(zend_execute_data, func),
	FIELD(zend_execute_data, This),
	FIELD(zend_execute_data, This.u1.type_info),
	FIELD(zend_execute_data, prev_execute_data),
	SIZE(zend_execute_data),
	FIELD(zend_function, type),
	PART(zend_function, "common.fn_flags", common.fn_flags),
	PART(zend_function, "common.function_name", common.function_name),
	PART(zend_function, "common.scope", common.scope),
	FIELD(zend_op_array, opcodes),
	FIELD(zend_op_array, last),
	FIELD(zend_op_array, filename),
	FIELD(zend_op_array, line_start),
	SIZE(zend_op_array),
	SIZE(zend_internal_function),
	FIELD(zend_op, lineno),
	SIZE(zend_op),
	FIELD(zend_class_entry, name),
	FIELD(zend_string, len),
	FIELD(zend_string, val),

	/* What only some features need, see abi::zend::Layout::OPTIONAL_NAMES. */
	FIELD(zend_executor_globals, function_table),
	FIELD(zend_executor_globals, objects_store),
	FIELD(zend_executor_globals, exception_ignore_args),
	FIELD(zend_objects_store, top),
	FIELD(zend_execute_data, This.u2.num_args),
	PART(zend_function, "common.num_args", common.num_args),
	PART(zend_function, "common.arg_info", common.arg_info),
	FIELD(zend_op_array, last_var),
	FIELD(zend_op_array, T),
	FIELD(zend_internal_function, handler),
	FIELD(zend_arg_info, name),
	SIZE(zend_arg_info),
	FIELD(zend_internal_arg_info, name),
	SIZE(zend_internal_arg_info),
	FIELD(zend_array, arData),
	FIELD(zend_array, u.flags),
	FIELD(zend_array, nNumUsed),
	FIELD(zend_array, nNumOfElements),
	FIELD(Bucket, key),
	SIZE(Bucket),
	FIELD(zval, u1.type_info),
	SIZE(zval),
	FIELD(zend_reference, val),
	FIELD(zend_object, ce),
	FIELD(zend_generator, execute_data),
	FIELD(zend_generator, node),
	FIELD(zend_generator, execute_fake),
	FIELD(sapi_globals_struct, request_info.request_method),
	FIELD(sapi_globals_struct, request_info.query_string),
	FIELD(sapi_globals_struct, request_info.path_translated),
	FIELD(sapi_globals_struct, request_info.request_uri),
#if PHP_VERSION_ID >= 80000
	FIELD(zend_execute_data, extra_named_params),
	PART(zend_function, "common.attributes", common.attributes),
	FIELD(zend_attribute, lcname),
	FIELD(zend_attribute, offset),
#endif
#if PHP_VERSION_ID >= 80100
	FIELD(zend_fiber_context, status),
	FIELD(zend_fiber, context),
	FIELD(zend_fiber, caller),
	FIELD(zend_fiber, execute_data),
#endif
};

const gp_offset *gp_php_offsets(size_t *count)
{
	*count = sizeof(offsets) / sizeof(offsets[0]);
	return offsets;
}

const char *gp_php_version(void) { return PHP_VERSION; }
uint32_t gp_php_api(void) { return ZEND_MODULE_API_NO; }

bool gp_php_is_zts(void)
{
#ifdef ZTS
	return true;
#else
	return false;
#endif
}

uint64_t gp_php_executor_globals(void)
{
	return (uint64_t)(uintptr_t)&executor_globals;
}
