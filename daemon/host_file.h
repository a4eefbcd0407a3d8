/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The files of host_kept.h, as the one who writes them and the one who reads them have them. Another layout gets another magic: files
 * do not outlive the format that a successor could take over. */

#include <fcntl.h>
#include <stdint.h>
#include "host.h"

#define HOST_FILE_MAGIC 0x3154534852454954ull	/* "TIERHST1" */
#define BODY_FILE_MAGIC 0x3159444252454954ull	/* "TIERBDY1" */
#define FILE_SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

enum host_kind { HOST_IMAGE, HOST_INSTANCE };

/* header | ahead[n_ahead] | image */
struct host_file {
	uint64_t magic;
	uint64_t id, base;
	uint64_t n_image;		/* bytes */
	uint32_t kind, n_ahead;
	uint32_t pgo, osr, osr_hit_limit, osr_counter_bump, osr_initial_counter;
	uint32_t ready_to_run;
	struct compiler compiler;
	uint32_t n_knobs, reserved;
	struct { uint32_t object, reserved; uint64_t value; } knobs[HOST_KNOBS_MAX];
};

/* header | image */
struct body_file {
	uint64_t magic;
	uint64_t module;
	uint64_t n_image;
	uint64_t rodata, tier0, n_tier0, stub;
	uint32_t method, id, source_method, reserved;
};
_Static_assert(sizeof(struct host_file) % 8 == 0 && sizeof(struct host_ahead) % 8 == 0, "the image is aligned");
