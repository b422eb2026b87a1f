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

	ZEND_PARSE_PARAMETERS_NONE();
	array_init(return_value);
	if (!SG(server_context)) {
		return;
	}
	for (size_t index = 0; gp_rs_param_at(index, &param); index++) {
		zval value;
		zend_string *name;
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

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_finish, 0, 0, _IS_BOOL, 0)
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_headers, 0, 0, IS_ARRAY, 0)
ZEND_END_ARG_INFO()

static const zend_function_entry functions[] = {
	PHP_FE(fastcgi_finish_request, arginfo_finish)
	PHP_FE(apache_request_headers, arginfo_headers)
	PHP_FALIAS(getallheaders, apache_request_headers, arginfo_headers)
	PHP_FE_END
};

const void *gp_functions = functions;
