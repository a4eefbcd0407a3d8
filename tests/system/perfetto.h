/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Reads a Perfetto trace, and fails at whatever Perfetto's published format does not have, or has in another way
 *
 * Protobuf by the rules of its wire format; field numbers and types as trace_packet.proto, clock_snapshot.proto, track_event.proto,
 * track_descriptor.proto, counter_descriptor.proto and debug_annotation.proto publish them, restricted to what a trace of tiers may
 * have. Shares nothing with what writes the file. */

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
	uint64_t slice_ns;		/* when the newest one began or ended, or the counter changed */
	char slices[256];		/* their names, a space behind each */
};

struct perfetto {
	unsigned char *bytes;
	size_t n;
	struct perfetto_track tracks[PERFETTO_TRACKS_MAX];
	int n_tracks;
	unsigned int n_packets, n_instants, n_clocks;
	uint64_t sequence;		/* of packets: a trace of one writer has one */
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

/* Fails unless it is of that wire type: a message, text or bytes, or else a number. */
static inline void perfetto_is(const struct perfetto_field *field, bool is_bytes)
{
	if (!!field->bytes != is_bytes)
		fail_msg("field %lu has the wrong wire type", (unsigned long)field->number);
}

static inline void perfetto_unknown(const char *message, const struct perfetto_field *field)
{
	fail_msg("field %lu is none of a %s here", (unsigned long)field->number, message);
}

static inline void perfetto_text(char *to, size_t n_max, const struct perfetto_field *field)
{
	perfetto_is(field, true);
	assert_null(memchr(field->bytes, 0, field->n));
	snprintf(to, n_max, "%.*s", (int)field->n, field->bytes);
}

/* CounterDescriptor: its unit is UNIT_COUNT */
static inline void perfetto_counter(const struct perfetto_field *message)
{
	const unsigned char *p = message->bytes, *end = p + message->n;
	struct perfetto_field field;
	int n = 0;

	perfetto_is(message, true);
	for (; perfetto_field(&p, end, &field); n++) {
		perfetto_is(&field, false);
		if (field.number != 3)
			perfetto_unknown("CounterDescriptor", &field);
		assert_int_equal(field.value, 2);
	}
	assert_int_equal(n, 1);
}

/* DebugAnnotation: a name and one value, a number or text */
static inline void perfetto_annotation(const struct perfetto_field *message)
{
	const unsigned char *p = message->bytes, *end = p + message->n;
	int n_names = 0, n_values = 0;
	struct perfetto_field field;
	char text[128];

	perfetto_is(message, true);
	while (perfetto_field(&p, end, &field)) {
		if (field.number == 10)
			perfetto_text(text, sizeof(text), &field), n_names += *text != '\0';
		else if (field.number == 6)
			perfetto_text(text, sizeof(text), &field), n_values++;
		else if (field.number == 3)
			perfetto_is(&field, false), n_values++;
		else
			perfetto_unknown("DebugAnnotation", &field);
	}
	assert_int_equal(n_names, 1);
	assert_int_equal(n_values, 1);
}

/* ClockSnapshot: the trace's clock (BOOTTIME, 6) and the wall clock (REALTIME, 1) at one moment, so that packets' timestamps, which
 * name no clock, can be told in either. */
static inline void perfetto_clocks(struct perfetto *trace, const struct perfetto_field *message)
{
	const unsigned char *p = message->bytes, *end = p + message->n;
	uint64_t ids = 0;
	struct perfetto_field clock, field;

	perfetto_is(message, true);
	assert_int_equal(trace->n_packets, 1);	/* before anything that has a time */
	while (perfetto_field(&p, end, &clock)) {
		const unsigned char *q = clock.bytes, *q_end = q + clock.n;
		uint64_t id = 0, time_ns = 0;

		perfetto_is(&clock, true);
		if (clock.number != 1)
			perfetto_unknown("ClockSnapshot", &clock);
		while (perfetto_field(&q, q_end, &field)) {
			perfetto_is(&field, false);
			if (field.number == 1)
				id = field.value;
			else if (field.number == 2)
				time_ns = field.value;
			else
				perfetto_unknown("Clock", &field);
		}
		assert_true((id == 1 || id == 6) && !(ids >> id & 1));
		assert_true(time_ns > 0);
		ids |= UINT64_C(1) << id;
	}
	assert_int_equal(ids, 1u << 1 | 1u << 6);
	trace->n_clocks++;
}

static inline void perfetto_descriptor(struct perfetto *trace, const struct perfetto_field *message)
{
	const unsigned char *p = message->bytes, *end = p + message->n;
	struct perfetto_track track = { .uuid = 0 };
	struct perfetto_field field;

	while (perfetto_field(&p, end, &field)) {
		if (field.number == 1)
			perfetto_is(&field, false), track.uuid = field.value;
		else if (field.number == 2)
			perfetto_text(track.name, sizeof(track.name), &field);
		else if (field.number == 5)
			perfetto_is(&field, false), track.parent = field.value;
		else if (field.number == 8)
			perfetto_counter(&field), track.is_counter = true;
		else
			perfetto_unknown("TrackDescriptor", &field);
	}
	assert_true(track.uuid != 0 && *track.name);
	assert_null(perfetto_track(trace, track.uuid));
	assert_true(!track.parent || perfetto_track(trace, track.parent));
	assert_true(trace->n_tracks < PERFETTO_TRACKS_MAX);
	trace->tracks[trace->n_tracks++] = track;
}

struct perfetto_event {
	uint64_t type, uuid, counter;
	bool has_counter;
	int n_categories, n_annotations;
	char name[64];
};

static inline struct perfetto_event perfetto_event(const struct perfetto_field *message)
{
	const unsigned char *p = message->bytes, *end = p + message->n;
	struct perfetto_event event = { .type = 0 };
	struct perfetto_field field;
	char category[64];

	perfetto_is(message, true);
	while (perfetto_field(&p, end, &field)) {
		if (field.number == 9)
			perfetto_is(&field, false), event.type = field.value;
		else if (field.number == 11)
			perfetto_is(&field, false), event.uuid = field.value;
		else if (field.number == 22)
			perfetto_text(category, sizeof(category), &field), event.n_categories++;
		else if (field.number == 23)
			perfetto_text(event.name, sizeof(event.name), &field);
		else if (field.number == 30)
			perfetto_is(&field, false), event.counter = field.value, event.has_counter = true;
		else if (field.number == 4)
			perfetto_annotation(&field), event.n_annotations++;
		else
			perfetto_unknown("TrackEvent", &field);
	}
	return event;
}

/* TYPE_SLICE_BEGIN 1, TYPE_SLICE_END 2, TYPE_INSTANT 3, TYPE_COUNTER 4. Perfetto sorts by time, so where the file's order means
 * something, on a track of slices or of a counter, the times must not go back; an instant may be told later than it was. */
static inline void perfetto_track_event(struct perfetto *trace, const struct perfetto_field *message, uint64_t time_ns)
{
	const struct perfetto_event event = perfetto_event(message);
	struct perfetto_track *track = perfetto_track(trace, event.uuid);

	assert_non_null(track);
	assert_int_equal(track->is_counter, event.type == 4);
	assert_int_equal(event.has_counter, event.type == 4);
	assert_int_equal(event.n_categories, event.type == 1 || event.type == 3);
	assert_int_equal(*event.name != '\0', event.type == 1 || event.type == 3);
	assert_true(event.type != 4 || !event.n_annotations);
	assert_true(event.type == 3 || time_ns >= track->slice_ns);
	if (event.type != 3)
		track->slice_ns = time_ns;
	switch (event.type) {
	case 1:
		assert_int_equal(track->n_open++, 0);	/* a method has one tier at a time */
		assert_true(strlen(track->slices) + strlen(event.name) + 2 < sizeof(track->slices));
		strcat(strcat(track->slices, event.name), " ");
		break;
	case 2:
		assert_int_equal(track->n_open--, 1);
		break;
	case 3:
		trace->n_instants++;
		break;
	case 4:
		trace->counter_last = event.counter;
		trace->counter_most = event.counter > trace->counter_most ? event.counter : trace->counter_most;
		break;
	default:
		fail_msg("a track event of type %lu", (unsigned long)event.type);
	}
}

/* The packet's own fields: its time and sequence (trusted_packet_sequence_id, without which the viewer drops it). The first one of a
 * sequence says SEQ_INCREMENTAL_STATE_CLEARED. */
static inline uint64_t perfetto_head(struct perfetto *trace, const struct perfetto_field *message, struct perfetto_field *ret_data)
{
	const unsigned char *p = message->bytes, *end = p + message->n;
	uint64_t sequence = 0, time_ns = 0, flags = 0;
	struct perfetto_field field;
	int n_data = 0;

	while (perfetto_field(&p, end, &field)) {
		if (field.number == 6 || field.number == 60 || field.number == 11) {
			*ret_data = field;
			n_data++;
			continue;
		}
		perfetto_is(&field, false);
		if (field.number == 8)
			time_ns = field.value;
		else if (field.number == 10)
			sequence = field.value;
		else if (field.number == 13)
			flags = field.value;
		else
			perfetto_unknown("TracePacket", &field);
	}
	assert_int_equal(n_data, 1);
	assert_true(sequence != 0 && sequence <= UINT32_MAX);
	assert_int_equal(flags, trace->n_packets++ ? 0 : 1);
	assert_int_equal(sequence, trace->sequence ? trace->sequence : sequence);
	trace->sequence = sequence;
	return time_ns;
}

static inline void perfetto_packet(struct perfetto *trace, const struct perfetto_field *message)
{
	struct perfetto_field data = { .number = 0 };
	const uint64_t time_ns = perfetto_head(trace, message, &data);

	if (data.number == 60) {
		perfetto_is(&data, true);
		perfetto_descriptor(trace, &data);
		return;
	}
	assert_true(time_ns > 0);
	trace->first_ns = trace->first_ns ? trace->first_ns : time_ns;
	trace->last_ns = time_ns;
	if (data.number == 6)
		perfetto_clocks(trace, &data);
	else
		perfetto_track_event(trace, &data, time_ns);
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
		perfetto_is(&field, true);
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
