/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The system's journal: the one door to libsystemd, which a build can do without. */

struct log_record;

/* 0; else -errno, and *@ret_why says what is missing. */
int journald_open(const char **ret_why);
/* One entry: MESSAGE, PRIORITY, SYSLOG_IDENTIFIER, TIERD_LEVEL, where there is one TIERD_FACILITY, and about a method
 * TIERD_LABEL, TIERD_MODULE (name) and TIERD_METHOD (number). What the journal does not take is lost. */
void journald_send(const struct log_record *record);
