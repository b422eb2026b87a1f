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
	return sizeof(gp_opcache) << 56 | sizeof(gp_executed) << 48 | sizeof(gp_figure) << 40 | sizeof(gp_page) << 32 | sizeof(gp_request) << 16 | sizeof(gp_outcome) << 8 | sizeof(gp_start);
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
	PHP_INI_ENTRY3_EX("cgi.fix_pathinfo", "1", PHP_INI_SYSTEM, on_bool, NULL, &fix_pathinfo, NULL, zend_ini_boolean_displayer_cb)
	PHP_INI_ENTRY3_EX("cgi.discard_path", "0", PHP_INI_SYSTEM, on_bool, NULL, &discard_path, NULL, zend_ini_boolean_displayer_cb)
	PHP_INI_ENTRY3_EX("cgi.rfc2616_headers", "0", PHP_INI_ALL, on_bool, NULL, &rfc2616_headers, NULL, zend_ini_boolean_displayer_cb)
	PHP_INI_ENTRY3_EX("cgi.nph", "0", PHP_INI_ALL, on_bool, NULL, &nph, NULL, zend_ini_boolean_displayer_cb)
	PHP_INI_ENTRY_EX("cgi.force_redirect", "1", PHP_INI_SYSTEM, NULL, zend_ini_boolean_displayer_cb)
	PHP_INI_ENTRY("cgi.redirect_status_env", NULL, PHP_INI_SYSTEM, NULL)
	PHP_INI_ENTRY3_EX("fastcgi.logging", "1", PHP_INI_SYSTEM, on_bool, NULL, &to_client, NULL, zend_ini_boolean_displayer_cb)
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
	gp_sapi.php_ini_ignore = start->no_ini;
	gp_sapi.ini_entries = (char *)start->ini_entries;
	zend_first_try {
		started = gp_sapi.startup(&gp_sapi) == SUCCESS;
	} zend_end_try();
	if (started) {
		gp_install_hooks();
		if (start->extended_info) {
			CG(compiler_options) |= ZEND_COMPILE_EXTENDED_INFO;
		}
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

/* What get_browser() reads is forgotten at the end of each request unless php.ini said
 * it; with php-fpm it fails from a worker's second request on. */
static zend_ini_entry *browscap;

void gp_renew_settings(void)
{
	if (browscap && browscap->on_modify) {
		browscap->on_modify(browscap, browscap->value, browscap->mh_arg1, browscap->mh_arg2, browscap->mh_arg3, PHP_INI_STAGE_ACTIVATE);
	}
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
	if (!strcmp(name, "browscap")) {
		browscap = entry;
	}
	if (admin) {
		entry->modifiable = PHP_INI_SYSTEM;
	}
	return true;
}

static int remove_unstarted(zval *value)
{
	const zend_module_entry *entry = Z_PTR_P(value);

	return entry->module_started ? ZEND_HASH_APPLY_KEEP : ZEND_HASH_APPLY_REMOVE;
}

/* Loads and starts a module in a worker. PHP's dl() would also begin a request in the
 * module at once, though none is under way, and forget it when asked who takes part in
 * the next. */
static bool load_extension(const char *name)
{
	bool loaded = false;
	zend_module_entry *entry;

	/* What the module registers stays for the life of the process. */
	zend_interned_strings_switch_storage(0);
	zend_try {
		loaded = php_load_extension(name, MODULE_PERSISTENT, 0) == SUCCESS;
		ZEND_HASH_MAP_FOREACH_PTR(&module_registry, entry) {
			if (!entry->module_started && zend_startup_module_ex(entry) != SUCCESS) {
				loaded = false;
			}
		} ZEND_HASH_FOREACH_END();
	} zend_catch {
		loaded = false;
	} zend_end_try();
	/* A module that could not start must not be asked to begin a request. */
	zend_hash_apply(&module_registry, remove_unstarted);
	zend_collect_module_handlers();
	zend_interned_strings_switch_storage(1);
	return loaded;
}

static void disable_classes(const char *names)
{
	const char *blanks = " ,";

	for (size_t length; *(names += strspn(names, blanks)); names += length) {
		length = strcspn(names, blanks);
		char *name = estrndup(names, length);
		zend_disable_class(name, length);
		efree(name);
	}
}

void gp_apply_disabled(const char *name, const char *value)
{
	if (!strcmp(name, "disable_functions")) {
		zend_disable_functions(value);
	} else if (!strcmp(name, "disable_classes")) {
		disable_classes(value);
	}
}

bool gp_php_set_ini(const char *name, size_t name_length, const char *value, size_t value_length, bool admin)
{
	volatile bool done = false;

	zend_first_try {
		if (!strcmp(name, "extension")) {
			done = load_extension(value);
		} else {
			done = replace_ini(name, name_length, value, value_length, admin);
			if (done) {
				gp_apply_disabled(name, value);
			}
		}
	} zend_end_try();
	return done;
}
