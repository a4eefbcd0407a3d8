/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Object files for the tests of the loader: built by a compiler in a folder of the test's own, loaded, checked */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "bytecode/verify.h"
#include "util/base.h"
#include "worker/child/elf.h"

struct object_file {
	uint8_t *bytes;
	size_t n;
};

static char folder[] = "/tmp/test_object.XXXXXX";

_unused_ static void folder_make(void)
{
	assert_non_null(mkdtemp(folder));
}

_unused_ static int folder_remove(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command);
}

/* -- Building --- */

_unused_ static void write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
}

_unused_ static struct object_file read_object(const char *path)
{
	struct object_file object;
	FILE *file = fopen(path, "r");

	assert_non_null(file);
	fseek(file, 0, SEEK_END);
	object.n = ftell(file);
	rewind(file);
	object.bytes = malloc(object.n);
	assert_int_equal(fread(object.bytes, 1, object.n, file), object.n);
	fclose(file);
	return object;
}

_unused_ static void compile_as(const char *name, const char *compiler, const char *options, const char *source)
{
	char path[128], command[512];

	snprintf(path, sizeof(path), "%s/%s.c", folder, name);
	write_text(path, source);
	snprintf(command, sizeof(command), "%s -target bpf -Wno-everything %s -c %s/%s.c -o %s/%s.o", compiler, options, folder,
		 name, folder, name);
	if (system(command))
		fail_msg("%s", command);
}

_unused_ static struct object_file compile(const char *compiler, const char *options, const char *source)
{
	char path[128];

	compile_as("snippet", compiler, options, source);
	snprintf(path, sizeof(path), "%s/snippet.o", folder);
	return read_object(path);
}

_unused_ static struct object_file copy_of(const struct object_file *object)
{
	struct object_file copy = { .bytes = malloc(object->n), .n = object->n };

	memcpy(copy.bytes, object->bytes, object->n);
	return copy;
}

/* -- Loading --- */

_unused_ static struct image load(const struct object_file *object, void **ret_bytes)
{
	struct refusal refusal = {};
	struct image image;
	size_t n;

	if (!elf_to_image(object->bytes, object->n, ret_bytes, &n, &refusal))
		fail_msg("refused: %s", refusal.text);
	assert_true(image_check(*ret_bytes, n, &image, &refusal));
	if (!verify_image(&image, &refusal))
		fail_msg("not valid: %s", refusal.text);
	return image;
}
