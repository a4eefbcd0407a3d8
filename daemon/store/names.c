/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "store/names.h"
#include "util/base.h"

#define BODY_LETTER 'B'

static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

static const struct {
	char letter;
	const char *end;
} kinds[] = { { 'C', ".code" }, { 'R', ".records" }, { 'N', ".counters" }, { 'P', ".private" }, { 'H', ".host" } };

bool name_is_valid(const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-");

	return n && n < STORE_NAME_MAX && !name[n] && *name >= 'a' && *name <= 'z';
}

/* -- Numbers: exactly one text for each, so that each name has one short form --- */
static const char *number_read(const char *text, unsigned int base, uint64_t *ret)
{
	const char *start = text;

	*ret = 0;
	for (const char *digit; *text && (digit = memchr(digits, *text, base)); text++)
		if (__builtin_mul_overflow(*ret, base, ret) || __builtin_add_overflow(*ret, digit - digits, ret))
			return NULL;
	return text == start || (*start == '0' && text - start > 1) ? NULL : text;
}

static void number_append(char *text, uint64_t number)
{
	char backwards[12]; /* 62^11 > 2^64 */
	size_t n = 0;

	text += strlen(text);
	do
		backwards[n++] = digits[number % 62];
	while (number /= 62);
	while (n)
		*text++ = backwards[--n];
	*text = '\0';
}

/* -- Names --- */
static char kind_of(const char *end)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(kinds[i].end, end))
			return kinds[i].letter;
	return '\0';
}

void name_shorten(const char *name, char ret[static STORE_NAME_MAX])
{
	uint64_t module, body;
	const char *end = *name == 'm' ? number_read(name + 1, 10, &module) : NULL, *after;
	char letter = end ? kind_of(end) : '\0';

	snprintf(ret, STORE_NAME_MAX, "%s", name);
	if (letter) {
		snprintf(ret, STORE_NAME_MAX, "%c", letter);
		number_append(ret, module);
	} else if (end && !strncmp(end, ".b", 2) && (after = number_read(end + 2, 10, &body)) && !*after) {
		snprintf(ret, STORE_NAME_MAX, "%c", BODY_LETTER);
		number_append(ret, module);
		strcat(ret, ".");
		number_append(ret, body);
	}
}

void name_expand(const char *sent, char ret[static STORE_NAME_MAX])
{
	uint64_t module, body;
	const char *end = *sent ? number_read(sent + 1, 62, &module) : NULL, *after;

	snprintf(ret, STORE_NAME_MAX, "%s", sent);
	if (!end)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (*sent == kinds[i].letter && !*end)
			snprintf(ret, STORE_NAME_MAX, "m%" PRIu64 "%s", module, kinds[i].end);
	if (*sent == BODY_LETTER && *end == '.' && (after = number_read(end + 1, 62, &body)) && !*after)
		snprintf(ret, STORE_NAME_MAX, "m%" PRIu64 ".b%" PRIu64, module, body);
}
