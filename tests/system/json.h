/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Reads JSON as strictly as RFC 8259 has it, so that a test sees what a careful reader would stumble over
 *
 * A path leads to a value: "steps.0.calls" is the member "calls" of element 0 of the member "steps"; "" is the whole. */

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct json_hit {
	const char *begin, *end;	/* the value that the path leads to, as it stands in the text; NULL: none */
	unsigned int n;			/* its members or elements */
};

static inline const char *json_value(const char *p, const char *path, struct json_hit *hit);

static inline const char *json_space(const char *p)
{
	return p + strspn(p, " \t\r\n");
}

/* What is left of @path behind @key, or NULL when it leads elsewhere. */
static inline const char *json_step(const char *path, const char *key, size_t n)
{
	if (!path || strncmp(path, key, n) || (path[n] && path[n] != '.'))
		return NULL;
	return path[n] ? path + n + 1 : path + n;
}

static inline const char *json_string_end(const char *p)
{
	for (p++; *p != '"'; p++) {
		if ((unsigned char)*p < 0x20)
			return NULL;
		if (*p != '\\')
			continue;
		if (*++p == 'u') {
			if (strspn(p + 1, "0123456789abcdefABCDEF") < 4)
				return NULL;
			p += 4;
		} else if (!*p || !strchr("\"\\/bfnrt", *p)) {
			return NULL;
		}
	}
	return p + 1;
}

static inline const char *json_digits(const char *p)
{
	size_t n = strspn(p, "0123456789");

	return n ? p + n : NULL;
}

static inline const char *json_number_end(const char *p)
{
	p += *p == '-';
	p = *p == '0' ? p + 1 : json_digits(p);
	if (p && *p == '.')
		p = json_digits(p + 1);
	if (p && (*p == 'e' || *p == 'E'))
		p = json_digits(p + 1 + (p[1] == '+' || p[1] == '-'));
	return p;
}

static inline const char *json_literal_end(const char *p)
{
	static const char *const literals[] = { "true", "false", "null" };

	for (size_t i = 0; i < 3; i++)
		if (!strncmp(p, literals[i], strlen(literals[i])))
			return p + strlen(literals[i]);
	return NULL;
}

/* An object or an array: @p is behind its opening bracket. */
static inline const char *json_members(const char *p, char close, const char *path, struct json_hit *hit, unsigned int *ret_n)
{
	*ret_n = 0;
	p = json_space(p);
	if (*p == close)
		return p + 1;
	for (;;) {
		char index[16];
		const char *key = index, *end;
		size_t n_key = snprintf(index, sizeof(index), "%u", (*ret_n)++);

		p = json_space(p);
		if (close == '}') {
			end = *p == '"' ? json_string_end(p) : NULL;
			if (!end)
				return NULL;
			key = p + 1;
			n_key = end - 1 - key;
			p = json_space(end);
			if (*p++ != ':')
				return NULL;
		}
		p = json_value(p, json_step(path, key, n_key), hit);
		if (!p || (*p != ',' && *p != close))
			return NULL;
		if (*p++ == close)
			return p;
	}
}

/* Reads a value and the space around it; returns what follows, NULL when it is none. */
static inline const char *json_value(const char *p, const char *path, struct json_hit *hit)
{
	const char *begin = p = json_space(p);
	unsigned int n = 0;

	if (*p == '{')
		p = json_members(p + 1, '}', path && *path ? path : NULL, hit, &n);
	else if (*p == '[')
		p = json_members(p + 1, ']', path && *path ? path : NULL, hit, &n);
	else if (*p == '"')
		p = json_string_end(p);
	else
		p = *p == '-' || isdigit((unsigned char)*p) ? json_number_end(p) : json_literal_end(p);
	if (!p)
		return NULL;
	if (path && !*path)
		*hit = (struct json_hit){ begin, p, n };
	return json_space(p);
}

/* -- For tests: they fail when the text is not JSON, or the path leads nowhere --- */
static inline struct json_hit json_at(const char *text, const char *path)
{
	struct json_hit hit = { 0 };
	const char *end = json_value(text, path, &hit);

	if (!end || *end)
		fail_msg("this is not JSON:\n%s", text);
	if (!hit.begin)
		fail_msg("no %s in this JSON:\n%s", path, text);
	return hit;
}

static inline unsigned int json_length(const char *text, const char *path)
{
	return json_at(text, path).n;
}

static inline uint64_t json_number(const char *text, const char *path)
{
	struct json_hit hit = json_at(text, path);

	if (!isdigit((unsigned char)*hit.begin))
		fail_msg("%s is no number in this JSON:\n%s", path, text);
	return strtoull(hit.begin, NULL, 10);
}

static inline double json_float(const char *text, const char *path)
{
	json_number(text, path);
	return strtod(json_at(text, path).begin, NULL);
}

static inline void json_expect(const char *text, const char *path, const char *string)
{
	struct json_hit hit = json_at(text, path);

	if (*hit.begin != '"' || (size_t)(hit.end - hit.begin) != strlen(string) + 2 || strncmp(hit.begin + 1, string, strlen(string)))
		fail_msg("%s is %.*s instead of \"%s\"", path, (int)(hit.end - hit.begin), hit.begin, string);
}
