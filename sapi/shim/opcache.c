/* What opcache says of its memory, asked as a script would ask it, but outside of any
 * request: to begin one would run what every extension does at its beginning, and opcache's
 * own part of that carries out a restart that is due. The function reads counters and
 * fills arrays (ZEND_FUNCTION(opcache_get_status) in php-src's
 * ext/opcache/zend_accelerator_module.c). Nothing is freed: the process ends. */
#include <php.h>
#include <zend_modules.h>

#include "glasspool.h"

static const HashTable *table(const HashTable *in, const char *name)
{
	const zval *found = zend_hash_str_find(in, name, strlen(name));

	return found && Z_TYPE_P(found) == IS_ARRAY ? Z_ARRVAL_P(found) : &zend_empty_array;
}

static int64_t number(const HashTable *in, const char *name)
{
	const zval *found = zend_hash_str_find(in, name, strlen(name));

	return found && Z_TYPE_P(found) == IS_LONG ? Z_LVAL_P(found) : 0;
}

static bool is_true(const HashTable *in, const char *name)
{
	const zval *found = zend_hash_str_find(in, name, strlen(name));

	return found && Z_TYPE_P(found) == IS_TRUE;
}

/* From the module's own list: disable_functions is about what scripts may call. */
static zif_handler status_function(void)
{
	const zend_module_entry *opcache = zend_hash_str_find_ptr(&module_registry, ZEND_STRL("zend opcache"));

	for (const zend_function_entry *entry = opcache ? opcache->functions : NULL; entry && entry->fname; entry++) {
		if (!strcmp(entry->fname, "opcache_get_status")) {
			return entry->handler;
		}
	}
	return NULL;
}

/* opcache_get_status(false): without its list of scripts, which it would take from shared
 * memory under a lock. */
static void call(zif_handler handler, zval *result)
{
	zval slots[ZEND_CALL_FRAME_SLOT + 1];
	zend_internal_function self = { .type = ZEND_INTERNAL_FUNCTION };
	zend_execute_data *frame = (zend_execute_data *)slots;

	memset(slots, 0, sizeof slots);
	frame->func = (zend_function *)&self;
	ZEND_CALL_NUM_ARGS(frame) = 1;
	ZVAL_FALSE(ZEND_CALL_ARG(frame, 1));
	EG(current_execute_data) = frame;
	handler(frame, result);
	EG(current_execute_data) = NULL;
}

int gp_php_opcache(gp_opcache *figures)
{
	const char *restricted = zend_ini_string("opcache.restrict_api", sizeof "opcache.restrict_api" - 1, 0);
	zif_handler handler = status_function();
	zval status;

	ZVAL_NULL(&status);
	memset(figures, 0, sizeof *figures);
	if (!handler) {
		return GP_OPCACHE_OFF;
	}
	/* It would only warn. */
	if (restricted && *restricted) {
		return GP_OPCACHE_RESTRICTED;
	}
	zend_first_try {
		call(handler, &status);
	} zend_catch {
		ZVAL_NULL(&status);
	} zend_end_try();
	if (Z_TYPE(status) != IS_ARRAY || is_true(Z_ARRVAL(status), "file_cache_only")) {
		return GP_OPCACHE_OFF;
	}

	const HashTable *all = Z_ARRVAL(status);
	const HashTable *memory = table(all, "memory_usage");
	const HashTable *strings = table(all, "interned_strings_usage");
	const HashTable *counts = table(all, "opcache_statistics");
	const HashTable *jit = table(all, "jit");
	figures->full = is_true(all, "cache_full");
	figures->used = number(memory, "used_memory");
	figures->free = number(memory, "free_memory");
	figures->wasted = number(memory, "wasted_memory");
	figures->strings_used = number(strings, "used_memory");
	figures->strings_free = number(strings, "free_memory");
	figures->scripts = number(counts, "num_cached_scripts");
	figures->keys = number(counts, "num_cached_keys");
	figures->key_limit = number(counts, "max_cached_keys");
	figures->hits = number(counts, "hits");
	figures->misses = number(counts, "misses");
	figures->oom_restarts = number(counts, "oom_restarts");
	figures->hash_restarts = number(counts, "hash_restarts");
	figures->manual_restarts = number(counts, "manual_restarts");
	if (is_true(jit, "enabled")) {
		figures->jit_free = number(jit, "buffer_free");
		figures->jit_used = number(jit, "buffer_size") - figures->jit_free;
	}
	return GP_OPCACHE_TOLD;
}
