/* INI settings that depend on the request: php.ini's sections for a host or a folder,
 * and the .user.ini files on the way from DOCUMENT_ROOT to the script. */
#include <php.h>
#include <SAPI.h>
#include <php_ini.h>

#include "glasspool.h"
#include "shim.h"

/* Folders that are remembered; a script farm must not fill the memory. */
enum { MAX_FOLDERS = 4096 };

/* What the .user.ini of a folder says; empty where there is none. */
typedef struct {
	HashTable entries;
	time_t expires;
} folder;

static HashTable folders;

static void forget(zval *value)
{
	folder *known = Z_PTR_P(value);

	zend_hash_destroy(&known->entries);
	free(known);
}

static folder *look_up(const char *path, size_t length)
{
	folder *known;

	if (!folders.pDestructor) {
		zend_hash_init(&folders, 8, NULL, forget, 1);
	}
	known = zend_hash_str_find_ptr(&folders, path, length);
	if (known) {
		return known;
	}
	if (zend_hash_num_elements(&folders) >= MAX_FOLDERS) {
		zend_hash_clean(&folders);
	}
	known = pecalloc(1, sizeof *known, 1);
	zend_hash_init(&known->entries, 8, NULL, config_zval_dtor, 1);
	return zend_hash_str_add_ptr(&folders, path, length, known);
}

/* Puts the settings of one folder into force. `path` has room for a NUL at its end. */
static void activate_folder(char *path, size_t length, time_t now)
{
	folder *known = look_up(path, length);

	if (now >= known->expires) {
		char after = path[length];
		path[length] = 0;
		zend_hash_clean(&known->entries);
		php_parse_user_ini_file(path, PG(user_ini_filename), &known->entries);
		path[length] = after;
		known->expires = now + PG(user_ini_cache_ttl);
	}
	if (zend_hash_num_elements(&known->entries)) {
		php_ini_activate_config(&known->entries, PHP_INI_PERDIR, PHP_INI_STAGE_HTACCESS);
	}
}

/* The folders from `root` down to `path`; outside of it only the last. As in php-fpm the
 * paths are compared as they are written. */
static void activate_folders(char *path, size_t length, const char *root, size_t root_length)
{
	time_t now = time(NULL);

	while (root_length && root[root_length - 1] == '/') {
		root_length--;
	}
	if (root_length <= length && !memcmp(path, root, root_length)
	    && (root_length == length || path[root_length] == '/')) {
		for (size_t end = root_length; end < length; end++) {
			if (end == root_length || path[end] == '/') {
				activate_folder(path, end, now);
			}
		}
	}
	activate_folder(path, length, now);
}

static void activate_host(void)
{
	size_t length;
	const char *name = gp_rs_param("SERVER_NAME", 11, &length);

	if (name && length) {
		char *lower = zend_str_tolower_dup(name, length);
		php_ini_activate_per_host_config(lower, length);
		efree(lower);
	}
}

/* Called within php_request_startup(), in front of everything that reads a setting. */
int gp_activate(void)
{
	const char *script = SG(request_info).path_translated;
	size_t root_length;

	if (!SG(server_context)) {
		return SUCCESS;
	}
	if (php_ini_has_per_host_config()) {
		activate_host();
	}
	const char *slash = script ? strrchr(script, '/') : NULL;
	bool user_ini = PG(user_ini_filename) && *PG(user_ini_filename);
	if (!slash || slash == script || !(user_ini || php_ini_has_per_dir_config())) {
		return SUCCESS;
	}
	size_t length = slash - script;
	/* With the slash: PHP looks at what stands in front of each. */
	char *path = estrndup(script, length + 1);
	if (php_ini_has_per_dir_config()) {
		php_ini_activate_per_dir_config(path, length + 1);
	}
	const char *root = gp_rs_param("DOCUMENT_ROOT", 13, &root_length);
	if (user_ini && root) {
		activate_folders(path, length, root, root_length);
	}
	efree(path);
	return SUCCESS;
}
