/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <inttypes.h>
#include <libsmartcols/libsmartcols.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "table.h"

/* A table of libsmartcols. In streaming mode each complete row is printed at once: plain text as tab-separated cells, JSON
 * as one object per line, both of which a pipe can read while the command goes on. */

struct table {
	struct libscols_table *scols;
	struct libscols_line *line;
	const struct column *columns;
	unsigned int n_columns, next;
	bool json, stream, any;
};

static void *table_need(void *p)
{
	if (!p) {
		fprintf(stderr, "tierctl: out of memory\n");
		exit(2);
	}
	return p;
}

static void table_add_column(struct table *table, const struct column *column)
{
	static const int json_types[] = {
		[COLUMN_TEXT] = SCOLS_JSON_STRING,
		[COLUMN_NUMBER] = SCOLS_JSON_NUMBER,
		[COLUMN_FLOAT] = SCOLS_JSON_NUMBER,
		[COLUMN_BOOL] = SCOLS_JSON_BOOLEAN,
	};
	char heading[64];
	size_t n = strlen(column->name);
	struct libscols_column *c;

	for (size_t i = 0; i <= n && i < sizeof(heading); i++)
		heading[i] = table->json ? column->name[i] : column->name[i] == '_' ? ' ' : toupper(column->name[i]);
	c = table_need(scols_table_new_column(table->scols, heading, 0, column->kind == COLUMN_TEXT ? 0 : SCOLS_FL_RIGHT));
	scols_column_set_json_type(c, json_types[column->kind]);
}

struct table *table_new(const char *name, const struct column *columns, unsigned int n_columns, bool json, bool stream)
{
	struct table *table = table_need(calloc(1, sizeof(*table)));

	*table = (struct table){ .columns = columns, .n_columns = n_columns, .json = json, .stream = stream };
	table->scols = table_need(scols_new_table());
	scols_table_set_name(table->scols, name);
	scols_table_enable_json(table->scols, json);
	for (unsigned int i = 0; i < n_columns; i++)
		table_add_column(table, &columns[i]);
	return table;
}

static const char *table_cell_text(struct table *table, unsigned int i)
{
	const char *text = scols_cell_get_data(scols_line_get_cell(table->line, i));

	return text ? text : "";
}

static void format_seconds(char *to, size_t n, uint64_t ns)
{
	time_t seconds = ns / 1000000000u;
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(to, n, "%Y-%m-%dT%H:%M:%S", &tm);
}

void format_time(char *to, size_t n, uint64_t ns)
{
	char seconds[32];

	format_seconds(seconds, sizeof(seconds), ns);
	snprintf(to, n, "%s.%09" PRIu64 "Z", seconds, ns % 1000000000u);
}

void format_time_ms(char *to, size_t n, uint64_t ns)
{
	char seconds[32];

	format_seconds(seconds, sizeof(seconds), ns);
	snprintf(to, n, "%s.%03" PRIu64 "Z", seconds, ns / 1000000u % 1000);
}

void print_json_string(const char *text)
{
	putchar('"');
	for (; *text; text++)
		if (*text == '"' || *text == '\\')
			printf("\\%c", *text);
		else if ((unsigned char)*text < 0x20)
			printf("\\u%04x", *text);
		else
			putchar(*text);
	putchar('"');
}

static void print_json_cell(enum column_kind kind, const char *text)
{
	if (kind == COLUMN_TEXT)
		print_json_string(text);
	else if (kind == COLUMN_BOOL)
		printf("%s", *text == 'y' ? "true" : "false");
	else
		printf("%s", *text ? text : "null");
}

static void table_stream_row(struct table *table)
{
	for (unsigned int i = 0; i < table->n_columns; i++) {
		const char *text = table_cell_text(table, i);

		if (!table->json) {
			printf("%s%s", i ? "\t" : "", *text ? text : "-");
			continue;
		}
		printf("%s", i ? "," : "{");
		print_json_string(table->columns[i].name);
		putchar(':');
		print_json_cell(table->columns[i].kind, text);
	}
	puts(table->json ? "}" : "");
	fflush(stdout);
	scols_table_remove_lines(table->scols);
}

void table_row(struct table *table)
{
	table->line = table_need(scols_table_new_line(table->scols, NULL));
	table->next = 0;
	table->any = true;
}

/* In streaming mode the last cell prints the row: whoever follows events sees each when it comes. */
void table_text(struct table *table, const char *text)
{
	if (text && scols_line_set_data(table->line, table->next, text))
		table_need(NULL);
	if (++table->next == table->n_columns && table->stream)
		table_stream_row(table);
}

void table_number(struct table *table, uint64_t number)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, number);
	table_text(table, text);
}

void table_float(struct table *table, double number, int digits)
{
	char text[64];

	snprintf(text, sizeof(text), "%.*f", digits, number);
	table_text(table, isnan(number) ? NULL : text);
}

/* libsmartcols makes JSON's true or false of the word's first letter. */
void table_bool(struct table *table, bool value)
{
	table_text(table, value ? "yes" : "no");
}

void table_end(struct table *table)
{
	if (!table->stream && (table->any || table->json))
		scols_print_table(table->scols);
	scols_unref_table(table->scols);
	free(table);
}
