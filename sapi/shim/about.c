/* What php-fpm prints and exits: -v, -m and -i. */
#include <php.h>
#include <SAPI.h>
#include <php_main.h>
#include <php_output.h>
#include <ext/standard/info.h>
#include <zend_extensions.h>

#include "glasspool.h"
#include "shim.h"

static FILE *out;

/* phpinfo()'s general part, for the build date: no other symbol of PHP has it. */
static struct {
	char text[8192];
	size_t length;
} general;

static size_t print_to_file(const char *bytes, size_t length)
{
	return fwrite(bytes, 1, length, out);
}

static size_t print_to_memory(const char *bytes, size_t length)
{
	size_t room = sizeof general.text - 1 - general.length;
	size_t kept = MIN(length, room);

	memcpy(general.text + general.length, bytes, kept);
	general.length += kept;
	return length;
}

/* phpinfo() as text, which needs a request to print in; only its output counts. */
static void print_info(int what, size_t (*print)(const char *, size_t))
{
	sapi_module.phpinfo_as_text = 1;
	sapi_module.ub_write = print;
	memset(&SG(request_info), 0, sizeof SG(request_info));
	if (php_request_startup() == SUCCESS) {
		SG(headers_sent) = 1;
		SG(request_info).no_headers = 1;
		zend_try {
			php_print_info(what);
			php_output_end_all();
		} zend_end_try();
		php_request_shutdown(NULL);
	}
	sapi_module.ub_write = gp_sapi.ub_write;
}

/* When PHP was built, as its own phpinfo() says it. */
static const char *build_date(void)
{
	static const char label[] = "\nBuild Date => ";
	char *date, *end;

	print_info(PHP_INFO_GENERAL, print_to_memory);
	date = strstr(general.text, label);
	if (!date) {
		return __DATE__ " " __TIME__;
	}
	date += sizeof label - 1;
	end = strchr(date, '\n');
	if (end) {
		*end = 0;
	}
	return date;
}

static void print_version(void)
{
	/* This module is always part of the executable, and so has its version, which may
	 * be a later one than that of the headers this file was compiled with. */
	const zend_module_entry *standard = zend_hash_str_find_ptr(&module_registry, ZEND_STRL("standard"));

	fprintf(out, "PHP %s (%s) (built: %s)\nCopyright (c) The PHP Group\n%s",
		standard && standard->version ? standard->version : PHP_VERSION, sapi_module.name, build_date(),
		get_zend_version());
}

static int by_name(const void *left, const void *right)
{
	return strcasecmp(*(const char *const *)left, *(const char *const *)right);
}

static void print_names(const char *title, const char **names, size_t count)
{
	qsort(names, count, sizeof *names, by_name);
	fprintf(out, "[%s]\n", title);
	for (size_t i = 0; i < count; i++) {
		fprintf(out, "%s\n", names[i]);
	}
	fputc('\n', out);
}

static void print_modules(void)
{
	size_t count = zend_hash_num_elements(&module_registry), at = 0;
	const char **names = calloc(count + zend_llist_count(&zend_extensions) + 1, sizeof *names);
	zend_module_entry *module;
	zend_llist_position position;

	if (!names) {
		return;
	}
	ZEND_HASH_FOREACH_PTR(&module_registry, module) {
		names[at++] = module->name;
	} ZEND_HASH_FOREACH_END();
	print_names("PHP Modules", names, at);
	at = 0;
	for (zend_extension *extension = zend_llist_get_first_ex(&zend_extensions, &position); extension;
	     extension = zend_llist_get_next_ex(&zend_extensions, &position)) {
		names[at++] = extension->name;
	}
	print_names("Zend Modules", names, at);
	free(names);
}

bool gp_php_about(int what, int fd)
{
	volatile bool done = false;

	out = fdopen(fd, "w");
	if (!out) {
		close(fd);
		return false;
	}
	zend_first_try {
		switch (what) {
		case GP_ABOUT_VERSION:
			print_version();
			break;
		case GP_ABOUT_MODULES:
			print_modules();
			break;
		default:
			print_info(PHP_INFO_ALL, print_to_file);
		}
		done = true;
	} zend_end_try();
	return fclose(out) == 0 && done;
}
