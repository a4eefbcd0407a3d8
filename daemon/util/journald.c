/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
/* Before libsystemd's header: that brings <syslog.h>, whose macros have names of ours. */
#include "util/log.h"
#include "util/base.h"
#include "util/journald.h"

#ifdef HAVE_SYSTEMD
#define SD_JOURNAL_SUPPRESS_LOCATION	/* a record's line of code says nothing to who reads it */
#include <systemd/sd-journal.h>

#define JOURNALD_SOCKET "/run/systemd/journal/socket"
#define FIELDS_MAX 8
#define FIELD_BYTES 1200	/* a whole line of the log and the field's name */

struct fields {
	struct iovec iov[FIELDS_MAX];
	char text[FIELDS_MAX][FIELD_BYTES];
	int n;
};

__attribute__((format(printf, 2, 3))) static void field_add(struct fields *fields, const char *format, ...)
{
	char *text = fields->text[fields->n];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, FIELD_BYTES, format, args);
	va_end(args);
	fields->iov[fields->n++] = (struct iovec){ text, MIN(n, FIELD_BYTES - 1) };
}

/* libsystemd sends nothing, and is content, where nobody listens. */
int journald_open(const char **ret_why)
{
	if (!access(JOURNALD_SOCKET, W_OK))
		return 0;
	*ret_why = "there is no journal of the system: " JOURNALD_SOCKET " cannot be written";
	return -errno;
}

void journald_send(const struct log_record *record)
{
	const struct log_subject *subject = record->subject;
	struct fields fields;

	fields.n = 0;
	field_add(&fields, "MESSAGE=%s", record->text);
	field_add(&fields, "PRIORITY=%d", record->priority);
	field_add(&fields, "SYSLOG_IDENTIFIER=tierd");
	field_add(&fields, "TIERD_LEVEL=%s", record->level);
	if (record->facility)
		field_add(&fields, "TIERD_FACILITY=%s", record->facility);
	if (subject) {
		field_add(&fields, "TIERD_LABEL=%s", subject->label);
		field_add(&fields, "TIERD_MODULE=%s", subject->module);
		field_add(&fields, "TIERD_METHOD=%u", subject->method);
	}
	sd_journal_sendv(fields.iov, fields.n);
}

#else
int journald_open(const char **ret_why)
{
	*ret_why = "this tierd was built without libsystemd; install libsystemd-dev and build it again";
	return -EOPNOTSUPP;
}

void journald_send(const struct log_record *record) {}
#endif
