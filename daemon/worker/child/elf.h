/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The only place that knows libelf: an object file for EM_BPF becomes a flat module image (bytecode/image.h). Runs in
 * the sandboxed worker: the file is hostile. */

#include <stdbool.h>
#include <stddef.h>
#include "bytecode/image.h"

/* @file: n bytes of the object, not changed (the caller may pass private memory; libelf is opened with elf_memory).
 * On success *ret is a malloc()ed image of *ret_n bytes that image_check() accepts. On refusal the sentence names the
 * section, the offset in it and the reason. No global state, no files, no output. */
bool elf_to_image(void *file, size_t n, void **ret, size_t *ret_n, struct refusal *refusal);
