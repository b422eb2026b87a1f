/* What the C files of the shim share among themselves. */
#ifndef SHIM_H
#define SHIM_H

#include <SAPI.h>

extern sapi_module_struct gp_sapi;
void gp_install_hooks(void);
bool gp_raw_status_line(void);
bool gp_status_always(void);
const char *gp_error_header(void);

#endif
