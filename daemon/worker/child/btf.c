/* SPDX-License-Identifier: Apache-2.0 */
/* Reading .BTF
 *
 * One pass finds where each type begins and collects functions and their tags; everything else follows references on
 * demand, comparing each number before it is followed. References may run in circles: whoever follows them has a number
 * of steps to spend (struct walk), and a signature that takes more is unknown. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "util/base.h"
#include "worker/child/btf.h"

#define BTF_MAGIC 0xeb9fu
#define BTF_STEPS_MAX 512u

enum btf_kind {
	BTF_VOID, BTF_INT, BTF_PTR, BTF_ARRAY, BTF_STRUCT, BTF_UNION, BTF_ENUM, BTF_FWD, BTF_TYPEDEF, BTF_VOLATILE, BTF_CONST,
	BTF_RESTRICT, BTF_FUNC, BTF_FUNC_PROTO, BTF_VAR, BTF_DATASEC, BTF_FLOAT, BTF_DECL_TAG, BTF_TYPE_TAG, BTF_ENUM64,
	_BTF_KIND_N,
};
enum { BTF_INT_SIGNED = 1u << 24, BTF_LINKAGE_EXTERN = 2 };

/* bytes behind the 12 that every type has: fixed ones, and for each of its vlen members */
static const struct { uint8_t fixed, each; } kind_sizes[] = {
	[BTF_INT] = { 4, 0 },	   [BTF_ARRAY] = { 12, 0 },   [BTF_STRUCT] = { 0, 12 },	 [BTF_UNION] = { 0, 12 },
	[BTF_ENUM] = { 0, 8 },	   [BTF_FUNC_PROTO] = { 0, 8 }, [BTF_VAR] = { 4, 0 },	 [BTF_DATASEC] = { 0, 12 },
	[BTF_DECL_TAG] = { 4, 0 }, [BTF_ENUM64] = { 0, 12 },
};
_Static_assert(ARRAY_SIZE(kind_sizes) == _BTF_KIND_N, "a size for every kind");

struct btf_type {
	const char *name;	/* "" when it has none */
	enum btf_kind kind;
	bool flag;		/* kind_flag */
	uint32_t vlen;
	uint32_t size;		/* or the number of the type it refers to */
	const uint8_t *rest;	/* what lies behind, all of it inside the section */
};

/* -- Headers --- */
uint32_t btf_header(const uint8_t *bytes, size_t n, uint32_t n_min)
{
	uint32_t n_header;

	if (n < n_min || (bytes[0] | bytes[1] << 8) != BTF_MAGIC || bytes[2] != 1)
		return 0;
	n_header = btf_u32(bytes + 4);
	return n_header >= n_min && n_header <= n ? n_header : 0;
}

bool btf_part(const uint8_t *bytes, size_t n, uint32_t n_header, uint32_t word, uint32_t *ret, uint32_t *ret_n)
{
	uint64_t offset = (uint64_t)n_header + btf_u32(bytes + word * 4);

	*ret_n = btf_u32(bytes + (word + 1) * 4);
	if (offset > n || *ret_n > n - offset)
		return false;
	*ret = offset;
	return true;
}

const char *btf_string(const struct btf *btf, uint32_t offset)
{
	return offset < btf->n_strings ? btf->strings + offset : NULL;
}

/* -- Types --- */

/* The type at @offset, or false: it does not lie inside, or is of no known kind. */
static bool btf_type_at(const struct btf *btf, uint32_t offset, struct btf_type *ret, uint32_t *ret_n)
{
	const uint8_t *p = btf->types + offset;
	uint64_t n = 12;
	uint32_t info;

	if (btf->n_bytes - offset < n)
		return false;
	info = btf_u32(p + 4);
	*ret = (struct btf_type){
		.name = btf_string(btf, btf_u32(p)),
		.kind = info >> 24 & 0x1f,
		.flag = info >> 31,
		.vlen = info & 0xffff,
		.size = btf_u32(p + 8),
		.rest = p + 12,
	};
	if (!ret->kind || ret->kind >= _BTF_KIND_N || !ret->name)
		return false;
	n += kind_sizes[ret->kind].fixed + (uint64_t)kind_sizes[ret->kind].each * ret->vlen;
	*ret_n = n;
	return n <= btf->n_bytes - offset;
}

/* false: no such type; void is one, of kind 0 */
static bool btf_type(const struct btf *btf, uint32_t type, struct btf_type *ret)
{
	uint32_t n;

	if (type >= btf->n_types)
		return false;
	if (!type) {
		*ret = (struct btf_type){ .name = "void" };
		return true;
	}
	return btf_type_at(btf, btf->offsets[type], ret, &n);
}

static void btf_note_type(struct btf *btf, uint32_t number, const struct btf_type *type)
{
	/* component -1: the function itself, not a parameter */
	if (type->kind == BTF_DECL_TAG && btf_u32(type->rest) == UINT32_MAX && *type->name) {
		btf->tags[btf->n_tags] = (struct btf_tag){ .function = type->size, .order = number, .name = type->name };
		btf->n_tags++;
	}
	if (type->kind == BTF_FUNC && type->vlen != BTF_LINKAGE_EXTERN)
		btf->functions[btf->n_functions++] = (struct btf_function){ .name = type->name, .type = number };
}

static int compare_tags(const void *a, const void *b)
{
	const struct btf_tag *x = a, *y = b;

	if (x->function != y->function)
		return x->function < y->function ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static int compare_functions(const void *a, const void *b)
{
	const struct btf_function *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static const char *btf_read_types(struct btf *btf, char *why, size_t n_why)
{
	uint32_t n_max = btf->n_bytes / 12 + 1, n;
	struct btf_type type;

	btf->offsets = calloc(n_max, sizeof(*btf->offsets));
	btf->tags = calloc(n_max, sizeof(*btf->tags));
	btf->functions = calloc(n_max, sizeof(*btf->functions));
	if (!btf->offsets || !btf->tags || !btf->functions)
		return "out of memory";
	btf->n_types = 1;
	for (uint32_t offset = 0; offset < btf->n_bytes; offset += n) {
		if (!btf_type_at(btf, offset, &type, &n)) {
			snprintf(why, n_why, "its type %" PRIu32 " is of an unknown kind or does not end inside", btf->n_types);
			return why;
		}
		btf_note_type(btf, btf->n_types, &type);
		btf->offsets[btf->n_types++] = offset;
	}
	qsort(btf->tags, btf->n_tags, sizeof(*btf->tags), compare_tags);
	qsort(btf->functions, btf->n_functions, sizeof(*btf->functions), compare_functions);
	return NULL;
}

const char *btf_read(struct btf *btf, const uint8_t *bytes, size_t n, char *why, size_t n_why)
{
	uint32_t n_header = btf_header(bytes, n, 24), types, strings;

	*btf = (struct btf){ 0 };
	if (!n_header)
		return "not BTF of version 1 in little endian";
	if (!btf_part(bytes, n, n_header, 2, &types, &btf->n_bytes) || !btf_part(bytes, n, n_header, 4, &strings, &btf->n_strings))
		return "its types or strings lie outside the section";
	btf->types = bytes + types;
	btf->strings = (const char *)bytes + strings;
	if (!btf->n_strings || btf->strings[0] || btf->strings[btf->n_strings - 1])
		return "its strings do not begin and end with a NUL";
	return btf_read_types(btf, why, n_why);
}

void btf_deinit(struct btf *btf)
{
	free(btf->offsets);
	free(btf->tags);
	free(btf->functions);
	*btf = (struct btf){ 0 };
}

/* -- Functions --- */
uint32_t btf_find_function(const struct btf *btf, const char *name)
{
	const struct btf_function key = { .name = name }, *at;

	at = btf->n_functions ? bsearch(&key, btf->functions, btf->n_functions, sizeof(key), compare_functions) : NULL;
	if (!at || (at > btf->functions && !strcmp(at[-1].name, name))
	    || (at + 1 < btf->functions + btf->n_functions && !strcmp(at[1].name, name)))
		return 0;
	return at->type;
}

const struct btf_tag *btf_tags(const struct btf *btf, uint32_t type, uint32_t *ret_n)
{
	uint32_t low = 0, high = btf->n_tags, n = 0;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (btf->tags[middle].function < type)
			low = middle + 1;
		else
			high = middle;
	}
	while (low + n < btf->n_tags && n < BTF_TAGS_MAX && btf->tags[low + n].function == type)
		n++;
	*ret_n = n;
	return btf->tags + low;
}

/* -- Signatures --- */
struct walk {
	const struct btf *btf;
	uint32_t n_steps;	/* left */
	bool is_lost;		/* a bad reference, too many steps, or a text that is too long */
};

/* A declaration grows from its name outwards, as C's do. */
struct text {
	char text[sizeof(((struct btf_signature *)0)->text)];
	size_t n;
};

static bool walk_type(struct walk *walk, uint32_t number, struct btf_type *ret)
{
	if (walk->is_lost || !walk->n_steps || !btf_type(walk->btf, number, ret)) {
		walk->is_lost = true;
		return false;
	}
	walk->n_steps--;
	return true;
}

static void text_insert(struct walk *walk, struct text *text, size_t at, const char *more)
{
	size_t n = strlen(more);

	if (text->n + n >= sizeof(text->text)) {
		walk->is_lost = true;
		return;
	}
	memmove(text->text + at + n, text->text + at, text->n - at + 1);
	memcpy(text->text + at, more, n);
	text->n += n;
}

static void text_prefix(struct walk *walk, struct text *text, const char *more)
{
	text_insert(walk, text, 0, more);
}

static void text_suffix(struct walk *walk, struct text *text, const char *more)
{
	text_insert(walk, text, text->n, more);
}

static void walk_declare(struct walk *walk, uint32_t type, struct text *text);

static void walk_params(struct walk *walk, const struct btf_type *prototype, struct text *text)
{
	text_suffix(walk, text, "(");
	for (uint32_t i = 0; i < prototype->vlen && !walk->is_lost; i++) {
		const char *name = btf_string(walk->btf, btf_u32(prototype->rest + i * 8));
		uint32_t type = btf_u32(prototype->rest + i * 8 + 4);
		struct text param = { .n = 0 };

		if (i)
			text_suffix(walk, text, ", ");
		text_prefix(walk, &param, type ? name ?: "" : "...");
		if (type)
			walk_declare(walk, type, &param);
		text_suffix(walk, text, param.text);
	}
	text_suffix(walk, text, prototype->vlen ? ")" : "void)");
}

enum qualifier { QUALIFIER_CONST = 1, QUALIFIER_VOLATILE = 2, QUALIFIER_RESTRICT = 4 };

static void walk_qualify(struct walk *walk, struct text *text, unsigned int qualifiers)
{
	if (qualifiers && text->n)
		text_prefix(walk, text, " ");
	if (qualifiers & QUALIFIER_RESTRICT)
		text_prefix(walk, text, qualifiers & ~QUALIFIER_RESTRICT ? " restrict" : "restrict");
	if (qualifiers & QUALIFIER_VOLATILE)
		text_prefix(walk, text, qualifiers & QUALIFIER_CONST ? " volatile" : "volatile");
	if (qualifiers & QUALIFIER_CONST)
		text_prefix(walk, text, "const");
}

/* The innermost type: its name goes to the left end. */
static void walk_name(struct walk *walk, const struct btf_type *type, unsigned int qualifiers, struct text *text)
{
	bool is_union = type->kind == BTF_UNION || (type->kind == BTF_FWD && type->flag);
	bool is_struct = type->kind == BTF_STRUCT || (type->kind == BTF_FWD && !type->flag);

	if (text->n)
		text_prefix(walk, text, " ");
	text_prefix(walk, text, *type->name ? type->name : "{...}");
	if (is_struct || is_union)
		text_prefix(walk, text, is_struct ? "struct " : "union ");
	if (type->kind == BTF_ENUM || type->kind == BTF_ENUM64)
		text_prefix(walk, text, "enum ");
	walk_qualify(walk, text, qualifiers);
}

static unsigned int qualifier_of(enum btf_kind kind)
{
	switch (kind) {
	case BTF_CONST:
		return QUALIFIER_CONST;
	case BTF_VOLATILE:
		return QUALIFIER_VOLATILE;
	case BTF_RESTRICT:
		return QUALIFIER_RESTRICT;
	default:	/* BTF_TYPE_TAG */
		return 0;
	}
}

/* @text declares something (a name, or nothing) of @number: writes the type around it. */
static void walk_declare(struct walk *walk, uint32_t number, struct text *text)
{
	unsigned int qualifiers = 0;
	bool is_pointer = false;	/* the last step was one: arrays and functions behind it need parentheses */
	struct btf_type type;
	char bounds[16];

	while (walk_type(walk, number, &type)) {
		switch (type.kind) {
		case BTF_CONST: case BTF_VOLATILE: case BTF_RESTRICT: case BTF_TYPE_TAG:
			qualifiers |= qualifier_of(type.kind);
			number = type.size;
			continue;
		case BTF_PTR:
			walk_qualify(walk, text, qualifiers);
			text_prefix(walk, text, "*");
			break;
		case BTF_ARRAY: case BTF_FUNC_PROTO:
			if (is_pointer) {
				text_prefix(walk, text, "(");
				text_suffix(walk, text, ")");
			}
			if (type.kind == BTF_FUNC_PROTO) {
				walk_params(walk, &type, text);
				break;
			}
			snprintf(bounds, sizeof(bounds), "[%" PRIu32 "]", btf_u32(type.rest + 8));
			text_suffix(walk, text, bounds);
			is_pointer = false;
			number = btf_u32(type.rest);
			continue;	/* qualifiers are the element's */
		default:
			walk_name(walk, &type, qualifiers, text);
			return;
		}
		is_pointer = type.kind == BTF_PTR;
		qualifiers = 0;
		number = type.size;
	}
}

/* What a value is to the machine: a letter for its kind, and its bits. */
static void walk_kind(struct walk *walk, uint32_t number, struct text *text)
{
	struct btf_type type;
	char kind[24];

	while (walk_type(walk, number, &type)) {
		uint32_t bits = type.size * 8;

		switch (type.kind) {
		case BTF_TYPEDEF: case BTF_CONST: case BTF_VOLATILE: case BTF_RESTRICT: case BTF_TYPE_TAG:
			number = type.size;
			continue;
		case BTF_VOID:
			snprintf(kind, sizeof(kind), "v");
			break;
		case BTF_INT:
			snprintf(kind, sizeof(kind), "%c%" PRIu32, btf_u32(type.rest) & BTF_INT_SIGNED ? 'i' : 'u', bits);
			break;
		case BTF_ENUM: case BTF_ENUM64:
			snprintf(kind, sizeof(kind), "%c%" PRIu32, type.flag ? 'i' : 'u', bits);
			break;
		case BTF_FLOAT:
			snprintf(kind, sizeof(kind), "f%" PRIu32, bits);
			break;
		case BTF_STRUCT: case BTF_UNION:
			snprintf(kind, sizeof(kind), "s%" PRIu32, bits);
			break;
		default:
			snprintf(kind, sizeof(kind), "p");
			break;
		}
		text_suffix(walk, text, kind);
		return;
	}
}

static uint64_t walk_hash(struct walk *walk, const struct btf_type *prototype)
{
	struct text text = { .n = 0 };
	uint64_t hash = 0xcbf29ce484222325ull;

	walk_kind(walk, prototype->size, &text);
	for (uint32_t i = 0; i < prototype->vlen; i++) {
		text_suffix(walk, &text, ",");
		walk_kind(walk, btf_u32(prototype->rest + i * 8 + 4), &text);
	}
	for (size_t i = 0; i < text.n; i++)
		hash = (hash ^ (uint8_t)text.text[i]) * 0x100000001b3ull;
	return hash;
}

void btf_sign(const struct btf *btf, uint32_t number, const char *name, struct btf_signature *ret)
{
	struct walk walk = { .btf = btf, .n_steps = BTF_STEPS_MAX };
	struct btf_type function, prototype;
	struct text text = { .n = 0 };

	*ret = (struct btf_signature){ 0 };
	if (!btf_type(btf, number, &function) || function.kind != BTF_FUNC || !btf_type(btf, function.size, &prototype)
	    || prototype.kind != BTF_FUNC_PROTO || prototype.vlen > BTF_PARAMS_MAX)
		return;
	text_prefix(&walk, &text, name);
	walk_declare(&walk, function.size, &text);
	ret->hash = walk_hash(&walk, &prototype);
	if (walk.is_lost) {
		*ret = (struct btf_signature){ 0 };
		return;
	}
	memcpy(ret->text, text.text, text.n + 1);
	ret->n_params = prototype.vlen;
}
