/* The border between C and Rust in an engine and its workers.
 *
 * gp_php_*  C functions that Rust calls. Each opens its own zend_try, so PHP's
 *           longjmp never passes a Rust frame; each returns a status.
 * gp_rs_*   Rust functions that C calls back. They are leaves: they never call PHP
 *           and never unwind, so nothing of theirs is on the stack when PHP jumps.
 *
 * Mirrored by hand in src/ffi.rs; the sizes are compared at start-up. */
#ifndef GLASSPOOL_H
#define GLASSPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Text that need not end in NUL. */
typedef struct {
	const char *at;
	size_t length;
} gp_text;

/* One FastCGI parameter; both texts are followed by a NUL byte. */
typedef struct {
	gp_text name;
	gp_text value;
} gp_param;

/* What PHP has to know of a request before it starts. Strings end in NUL and stay
 * valid until gp_php_request returns; absent ones are NULL. */
typedef struct {
	const char *method;
	const char *query;
	const char *content_type;
	const char *request_uri;
	const char *script;          /* absolute path to run; NULL answers 404 */
	const char *auth;            /* HTTP_AUTHORIZATION */
	const char *body_error;      /* why the file that has the body cannot be read */
	gp_text php_value;           /* INI text of the parameter PHP_VALUE */
	gp_text php_admin_value;     /* … and PHP_ADMIN_VALUE */
	int64_t content_length;
	bool denied;                 /* by security.limit_extensions: answers 403 */
	int32_t page;                /* a page of the pool's own in place of the script; 0 is none */
} gp_request;

/* What there is to tell when it has ended. */
typedef struct {
	int64_t memory_peak;
	int32_t status;
	int32_t exit_status;
	bool started;                /* php_request_startup succeeded */
} gp_outcome;

typedef struct {
	const char *binary;
	const char *ini_path;        /* NULL: PHP's own search */
	const char *ini_entries;     /* "name=value\n" lines, kept for the process's life */
	bool no_ini;                 /* read no php.ini and no scan directory */
	bool extended_info;          /* compile with information for debuggers */
} gp_start;

/* What is known when the script has run and PHP has not yet ended the request. */
typedef struct {
	gp_text user;                /* of basic authentication */
	int64_t memory_peak;
	int32_t status;
	bool to_client;              /* copy what there is to complain about to the client */
} gp_executed;

typedef struct {
	const char *name;
	uint32_t value;
} gp_offset;

/* A page of the pool's own, ready to be sent; the texts stay valid until the next. */
typedef struct {
	gp_text headers[3];          /* in order; those of length 0 are not sent */
	gp_text body;
	int32_t status;
} gp_page;

/* A figure of the pool or of a worker. */
typedef struct {
	gp_text name;
	gp_text text;
	int64_t number;
	double real;
	int32_t kind;                /* which of text, number and real it is */
} gp_figure;
enum { GP_TEXT = 1, GP_NUMBER = 2, GP_REAL = 3 };

/* What opcache says of its memory: bytes, numbers, and counts since it began. */
typedef struct {
	int64_t used, free, wasted;
	int64_t strings_used, strings_free;
	int64_t jit_used, jit_free;  /* both 0 without JIT */
	int64_t scripts, keys, key_limit;
	int64_t hits, misses;
	int64_t oom_restarts, hash_restarts, manual_restarts;
	bool full;
} gp_opcache;

/* --- called by Rust --- */
size_t gp_abi_sizes(void);
const char *gp_php_version(void);
uint32_t gp_php_api(void);
bool gp_php_is_zts(void);
uint64_t gp_php_executor_globals(void);
const gp_offset *gp_php_offsets(size_t *count);
int gp_php_fix_pathinfo(void);
int gp_php_discard_path(void);
const char *gp_php_doc_root(void);

/* Whether the path leads to anything, by PHP's realpath cache. */
bool gp_php_exists(const char *path);
bool gp_php_start(const gp_start *start);
void gp_php_stop(void);
/* In a worker, once: re-reads the signal handlers that the worker installed. */
void gp_php_after_fork(void);
/* In a worker, before its first request. */
bool gp_php_set_ini(const char *name, size_t name_length, const char *value, size_t value_length, bool admin);
/* Forks a worker; 0 in the worker, where SIGQUIT is blocked, its pid in the engine, -1
 * with errno. */
int gp_fork(void);
/* In a worker, once: from then on a process that the application forks knows that it is
 * one. It shares with the worker what is mapped as shared. False if there is no memory. */
bool gp_watch_forks(void);
bool gp_is_forked(void);
/* In a worker, once it is complete: before it dies of SIGSEGV, SIGBUS, SIGABRT, SIGILL
 * or SIGFPE it stores its two VM registers in words[1] and words[2] and the signal in
 * words[0], rings the doorbell, and waits for SIGCONT, so long at most. The words and
 * the descriptor must stay until the process ends. *handled has a bit (1 << signal) for
 * each that something else handles already: that is left alone. False, with errno, if
 * there is no memory for a stack to do this on. */
bool gp_catch_crashes(uint64_t *const words[3], int doorbell, int patience_ms, uint64_t *handled);
void gp_php_request(const gp_request *request, gp_outcome *outcome);
/* In an engine that will not fork: prints what php-fpm prints when asked so, closes
 * the descriptor, and says whether all went well. */
enum { GP_ABOUT_VERSION = 1, GP_ABOUT_MODULES = 2, GP_ABOUT_INFO = 3 };
bool gp_php_about(int what, int fd);
/* In a fork of the engine that ends after this: asks opcache. */
enum { GP_OPCACHE_OFF = 0, GP_OPCACHE_RESTRICTED = 1, GP_OPCACHE_TOLD = 2 };
int gp_php_opcache(gp_opcache *figures);

/* --- called by C: leaves --- */
enum { GP_STAGE_EXECUTING = 4, GP_STAGE_END = 5 };
void gp_rs_stage(int stage);
/* False when the client is gone. */
bool gp_rs_write(const char *bytes, size_t length);
bool gp_rs_flush(void);
/* Ends the response; false when it had been ended before. *aborted says that the
 * client was gone. */
bool gp_rs_finish(bool *aborted);
bool gp_rs_is_finished(void);
size_t gp_rs_read_body(char *buffer, size_t length);
/* Body bytes go to the response until gp_rs_head_end() as its head. */
void gp_rs_head_status(int code, gp_text status_line, bool raw);
void gp_rs_head_line(const char *line, size_t length);
void gp_rs_head_end(void);
/* By name; NULL if absent. The text ends in NUL. */
const char *gp_rs_param(const char *name, size_t length, size_t *value_length);
/* By number, in order of arrival; false past the last. */
bool gp_rs_param_at(size_t index, gp_param *param);
/* A message that PHP routes to its SAPI's log; copied to FCGI_STDERR when `to_client`. */
void gp_rs_php_log(const char *message, size_t length, bool to_client);
/* The same for a line of our own, with the place it comes from. */
enum { GP_DEBUG = 0, GP_NOTICE = 1, GP_WARNING = 2, GP_ERROR = 3 };
void gp_rs_log(int severity, const char *function, int line, gp_text message, bool to_client);
/* Who the client says it is. */
void gp_rs_user(const char *user, size_t length);
/* Whether gp_rs_response_header() is to be called for each header of the response
 * before gp_rs_executed(). */
bool gp_rs_wants_headers(void);
void gp_rs_response_header(const char *line, size_t length);
/* The script has run: writes the access log. */
void gp_rs_executed(const gp_executed *executed);
/* An error that PHP reports, before it is displayed or logged. */
void gp_rs_php_error(int type, gp_text message, gp_text file, uint32_t line);
/* Whether a line that PHP writes there (error_log) is to be told to the observer. */
bool gp_rs_wants_line(gp_text target);
/* PHP logs a line of `whole` bytes that begins so; `type` is that of the error. */
enum { GP_LINE_BYTES = 2049 };
void gp_rs_line(int type, gp_text line, size_t whole);
/* Answers a request for a page of the pool's own. */
void gp_rs_page(int page, bool to_client, gp_page *answer);
/* Asks for the state of the pool: the number of workers in it, or -1. It stays until
 * gp_rs_drop_figures(). */
int64_t gp_rs_take_figures(bool to_client);
/* By worker (GP_POOL: of the pool as a whole) and number; false past the last. */
enum { GP_POOL = -1 };
bool gp_rs_figure(int64_t worker, size_t index, gp_figure *figure);
void gp_rs_drop_figures(void);

/* --- shared between the C files --- */
extern const void *gp_functions;
bool gp_logging_to_client(void);

#endif
