/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What every workload needs, under `clang -target bpf` and natively (-DNATIVE)
 *
 * A workload is ordinary C without libc. It has one entry method, `export u64 ENTRY(name)(...)`, of at most five
 * arguments that are integers or pointers, and helpers that are `method`s: each stays a method of its own in the
 * module, so that the daemon counts, promotes and inlines it, while the native build leaves that choice to clang.
 * The native entry is called native_NAME, so that all workloads link into one program.
 *
 * clang resolves a call of a local function in the same section by itself; calls of global functions and calls into
 * another section (in_section) come with a relocation. */

typedef __UINT8_TYPE__ u8;
typedef __UINT16_TYPE__ u16;
typedef __UINT32_TYPE__ u32;
typedef __UINT64_TYPE__ u64;

/* For a look at bytes as something wider. Loads may be unaligned: both targets are this machine, which allows it,
 * whereas a packed struct would make clang load byte by byte for BPF. */
typedef u16 __attribute__((may_alias)) u16_alias;
typedef u32 __attribute__((may_alias)) u32_alias;
typedef u64 __attribute__((may_alias)) u64_alias;

/* There is no memset() to call: a loop that fills memory must stay a loop. */
#if defined(__has_attribute) && __has_attribute(no_builtin)
#define no_libc __attribute__((no_builtin))
#else
#define no_libc
#endif

#ifdef NATIVE
#define ENTRY(name) native_##name
#define export __attribute__((visibility("default"))) no_libc
#define method static no_libc
#define in_section(name)
#define import
#else
#define ENTRY(name) name
#define export __attribute__((visibility("default"), noinline)) no_libc
#define method static __attribute__((noinline)) no_libc
#define in_section(name) __attribute__((section(name)))
#define import in_section(".ksyms")
#endif
#define import_weak import __attribute__((weak))

static inline u32 rotl32(u32 x, unsigned int n) { return x << n | x >> (32 - n); }
static inline u64 rotl64(u64 x, unsigned int n) { return x << n | x >> (64 - n); }
static inline u32 load32(const u8 *p) { return *(const u32_alias *)p; }
static inline u64 load64(const u8 *p) { return *(const u64_alias *)p; }
