/* One request, from PHP's start-up to its shutdown. Every call that may leave by
 * longjmp stands inside a zend_try of this file or of PHP itself. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <php.h>
#include <SAPI.h>
#include <php_ini.h>
#include <php_main.h>
#include <php_output.h>
#include <zend_ini_scanner.h>
#include <zend_signal.h>
#include <zend_stream.h>

#include "glasspool.h"
#include "shim.h"

/* Says something about the request: to the worker's log and to the client's. */
#define complain(severity, ...) complain_from(severity, __func__, __LINE__, __VA_ARGS__)

__attribute__((format(printf, 4, 5)))
static void complain_from(int severity, const char *function, int line, const char *format, ...)
{
	char text[2048];
	va_list arguments;

	va_start(arguments, format);
	int length = vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	if (length > 0) {
		gp_text message = { text, MIN((size_t)length, sizeof text - 1) };
		gp_rs_log(severity, function, line, message, gp_logging_to_client());
	}
}

static void apply_entry(zval *name, zval *value, zval *index, int kind, void *mode)
{
	(void)index;
	if (kind != ZEND_INI_PARSER_ENTRY) {
		complain(GP_ERROR, "Passing INI directive through FastCGI: only classic entries are allowed");
	} else if (!name || Z_STRLEN_P(name) == 0) {
		complain(GP_ERROR, "Passing INI directive through FastCGI: empty key");
	} else if (!value) {
		complain(GP_ERROR, "Passing INI directive through FastCGI: empty value for key '%s'", Z_STRVAL_P(name));
	} else {
		zend_string *text = zval_get_string(value);
		/* At this stage an admin value is locked and everything is undone when the
		 * request ends. php-fpm keeps it for all later requests of the worker. */
		if (zend_alter_ini_entry_ex(Z_STR_P(name), text, *(int *)mode, PHP_INI_STAGE_ACTIVATE, 0) != SUCCESS) {
			complain(GP_ERROR, "Passing INI directive through FastCGI: unable to set '%s'", Z_STRVAL_P(name));
		} else if (*(int *)mode == PHP_INI_SYSTEM) {
			gp_apply_disabled(Z_STRVAL_P(name), ZSTR_VAL(text));
		}
		zend_string_release(text);
	}
}

static void apply_ini(const gp_text *text, int mode)
{
	if (!text->length) {
		return;
	}
	zend_try {
		zend_parse_ini_string((char *)text->at, 1, ZEND_INI_SCANNER_NORMAL, apply_entry, &mode);
	} zend_end_try();
}

/* A fixed page with its status. */
static void answer(int status, const char *body)
{
	zend_try {
		SG(sapi_headers).http_response_code = status;
		php_output_write(body, strlen(body));
	} zend_end_try();
}

/* The worker's own working directory, or -1. */
static int home = -1;

/* A script runs in its own folder. PHP would ask for the folder before, by name, on
 * each request, and go back to that name; the descriptor is asked for once, and going
 * back to it walks no path. */
static void enter_folder_of(const char *script)
{
	if (home < 0) {
		home = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	}
	if (home < 0) {
		SG(options) &= ~SAPI_OPTION_NO_CHDIR;
	} else {
		SG(options) |= SAPI_OPTION_NO_CHDIR;
		VCWD_CHDIR_FILE(script);
	}
}

static void leave_folder(void)
{
	/* What made this impossible would also have kept the script from its folder. */
	if (home >= 0 && fchdir(home) != 0) {
		complain(GP_ERROR, "cannot go back to the worker's directory: %s", strerror(errno));
	}
}

static void run_script(const gp_request *request)
{
	zend_file_handle script;
	volatile bool opened = false;

	if (!request->script) {
		complain(GP_DEBUG, "Primary script unknown");
		answer(404, "File not found.\n");
		return;
	}
	if (request->denied) {
		complain(GP_NOTICE, "Access to the script '%s' has been denied (see security.limit_extensions)", request->script);
		answer(403, "Access denied.\n");
		return;
	}
	zend_stream_init_filename(&script, SG(request_info).path_translated);
	script.primary_script = 1;
	zend_try {
		opened = php_fopen_primary_script(&script) == SUCCESS;
	} zend_end_try();
	if (!opened) {
		int error = errno;
		complain(GP_ERROR, "Unable to open primary script: %s (%s)", request->script, strerror(error));
		zend_destroy_file_handle(&script);
		if (error == EACCES) {
			answer(403, "Access denied.\n");
		} else {
			answer(404, "No input file specified.\n");
		}
		return;
	}
	gp_rs_stage(GP_STAGE_EXECUTING);
	enter_folder_of(request->script);
	php_execute_script(&script);
	leave_folder();
	zend_destroy_file_handle(&script);
}

/* What the access log wants to know. */
static void report(int64_t memory_peak)
{
	const char *user = SG(request_info).auth_user;
	gp_executed executed = {
		.user = { user, user ? strlen(user) : 0 },
		.memory_peak = memory_peak,
		.status = SG(sapi_headers).http_response_code,
		.to_client = gp_logging_to_client(),
	};

	if (gp_rs_wants_headers()) {
		zend_llist_position position;
		zend_llist *headers = &SG(sapi_headers).headers;
		sapi_header_struct *header;
		for (header = zend_llist_get_first_ex(headers, &position); header;
		     header = zend_llist_get_next_ex(headers, &position)) {
			gp_rs_response_header(header->header, header->header_len);
		}
	}
	gp_rs_executed(&executed);
}

bool gp_php_exists(const char *path)
{
	volatile bool exists = false;

	zend_first_try {
		char real[MAXPATHLEN];
		exists = tsrm_realpath(path, real) != NULL;
	} zend_end_try();
	return exists;
}

void gp_php_request(const gp_request *request, gp_outcome *outcome)
{
	sapi_request_info *info = &SG(request_info);

	memset(info, 0, sizeof *info);
	info->request_method = request->method;
	info->query_string = (char *)request->query;
	info->content_type = request->content_type;
	info->content_length = request->content_length;
	info->request_uri = (char *)request->request_uri;
	info->path_translated = request->script ? estrdup(request->script) : NULL;
	info->proto_num = 1001;
	SG(server_context) = (void *)request;
	/* Left over from the request before, this would have PHP refuse session settings. */
	SG(headers_sent) = 0;
	SG(sapi_headers).http_response_code = request->script ? 200 : 404;
	EG(exit_status) = 0;

	gp_renew_settings();
	apply_ini(&request->php_value, PHP_INI_USER | PHP_INI_PERDIR);
	apply_ini(&request->php_admin_value, PHP_INI_SYSTEM);
	zend_try {
		php_handle_auth_data(request->auth);
	} zend_end_try();
	if (info->auth_user) {
		gp_rs_user(info->auth_user, strlen(info->auth_user));
	}

	outcome->started = php_request_startup() == SUCCESS;
	if (outcome->started && request->method) {
		if (request->page) {
			gp_answer_page(request->page);
		} else {
			run_script(request);
		}
		const char *header = gp_error_header();
		if (EG(exit_status) == 255 && header && !SG(headers_sent)) {
			zend_try {
				sapi_header_line line = { header, strlen(header), 0 };
				sapi_header_op(SAPI_HEADER_REPLACE, &line);
			} zend_end_try();
		}
	}
	gp_rs_stage(GP_STAGE_END);
	outcome->exit_status = EG(exit_status);
	outcome->memory_peak = (int64_t)zend_memory_peak_usage(1);
	if (outcome->started) {
		report(outcome->memory_peak);
	}
	if (info->path_translated) {
		efree(info->path_translated);
		info->path_translated = NULL;
	}
	php_request_shutdown(NULL);
	/* sapi_deactivate() leaves the code of the last request in place. */
	outcome->status = SG(sapi_headers).http_response_code;
	SG(server_context) = NULL;
	/* Handlers have been taken over once; checking them again on each request costs
	 * seven system calls. */
	zend_signal_globals.reset = 0;
}
