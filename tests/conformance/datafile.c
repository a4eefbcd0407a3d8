/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "conformance/assemble.h"
#include "conformance/datafile.h"
#include "util/base.h"

enum section { SECTION_ASM, SECTION_RAW, SECTION_MEM, SECTION_RESULT, SECTION_REFUSED, SECTION_ENDS, SECTION_MEM_AFTER, _SECTION_N };

static const char *const section_names[] = {
	[SECTION_ASM] = "asm", [SECTION_RAW] = "raw", [SECTION_MEM] = "mem", [SECTION_RESULT] = "result",
	[SECTION_REFUSED] = "refused", [SECTION_ENDS] = "ends", [SECTION_MEM_AFTER] = "mem after",
};
_Static_assert(ARRAY_SIZE(section_names) == _SECTION_N, "name every section");

static bool complain(struct refusal *why, const char *what, const char *about)
{
	refuse(why, "%s%s%s", what, about ? ": " : "", about ?: "");
	return false;
}

bool datafile_hex(const char *text, uint8_t **ret, size_t *ret_n)
{
	uint8_t *bytes = malloc(strlen(text) / 2 + 1);
	size_t n = 0;

	if (!bytes)
		abort();
	for (; *text; text++) {
		unsigned int byte;

		if (isspace((unsigned char)*text))
			continue;
		if (!isxdigit((unsigned char)text[0]) || !isxdigit((unsigned char)text[1]) || sscanf(text, "%2x", &byte) != 1) {
			free(bytes);
			return false;
		}
		bytes[n++] = byte;
		text++;
	}
	*ret = bytes;
	*ret_n = n;
	return true;
}

static char *read_text(const char *path)
{
	FILE *f = fopen(path, "r");
	char *text = NULL;
	size_t n = 0;

	if (!f)
		return NULL;
	if (getdelim(&text, &n, 0, f) < 0) {
		free(text);
		text = NULL;
	}
	fclose(f);
	return text;
}

static bool is_heading(const char *line) { return !strncmp(line, "-- ", 3); }

/* Cuts @text in place, at the headings: sections[] point to what stands below them. */
static bool cut(char *text, char *sections[_SECTION_N], struct refusal *why)
{
	char *line = is_heading(text) ? text : strstr(text, "\n-- ");

	while (line) {
		char *heading = line + (*line == '\n'), *end = strchr(heading, '\n');
		int i = 0;

		if (!end)
			return complain(why, "a section without lines", heading);
		*line = *end = 0;
		while (i < _SECTION_N && strcmp(heading + 3, section_names[i]))
			i++;
		if (i == _SECTION_N || sections[i])
			return complain(why, "an unknown or repeated section", heading + 3);
		sections[i] = end + 1;
		line = is_heading(end + 1) ? end + 1 : strstr(end + 1, "\n-- ");
	}
	return true;
}

static bool read_program(struct datafile *file, char *sections[_SECTION_N], struct refusal *why)
{
	size_t n;

	if (!sections[SECTION_ASM] == !sections[SECTION_RAW])
		return complain(why, "it needs one of '-- asm' and '-- raw'", NULL);
	if (sections[SECTION_ASM])
		return assemble(sections[SECTION_ASM], &file->insns, &file->n_insns, why);
	if (!datafile_hex(sections[SECTION_RAW], (uint8_t **)&file->insns, &n) || n % sizeof(struct insn))
		return complain(why, "'-- raw' is not instructions of 8 hex bytes", NULL);
	file->n_insns = n / sizeof(struct insn);
	return true;
}

static bool read_end(struct datafile *file, const char *text, struct refusal *why)
{
	const size_t n = strcspn(text, "\n");

	if (n == strlen("SIGSEGV") && !strncmp(text, "SIGSEGV", n))
		file->signal = SIGSEGV;
	else if (n == strlen("never") && !strncmp(text, "never", n))
		file->signal = SIGVTALRM;
	else
		return complain(why, "it ends neither by SIGSEGV nor never", text);
	return true;
}

static bool read_outcome(struct datafile *file, char *sections[_SECTION_N], struct refusal *why)
{
	char *end;

	if (!!sections[SECTION_RESULT] + !!sections[SECTION_REFUSED] + !!sections[SECTION_ENDS] != 1)
		return complain(why, "it needs one of '-- result', '-- refused' and '-- ends'", NULL);
	if (sections[SECTION_ENDS])
		return read_end(file, sections[SECTION_ENDS], why);
	if (sections[SECTION_REFUSED]) {
		file->refused = strndup(sections[SECTION_REFUSED], strcspn(sections[SECTION_REFUSED], "\n"));
		return true;
	}
	errno = 0;
	file->result = strtoull(sections[SECTION_RESULT], &end, 0);
	if (errno || end == sections[SECTION_RESULT] || end[strspn(end, " \n")])
		return complain(why, "its result is no number", sections[SECTION_RESULT]);
	return true;
}

static bool read_sections(struct datafile *file, char *text, struct refusal *why)
{
	char *sections[_SECTION_N] = { 0 };

	if (!cut(text, sections, why) || !read_program(file, sections, why) || !read_outcome(file, sections, why))
		return false;
	if (sections[SECTION_MEM] && !datafile_hex(sections[SECTION_MEM], &file->mem, &file->n_mem))
		return complain(why, "'-- mem' is not hex bytes", NULL);
	if (sections[SECTION_MEM_AFTER] && !datafile_hex(sections[SECTION_MEM_AFTER], &file->mem_after, &file->n_mem_after))
		return complain(why, "'-- mem after' is not hex bytes", NULL);
	if (file->mem_after && file->n_mem_after != file->n_mem)
		return complain(why, "'-- mem' and '-- mem after' differ in length", NULL);
	return true;
}

bool datafile_read(struct datafile *file, const char *path, struct refusal *why)
{
	_cleanup_(freep) char *text = read_text(path);

	return text ? read_sections(file, text, why) : complain(why, "cannot read it", strerror(errno));
}

void datafile_deinit(struct datafile *file)
{
	free(file->insns);
	free(file->mem);
	free(file->mem_after);
	free(file->refused);
	*file = (struct datafile)DATAFILE_NULL;
}
