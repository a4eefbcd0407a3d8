/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The types of a .BTF section, read with suspicion
 *
 * A small reader of the format (Documentation/bpf/btf.rst of the kernel): the table of types, functions by number or
 * name, signatures in C, and decl_tags on functions. The bytes are hostile; what does not hold together is said once by
 * btf_read(), and later questions about a bad type are answered by "unknown". */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BTF_PARAMS_MAX 32u	/* a signature with more parameters is unknown */
#define BTF_TAGS_MAX 16u	/* of one function; further ones are left out */

struct btf_tag {
	uint32_t function;	/* type number */
	uint32_t order;		/* in the file */
	const char *name;
};
struct btf_function {
	const char *name;
	uint32_t type;		/* its number */
};

struct btf {
	const uint8_t *types;
	uint32_t n_bytes;		/* of types */
	const char *strings;		/* n_strings bytes, the last of them 0 */
	uint32_t n_strings;
	uint32_t *offsets;		/* in types, by number; number 0 is void */
	uint32_t n_types;		/* numbers are below this */
	struct btf_tag *tags;		/* by function, then order */
	struct btf_function *functions;	/* defined ones, by name */
	uint32_t n_tags, n_functions;
};

struct btf_signature {
	char text[512];		/* "" when unknown */
	uint32_t n_params;
	uint64_t hash;		/* of the kinds and sizes of the values */
};

/* @bytes: the section, borrowed until btf_deinit(). NULL, or why it cannot be used, in @why (of @n_why bytes). */
const char *btf_read(struct btf *btf, const uint8_t *bytes, size_t n, char *why, size_t n_why);
void btf_deinit(struct btf *btf);	/* idempotent; zeroes are fine */

/* The string at @offset, or NULL when it lies outside. */
const char *btf_string(const struct btf *btf, uint32_t offset);
/* The number of the only function that is defined under this name; 0: none, or several. */
uint32_t btf_find_function(const struct btf *btf, const char *name);
/* The declaration of function @type as that of @name. */
void btf_sign(const struct btf *btf, uint32_t type, const char *name, struct btf_signature *ret);
/* The first tag of function @type, and how many there are. */
const struct btf_tag *btf_tags(const struct btf *btf, uint32_t type, uint32_t *ret_n);

/* The file may have put it anywhere. */
static inline uint32_t btf_u32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Begins like a .BTF or .BTF.ext of version 1: returns the size of its header (at least @n_min), or 0. */
uint32_t btf_header(const uint8_t *bytes, size_t n, uint32_t n_min);
/* Whether the header's words @word (an offset from the header's end) and @word + 1 (a size) name bytes inside the
 * section; *ret is where they begin. */
bool btf_part(const uint8_t *bytes, size_t n, uint32_t n_header, uint32_t word, uint32_t *ret, uint32_t *ret_n);
