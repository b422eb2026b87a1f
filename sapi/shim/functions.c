/* The functions that php-fpm gives to scripts. */
#include <php.h>
#include <SAPI.h>
#include <php_output.h>
#include <ext/standard/head.h>

#include "glasspool.h"
#include "shim.h"

/* fastcgi_finish_request(): bool, false if the response had been ended before. */
static PHP_FUNCTION(fastcgi_finish_request)
{
	bool aborted;

	ZEND_PARSE_PARAMETERS_NONE();
	if (!SG(server_context) || gp_rs_is_finished()) {
		RETURN_FALSE;
	}
	php_output_end_all();
	php_header();
	RETURN_BOOL(gp_rs_finish(&aborted));
}

/* HTTP_ACCEPT_LANGUAGE becomes Accept-Language. */
static zend_string *header_name(const char *name, size_t length)
{
	zend_string *header = zend_string_init(name, length, 0);
	bool upper = true;

	for (size_t i = 0; i < length; i++) {
		char *byte = &ZSTR_VAL(header)[i];
		if (*byte == '_') {
			*byte = '-';
			upper = true;
		} else {
			if (!upper && *byte >= 'A' && *byte <= 'Z') {
				*byte += 'a' - 'A';
			}
			upper = false;
		}
	}
	return header;
}

/* apache_request_headers(): array, also known as getallheaders(). */
static PHP_FUNCTION(apache_request_headers)
{
	gp_param param;
	size_t count = 0;

	ZEND_PARSE_PARAMETERS_NONE();
	array_init(return_value);
	if (!SG(server_context)) {
		return;
	}
	while (gp_rs_param_at(count, &param)) {
		count++;
	}
	/* The last to arrive comes first, as in php-fpm. */
	while (count-- > 0) {
		zval value;
		zend_string *name;
		gp_rs_param_at(count, &param);
		if (param.name.length > 5 && !memcmp(param.name.at, "HTTP_", 5)) {
			name = header_name(param.name.at + 5, param.name.length - 5);
		} else if ((param.name.length == 12 && !memcmp(param.name.at, "CONTENT_TYPE", 12))
		           || (param.name.length == 14 && !memcmp(param.name.at, "CONTENT_LENGTH", 14))) {
			name = header_name(param.name.at, param.name.length);
		} else {
			continue;
		}
		ZVAL_STRINGL(&value, param.value.at, param.value.length);
		zend_symtable_update(Z_ARRVAL_P(return_value), name, &value);
		zend_string_release(name);
	}
}

/* Some builds of PHP put off the error about memory_limit until an internal function
 * has returned, and end the process if it goes on to twice the limit. */
#ifdef ZEND_HAS_OOM
#define is_out_of_memory() ZEND_HAS_OOM()
#else
#define is_out_of_memory() false
#endif

/* The figures of a worker, or of the pool, into an array. */
static void add_figures(zval *array, int64_t worker)
{
	gp_figure figure;

	for (size_t index = 0; gp_rs_figure(worker, index, &figure); index++) {
		switch (figure.kind) {
		case GP_NUMBER:
			add_assoc_long_ex(array, figure.name.at, figure.name.length, figure.number);
			break;
		case GP_REAL:
			add_assoc_double_ex(array, figure.name.at, figure.name.length, figure.real);
			break;
		default:
			add_assoc_stringl_ex(array, figure.name.at, figure.name.length, figure.text.at, figure.text.length);
		}
	}
}

/* fpm_get_status(): array|false, false if the supervisor does not answer. */
static PHP_FUNCTION(fpm_get_status)
{
	zval workers, worker;

	ZEND_PARSE_PARAMETERS_NONE();
	int64_t count = gp_rs_take_figures(gp_logging_to_client());
	if (count < 0) {
		RETURN_FALSE;
	}
	array_init(return_value);
	/* Other builds leave from the midst of this when memory_limit is reached. */
	zend_try {
		add_figures(return_value, GP_POOL);
		array_init(&workers);
		add_assoc_zval(return_value, "procs", &workers);
		for (int64_t index = 0; index < count && !is_out_of_memory(); index++) {
			array_init(&worker);
			add_next_index_zval(&workers, &worker);
			add_figures(&worker, index);
		}
	} zend_catch {
		gp_rs_drop_figures();
		zend_bailout();
	} zend_end_try();
	gp_rs_drop_figures();
}

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_finish, 0, 0, _IS_BOOL, 0)
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_headers, 0, 0, IS_ARRAY, 0)
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_MASK_EX(arginfo_status, 0, 0, MAY_BE_ARRAY|MAY_BE_FALSE)
ZEND_END_ARG_INFO()

static const zend_function_entry functions[] = {
	PHP_FE(fastcgi_finish_request, arginfo_finish)
	PHP_FE(apache_request_headers, arginfo_headers)
	PHP_FALIAS(getallheaders, apache_request_headers, arginfo_headers)
	PHP_FE(fpm_get_status, arginfo_status)
	PHP_FE_END
};

const void *gp_functions = functions;
