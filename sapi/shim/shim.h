/* What the C files of the shim share among themselves. */
#ifndef SHIM_H
#define SHIM_H

#include <SAPI.h>

extern sapi_module_struct gp_sapi;
void gp_install_hooks(void);
bool gp_raw_status_line(void);
bool gp_status_always(void);
const char *gp_error_header(void);
/* Takes away what an INI entry of that name disables, for the life of the worker. */
void gp_apply_disabled(const char *name, const char *value);
int gp_activate(void);
/* Repeats, in front of each request, pool values that PHP forgets after one. */
void gp_renew_settings(void);
void gp_answer_page(int page);

#endif
