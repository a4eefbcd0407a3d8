/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "error.h"
#include "module.h"
#include "sync.h"
#include "wait.h"

/* Until a method and all that it has called are settled
 *
 * First the method's own schedule. Then the daemon says who else is still on its way: those that are compiled, or wait for the
 * delay, are waited for; for those that count calls the method is called on, so often as the one that lacks most would need
 * if each call reached it. When that moves nobody, twice as often is tried a few times, for who is called rarely; then they
 * are not called by this workload. */

#define DRIVE_DOUBLINGS 4u

_Static_assert(TIER_UNSETTLED_MAX == WIRE_UNSETTLED_MAX, "as many as the wire has");

static int settlement_wrong(const struct tier_method *method)
{
	return error_set(-EPROTO, "module '%s', method %u: the daemon sent an impossible settlement", method->module->mapping->name,
			 method->index);
}

int tier_settled(const struct tier_method *method, struct tier_settlement *ret)
{
	const struct mapping *const mapping = method->module->mapping;
	const struct wire_method_ref ref = { .module = mapping->module, .method = method->index };
	struct wire_settlement reply;
	int r;

	r = conn_ask_about(method->module, WIRE_SETTLED, &ref, WIRE_SETTLEMENT, &reply);
	if (r < 0)
		return r;
	if (reply.n > WIRE_UNSETTLED_MAX || !reply.is_settled != (reply.n > 0))
		return settlement_wrong(method);
	for (uint32_t i = 0; i < reply.n; i++)
		if (reply.unsettled[i] >= mapping->layout.n_methods)
			return settlement_wrong(method);
	*ret = (struct tier_settlement){ .is_settled = reply.is_settled, .n_methods = reply.n_methods, .n_unsettled = reply.n_unsettled,
					 .n_pending = reply.n_pending, .calls = reply.calls, .n = reply.n,
					 .progress = reply.progress };
	memcpy(ret->unsettled, reply.unsettled, sizeof(ret->unsettled));
	return 0;
}

struct drive {
	const struct tier_method *method;
	struct tier_drive_opts opts;
	uint64_t deadline_ns;
};

static uint64_t drive_time_left(const struct drive *drive)
{
	const uint64_t now = time_now();

	if (drive->deadline_ns == TIER_FOREVER)
		return TIER_FOREVER;
	return drive->deadline_ns > now ? drive->deadline_ns - now : 0;
}

static int drive_calls(const struct drive *drive, uint32_t n)
{
	const uint64_t *const args = drive->opts.args;

	for (; n; n--) {
		if (cancel_is_due(drive->opts.cancel))
			return wait_canceled(drive->method);
		if (!drive_time_left(drive))
			return error_set(-ETIMEDOUT, "%s:%s is not settled yet", drive->method->module->mapping->name,
					 tier_method_name(drive->method));
		if (drive->opts.call)
			drive->opts.call(drive->method, drive->opts.context);
		else
			tier_entry(drive->method)(args[0], args[1], args[2], args[3], args[4]);
	}
	return 0;
}

static int drive_climb(const struct drive *drive)
{
	struct tier_climb climb = TIER_CLIMB(drive->method);
	uint32_t calls;
	int r;

	while ((r = tier_climb_next(&climb, drive_time_left(drive), drive->opts.cancel, &calls)) > 0) {
		r = drive_calls(drive, calls);
		if (r < 0)
			return r;
	}
	return r;
}

/* Waits for those that calls do not bring on. How many there were, or a negative errno. */
static int drive_wait(const struct drive *drive, const struct tier_settlement *settlement)
{
	struct tier_module *const module = drive->method->module;
	struct tier_answer answer;
	struct tier_method *other;
	int n = 0, r;

	for (uint32_t i = 0; i < settlement->n; i++) {
		r = tier_method_at(module, settlement->unsettled[i], &other);
		if (r < 0)
			return r;
		answer = tier_status(other);
		if (answer.stage == TIER_STAGE_COUNTING)
			continue;
		r = tier_wait(other, drive_time_left(drive), drive->opts.cancel, &answer);
		if (!r && answer.is_frozen)
			r = error_set(-EBUSY, "%s:%s will not go on: its module is frozen", module->mapping->name,
				      tier_method_name(other));
		if (r < 0)
			return r;
		n++;
	}
	return n;
}

static int drive_settle(const struct drive *drive, struct tier_settlement *settlement)
{
	uint32_t n_idle = 0, calls;
	uint64_t seen = 0;
	int r;

	for (;;) {
		r = tier_settled(drive->method, settlement);
		if (r < 0 || settlement->is_settled)
			return r;
		r = drive_wait(drive, settlement);
		if (r < 0)
			return r;
		if (r || !settlement->calls)
			continue;
		n_idle = settlement->progress == seen ? n_idle + 1 : 0;
		seen = settlement->progress;
		if (n_idle > DRIVE_DOUBLINGS)
			return 1;
		calls = settlement->calls << n_idle;
		if (drive->opts.step)
			drive->opts.step(settlement, calls, drive->opts.context);
		r = drive_calls(drive, calls);
		if (r < 0)
			return r;
	}
}

int tier_drive(const struct tier_method *method, const struct tier_drive_opts *opts, struct tier_settlement *ret)
{
	struct drive drive = { .method = method };
	struct tier_settlement settlement = { 0 };
	int r;

	if (opts && opts->size < sizeof(opts->size))
		return error_set(-EINVAL, "tier_drive_opts.size is %lu: set it to sizeof(struct tier_drive_opts)", opts->size);
	if (opts)
		memcpy(&drive.opts, opts, opts->size < sizeof(drive.opts) ? opts->size : sizeof(drive.opts));
	drive.deadline_ns = drive.opts.timeout_ns ? deadline_after(drive.opts.timeout_ns) : TIER_FOREVER;
	r = drive_climb(&drive);
	if (!r)
		r = drive_settle(&drive, &settlement);
	if (ret && r >= 0)
		*ret = settlement;
	return r;
}
