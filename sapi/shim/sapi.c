/* The SAPI module: PHP's questions, answered by Rust leaves. */
#include <php.h>
#include <SAPI.h>
#include <php_main.h>
#include <php_variables.h>
#include <zend_observer.h>

#include "glasspool.h"
#include "shim.h"

static size_t write_body(const char *bytes, size_t length)
{
	/* Preloading and start-up print with no request: that belongs to the console. */
	if (!SG(server_context)) {
		return fwrite(bytes, 1, length, stderr);
	}
	if (!gp_rs_write(bytes, length)) {
		php_handle_aborted_connection();
	}
	return length;
}

static void flush_body(void *server_context)
{
	if (server_context && !gp_rs_flush()) {
		php_handle_aborted_connection();
	}
}

static int finish(void)
{
	bool aborted = false;

	/* Called within php_request_shutdown(), after all output and before the heap is
	 * taken down, so that the client has its answer as early as possible. */
	if (SG(server_context) && gp_rs_finish(&aborted) && aborted) {
		php_handle_aborted_connection();
	}
	return SUCCESS;
}

static char *get_environment(const char *name, size_t length)
{
	size_t value_length;

	/* HTTP_PROXY would be the client's Proxy header (CVE-2016-5385). */
	if (!SG(server_context) || (length == 10 && !memcmp(name, "HTTP_PROXY", 10))) {
		return NULL;
	}
	const char *value = gp_rs_param(name, length, &value_length);
	return value ? estrndup(value, value_length) : NULL;
}

static size_t read_post(char *buffer, size_t length)
{
	const gp_request *request = SG(server_context);

	/* PHP does not ask again after an end. */
	if (request && request->body_error) {
		zend_error(E_WARNING, "%s", request->body_error);
		return 0;
	}
	return gp_rs_read_body(buffer, length);
}

static char *read_cookies(void)
{
	size_t length;
	return (char *)gp_rs_param("HTTP_COOKIE", 11, &length);
}

static bool is_status_header(const sapi_header_struct *header)
{
	return header->header_len > 7 && !strncasecmp(header->header, "Status:", 7);
}

static int send_headers(sapi_headers_struct *headers)
{
	zend_llist_position position;
	sapi_header_struct *header;
	bool own_status = false, status_sent = false;

	if (!SG(server_context) || SG(request_info).no_headers) {
		return SAPI_HEADER_SENT_SUCCESSFULLY;
	}
	for (header = zend_llist_get_first_ex(&headers->headers, &position); header;
	     header = zend_llist_get_next_ex(&headers->headers, &position)) {
		own_status |= is_status_header(header);
	}
	gp_text line = { headers->http_status_line, headers->http_status_line ? strlen(headers->http_status_line) : 0 };
	if (!own_status && (headers->http_response_code != 200 || gp_status_always() || gp_raw_status_line())) {
		gp_rs_head_status(headers->http_response_code, line, gp_raw_status_line());
	}
	for (header = zend_llist_get_first_ex(&headers->headers, &position); header;
	     header = zend_llist_get_next_ex(&headers->headers, &position)) {
		if (!header->header_len) {
			continue;
		}
		if (is_status_header(header)) {
			if (status_sent) {
				continue;
			}
			status_sent = true;
		}
		if (headers->http_response_code == 304 && header->header_len > 13
		    && !strncasecmp(header->header, "Content-Type:", 13)) {
			continue;
		}
		gp_rs_head_line(header->header, header->header_len);
	}
	gp_rs_head_end();
	return SAPI_HEADER_SENT_SUCCESSFULLY;
}

static void (*php_environment)(zval *array);

/* An array that is nobody's global: the input filter would put what it gets into
 * $_SERVER. */
enum { UNFILTERED = -1 };

static void import_params(zval *array, int kind)
{
	gp_param param;

	for (size_t index = 0; gp_rs_param_at(index, &param); index++) {
		size_t length = param.value.length;
		char *value = (char *)param.value.at;
		/* HTTP_PROXY would be the client's Proxy header (CVE-2016-5385). */
		if (param.name.length == 10 && !memcmp(param.name.at, "HTTP_PROXY", 10)) {
			continue;
		}
		if (kind == UNFILTERED || sapi_module.input_filter(kind, param.name.at, &value, length, &length)) {
			php_register_variable_safe(param.name.at, value, length, array);
		}
	}
}

static void import_environment(zval *array, int kind)
{
	php_environment(array);
	if (SG(server_context)) {
		import_params(array, kind);
	}
}

/* $_ENV */
static void import_env(zval *array)
{
	import_environment(array, PARSE_ENV);
}

/* getenv() without a name */
static void load_environment(zval *array)
{
	import_environment(array, UNFILTERED);
}

static void register_server_variables(zval *array)
{
	/* Environment, then parameters, then PHP_SELF: the later wins. */
	import_environment(array, PARSE_SERVER);

	size_t script_length, info_length = 0;
	const char *info = gp_rs_param("PATH_INFO", 9, &info_length);
	const char *script = SG(request_info).request_uri ? SG(request_info).request_uri : "";
	script_length = strlen(script);
	if (!gp_php_fix_pathinfo() || !info) {
		info_length = 0;
	}
	char *self = emalloc(script_length + info_length + 1);
	memcpy(self, script, script_length);
	memcpy(self + script_length, info ? info : "", info_length);
	self[script_length + info_length] = 0;
	size_t length = script_length + info_length;
	if (sapi_module.input_filter(PARSE_SERVER, "PHP_SELF", &self, length, &length)) {
		php_register_variable_safe("PHP_SELF", self, length, array);
	}
	efree(self);
}

/* How often PHP has logged to us. */
static uint64_t logged_here;

static void log_message(const char *message, int level)
{
	(void)level;
	logged_here++;
	gp_rs_php_log(message, strlen(message), gp_logging_to_client());
}

static int header_handler(sapi_header_struct *header, sapi_header_op_enum op, sapi_headers_struct *headers)
{
	(void)header; (void)op; (void)headers;
	return SAPI_HEADER_ADD;
}

static void set_default(HashTable *configuration, const char *name, const char *value)
{
	zval text;
	ZVAL_NEW_STR(&text, zend_string_init(value, strlen(value), 1));
	zend_hash_str_update(configuration, name, strlen(name), &text);
}

static void ini_defaults(HashTable *configuration)
{
	set_default(configuration, "display_errors", "1");
}

sapi_module_struct gp_sapi = {
	.name = "fpm-fcgi", /* what opcache and applications expect */
	.pretty_name = "FPM/FastCGI",
	.shutdown = php_module_shutdown_wrapper,
	.activate = gp_activate,
	.deactivate = finish,
	.ub_write = write_body,
	.flush = flush_body,
	.getenv = get_environment,
	.sapi_error = php_error,
	.header_handler = header_handler,
	.send_headers = send_headers,
	.read_post = read_post,
	.read_cookies = read_cookies,
	.register_server_variables = register_server_variables,
	.log_message = log_message,
	.ini_defaults = ini_defaults,
};

static void on_error(int type, zend_string *file, uint32_t line, zend_string *message)
{
	gp_text where = { file ? ZSTR_VAL(file) : "", file ? ZSTR_LEN(file) : 0 };
	gp_text what = { ZSTR_VAL(message), ZSTR_LEN(message) };
	gp_rs_php_error(type, what, where, line);
}

static void (*php_report)(int type, zend_string *file, const uint32_t line, zend_string *message);

static const char *level_name(int type)
{
	switch (type) {
	case E_ERROR:
	case E_CORE_ERROR:
	case E_COMPILE_ERROR:
	case E_USER_ERROR:
		return "Fatal error";
	case E_RECOVERABLE_ERROR:
		return "Recoverable fatal error";
	case E_PARSE:
		return "Parse error";
	case E_NOTICE:
	case E_USER_NOTICE:
		return "Notice";
	case E_DEPRECATED:
	case E_USER_DEPRECATED:
		return "Deprecated";
	default:
		return "Warning";
	}
}

/* Errors that no handler of the application has taken come here, and PHP may log them.
 * Where it writes to a file of its own nobody else hears of that. */
static void on_report(int type, zend_string *file, const uint32_t line, zend_string *message)
{
	const char *target = PG(error_log);
	const int level = type & E_ALL;
	const bool is_shown = (EG(error_reporting) & level) || (level & E_CORE);
	const bool is_thrown = EG(error_handling) == EH_THROW && !(level & E_FATAL_ERRORS);
	if (PG(log_errors) && target && *target && is_shown && !is_thrown) {
		const gp_text where = { target, strlen(target) };
		if (gp_rs_wants_line(where)) {
			/* No memory of PHP's: it may be what has run out. */
			char text[GP_LINE_BYTES];
			const int length = snprintf(text, sizeof text, "PHP %s:  %s in %s on line %" PRIu32, level_name(level),
				ZSTR_VAL(message), file ? ZSTR_VAL(file) : "Unknown", line);
			const size_t whole = length < 0 ? 0 : (size_t)length;
			const gp_text kept = { text, whole < sizeof text ? whole : sizeof text - 1 };
			gp_rs_line(level, kept, whole);
		}
	}
	php_report(type, file, line, message);
}

static zif_handler php_error_log;

/* error_log(). Its first kind of message goes where PHP's own do, and so to a file that
 * nobody else hears of; unless that cannot be opened, when it comes to us after all. */
static void on_error_log(INTERNAL_FUNCTION_PARAMETERS)
{
	const uint64_t before = logged_here;
	php_error_log(INTERNAL_FUNCTION_PARAM_PASSTHRU);

	const char *target = PG(error_log);
	if (!target || !*target || logged_here != before || Z_TYPE_P(return_value) != IS_TRUE) {
		return;
	}
	const uint32_t count = ZEND_NUM_ARGS();
	const zval *message = ZEND_CALL_ARG(execute_data, 1);
	zval *kind = count > 1 ? ZEND_CALL_ARG(execute_data, 2) : NULL;
	/* It has become text by being taken as one; a kind stays what it was. */
	if (count == 0 || Z_TYPE_P(message) != IS_STRING || (kind && zval_get_long(kind) != 0)) {
		return;
	}
	const gp_text where = { target, strlen(target) };
	if (gp_rs_wants_line(where)) {
		const gp_text line = { Z_STRVAL_P(message), Z_STRLEN_P(message) };
		gp_rs_line(0, line, line.length);
	}
}

void gp_install_hooks(void)
{
	/* There is none if `disable_functions` names it. */
	zend_function *error_log = zend_hash_str_find_ptr(CG(function_table), ZEND_STRL("error_log"));
	if (error_log && error_log->type == ZEND_INTERNAL_FUNCTION) {
		php_error_log = error_log->internal_function.handler;
		error_log->internal_function.handler = on_error_log;
	}
	php_report = zend_error_cb;
	zend_error_cb = on_report;
	zend_observer_error_register(on_error);
	php_environment = php_import_environment_variables;
	php_import_environment_variables = import_env;
	php_load_environment_variables = load_environment;
}
