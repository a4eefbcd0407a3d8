/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench/inputs.h"
#include "util/base.h"
#include "workloads/formats.h"

/* The usual inputs
 *
 * Each maker lays out what its workload reads, with numbers from a generator that is seeded with a constant, and leaves
 * the memory to input_build(): one block, in which every region begins on a cache line of its own and is followed by
 * at least one line that nobody should write. Whoever compares whole buffers sees a stray store as well. */

#define LINE 64u
#define BUILD(...) input_build(&(struct input_shape){ __VA_ARGS__ })

#define WORKLOAD_ROW(name, file, entry, input) { #name, file, #entry, native_##entry, input },
#define WORKLOAD_INPUT(name, file, entry, input) static struct workload_input *input(void);
WORKLOAD_LIST(WORKLOAD_INPUT)
WORKLOAD_TEST_LIST(WORKLOAD_INPUT)

const struct workload workloads[] = { WORKLOAD_LIST(WORKLOAD_ROW) };
const struct workload workload_tests[] = { WORKLOAD_TEST_LIST(WORKLOAD_ROW) };
const size_t n_workloads = ARRAY_SIZE(workloads), n_workload_tests = ARRAY_SIZE(workload_tests);

const struct workload *workload_find(const char *name)
{
	for (size_t i = 0; i < n_workloads; i++)
		if (!strcmp(workloads[i].name, name))
			return &workloads[i];
	for (size_t i = 0; i < n_workload_tests; i++)
		if (!strcmp(workload_tests[i].name, name))
			return &workload_tests[i];
	return NULL;
}

uint64_t host_mix(uint64_t a, uint64_t b)
{
	uint64_t x = (a ^ (b << 32 | b >> 32)) * 0x9e3779b97f4a7c15ull;

	return x ^ x >> 29;
}

/* -- Memory ----------------------------------------------------------------------------------------------------- */
static uint64_t region_size(size_t n)
{
	return n ? align_up(n, LINE) + LINE : 0;
}

static void input_set_args(struct workload_input *input, const struct input_shape *shape)
{
	uint8_t *data = input->buffer, *more = data + region_size(shape->n_data);
	const uint64_t *number = shape->numbers;

	for (const char *c = shape->args; *c; c++) {
		uint64_t *arg = &input->args[input->n_args++];

		switch (*c) {
		case 'd':
			*arg = (uintptr_t)data;
			break;
		case 'n':
			*arg = shape->n_data;
			break;
		case 'm':
			*arg = (uintptr_t)more;
			break;
		case 'l':
			*arg = shape->n_more;
			break;
		case 'o':
			*arg = (uintptr_t)input->out;
			break;
		default:
			*arg = *number++;
		}
	}
}

static struct workload_input *input_build(const struct input_shape *shape)
{
	struct workload_input *input = calloc(1, sizeof(*input));
	uint64_t n_data = region_size(shape->n_data), n_more = region_size(shape->n_more);

	if (!input)
		return NULL;
	/* never empty: a pointer to no bytes is a pointer all the same */
	input->n_buffer = n_data + n_more + region_size(shape->n_out) + LINE;
	input->buffer = aligned_alloc(LINE, input->n_buffer);
	input->pristine = calloc(1, input->n_buffer);
	if (!input->buffer || !input->pristine)
		return input_free(input);
	if (shape->n_data)
		memcpy(input->pristine, shape->data, shape->n_data);
	if (shape->n_more)
		memcpy(input->pristine + n_data, shape->more, shape->n_more);
	input->n_out = shape->n_out;
	input->out = input->n_out ? input->buffer + n_data + n_more : NULL;
	input_set_args(input, shape);
	input_reset(input);
	return input;
}

struct workload_input *input_make(const char *name)
{
	const struct workload *workload = workload_find(name);

	return workload ? workload->make() : NULL;
}

struct workload_input *input_make_vector(const struct workload_vector *vector)
{
	return input_build(&vector->shape);
}

struct workload_input *input_free(struct workload_input *input)
{
	if (input) {
		free(input->buffer);
		free(input->pristine);
		free(input);
	}
	return NULL;
}

void input_reset(struct workload_input *input)
{
	memcpy(input->buffer, input->pristine, input->n_buffer);
}

/* -- Numbers ---------------------------------------------------------------------------------------------------- */
/* splitmix64: any seed is a good one */
static uint64_t random_next(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static void random_fill(void *bytes, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++)
		((uint8_t *)bytes)[i] = random_next(&seed);
}

static struct workload_input *input_of_bytes(const char *args, size_t n, size_t n_out, uint64_t a, uint64_t b)
{
	uint8_t bytes[16 << 10];

	random_fill(bytes, n, n);
	return BUILD(.args = args, .data = bytes, .n_data = n, .n_out = n_out, .numbers = { a, b });
}

/* -- Hashes and codes ------------------------------------------------------------------------------------------- */
/* Lengths that are no multiple of anything, so that every tail runs */
static struct workload_input *input_fnv1a(void) { return input_of_bytes("dn", 4093, 0, 0, 0); }
static struct workload_input *input_xxhash64(void) { return input_of_bytes("dni", 16381, 0, 2026, 0); }
static struct workload_input *input_crc32(void) { return input_of_bytes("dn", 2045, 0, 0, 0); }
static struct workload_input *input_siphash(void) { return input_of_bytes("dnii", 4093, 0, 0x0123456789abcdef, 42); }
static struct workload_input *input_sha256(void) { return input_of_bytes("dno", 1021, 32, 0, 0); }
static struct workload_input *input_base64(void) { return input_of_bytes("dno", 3071, 4096, 0, 0); }

/* The bytes by which an LZ4 length goes on after its four bits in the token */
static size_t lz4_put_length(uint8_t *to, size_t length)
{
	size_t n = 0;

	if (length < 15)
		return 0;
	for (length -= 15; length >= 255; length -= 255)
		to[n++] = 255;
	to[n++] = length;
	return n;
}

/* A block as a compressor might have made it: from 1 to 40 literals, then a match of 4 to 80 bytes, until @n_out bytes
 * are described; literals only at the end. */
static struct workload_input *input_lz4(void)
{
	enum { N_OUT = 6000, LITERALS = 40, MATCH = 80 };
	uint64_t state = 4;
	size_t n = 0, n_out = 0;
	uint8_t block[N_OUT];

	while (n_out < N_OUT - LITERALS - MATCH) {
		size_t literals = 1 + random_next(&state) % LITERALS, match = random_next(&state) % (MATCH - 3);
		size_t offset = 1 + random_next(&state) % (n_out + literals);

		block[n++] = MIN(literals, (size_t)15) << 4 | MIN(match, (size_t)15);
		n += lz4_put_length(block + n, literals);
		random_fill(block + n, literals, n);
		n += literals;
		block[n++] = offset;
		block[n++] = offset >> 8;
		n += lz4_put_length(block + n, match);
		n_out += literals + match + 4;
	}
	memcpy(block + n, "\x30" "end", 4);
	n += 4;
	return BUILD(.args = "dnoi", .data = block, .n_data = n, .n_out = N_OUT, .numbers = { N_OUT });
}

/* -- Searching and sorting -------------------------------------------------------------------------------------- */
/* Words over a small alphabet, among which the needle occurs now and then */
static struct workload_input *input_strsearch(void)
{
	static const char needle[] = "tier one";
	uint64_t state = 8;
	char text[4096];

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = "abcdefghiklmnoprstu    eeiot"[random_next(&state) % 28];
	for (size_t i = 100; i + sizeof(needle) < sizeof(text); i += 100 + random_next(&state) % 200)
		memcpy(text + i, needle, sizeof(needle) - 1);
	return BUILD(.args = "dnml", .data = text, .more = needle, .n_data = sizeof(text),
		     .n_more = sizeof(needle) - 1);
}

static struct workload_input *input_bsearch(void)
{
	uint32_t table[1000], keys[100];
	uint64_t state = 9;
	uint32_t last = 0;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		table[i] = last += random_next(&state) % 1000;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		keys[i] = random_next(&state) % (last + 1000);
	return BUILD(.args = "dimi", .data = table, .more = keys, .n_data = sizeof(table), .n_more = sizeof(keys),
		     .numbers = { ARRAY_SIZE(table), ARRAY_SIZE(keys) });
}

static struct workload_input *input_insertsort(void)
{
	uint32_t values[120];

	random_fill(values, sizeof(values), 10);
	return BUILD(.args = "dio", .data = values, .n_data = sizeof(values), .n_out = sizeof(values),
		     .numbers = { ARRAY_SIZE(values) });
}

static struct workload_input *input_quicksort(void)
{
	uint32_t values[100];

	random_fill(values, sizeof(values), 15);
	return BUILD(.args = "dioi", .data = values, .n_data = sizeof(values), .n_out = sizeof(values),
		     .numbers = { ARRAY_SIZE(values), SORT_ONES });
}

/* -- Trees and texts -------------------------------------------------------------------------------------------- */
/* Numbers that are not 0, some of them twice */
static struct workload_input *input_rbtree(void)
{
	uint32_t keys[100];
	uint64_t state = 16;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		keys[i] = 1 + random_next(&state) % 400;
	return BUILD(.args = "dioi", .data = keys, .n_data = sizeof(keys), .numbers = { ARRAY_SIZE(keys), 3 },
		     .n_out = ARRAY_SIZE(keys) * (sizeof(uint64_t) + RBTREE_NODE));
}

/* Records with all that a text may have: escapes, fractions, exponents, words, empty containers, depth */
static struct workload_input *input_json(void)
{
	enum { N_RECORDS = 20, N_TOKENS = 1 + N_RECORDS * 24 };
	uint64_t state = 17;
	char text[8192];
	size_t n = 0;

	text[n++] = '[';
	for (unsigned int i = 0; i < N_RECORDS; i++) {
		uint64_t r = random_next(&state);

		n += snprintf(text + n, sizeof(text) - n, "%s\n  { \"id\": %u, \"name\": \"tier \\\"%x\\\" \\u00e9\\n\",\t"
			      "\"ratio\":-%u.%03ue-%u, \"tags\": [%s, [[ ], {}], \"\", 0], \"at\": {\"x\":%u,\"y\":[null]} }",
			      i ? "," : "", i, (unsigned int)r, (unsigned int)(r % 100), (unsigned int)(r >> 32) % 1000,
			      (unsigned int)(r >> 8) % 20, r & 1 << 20 ? "true" : "false", (unsigned int)(r >> 12) % 1000);
	}
	text[n++] = ']';
	return BUILD(.args = "dnoi", .data = text, .n_data = n, .n_out = N_TOKENS * sizeof(struct json_token),
		     .numbers = { N_TOKENS });
}

/* -- Numbers and calls ------------------------------------------------------------------------------------------ */
static struct workload_input *input_matmul(void)
{
	enum { N = 40 };
	uint32_t a[N * N], b[N * N];

	random_fill(a, sizeof(a), 11);
	random_fill(b, sizeof(b), 12);
	return BUILD(.args = "dmoi", .data = a, .more = b, .n_data = sizeof(a), .n_more = sizeof(b),
		     .n_out = sizeof(a), .numbers = { N });
}

static struct workload_input *input_sieve(void)
{
	return BUILD(.args = "oi", .n_out = 4096 / 8, .numbers = { 4096 });
}

static struct workload_input *input_fib(void)
{
	return BUILD(.args = "i", .numbers = { 15 });
}

static struct workload_input *input_interp(void)
{
	/* for (x = 0, i = arg; i; i--) x = x * 33 ^ i */
	static const uint8_t code[] = {
		INTERP_ARG, INTERP_STORE, 0,
		INTERP_LOAD, 1, INTERP_PUSH, 33, INTERP_MUL, INTERP_LOAD, 0, INTERP_XOR, INTERP_STORE, 1,
		INTERP_LOAD, 0, INTERP_PUSH, 1, INTERP_SUB, INTERP_DUP, INTERP_STORE, 0, INTERP_JUMP_IF, 3,
		INTERP_LOAD, 1, INTERP_HALT,
	};

	return BUILD(.args = "dnii", .data = code, .n_data = sizeof(code), .numbers = { 100, 100000 });
}

static struct workload_input *input_dispatch(void)
{
	struct shape shapes[200];
	uint64_t state = 13;

	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		uint32_t kind = random_next(&state) % _SHAPE_N;
		uint32_t b = random_next(&state) % 1000, more = random_next(&state) % 1000;

		shapes[i] = (struct shape){ kind, b + more, b };	/* a ring's outer radius is the larger one */
	}
	return BUILD(.args = "dii", .data = shapes, .n_data = sizeof(shapes), .numbers = { ARRAY_SIZE(shapes), 1 });
}

/* -- Packets ---------------------------------------------------------------------------------------------------- */
static void put16(uint8_t *to, unsigned int value)
{
	to[0] = value >> 8;
	to[1] = value;
}

/* Writes the checksum over the @n bytes of an IPv4 header. */
static void ipv4_sign(uint8_t *ip, size_t n)
{
	uint32_t sum = 0;

	put16(ip + 10, 0);
	for (size_t i = 0; i < n; i += 2)
		sum += ip[i] << 8 | ip[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	put16(ip + 10, ~sum);
}

/* An Ethernet frame of random content whose headers are right; returns its length. One in four has a VLAN tag, one in
 * four has IPv4 options. */
static size_t frame_make(uint8_t *frame, uint64_t *state)
{
	uint64_t choice = random_next(state);
	size_t n_ethernet = choice & 3 ? 14 : 18, n_header = choice & 12 ? 20 : 28;
	size_t n_packet = n_header + 20 + choice / 16 % 60;
	uint8_t *ip = frame + n_ethernet;

	random_fill(frame, n_ethernet + n_packet, choice);
	if (n_ethernet == 18)
		put16(frame + 12, 0x8100);
	put16(ip - 2, 0x0800);
	ip[0] = 0x40 | n_header / 4;
	put16(ip + 2, n_packet);
	put16(ip + 6, 0x4000);
	ip[9] = choice >> 32 & 1 ? 6 : 17;
	ipv4_sign(ip, n_header);
	return n_ethernet + n_packet;
}

/* Spoils every fourth frame, each in another way; returns its new length. */
static uint16_t frame_spoil(uint8_t *frame, uint16_t n, unsigned int i)
{
	uint8_t *ip = frame + (frame[12] == 0x81 ? 18 : 14);

	switch (i % 24) {
	case 3:
		ip[16]++;			/* its checksum is wrong now */
		return n;
	case 7:
		put16(frame + 12, 0x86dd);	/* IPv6 */
		return n;
	case 11:
		put16(ip + 6, 0x2001);		/* a later fragment */
		break;
	case 15:
		ip[9] = 1;			/* ICMP */
		break;
	case 19:
		ip[0] = 0x62;			/* version 6, and a header of 8 bytes */
		return n;
	case 23:
		return 20 + i % 10;
	default:
		return n;
	}
	ipv4_sign(ip, (ip[0] & 15) * 4);
	return n;
}

static struct workload_input *input_packet(void)
{
	enum { N_FRAMES = 120 };
	uint8_t capture[N_FRAMES * 144] = { 0 };
	uint64_t state = 14;
	size_t n = 0;

	for (unsigned int i = 0; i < N_FRAMES; i++) {
		uint8_t *frame = capture + n + 2;
		uint16_t n_frame = frame_spoil(frame, frame_make(frame, &state), i);

		memcpy(capture + n, &n_frame, sizeof(n_frame));
		n += align_up(n_frame + sizeof(n_frame), 8);
	}
	return BUILD(.args = "dno", .data = capture, .n_data = n, .n_out = _PACKET_N * sizeof(uint64_t));
}

/* -- Test methods ----------------------------------------------------------------------------------------------- */
static struct workload_input *input_counter(void)
{
	return BUILD(.args = "i", .numbers = { 1 });
}

static struct workload_input *input_imports(void)
{
	return BUILD(.args = "ii", .numbers = { 7, 100 });
}
