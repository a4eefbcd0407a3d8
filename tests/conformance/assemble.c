/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "conformance/assemble.h"
#include "util/base.h"

/* Each form of a line is a pattern: what stands in it stands in the line, a blank is any white space or none, and
 *
 *   $d $s   registers, rN or wN     $i  an integer      $o  "+ 4", "- 4" or nothing
 *   $a $c   an operation with its =, a condition        $z  a type, u8 to s64
 *   $b $f   a byte order, an atomic operation           $l  a label      $t  a label or a distance
 *
 * The first pattern that fits a whole line makes its instruction. Labels are known at the end, so what refers to them waits
 * in a list. */

#define LABELS_MAX 64
#define LABEL_SIZE 32

struct word {
	const char *text;
	int value;
};

static const struct word alu_words[] = {
	{ "+=", BPF_ADD }, { "-=", BPF_SUB }, { "*=", BPF_MUL }, { "/=", BPF_DIV }, { "|=", BPF_OR }, { "&=", BPF_AND },
	{ "<<=", BPF_LSH }, { ">>=", BPF_RSH }, { "%=", BPF_MOD }, { "^=", BPF_XOR }, { "=", BPF_MOV },
	{ "s>>=", BPF_ARSH }, { "s/=", BPF_DIV | 1 }, { "s%=", BPF_MOD | 1 }, { NULL, 0 },
};
static const struct word condition_words[] = {
	{ "==", BPF_JEQ }, { "!=", BPF_JNE }, { ">=", BPF_JGE }, { ">", BPF_JGT }, { "<=", BPF_JLE }, { "<", BPF_JLT },
	{ "s>=", BPF_JSGE }, { "s>", BPF_JSGT }, { "s<=", BPF_JSLE }, { "s<", BPF_JSLT }, { "&", BPF_JSET }, { NULL, 0 },
};
static const struct word type_words[] = {
	{ "u8", BPF_B }, { "u16", BPF_H }, { "u32", BPF_W }, { "u64", BPF_DW },
	{ "s8", BPF_B | 1 }, { "s16", BPF_H | 1 }, { "s32", BPF_W | 1 }, { NULL, 0 },
};
static const struct word order_words[] = {
	{ "le16", BPF_ALU | BPF_K }, { "le32", BPF_ALU | BPF_K }, { "le64", BPF_ALU | BPF_K },
	{ "be16", BPF_ALU | BPF_X }, { "be32", BPF_ALU | BPF_X }, { "be64", BPF_ALU | BPF_X },
	{ "bswap16", BPF_ALU64 }, { "bswap32", BPF_ALU64 }, { "bswap64", BPF_ALU64 }, { NULL, 0 },
};
static const struct word fetch_words[] = {
	{ "atomic_fetch_add", BPF_ADD | BPF_FETCH }, { "atomic_fetch_or", BPF_OR | BPF_FETCH },
	{ "atomic_fetch_and", BPF_AND | BPF_FETCH }, { "atomic_fetch_xor", BPF_XOR | BPF_FETCH }, { NULL, 0 },
};

enum form {
	FORM_ALU_X, FORM_ALU_K, FORM_NEG, FORM_MOVE_SIGNED, FORM_SWAP, FORM_LOAD, FORM_STORE_X, FORM_STORE_K, FORM_LDDW,
	FORM_LDDW_LABEL, FORM_ATOMIC, FORM_ATOMIC_FETCH, FORM_EXCHANGE, FORM_EXCHANGE32, FORM_COMPARE, FORM_COMPARE32,
	FORM_ACQUIRE, FORM_RELEASE, FORM_JUMP_X, FORM_JUMP_K, FORM_JUMP, FORM_JUMP_FAR, FORM_CALL_HELPER, FORM_CALL,
	FORM_CALLX, FORM_EXIT,
};

static const struct {
	const char *pattern;
	enum form form;
} forms[] = {
	{ "$d = -$s", FORM_NEG },
	{ "$d = ($z) $s", FORM_MOVE_SIGNED },
	{ "$d = $b $s", FORM_SWAP },
	{ "$d $a $s", FORM_ALU_X },
	{ "$d $a $i", FORM_ALU_K },
	{ "$d = *($z *) ($s $o)", FORM_LOAD },
	{ "*($z *) ($d $o) = $s", FORM_STORE_X },
	{ "*($z *) ($d $o) = $i", FORM_STORE_K },
	{ "$d = $i ll", FORM_LDDW },
	{ "lock *($z *) ($d $o) $a $s", FORM_ATOMIC },
	{ "$s = $f(($z *) ($d $o), $s)", FORM_ATOMIC_FETCH },
	{ "$s = xchg_64($d $o, $s)", FORM_EXCHANGE },
	{ "$s = xchg32_32($d $o, $s)", FORM_EXCHANGE32 },
	{ "r0 = cmpxchg_64($d $o, r0, $s)", FORM_COMPARE },
	{ "w0 = cmpxchg32_32($d $o, w0, $s)", FORM_COMPARE32 },
	{ "$d = load_acquire(($z *) ($s $o))", FORM_ACQUIRE },
	{ "store_release(($z *) ($d $o), $s)", FORM_RELEASE },
	{ "if $d $c $s goto $t", FORM_JUMP_X },
	{ "if $d $c $i goto $t", FORM_JUMP_K },
	{ "goto $t", FORM_JUMP },
	{ "gotol $t", FORM_JUMP_FAR },
	{ "callx $d", FORM_CALLX },
	{ "call $i", FORM_CALL_HELPER },
	{ "call $l", FORM_CALL },
	{ "exit", FORM_EXIT },
	{ "$d = $l ll", FORM_LDDW_LABEL },
};

/* what the places of a pattern held */
struct match {
	unsigned int dst, src;
	bool narrow;		/* the first register was wN */
	int64_t imm, distance;
	int16_t off;
	int op;			/* of $a, $c, $b or $f */
	int type;		/* of $z */
	int width;		/* bits of $b */
	char label[LABEL_SIZE];	/* of $l or $t; "": @distance */
};

struct assembler {
	struct insn *insns;
	uint32_t n, n_max, line;
	struct { char name[LABEL_SIZE]; uint32_t pc; } labels[LABELS_MAX];
	struct { char name[LABEL_SIZE]; uint32_t pc, line; } waiting[LABELS_MAX];
	uint32_t n_labels, n_waiting;
	struct refusal *refusal;
};

static bool fail(struct assembler *a, const char *text, const char *what)
{
	refuse(a->refusal, "line %" PRIu32 ": %s: %.100s", a->line, what, text);
	return false;
}

/* -- Matching: each takes what it knows from *p --- */
static void skip_blanks(const char **p)
{
	while (**p && isspace((unsigned char)**p))
		++*p;
}

static bool take_register(const char **p, struct match *m, bool first, unsigned int *ret)
{
	char *end;

	if ((**p != 'r' && **p != 'w') || !isdigit((unsigned char)(*p)[1]))
		return false;
	if (first)
		m->narrow = **p == 'w';
	*ret = strtoul(*p + 1, &end, 10);
	*p = end;
	return *ret < 16;
}

/* The longest word that stands here, so that >= is not > with a stray =. */
static bool take_word(const char **p, const struct word *words, int *ret, int *ret_width)
{
	const struct word *best = NULL;
	size_t n = 0;

	for (; words->text; words++)
		if (strlen(words->text) > n && !strncmp(*p, words->text, strlen(words->text))) {
			best = words;
			n = strlen(words->text);
		}
	if (!best)
		return false;
	*p += n;
	*ret = best->value;
	while (n && isdigit((unsigned char)best->text[n - 1]))
		n--;
	*ret_width = atoi(best->text + n);
	return true;
}

static bool take_integer(const char **p, int64_t *ret)
{
	const bool negative = **p == '-';
	const char *digits = *p + (negative || **p == '+');
	char *end;

	if (!isdigit((unsigned char)*digits))
		return false;
	*ret = strtoull(digits, &end, 0);
	if (negative)
		*ret = -(uint64_t)*ret;
	*p = end;
	return true;
}

static bool take_offset(const char **p, int16_t *ret)
{
	const bool negative = **p == '-';
	int64_t value;

	*ret = 0;
	if (**p != '-' && **p != '+')
		return true;
	++*p;
	skip_blanks(p);
	if (!take_integer(p, &value))
		return false;
	*ret = negative ? -value : value;
	return true;
}

static bool take_label(const char **p, char *ret)
{
	size_t n = 0;

	while (isalnum((unsigned char)(*p)[n]) || (*p)[n] == '_')
		n++;
	if (!n || n >= LABEL_SIZE || isdigit((unsigned char)**p))
		return false;
	memcpy(ret, *p, n);
	ret[n] = 0;
	*p += n;
	return true;
}

static bool take_place(const char **p, char kind, bool first, struct match *m)
{
	switch (kind) {
	case 'd': return take_register(p, m, first, &m->dst);
	case 's': return take_register(p, m, first, &m->src);
	case 'i': return take_integer(p, &m->imm);
	case 'o': return take_offset(p, &m->off);
	case 'a': return take_word(p, alu_words, &m->op, &m->width);
	case 'c': return take_word(p, condition_words, &m->op, &m->width);
	case 'z': return take_word(p, type_words, &m->type, &m->width);
	case 'b': return take_word(p, order_words, &m->op, &m->width);
	case 'f': return take_word(p, fetch_words, &m->op, &m->width);
	case 'l': return take_label(p, m->label);
	default: return take_label(p, m->label) || take_integer(p, &m->distance);
	}
}

static bool matches(const char *line, const char *pattern, struct match *m)
{
	bool first = true;

	*m = (struct match){ 0 };
	for (; *pattern; pattern++) {
		if (*pattern == ' ') {
			skip_blanks(&line);
		} else if (*pattern == '$') {
			if (!take_place(&line, *++pattern, first, m))
				return false;
			first &= *pattern != 'd' && *pattern != 's';
		} else if (*line++ != *pattern) {
			return false;
		}
	}
	skip_blanks(&line);
	return !*line;
}

/* -- Instructions --- */
static void add(struct assembler *a, struct insn insn)
{
	if (a->n == a->n_max) {
		const uint32_t n_max = 2 * a->n_max + 64;
		struct insn *insns = realloc(a->insns, n_max * sizeof(*insns));

		if (!insns)
			abort();
		a->insns = insns;
		a->n_max = n_max;
	}
	a->insns[a->n++] = insn;
}

static void add_lddw(struct assembler *a, const struct match *m, unsigned int src, uint64_t value)
{
	add(a, (struct insn){ .code = BPF_LDDW, .dst = m->dst, .src = src, .imm = value });
	add(a, (struct insn){ .imm = value >> 32 });
}

static void add_atomic(struct assembler *a, const struct match *m, unsigned int size, int32_t op)
{
	add(a, (struct insn){ .code = BPF_STX | BPF_ATOMIC | size, .dst = m->dst, .src = m->src, .off = m->off, .imm = op });
}

static void add_alu(struct assembler *a, const struct match *m, unsigned int source)
{
	const unsigned int class = m->narrow ? BPF_ALU : BPF_ALU64;

	add(a, (struct insn){ .code = class | source | BPF_OP(m->op), .dst = m->dst, .src = m->src, .off = m->op & 1,
			      .imm = m->imm });
}

static void add_memory(struct assembler *a, const struct match *m, unsigned int class)
{
	const unsigned int mode = m->type & 1 ? BPF_MEMSX : BPF_MEM;

	add(a, (struct insn){ .code = class | mode | BPF_SIZE(m->type), .dst = m->dst, .src = m->src, .off = m->off,
			      .imm = m->imm });
}

/* @far: the distance is in imm, and there is nothing to compare */
static void add_jump(struct assembler *a, const struct match *m, unsigned int source, bool far)
{
	const unsigned int class = m->narrow || far ? BPF_JMP32 : BPF_JMP;

	add(a, (struct insn){ .code = class | source | m->op, .dst = m->dst, .src = m->src, .off = far ? 0 : m->distance,
			      .imm = far ? m->distance : m->imm });
}

static bool wait_for(struct assembler *a, const char *label, uint32_t pc)
{
	if (a->n_waiting == LABELS_MAX)
		return fail(a, label, "too many references");
	memcpy(a->waiting[a->n_waiting].name, label, LABEL_SIZE);
	a->waiting[a->n_waiting].pc = pc;
	a->waiting[a->n_waiting++].line = a->line;
	return true;
}

static void add_form(struct assembler *a, enum form form, const struct match *m)
{
	switch (form) {
	case FORM_ALU_X: add_alu(a, m, BPF_X); break;
	case FORM_ALU_K: add_alu(a, m, BPF_K); break;
	case FORM_NEG: add(a, (struct insn){ .code = (m->narrow ? BPF_ALU : BPF_ALU64) | BPF_NEG, .dst = m->dst }); break;
	case FORM_MOVE_SIGNED:
		add(a, (struct insn){ .code = (m->narrow ? BPF_ALU : BPF_ALU64) | BPF_X | BPF_MOV, .dst = m->dst,
				      .src = m->src, .off = m->width });
		break;
	case FORM_SWAP: add(a, (struct insn){ .code = m->op | BPF_END, .dst = m->dst, .imm = m->width }); break;
	case FORM_LOAD: add_memory(a, m, BPF_LDX); break;
	case FORM_STORE_X: add_memory(a, m, BPF_STX); break;
	case FORM_STORE_K: add_memory(a, m, BPF_ST); break;
	case FORM_LDDW: add_lddw(a, m, 0, m->imm); break;
	case FORM_LDDW_LABEL: add_lddw(a, m, 4, 0); break;
	case FORM_ATOMIC: add_atomic(a, m, BPF_SIZE(m->type), m->op); break;
	case FORM_ATOMIC_FETCH: add_atomic(a, m, BPF_SIZE(m->type), m->op); break;
	case FORM_EXCHANGE: add_atomic(a, m, BPF_DW, BPF_XCHG); break;
	case FORM_EXCHANGE32: add_atomic(a, m, BPF_W, BPF_XCHG); break;
	case FORM_COMPARE: add_atomic(a, m, BPF_DW, BPF_CMPXCHG); break;
	case FORM_COMPARE32: add_atomic(a, m, BPF_W, BPF_CMPXCHG); break;
	case FORM_ACQUIRE: add_atomic(a, m, BPF_SIZE(m->type), BPF_LOAD_ACQ); break;
	case FORM_RELEASE: add_atomic(a, m, BPF_SIZE(m->type), BPF_STORE_REL); break;
	case FORM_JUMP_X: add_jump(a, m, BPF_X, false); break;
	case FORM_JUMP_K: add_jump(a, m, BPF_K, false); break;
	case FORM_JUMP: add_jump(a, m, BPF_K, false); break;
	case FORM_JUMP_FAR: add_jump(a, m, BPF_K, true); break;
	case FORM_CALL_HELPER: add(a, (struct insn){ .code = BPF_JMP | BPF_CALL, .imm = m->imm }); break;
	case FORM_CALL: add(a, (struct insn){ .code = BPF_JMP | BPF_CALL, .src = 1 }); break;
	case FORM_CALLX: add(a, (struct insn){ .code = BPF_JMP | BPF_CALL | BPF_X, .dst = m->dst }); break;
	case FORM_EXIT: add(a, (struct insn){ .code = BPF_JMP | BPF_EXIT }); break;
	}
}

static bool assemble_line(struct assembler *a, const char *line)
{
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		const uint32_t pc = a->n;
		struct match m;

		if (!matches(line, forms[i].pattern, &m))
			continue;
		add_form(a, forms[i].form, &m);
		return !m.label[0] || wait_for(a, m.label, pc);
	}
	return fail(a, line, "no such instruction");
}

/* -- Lines --- */
static bool define(struct assembler *a, const char *line, size_t n)
{
	if (n >= LABEL_SIZE || a->n_labels == LABELS_MAX)
		return fail(a, line, "too long or too many labels");
	memcpy(a->labels[a->n_labels].name, line, n);
	a->labels[a->n_labels++].pc = a->n;
	return true;
}

static bool resolve(struct assembler *a)
{
	for (uint32_t i = 0; i < a->n_waiting; i++) {
		struct insn *insn = &a->insns[a->waiting[i].pc];
		uint32_t label = 0;
		int32_t distance;

		while (label < a->n_labels && strcmp(a->labels[label].name, a->waiting[i].name))
			label++;
		a->line = a->waiting[i].line;
		if (label == a->n_labels)
			return fail(a, a->waiting[i].name, "no such label");
		distance = a->labels[label].pc - (a->waiting[i].pc + 1);
		if (insn_is_lddw(insn) || insn->code == (BPF_JMP | BPF_CALL) || insn->code == (BPF_JMP32 | BPF_JA))
			insn->imm = distance;
		else if (distance == (int16_t)distance)
			insn->off = distance;
		else
			return fail(a, a->waiting[i].name, "too far for this jump");
	}
	return true;
}

static void trim(char *line)
{
	size_t n = strcspn(line, "#");

	while (n && isspace((unsigned char)line[n - 1]))
		n--;
	line[n] = 0;
}

/* What .rept repeats is a run of finished instructions, without labels. */
static void repeat(struct assembler *a, uint32_t begin, uint32_t count)
{
	const uint32_t end = a->n;

	for (uint32_t i = 1; i < count; i++)
		for (uint32_t pc = begin; pc < end; pc++)
			add(a, a->insns[pc]);
}

static bool assemble_text(struct assembler *a, char *text)
{
	uint32_t begin = 0, count = 1;
	char *line;

	while ((line = strsep(&text, "\n"))) {
		const char *p = line;

		a->line++;
		trim(line);
		skip_blanks(&p);
		if (!*p)
			continue;
		if (sscanf(p, ".rept %" SCNu32, &count) == 1)
			begin = a->n;
		else if (!strcmp(p, ".endr"))
			repeat(a, begin, count);
		else if (p[strlen(p) - 1] == ':' ? !define(a, p, strlen(p) - 1) : !assemble_line(a, p))
			return false;
	}
	return resolve(a);
}

bool assemble(const char *text, struct insn **ret, uint32_t *ret_n, struct refusal *refusal)
{
	_cleanup_(freep) char *copy = strdup(text);
	struct assembler *a = calloc(1, sizeof(*a));
	bool ok;

	if (!copy || !a)
		abort();
	a->refusal = refusal;
	ok = assemble_text(a, copy);
	if (ok) {
		*ret = a->insns;
		*ret_n = a->n;
	} else {
		free(a->insns);
	}
	free(a);
	return ok;
}
