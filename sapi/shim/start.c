/* Starting PHP in an engine, and what a worker does once after the fork. */
#include <php.h>
#include <SAPI.h>
#include <php_ini.h>
#include <php_main.h>
#include <ext/standard/dl.h>
#include <ext/standard/info.h>
#include <zend_signal.h>

#include "glasspool.h"
#include "shim.h"

#if PHP_VERSION_ID < 80200 || PHP_VERSION_ID >= 80300
#error "this shim is tested with PHP 8.2 only; see docs/layouts.md for what a new version needs"
#endif
#ifdef ZTS
#error "thread-safe (ZTS) builds of PHP are not supported yet"
#endif

size_t gp_abi_sizes(void)
{
	return sizeof(gp_request) << 16 | sizeof(gp_outcome) << 8 | sizeof(gp_start);
}

static bool fix_pathinfo, discard_path, rfc2616_headers, nph, to_client;
static char *error_header;

/* The directives that php-fpm registers; names and defaults are its interface. */
static PHP_INI_MH(on_bool)
{
	bool *flag = (bool *)mh_arg2;
	*flag = zend_ini_parse_bool(new_value);
	return SUCCESS;
}

static PHP_INI_MH(on_text)
{
	char **text = (char **)mh_arg2;
	*text = new_value && ZSTR_LEN(new_value) ? ZSTR_VAL(new_value) : NULL;
	return SUCCESS;
}

PHP_INI_BEGIN()
	PHP_INI_ENTRY3("cgi.fix_pathinfo", "1", PHP_INI_SYSTEM, on_bool, NULL, &fix_pathinfo, NULL)
	PHP_INI_ENTRY3("cgi.discard_path", "0", PHP_INI_SYSTEM, on_bool, NULL, &discard_path, NULL)
	PHP_INI_ENTRY3("cgi.rfc2616_headers", "0", PHP_INI_ALL, on_bool, NULL, &rfc2616_headers, NULL)
	PHP_INI_ENTRY3("cgi.nph", "0", PHP_INI_ALL, on_bool, NULL, &nph, NULL)
	PHP_INI_ENTRY("cgi.force_redirect", "1", PHP_INI_SYSTEM, NULL)
	PHP_INI_ENTRY("cgi.redirect_status_env", NULL, PHP_INI_SYSTEM, NULL)
	PHP_INI_ENTRY3("fastcgi.logging", "1", PHP_INI_SYSTEM, on_bool, NULL, &to_client, NULL)
	PHP_INI_ENTRY3("fastcgi.error_header", NULL, PHP_INI_SYSTEM, on_text, NULL, &error_header, NULL)
	PHP_INI_ENTRY("fpm.config", NULL, PHP_INI_SYSTEM, NULL)
PHP_INI_END()

int gp_php_fix_pathinfo(void) { return fix_pathinfo; }
int gp_php_discard_path(void) { return discard_path; }
const char *gp_php_doc_root(void) { return PG(doc_root); }
bool gp_logging_to_client(void) { return to_client; }
bool gp_raw_status_line(void) { return rfc2616_headers; }
bool gp_status_always(void) { return nph; }
const char *gp_error_header(void) { return error_header; }

static PHP_MINIT_FUNCTION(glasspool)
{
	REGISTER_INI_ENTRIES();
	return SUCCESS;
}

static PHP_MSHUTDOWN_FUNCTION(glasspool)
{
	UNREGISTER_INI_ENTRIES();
	return SUCCESS;
}

static PHP_MINFO_FUNCTION(glasspool)
{
	php_info_print_table_start();
	php_info_print_table_row(2, "php-fpm", "active");
	php_info_print_table_row(2, "Process manager", "Glasspool");
	php_info_print_table_end();
	DISPLAY_INI_ENTRIES();
}

/* php-fpm's module carries this name; applications test for it. */
static zend_module_entry module = {
	STANDARD_MODULE_HEADER,
	"cgi-fcgi",
	NULL,
	PHP_MINIT(glasspool),
	PHP_MSHUTDOWN(glasspool),
	NULL,
	NULL,
	PHP_MINFO(glasspool),
	PHP_VERSION,
	STANDARD_MODULE_PROPERTIES
};

static int start_module(sapi_module_struct *sapi)
{
	return php_module_startup(sapi, &module);
}

bool gp_php_start(const gp_start *start)
{
	volatile bool started = false;

	module.functions = gp_functions;
	zend_signal_startup();
	gp_sapi.startup = start_module;
	sapi_startup(&gp_sapi);
	/* sapi_startup() clears these. */
	gp_sapi.executable_location = (char *)start->binary;
	gp_sapi.php_ini_path_override = (char *)start->ini_path;
	gp_sapi.php_ini_ignore_cwd = 1;
	gp_sapi.ini_entries = (char *)start->ini_entries;
	zend_first_try {
		started = gp_sapi.startup(&gp_sapi) == SUCCESS;
	} zend_end_try();
	if (started) {
		gp_install_hooks();
	}
	return started;
}

void gp_php_stop(void)
{
	zend_first_try {
		php_module_shutdown();
	} zend_end_try();
	sapi_shutdown();
}

void gp_php_after_fork(void)
{
	/* zend_signal_startup() is the exported function that reads the handlers in
	 * force, which from now on are what PHP falls back to between requests. */
	zend_signal_startup();
	zend_signal_globals.reset = 1;
}

/* A pool's value is meant to outlive every request of the worker, so it replaces
 * the entry's own value: zend_alter_ini_entry() would be undone at the end of the
 * first request. */
static bool replace_ini(const char *name, size_t name_length, const char *value, size_t value_length, bool admin)
{
	zend_ini_entry *entry = zend_hash_str_find_ptr(EG(ini_directives), name, name_length);
	if (!entry) {
		return false;
	}
	zend_string *text = zend_string_init(value, value_length, 1);
	if (entry->on_modify && entry->on_modify(entry, text, entry->mh_arg1, entry->mh_arg2, entry->mh_arg3, PHP_INI_STAGE_ACTIVATE) != SUCCESS) {
		zend_string_release(text);
		return false;
	}
	/* The former value may be interned or shared with the configuration: it stays. */
	entry->value = text;
	if (admin) {
		entry->modifiable = PHP_INI_SYSTEM;
	}
	return true;
}

bool gp_php_set_ini(const char *name, size_t name_length, const char *value, size_t value_length, bool admin)
{
	volatile bool done = false;

	zend_first_try {
		if (name_length == 9 && !memcmp(name, "extension", 9)) {
			zval loaded;
			php_dl(value, MODULE_PERSISTENT, &loaded, 1);
			done = Z_TYPE(loaded) == IS_TRUE;
		} else {
			done = replace_ini(name, name_length, value, value_length, admin);
			if (done && name_length == 17 && !memcmp(name, "disable_functions", 17)) {
				zend_disable_functions(value);
			}
		}
	} zend_end_try();
	return done;
}
