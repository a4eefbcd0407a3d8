/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Tables and JSON: one description of the columns prints both. Without memory the program ends with a sentence. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum column_kind { COLUMN_TEXT, COLUMN_NUMBER, COLUMN_FLOAT, COLUMN_BOOL };
struct column {
	const char *name;	/* as a JSON key; the heading is the same in capitals */
	enum column_kind kind;
};

struct table;

/* @name: the JSON array's key. @stream: each row is printed when it is complete (JSON: an object per line). */
struct table *table_new(const char *name, const struct column *columns, unsigned int n_columns, bool json, bool stream);
void table_row(struct table *table);	/* begins the next row; cells are then filled from the left */
void table_text(struct table *table, const char *text);	/* NULL: no value */
void table_number(struct table *table, uint64_t number);
void table_float(struct table *table, double number, int digits);	/* NaN: no value */
void table_bool(struct table *table, bool value);
void table_end(struct table *table);	/* prints what is left and frees */

/* Nanoseconds since 1970 as a time in UTC, as ISO 8601 has it */
void format_time(char *to, size_t n, uint64_t ns);
void format_time_ms(char *to, size_t n, uint64_t ns);	/* where no more is known */
/* For JSON that is no table: the text in quotes, with what JSON wants escaped. */
void print_json_string(const char *text);
