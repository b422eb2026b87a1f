/* Where this PHP keeps what a stack reader needs: offsetof() of the headers this
 * object is compiled against, by the names of abi::zend::Layout. */
#include <php.h>
#include <zend_compile.h>
#include <zend_globals.h>

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
