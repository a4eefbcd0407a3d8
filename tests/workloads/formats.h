/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a workload and whoever makes its input agree on: the interpreter's opcodes, the shapes, the packets, the
 * tokens. Includes nothing: tests include it beside headers to which workload.h's words mean something else. */

/* interp: a byte of opcode, then a byte of operand where the list says so. Jumps go to byte offsets in the code. */
enum interp_op {
	INTERP_HALT,	/* the result is the top of the stack */
	INTERP_PUSH,	/* operand: the value */
	INTERP_ARG,	/* pushes the argument of the run */
	INTERP_LOAD,	/* operand: which local */
	INTERP_STORE,	/* operand: which local */
	INTERP_ADD,
	INTERP_SUB,
	INTERP_MUL,
	INTERP_XOR,
	INTERP_SHR,
	INTERP_LESS,
	INTERP_DUP,
	INTERP_DROP,
	INTERP_JUMP,	/* operand: where to */
	INTERP_JUMP_IF,	/* operand: where to, unless the popped value is 0 */
	_INTERP_N,
};
#define INTERP_FAILED (~0ull)	/* unknown opcode, code or fuel exhausted */

/* dispatch: what a shape is decides which function computes it */
enum shape_kind { SHAPE_RECTANGLE, SHAPE_TRIANGLE, SHAPE_CIRCLE, SHAPE_RING, _SHAPE_N };
struct shape {
	unsigned int kind;	/* enum shape_kind; others are taken modulo _SHAPE_N */
	unsigned int a, b;	/* width and height; base and height; radius; outer and inner radius */
};

/* packet: a capture is a row of records: u16 length in host order, then the frame, padded to 8 bytes. The two bytes in
 * front of a frame align its IPv4 header to 4, as network drivers do. */
enum packet_verdict {
	PACKET_PASS,
	PACKET_SHORT,		/* a header is cut off */
	PACKET_NOT_IPV4,
	PACKET_MALFORMED,	/* version, header length or total length make no sense */
	PACKET_BAD_CHECKSUM,
	PACKET_FRAGMENT,	/* not the first one: no ports in it */
	PACKET_OTHER,		/* neither TCP nor UDP */
	_PACKET_N,
};

/* json: a token is a value, or a name in an object. From its first byte to behind its last one; parent is the number of the
 * token of the container. */
enum json_kind { JSON_NONE, JSON_OBJECT, JSON_ARRAY, JSON_NAME, JSON_STRING, JSON_NUMBER, JSON_TRUE, JSON_FALSE, JSON_NULL };
struct json_token {
	unsigned int kind, parent, begin, end;
};
#define JSON_NO_PARENT (~0u)
#define JSON_FAILED (~0ull)

/* quicksort: which comparison function; others are taken modulo _SORT_N */
enum sort_order { SORT_ASCENDING, SORT_DESCENDING, SORT_SIGNED, SORT_ONES, _SORT_N };

/* rbtree */
#define RBTREE_NODE 40	/* bytes of the pool for each key */
#define RBTREE_FAILED (~0ull)
