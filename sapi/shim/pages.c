/* Pages that the pool answers itself: sent like the output of a script, so that HEAD,
 * X-Powered-By, default_charset and output handlers work on them as on any. */
#include <php.h>
#include <SAPI.h>
#include <php_output.h>

#include "glasspool.h"
#include "shim.h"

void gp_answer_page(int page)
{
	gp_page answer;

	gp_rs_stage(GP_STAGE_EXECUTING);
	gp_rs_page(page, gp_logging_to_client(), &answer);
	zend_try {
		SG(sapi_headers).http_response_code = answer.status;
		for (size_t i = 0; i < sizeof answer.headers / sizeof *answer.headers; i++) {
			const gp_text *header = &answer.headers[i];
			if (header->length) {
				sapi_add_header_ex((char *)header->at, header->length, 1, 1);
			}
		}
		php_output_write(answer.body.at, answer.body.length);
	} zend_end_try();
}
