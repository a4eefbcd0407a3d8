/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "export.h"
#include "proto.h"

/* Field numbers of Perfetto's protos/perfetto/trace/, as far as they are used here */
enum {
	TRACE_PACKET = 1,
	PACKET_CLOCK_SNAPSHOT = 6, PACKET_TIMESTAMP = 8, PACKET_SEQUENCE_ID = 10, PACKET_TRACK_EVENT = 11, PACKET_SEQUENCE_FLAGS = 13,
	PACKET_TRACK_DESCRIPTOR = 60,
	SNAPSHOT_CLOCKS = 1, CLOCK_ID = 1, CLOCK_TIMESTAMP = 2, CLOCK_IS_REALTIME = 1, CLOCK_IS_BOOTTIME = 6,
	DESCRIPTOR_UUID = 1, DESCRIPTOR_NAME = 2, DESCRIPTOR_PARENT_UUID = 5, DESCRIPTOR_COUNTER = 8,
	COUNTER_UNIT = 3, UNIT_IS_COUNT = 2,
	EVENT_ANNOTATIONS = 4, EVENT_TYPE = 9, EVENT_TRACK_UUID = 11, EVENT_CATEGORIES = 22, EVENT_NAME = 23, EVENT_COUNTER_VALUE = 30,
	TYPE_IS_SLICE_BEGIN = 1, TYPE_IS_SLICE_END = 2, TYPE_IS_INSTANT = 3, TYPE_IS_COUNTER = 4,
	ANNOTATION_UINT = 3, ANNOTATION_STRING = 6, ANNOTATION_NAME = 10,
	FLAGS_ARE_STATE_CLEARED = 1,
};
#define SEQUENCE_ID 1u
#define UUID_QUEUE 1u
#define UUID_GAPS 2u
#define UUID_MODULES (UINT64_C(1) << 62)
#define UUID_USERS (UINT64_C(2) << 62)
#define METHOD_BITS 20	/* a module has 32768 methods at the most */

/* What is known of a track: has it been described, is a slice open on it, does its method wait in the queue */
struct track {
	uint64_t uuid;		/* 0: free */
	bool is_open, is_queued;
};

struct export {
	struct tier_conn *conn;
	FILE *to;
	struct track *tracks;	/* open addressing; at most half full */
	size_t n_tracks, n_tracks_max;
	uint64_t n_queued;
	uint64_t newest_ns;		/* of slices and the counter: the wall clock may go back, and slices must nest */
	struct tier_module *module;	/* the one whose names were asked for last; NULL: none, or not to be opened */
	uint64_t module_id;
	char module_name[160];
	uint64_t gap_first, gap_last;	/* not told yet; gap_last 0: none */
	bool has_begun;
};

static void *need(void *p)
{
	if (!p) {
		fprintf(stderr, "tierctl: out of memory\n");
		exit(2);
	}
	return p;
}

/* -- Packets --- */
static void packet_write(struct export *export, struct proto *packet)
{
	unsigned char head[16];
	size_t n;

	proto_number(packet, PACKET_SEQUENCE_ID, SEQUENCE_ID);
	head[0] = TRACE_PACKET << 3 | 2;
	n = 1 + proto_varint(head + 1, packet->n);
	fwrite(head, 1, n, export->to);
	fwrite(packet->bytes, 1, packet->n, export->to);
}

/* The trace's clock and the wall clock are one: the viewer can show either. */
static void write_clocks(struct export *export, uint64_t time_ns)
{
	static const unsigned int clocks[] = { CLOCK_IS_BOOTTIME, CLOCK_IS_REALTIME };
	struct proto packet = { .n = 0 }, snapshot = { .n = 0 };

	for (unsigned int i = 0; i < 2; i++) {
		struct proto clock = { .n = 0 };

		proto_number(&clock, CLOCK_ID, clocks[i]);
		proto_number(&clock, CLOCK_TIMESTAMP, time_ns);
		proto_message(&snapshot, SNAPSHOT_CLOCKS, &clock);
	}
	proto_number(&packet, PACKET_TIMESTAMP, time_ns);
	proto_message(&packet, PACKET_CLOCK_SNAPSHOT, &snapshot);
	proto_number(&packet, PACKET_SEQUENCE_FLAGS, FLAGS_ARE_STATE_CLEARED);
	packet_write(export, &packet);
}

static void write_descriptor(struct export *export, uint64_t uuid, uint64_t parent, const char *name, bool is_counter)
{
	struct proto packet = { .n = 0 }, descriptor = { .n = 0 }, counter = { .n = 0 };

	proto_number(&descriptor, DESCRIPTOR_UUID, uuid);
	if (parent)
		proto_number(&descriptor, DESCRIPTOR_PARENT_UUID, parent);
	proto_text(&descriptor, DESCRIPTOR_NAME, name);
	if (is_counter) {
		proto_number(&counter, COUNTER_UNIT, UNIT_IS_COUNT);
		proto_message(&descriptor, DESCRIPTOR_COUNTER, &counter);
	}
	proto_message(&packet, PACKET_TRACK_DESCRIPTOR, &descriptor);
	packet_write(export, &packet);
}

static void annotate(struct proto *event, const char *name, uint64_t number, const char *text)
{
	struct proto annotation = { .n = 0 };

	proto_text(&annotation, ANNOTATION_NAME, name);
	if (text)
		proto_text(&annotation, ANNOTATION_STRING, text);
	else
		proto_number(&annotation, ANNOTATION_UINT, number);
	proto_message(event, EVENT_ANNOTATIONS, &annotation);
}

static void track_event(struct export *export, uint64_t time_ns, const struct proto *event)
{
	struct proto packet = { .n = 0 };

	proto_number(&packet, PACKET_TIMESTAMP, time_ns);
	proto_message(&packet, PACKET_TRACK_EVENT, event);
	packet_write(export, &packet);
}

/* When @of happened, as far as slices before it allow */
static uint64_t time_of(struct export *export, const struct tier_event *of)
{
	return export->newest_ns = of->time_ns > export->newest_ns ? of->time_ns : export->newest_ns;
}

/* @name: NULL for the end of a slice. With all that the journal says of @of. */
static void write_event(struct export *export, uint64_t uuid, unsigned int type, const char *name, const struct tier_event *of)
{
	const uint64_t time_ns = type == TYPE_IS_INSTANT ? of->time_ns : time_of(export, of);
	struct proto event = { .n = 0 };

	proto_number(&event, EVENT_TYPE, type);
	proto_number(&event, EVENT_TRACK_UUID, uuid);
	if (name) {
		proto_text(&event, EVENT_CATEGORIES, "tier");
		proto_text(&event, EVENT_NAME, name);
		annotate(&event, "sequence", of->sequence, NULL);
		annotate(&event, "version", of->version, NULL);
		annotate(&event, "reason", 0, tier_reason_name(of->reason));
		annotate(&event, "source", 0, tier_source_name(of->source));
		if (of->pid) {
			annotate(&event, "pid", of->pid, NULL);
			annotate(&event, "tid", of->tid, NULL);
		}
	}
	track_event(export, time_ns, &event);
}

static void write_queue(struct export *export, const struct tier_event *of)
{
	struct proto event = { .n = 0 };

	proto_number(&event, EVENT_TYPE, TYPE_IS_COUNTER);
	proto_number(&event, EVENT_TRACK_UUID, UUID_QUEUE);
	proto_number(&event, EVENT_COUNTER_VALUE, export->n_queued);
	track_event(export, time_of(export, of), &event);
}

/* -- Tracks --- */
static struct track *track_slot(const struct export *export, uint64_t uuid)
{
	size_t i = (uuid * UINT64_C(0x9e3779b97f4a7c15)) >> 32;

	while (export->tracks[i % export->n_tracks_max].uuid && export->tracks[i % export->n_tracks_max].uuid != uuid)
		i++;
	return &export->tracks[i % export->n_tracks_max];
}

static void tracks_grow(struct export *export)
{
	struct track *old = export->tracks;
	const size_t n = export->n_tracks_max;

	export->n_tracks_max = n ? 2 * n : 256;
	export->tracks = need(calloc(export->n_tracks_max, sizeof(*export->tracks)));
	for (size_t i = 0; i < n; i++)
		if (old[i].uuid)
			*track_slot(export, old[i].uuid) = old[i];
	free(old);
}

/* True: it is new, and has to be described. */
static bool track_take(struct export *export, uint64_t uuid, struct track **ret)
{
	if (2 * export->n_tracks >= export->n_tracks_max)
		tracks_grow(export);
	*ret = track_slot(export, uuid);
	if ((*ret)->uuid)
		return false;
	export->n_tracks++;
	(*ret)->uuid = uuid;
	return true;
}

/* -- Names --- */
static int name_row(const struct tier_module_row *row, void *context)
{
	struct export *export = context;
	char name[128];

	if (row->id != export->module_id)
		return 0;
	snprintf(export->module_name, sizeof(export->module_name), "%s (module %" PRIu64 ")", row->name, row->id);
	if (row->unloaded)
		return 1;
	/* a name means the caller's own module first: UID/NAME means this one */
	snprintf(name, sizeof(name), "%u/%s", row->uid, row->name);
	if (tier_open(export->conn, name, &export->module) && tier_open(export->conn, row->name, &export->module))
		export->module = NULL;
	if (export->module && tier_module_id(export->module) != row->id) {
		tier_close(export->module);
		export->module = NULL;
	}
	return 1;
}

static void module_look_up(struct export *export, uint64_t id)
{
	if (export->module_id == id)
		return;
	if (export->module)
		tier_close(export->module);
	export->module = NULL;
	export->module_id = id;
	snprintf(export->module_name, sizeof(export->module_name), "module %" PRIu64, id);	/* one that is gone */
	tier_list(export->conn, name_row, export);
}

static struct track *module_track(struct export *export, uint64_t id)
{
	struct track *track;

	if (track_take(export, UUID_MODULES | id << METHOD_BITS, &track)) {
		module_look_up(export, id);
		write_descriptor(export, track->uuid, 0, export->module_name, false);
	}
	return track;
}

static struct track *method_track(struct export *export, const struct tier_event *event)
{
	const uint64_t parent = module_track(export, event->module)->uuid;
	struct tier_method *method;
	struct track *track;
	char number[32];

	if (!track_take(export, parent + event->method + 1, &track))
		return track;
	module_look_up(export, event->module);
	snprintf(number, sizeof(number), "method %u", event->method);
	if (export->module && !tier_method_at(export->module, event->method, &method))
		write_descriptor(export, track->uuid, parent, tier_method_name(method), false);
	else
		write_descriptor(export, track->uuid, parent, number, false);
	return track;
}

static struct track *user_track(struct export *export, uint32_t uid)
{
	struct track *track;
	char name[64];

	if (track_take(export, UUID_USERS | uid, &track)) {
		snprintf(name, sizeof(name), "call-counting delay of user %u", uid);
		write_descriptor(export, track->uuid, 0, name, false);
	}
	return track;
}

/* -- Events --- */
static void slice_end(struct export *export, struct track *track, const struct tier_event *event)
{
	if (track->is_open)
		write_event(export, track->uuid, TYPE_IS_SLICE_END, NULL, event);
	track->is_open = false;
}

static void slice_begin(struct export *export, struct track *track, const char *name, const struct tier_event *event)
{
	slice_end(export, track, event);
	write_event(export, track->uuid, TYPE_IS_SLICE_BEGIN, name, event);
	track->is_open = true;
}

static void set_queued(struct export *export, struct track *track, bool is_queued, const struct tier_event *event)
{
	if (track->is_queued == is_queued)
		return;
	track->is_queued = is_queued;
	export->n_queued += is_queued ? 1 : -1;
	write_queue(export, event);
}

/* A module that is gone has nothing in the queue; one that somebody still holds shows again what it queues later. */
static void module_dequeue(struct export *export, const struct tier_event *event)
{
	const uint64_t module = module_track(export, event->module)->uuid >> METHOD_BITS;

	for (size_t i = 0; i < export->n_tracks_max; i++)
		if (export->tracks[i].uuid >> METHOD_BITS == module)
			set_queued(export, &export->tracks[i], false, event);
}

/* Whether the event is the end of the method's wait in the queue. On-stack replacement has a queue of its own. */
static bool leaves_queue(const struct tier_event *event)
{
	return event->to != TIER_LEVEL_OSR && event->kind != TIER_EVENT_COUNTING_BEGUN && event->kind != TIER_EVENT_THRESHOLD;
}

static void export_method(struct export *export, const struct tier_event *event)
{
	struct track *track = method_track(export, event);

	if (event->kind == TIER_EVENT_QUEUED)
		set_queued(export, track, true, event);
	else if (leaves_queue(event))
		set_queued(export, track, false, event);
	write_event(export, track->uuid, TYPE_IS_INSTANT, tier_event_name(event->kind), event);
	switch (event->kind) {
	case TIER_EVENT_PUBLISHED:
	case TIER_EVENT_REJITTED:
	case TIER_EVENT_REVERTED:
	case TIER_EVENT_WITHDRAWN:
		if (event->to == TIER_LEVEL_NONE)
			slice_end(export, track, event);
		else
			slice_begin(export, track, tier_level_name(event->to), event);
		break;
	}
}

static void export_begin(struct export *export, const struct tier_event *event)
{
	if (export->has_begun)
		return;
	export->has_begun = true;
	write_clocks(export, event->time_ns);
	write_descriptor(export, UUID_QUEUE, 0, "background queue", true);
	write_queue(export, event);
}

/* It takes its time from the event behind it. */
static void export_gap(struct export *export, const struct tier_event *behind)
{
	struct proto event = { .n = 0 };
	struct track *track;
	char name[80];

	if (!export->gap_last)
		return;
	if (track_take(export, UUID_GAPS, &track))
		write_descriptor(export, UUID_GAPS, 0, "events that are no longer kept", false);
	snprintf(name, sizeof(name), "%" PRIu64 " to %" PRIu64, export->gap_first, export->gap_last);
	proto_number(&event, EVENT_TYPE, TYPE_IS_INSTANT);
	proto_number(&event, EVENT_TRACK_UUID, UUID_GAPS);
	proto_text(&event, EVENT_CATEGORIES, "tier");
	proto_text(&event, EVENT_NAME, name);
	annotate(&event, "first", export->gap_first, NULL);
	annotate(&event, "last", export->gap_last, NULL);
	track_event(export, behind->time_ns, &event);
	export->gap_last = 0;
}

void export_missing(struct export *export, uint64_t first, uint64_t last)
{
	if (!export->gap_last)
		export->gap_first = first;
	export->gap_last = last;
}

void export_event(struct export *export, const struct tier_event *event)
{
	export_begin(export, event);
	export_gap(export, event);
	if (event->kind == TIER_EVENT_MODULE_UNLOADED)
		module_dequeue(export, event);
	if (event->method != UINT32_MAX)
		export_method(export, event);
	else if (event->kind == TIER_EVENT_DELAY_PAUSED)
		slice_begin(export, user_track(export, event->uid), "delay", event);
	else if (event->kind == TIER_EVENT_DELAY_RESUMED)
		slice_end(export, user_track(export, event->uid), event);
	else
		write_event(export, module_track(export, event->module)->uuid, TYPE_IS_INSTANT, tier_event_name(event->kind), event);
	fflush(export->to);
}

struct export *export_new(struct tier_conn *conn, FILE *to)
{
	struct export *export = need(calloc(1, sizeof(*export)));

	*export = (struct export){ .conn = conn, .to = to };
	tracks_grow(export);
	return export;
}

void export_free(struct export *export)
{
	if (export->module)
		tier_close(export->module);
	free(export->tracks);
	free(export);
}
