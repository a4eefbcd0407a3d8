/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "util/error.h"
#include "util/log.h"

int error_trace(int r, const char *file, int line, const char *function, const char *word)
{
	if (r > 0) {
		log_line(LOG_ERROR, "error %d forwarded without being handled, at %s:%d in %s", r, file, line, function);
		return -ENOTRECOVERABLE;
	}
	log_line(LOG_DEBUG, "error %s: %s, at %s:%d in %s", word, strerrordesc_np(-r), file, line, function);
	return r;
}
