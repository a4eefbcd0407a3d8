/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Reads a Perfetto trace as far as tests want to know what is in it
 *
 * Protobuf by the rules of its wire format; field numbers as Perfetto publishes them (trace_packet.proto, track_event.proto,
 * track_descriptor.proto). Shares nothing with what writes the file. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PERFETTO_TRACKS_MAX 64

struct perfetto_track {
	uint64_t uuid, parent;
	char name[64];
	bool is_counter;
	int n_open;			/* slices */
	char slices[256];		/* their names, a space behind each */
};

struct perfetto {
	unsigned char *bytes;
	size_t n;
	struct perfetto_track tracks[PERFETTO_TRACKS_MAX];
	int n_tracks;
	unsigned int n_instants, n_clocks;
	uint64_t counter_last, counter_most;
	uint64_t first_ns, last_ns;
};

struct perfetto_field {
	uint64_t number;		/* of the field */
	uint64_t value;			/* varint */
	const unsigned char *bytes;	/* length-delimited; NULL: a varint */
	size_t n;
};

static inline uint64_t perfetto_varint(const unsigned char **p, const unsigned char *end)
{
	uint64_t value = 0;

	for (unsigned int shift = 0;; shift += 7) {
		if (*p == end || shift > 63)
			fail_msg("a varint has no end");
		value |= (uint64_t)(**p & 0x7f) << shift;
		if (!(*(*p)++ & 0x80))
			return value;
	}
}

/* The next field of a message; false at its end. */
static inline bool perfetto_field(const unsigned char **p, const unsigned char *end, struct perfetto_field *ret)
{
	uint64_t key;

	if (*p == end)
		return false;
	key = perfetto_varint(p, end);
	*ret = (struct perfetto_field){ .number = key >> 3, .value = perfetto_varint(p, end) };
	assert_true(ret->number > 0);
	if ((key & 7) == 2) {
		assert_true(ret->value <= (uint64_t)(end - *p));
		ret->bytes = *p;
		ret->n = ret->value;
		*p += ret->n;
	} else {
		assert_int_equal(key & 7, 0);
	}
	return true;
}

static inline struct perfetto_track *perfetto_track(struct perfetto *trace, uint64_t uuid)
{
	for (int i = 0; i < trace->n_tracks; i++)
		if (trace->tracks[i].uuid == uuid)
			return &trace->tracks[i];
	return NULL;
}

static inline void perfetto_text(char *to, size_t n_max, const struct perfetto_field *field)
{
	assert_non_null(field->bytes);
	snprintf(to, n_max, "%.*s", (int)field->n, field->bytes);
}

static inline void perfetto_descriptor(struct perfetto *trace, const struct perfetto_field *message)
{
	const unsigned char *p = message->bytes, *end = p + message->n;
	struct perfetto_track track = { .uuid = 0 };
	struct perfetto_field field;

	while (perfetto_field(&p, end, &field)) {
		if (field.number == 1)
			track.uuid = field.value;
		else if (field.number == 2)
			perfetto_text(track.name, sizeof(track.name), &field);
		else if (field.number == 5)
			track.parent = field.value;
		else if (field.number == 8)
			track.is_counter = true;
	}
	assert_true(track.uuid != 0 && *track.name);
	assert_null(perfetto_track(trace, track.uuid));
	assert_true(!track.parent || perfetto_track(trace, track.parent));
	assert_true(trace->n_tracks < PERFETTO_TRACKS_MAX);
	trace->tracks[trace->n_tracks++] = track;
}

static inline void perfetto_track_event(struct perfetto *trace, const struct perfetto_field *message)
{
	const unsigned char *p = message->bytes, *end = p + message->n;
	uint64_t type = 0, uuid = 0, counter = UINT64_MAX;
	struct perfetto_track *track;
	struct perfetto_field field;
	char name[64] = "";

	while (perfetto_field(&p, end, &field)) {
		if (field.number == 9)
			type = field.value;
		else if (field.number == 11)
			uuid = field.value;
		else if (field.number == 23)
			perfetto_text(name, sizeof(name), &field);
		else if (field.number == 30)
			counter = field.value;
	}
	track = perfetto_track(trace, uuid);
	assert_non_null(track);
	assert_int_equal(track->is_counter, type == 4);
	switch (type) {
	case 1:
		assert_int_equal(track->n_open++, 0);	/* a method has one tier at a time */
		assert_true(strlen(track->slices) + strlen(name) + 2 < sizeof(track->slices));
		strcat(strcat(track->slices, name), " ");
		break;
	case 2:
		assert_int_equal(track->n_open--, 1);
		break;
	case 3:
		assert_true(*name != '\0');
		trace->n_instants++;
		break;
	case 4:
		assert_true(counter != UINT64_MAX);
		trace->counter_last = counter;
		trace->counter_most = counter > trace->counter_most ? counter : trace->counter_most;
		break;
	default:
		fail_msg("a track event of type %lu", (unsigned long)type);
	}
}

static inline void perfetto_packet(struct perfetto *trace, const struct perfetto_field *message)
{
	const unsigned char *p = message->bytes, *end = p + message->n;
	struct perfetto_field field;
	uint64_t sequence = 0;
	int n_data = 0;

	while (perfetto_field(&p, end, &field)) {
		if (field.number == 8) {
			trace->first_ns = trace->first_ns ? trace->first_ns : field.value;
			trace->last_ns = field.value;
		} else if (field.number == 10) {
			sequence = field.value;
		} else if (field.number == 6) {
			trace->n_clocks++, n_data++;
		} else if (field.number == 60) {
			perfetto_descriptor(trace, &field), n_data++;
		} else if (field.number == 11) {
			perfetto_track_event(trace, &field), n_data++;
		} else {
			assert_int_equal(field.number, 13);
		}
	}
	assert_true(sequence != 0);	/* without, the viewer drops the packet */
	assert_int_equal(n_data, 1);
}

static inline void perfetto_read(struct perfetto *trace, const char *path)
{
	FILE *file = fopen(path, "r");

	*trace = (struct perfetto){ .bytes = malloc(1 << 20) };
	assert_non_null(file);
	trace->n = fread(trace->bytes, 1, 1 << 20, file);
	assert_true(trace->n > 0 && trace->n < 1 << 20);
	fclose(file);
}

static inline void perfetto_check(struct perfetto *trace)
{
	const unsigned char *p = trace->bytes, *end = p + trace->n;
	struct perfetto_field field;

	while (perfetto_field(&p, end, &field)) {
		assert_int_equal(field.number, 1);
		assert_non_null(field.bytes);
		perfetto_packet(trace, &field);
	}
	assert_int_equal(trace->n_clocks, 1);
}

static inline void perfetto_expect_slices(struct perfetto *trace, const char *name, const char *slices)
{
	for (int i = 0; i < trace->n_tracks; i++)
		if (!strcmp(trace->tracks[i].name, name)) {
			assert_string_equal(trace->tracks[i].slices, slices);
			return;
		}
	fail_msg("no track '%s'", name);
}

static inline void perfetto_free(struct perfetto *trace)
{
	free(trace->bytes);
}
