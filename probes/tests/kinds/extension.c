/* An extension for the tests: a builtin that blocks, and an observer of all calls. */
#include <php.h>
#include <unistd.h>
#if PHP_VERSION_ID >= 80000
#include <zend_observer.h>
#endif

static __attribute__((noinline)) long blocks(int fd)
{
	char byte;
	return read(fd, &byte, 1); /* the line that is looked for */
}

static PHP_FUNCTION(glass_wait)
{
	RETURN_LONG(blocks(0));
}

ZEND_BEGIN_ARG_INFO_EX(nothing, 0, 0, 0)
ZEND_END_ARG_INFO()

static const zend_function_entry functions[] = {
	PHP_FE(glass_wait, nothing)
	PHP_FE_END
};

#if PHP_VERSION_ID >= 80000
static int is_called(zend_execute_data *frame, const char *name)
{
	zend_string *called = frame->func->common.function_name;
	return called && strcmp(ZSTR_VAL(called), name) == 0;
}

static void on_begin(zend_execute_data *frame)
{
	if (is_called(frame, "blocked_by_observer") && write(1, "ready\n", 6) == 6) {
		blocks(0);
	} else if (is_called(frame, "told_to_php")) {
		zval name, result;
		ZVAL_STRING(&name, "on_begin");
		ZVAL_UNDEF(&result);
		call_user_function(NULL, NULL, &name, &result, 0, NULL);
		zval_ptr_dtor(&name);
		zval_ptr_dtor(&result);
	}
}

static void on_end(zend_execute_data *frame, zval *result)
{
	(void) result;
	if (is_called(frame, "blocked_at_its_end") && write(1, "ready\n", 6) == 6) {
		blocks(0);
	}
}

static zend_observer_fcall_handlers observe(zend_execute_data *frame)
{
	zend_observer_fcall_handlers handlers = { on_begin, on_end };
	(void) frame;
	return handlers;
}

static PHP_MINIT_FUNCTION(glass)
{
	(void) type;
	(void) module_number;
	zend_observer_fcall_register(observe);
	return SUCCESS;
}
#else
#define zm_startup_glass NULL
#endif

zend_module_entry glass_module_entry = {
	STANDARD_MODULE_HEADER, "glass", functions, zm_startup_glass,
	NULL, NULL, NULL, NULL, "1", STANDARD_MODULE_PROPERTIES
};

ZEND_GET_MODULE(glass)
