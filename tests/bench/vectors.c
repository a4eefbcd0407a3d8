/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/inputs.h"
#include "util/base.h"
#include "workloads/formats.h"

/* Known results
 *
 * From the standards (RFC 4648, RFC 8259, FIPS 180-4, IEEE 802.3), from the authors of FNV, SipHash and xxHash, from
 * arithmetic that can be done by hand, or from a second program in another language. None was printed by a workload. */

#define VECTOR(name, what, n, letters, ...)                                                                            \
	{ .workload = name, .text = what, .result = n, .shape.args = letters, ##__VA_ARGS__ }
#define TEXT(string) .shape.data = (string), .shape.n_data = sizeof(string) - 1
#define MORE_TEXT(string) .shape.more = (string), .shape.n_more = sizeof(string) - 1
#define ARRAY(type, ...) \
	.shape.data = (const type[]){ __VA_ARGS__ }, .shape.n_data = sizeof((const type[]){ __VA_ARGS__ })
#define MORE_ARRAY(type, ...) \
	.shape.more = (const type[]){ __VA_ARGS__ }, .shape.n_more = sizeof((const type[]){ __VA_ARGS__ })
#define NUMBERS(...) .shape.numbers = { __VA_ARGS__ }
#define SPACE(n) .shape.n_out = n
#define OUT_TEXT(string) .out = (string), .n_out = sizeof(string) - 1
#define OUT_ARRAY(type, ...) .out = (const type[]){ __VA_ARGS__ }, .n_out = sizeof((const type[]){ __VA_ARGS__ })

#define SIP_KEY NUMBERS(0x0706050403020100, 0x0f0e0d0c0b0a0908)

/* product of 1 to the argument */
#define FACTORIAL                                                                                                      \
	ARRAY(uint8_t, INTERP_PUSH, 1, INTERP_STORE, 1, INTERP_ARG, INTERP_STORE, 0,                                   \
	      INTERP_LOAD, 1, INTERP_LOAD, 0, INTERP_MUL, INTERP_STORE, 1,                                             \
	      INTERP_LOAD, 0, INTERP_PUSH, 1, INTERP_SUB, INTERP_DUP, INTERP_STORE, 0, INTERP_JUMP_IF, 7,              \
	      INTERP_LOAD, 1, INTERP_HALT)

/* (9 < 5) dropped, then (5 < 9) + (0x55 >> 2) - 1, and a jump over another drop */
#define OPERATORS                                                                                                      \
	ARRAY(uint8_t, INTERP_PUSH, 9, INTERP_PUSH, 5, INTERP_LESS, INTERP_DROP, INTERP_PUSH, 5, INTERP_PUSH, 9,       \
	      INTERP_LESS, INTERP_PUSH, 0x55, INTERP_PUSH, 2, INTERP_SHR, INTERP_ADD, INTERP_PUSH, 1, INTERP_SUB,      \
	      INTERP_JUMP, 23, INTERP_DROP, INTERP_HALT)

/* UDP from 192.168.0.1:53 to 192.168.0.199:59772 */
#define ETHERNET 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2
#define IPV4(sum) 0x45, 0, 0, 0x1c, 0, 0, 0x40, 0, 0x40, 0x11, (sum) >> 8, (sum)&0xff, 192, 168, 0, 1, 192, 168, 0, 199
#define IPV4_SUM 0xb8b8
#define UDP 0, 53, 0xe9, 0x7c, 0, 8, 0, 0
#define FLOW_HASH 0xc443fff5735f7cfb

#define EXERCISE ARRAY(uint32_t, 41, 38, 31, 12, 19, 8), SPACE(6 * (8 + RBTREE_NODE))

#define JSON_IMAGE                                                                                                     \
	"{\"Image\":{\"Width\":800,\"Height\":600,\"Title\":\"View from 15th Floor\",\"Thumbnail\":{"                       \
	"\"Url\":\"http://www.example.com/image/481989943\",\"Height\":125,\"Width\":100},\"Animated\":false,"             \
	"\"IDs\":[116,943,234,38793]}}"

/* how many of each verdict, in their order */
#define COUNTS(...) SPACE(_PACKET_N * sizeof(uint64_t)), OUT_ARRAY(uint64_t, __VA_ARGS__)

const struct workload_vector workload_vectors[] = {
	VECTOR("fnv1a", "nothing", 0xcbf29ce484222325, "dn"),
	VECTOR("fnv1a", "one byte", 0xaf63dc4c8601ec8c, "dn", TEXT("a")),
	VECTOR("fnv1a", "six bytes", 0x85944171f73967e8, "dn", TEXT("foobar")),

	VECTOR("xxhash64", "nothing", 0xef46db3751d8e999, "dni"),
	VECTOR("xxhash64", "single bytes", 0x44bc2cf5ad770999, "dni", TEXT("abc")),
	VECTOR("xxhash64", "a seed", 0xb559b98d844e0635, "dni", TEXT("xxhash"), NUMBERS(20141025)),
	VECTOR("xxhash64", "a stripe", 0xfbcea83c8a378bf1, "dni", TEXT("Nobody inspects the spammish repetition")),

	VECTOR("crc32", "nothing", 0, "dn"),
	VECTOR("crc32", "the check value", 0xcbf43926, "dn", TEXT("123456789")),
	VECTOR("crc32", "a sentence", 0x414fa339, "dn", TEXT("The quick brown fox jumps over the lazy dog")),

	VECTOR("siphash", "nothing", 0x726fdb47dd0e0e31, "dnii", SIP_KEY),
	VECTOR("siphash", "the paper's message", 0xa129ca6149be45e5, "dnii",
	       ARRAY(uint8_t, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14), SIP_KEY),

	VECTOR("sha256", "nothing", 0xe3b0c44298fc1c14, "dno", SPACE(32)),
	VECTOR("sha256", "one block", 0xba7816bf8f01cfea, "dno", TEXT("abc"), SPACE(32),
	       OUT_TEXT("\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde\x5d\xae\x22\x23"
			"\xb0\x03\x61\xa3\x96\x17\x7a\x9c\xb4\x10\xff\x61\xf2\x00\x15\xad")),
	VECTOR("sha256", "padding needs a block", 0x248d6a61d20638b8, "dno",
	       TEXT("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"), SPACE(32),
	       OUT_TEXT("\x24\x8d\x6a\x61\xd2\x06\x38\xb8\xe5\xc0\x26\x93\x0c\x3e\x60\x39"
			"\xa3\x3c\xe4\x59\x64\xff\x21\x67\xf6\xec\xed\xd4\x19\xdb\x06\xc1")),

	VECTOR("base64", "nothing", 0, "dno", SPACE(8)),
	VECTOR("base64", "two pads", 8, "dno", TEXT("foob"), SPACE(8), OUT_TEXT("Zm9vYg==")),
	VECTOR("base64", "one pad", 8, "dno", TEXT("fooba"), SPACE(8), OUT_TEXT("Zm9vYmE=")),
	VECTOR("base64", "no pad", 8, "dno", TEXT("foobar"), SPACE(8), OUT_TEXT("Zm9vYmFy")),

	VECTOR("lz4", "literals only", 5, "dnoi", TEXT("\x50hello"), SPACE(16), NUMBERS(16), OUT_TEXT("hello")),
	VECTOR("lz4", "a match over itself", 13, "dnoi", TEXT("\x35" "abc\3\0" "\x10" "d"), SPACE(16), NUMBERS(16),
	       OUT_TEXT("abcabcabcabcd")),
	VECTOR("lz4", "a long match", 276, "dnoi", TEXT("\x1fz\1\0\xff\0" "\x10!"), SPACE(512), NUMBERS(512)),
	VECTOR("lz4", "an offset before the start", ~0ull, "dnoi", TEXT("\x10" "a\2\0"), SPACE(16), NUMBERS(16)),
	VECTOR("lz4", "output that is too small", ~0ull, "dnoi", TEXT("\x50hello"), SPACE(16), NUMBERS(4)),

	VECTOR("strsearch", "overlapping", 3, "dnml", TEXT("abababa"), MORE_TEXT("aba")),
	VECTOR("strsearch", "at the end", 1, "dnml", TEXT("a stitch in time"), MORE_TEXT("time")),
	VECTOR("strsearch", "not there", 0, "dnml", TEXT("a stitch in time"), MORE_TEXT("tier")),
	VECTOR("strsearch", "longer than the text", 0, "dnml", TEXT("tie"), MORE_TEXT("tier")),

	/* positions 0, 1, 2 and 4: 1*1 + 2*2 + 3*3 + 5*4 */
	VECTOR("bsearch", "between and beyond", 34, "dimi", ARRAY(uint32_t, 1, 3, 5, 7),
	       MORE_ARRAY(uint32_t, 0, 3, 4, 9), NUMBERS(4, 4)),

	VECTOR("insertsort", "three numbers", 14, "dio", ARRAY(uint32_t, 3, 1, 2), SPACE(12), NUMBERS(3),
	       OUT_ARRAY(uint32_t, 1, 2, 3)),
	VECTOR("insertsort", "unsigned", 0x1fffffffe, "dio", ARRAY(uint32_t, 0xffffffff, 0), SPACE(8), NUMBERS(2),
	       OUT_ARRAY(uint32_t, 0, 0xffffffff)),

	VECTOR("quicksort", "three numbers", 14, "dioi", ARRAY(uint32_t, 3, 1, 2), SPACE(12), NUMBERS(3, SORT_ASCENDING),
	       OUT_ARRAY(uint32_t, 1, 2, 3)),
	VECTOR("quicksort", "none", 0, "dioi", SPACE(8), NUMBERS(0, SORT_ASCENDING)),
	VECTOR("quicksort", "downwards", 10, "dioi", ARRAY(uint32_t, 3, 1, 2), SPACE(12), NUMBERS(3, SORT_DESCENDING),
	       OUT_ARRAY(uint32_t, 3, 2, 1)),
	VECTOR("quicksort", "signed", 0x100000002, "dioi", ARRAY(uint32_t, 1, 0xffffffff, 0), SPACE(12),
	       NUMBERS(3, SORT_SIGNED), OUT_ARRAY(uint32_t, 0xffffffff, 0, 1)),
	VECTOR("quicksort", "by ones", 54, "dioi", ARRAY(uint32_t, 7, 8, 3, 1), SPACE(16), NUMBERS(4, SORT_ONES),
	       OUT_ARRAY(uint32_t, 1, 8, 3, 7)),

	/* the tree of a well-known exercise: 38 over a red 19 (12 and 31) and 41, then 8 below 12 */
	VECTOR("rbtree", "the exercise", 6 << 8 | 2, "dioi", EXERCISE, NUMBERS(6, 100),
	       OUT_ARRAY(uint64_t, 8, 12, 19, 31, 38, 41)),
	VECTOR("rbtree", "without the even ones", 3 << 8 | 2, "dioi", EXERCISE, NUMBERS(6, 2),
	       OUT_ARRAY(uint64_t, 19, 31, 41)),
	VECTOR("rbtree", "without all", 0, "dioi", EXERCISE, NUMBERS(6, 1)),
	VECTOR("rbtree", "one key", 1 << 8 | 1, "dioi", ARRAY(uint32_t, 7, 7), SPACE(2 * (8 + RBTREE_NODE)), NUMBERS(2, 2),
	       OUT_ARRAY(uint64_t, 7)),

	VECTOR("json", "the RFC's object", 25, "dnoi", TEXT(JSON_IMAGE), SPACE(32 * 16), NUMBERS(32),
	       OUT_ARRAY(struct json_token, { JSON_OBJECT, JSON_NO_PARENT, 0, 196 }, { JSON_NAME, 0, 1, 8 },
			 { JSON_OBJECT, 0, 9, 195 }, { JSON_NAME, 2, 10, 17 }, { JSON_NUMBER, 2, 18, 21 })),
	VECTOR("json", "a lone string", 1, "dnoi", TEXT("  \"\\u0041\\n\" "), SPACE(16), NUMBERS(1),
	       OUT_ARRAY(struct json_token, { JSON_STRING, JSON_NO_PARENT, 2, 12 })),
	VECTOR("json", "numbers", 7, "dnoi", TEXT("[0,-0,1.5,1e9,-2.50E-7,10]"), SPACE(128), NUMBERS(8)),
	VECTOR("json", "words", 4, "dnoi", TEXT("[true,false,null]"), SPACE(64), NUMBERS(4)),
	VECTOR("json", "too many tokens", JSON_FAILED, "dnoi", TEXT("[true,false,null]"), SPACE(64), NUMBERS(3)),
	VECTOR("json", "nothing", JSON_FAILED, "dnoi", TEXT(" "), SPACE(64), NUMBERS(4)),
	VECTOR("json", "a comma too many", JSON_FAILED, "dnoi", TEXT("[1,]"), SPACE(64), NUMBERS(4)),
	VECTOR("json", "a leading zero", JSON_FAILED, "dnoi", TEXT("[01]"), SPACE(64), NUMBERS(4)),
	VECTOR("json", "no digit", JSON_FAILED, "dnoi", TEXT("[1.]"), SPACE(64), NUMBERS(4)),
	VECTOR("json", "no colon", JSON_FAILED, "dnoi", TEXT("{\"a\" 1}"), SPACE(64), NUMBERS(4)),
	VECTOR("json", "an unknown escape", JSON_FAILED, "dnoi", TEXT("\"\\x41\""), SPACE(64), NUMBERS(4)),
	VECTOR("json", "the wrong bracket", JSON_FAILED, "dnoi", TEXT("[1}"), SPACE(64), NUMBERS(4)),
	VECTOR("json", "cut off", JSON_FAILED, "dnoi", TEXT("[[1]"), SPACE(64), NUMBERS(4)),
	VECTOR("json", "two values", JSON_FAILED, "dnoi", TEXT("1 2"), SPACE(64), NUMBERS(4)),

	VECTOR("matmul", "two by two", 69, "dmoi", ARRAY(uint32_t, 1, 2, 3, 4), MORE_ARRAY(uint32_t, 5, 6, 7, 8),
	       SPACE(16), NUMBERS(2), OUT_ARRAY(uint32_t, 19, 22, 43, 50)),

	VECTOR("sieve", "none", 0, "oi", SPACE(8), NUMBERS(2)),
	VECTOR("sieve", "below 30", 10, "oi", SPACE(8), NUMBERS(30), OUT_ARRAY(uint64_t, 0x208a28ac)),
	VECTOR("sieve", "below 1000", 168, "oi", SPACE(128), NUMBERS(1000)),
	VECTOR("sieve", "below a million", 78498, "oi", SPACE(125000), NUMBERS(1000000)),

	VECTOR("fib", "the first", 0, "i", NUMBERS(0)),
	VECTOR("fib", "the second", 1, "i", NUMBERS(1)),
	VECTOR("fib", "of 20", 6765, "i", NUMBERS(20)),

	VECTOR("packet", "a good one", FLOW_HASH, "dno",
	       ARRAY(uint8_t, 42, 0, ETHERNET, 8, 0, IPV4(IPV4_SUM), UDP), COUNTS(1, 0, 0, 0, 0, 0, 0)),
	VECTOR("packet", "in a VLAN", FLOW_HASH, "dno",
	       ARRAY(uint8_t, 46, 0, ETHERNET, 0x81, 0, 0, 7, 8, 0, IPV4(IPV4_SUM), UDP), COUNTS(1, 0, 0, 0, 0, 0, 0)),
	VECTOR("packet", "a bad checksum", 0, "dno",
	       ARRAY(uint8_t, 42, 0, ETHERNET, 8, 0, IPV4(IPV4_SUM + 1), UDP), COUNTS(0, 0, 0, 0, 1, 0, 0)),
	VECTOR("packet", "cut off, then IPv6", 0, "dno",
	       ARRAY(uint8_t, 20, 0, ETHERNET, 8, 0, 0x45, 0, 0, 0x1c, 0, 0, 0, 0, 14, 0, ETHERNET, 0x86, 0xdd),
	       COUNTS(0, 1, 1, 0, 0, 0, 0)),

	VECTOR("interp", "10!", 3628800, "dnii", FACTORIAL, NUMBERS(10, 1000)),
	VECTOR("interp", "operators", 21, "dnii", OPERATORS, NUMBERS(0, 1000)),
	VECTOR("interp", "out of fuel", INTERP_FAILED, "dnii", FACTORIAL, NUMBERS(10, 20)),
	VECTOR("interp", "an unknown opcode", INTERP_FAILED, "dnii", ARRAY(uint8_t, _INTERP_N), NUMBERS(0, 10)),

	/* areas and perimeters: 12 + 14, 12 + 16, 314 + 62, 235 + 94 */
	VECTOR("dispatch", "one of each", 759, "dii",
	       ARRAY(struct shape, { SHAPE_RECTANGLE, 3, 4 }, { SHAPE_TRIANGLE, 6, 4 }, { SHAPE_CIRCLE, 10, 0 },
		     { SHAPE_RING, 10, 5 }), NUMBERS(4, 0)),
	VECTOR("dispatch", "mixed", 12 << 7 ^ 14, "dii", ARRAY(struct shape, { SHAPE_RECTANGLE, 3, 4 }), NUMBERS(1, 1)),
};
const size_t n_workload_vectors = ARRAY_SIZE(workload_vectors);
