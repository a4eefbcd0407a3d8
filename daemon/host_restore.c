/* SPDX-License-Identifier: Apache-2.0 */
/* A host out of what a predecessor left (host_kept.h)
 *
 * The files are this program's own, sealed when they were written, and come from the service manager: they are checked like what any
 * file holds, so that a wrong one is refused by name, but bytecode that was verified once is not verified again. Whatever follows
 * from the image and from the ledger is made again rather than stored: tables, loops, which room is still owed to whom. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "host_file.h"
#include "host_kept.h"
#include "util/base.h"
#include "util/error.h"

DEFINE_CLEANUP(struct host *, host_free)
DEFINE_CLEANUP(struct host_body *, host_body_free)

/* Why not; @lack: -errno of what the system did not have, and may have the next time, or 0 */
struct why {
	struct refusal refusal;
	int lack;
};

static void lack(struct why *why, int r)
{
	why->lack = r;
	refuse(&why->refusal, "%s", r == -ENOMEM ? "out of memory" : strerrordesc_np(-r));
}

static int lack_of(int r)
{
	return r == -ENOMEM || r == -EMFILE || r == -ENFILE || r == -EAGAIN ? r : 0;
}

/* -- Reading --- */
static bool file_size(int fd, uint64_t *ret, struct why *why)
{
	struct stat status;

	if (fd < 0)
		refuse(&why->refusal, "it is missing");
	else if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || (fcntl(fd, F_GET_SEALS) & FILE_SEALS) != FILE_SEALS)
		refuse(&why->refusal, "it is no sealed file");
	else {
		*ret = status.st_size;
		return true;
	}
	return false;
}

static bool read_at(int fd, void *bytes, size_t n, uint64_t offset, struct why *why)
{
	for (size_t done = 0; done < n;) {
		ssize_t got = pread(fd, (uint8_t *)bytes + done, n - done, offset + done);

		if (got <= 0 && !(got < 0 && errno == EINTR)) {
			why->lack = got ? lack_of(-errno) : 0;
			refuse(&why->refusal, "it cannot be read: %s", got ? strerrordesc_np(errno) : "it is too short");
			return false;
		}
		done += MAX(got, (ssize_t)0);
	}
	return true;
}

static void *read_new(int fd, size_t n, uint64_t offset, struct why *why)
{
	_cleanup_(freep) void *bytes = malloc(MAX(n, (size_t)1));

	if (!bytes)
		lack(why, -ENOMEM);
	return bytes && read_at(fd, bytes, n, offset, why) ? TAKE_PTR(bytes) : NULL;
}

static bool host_file_read(int fd, uint64_t id, struct host_file *ret, struct why *why)
{
	uint64_t size, n;

	if (!file_size(fd, &size, why) || !read_at(fd, ret, sizeof(*ret), 0, why))
		return false;
	n = sizeof(*ret) + (uint64_t)ret->n_ahead * sizeof(struct host_ahead);
	if (ret->magic != HOST_FILE_MAGIC)
		refuse(&why->refusal, "it is no module's file, or another version's");
	else if (ret->id != id)
		refuse(&why->refusal, "it is module %llu's", (unsigned long long)ret->id);
	else if (ret->kind > HOST_INSTANCE || (ret->kind == HOST_INSTANCE) != !ret->n_image || ret->n_knobs > HOST_KNOBS_MAX
		 || ret->n_ahead > IMAGE_METHODS_MAX || n > size || size - n != ret->n_image)
		refuse(&why->refusal, "what it says of itself is not so");
	else
		return true;
	return false;
}

/* -- Of an image, or of a base and values --- */
static bool take_image(struct host *host, const struct host_file *file, int fd, struct why *why)
{
	host->bytes = read_new(fd, file->n_image, sizeof(*file) + file->n_ahead * sizeof(struct host_ahead), why);
	return host->bytes && image_check(host->bytes, file->n_image, &host->image, &why->refusal);
}

static bool take_knobs(struct host *host, const struct host_file *file, const struct image *image, struct why *why)
{
	host->knobs.n = file->n_knobs;
	for (uint32_t i = 0; i < file->n_knobs; i++) {
		const uint32_t object = file->knobs[i].object;

		if (object >= image->n_objects || image->objects[object].segment != IMAGE_RODATA
		    || image->objects[object].size > sizeof(uint64_t)) {
			refuse(&why->refusal, "it gives a value to variable %u, which is no knob of its module", object);
			return false;
		}
		host->knobs.knobs[i] = (struct host_knob){ .object = object, .value = file->knobs[i].value };
	}
	host->rodata = host_rodata_with(image, &host->knobs);
	if (!host->rodata)
		lack(why, -ENOMEM);
	return host->rodata;
}

static bool take_base(struct host *host, const struct host_file *file, struct core *core, struct why *why)
{
	struct module *module = core_module_by_id(core, file->base);
	struct host *base = module ? core_module_context(module) : NULL;

	if (!base || base->base) {
		refuse(&why->refusal, "module %llu, whose instantiation it is, is not there", (unsigned long long)file->base);
		return false;
	}
	if (!take_knobs(host, file, &base->image, why))
		return false;
	host_borrow(host, base);
	return true;
}

static bool take_ahead(struct host *host, const struct host_file *file, int fd, struct why *why)
{
	if (!file->n_ahead)
		return true;
	host->ahead = read_new(fd, file->n_ahead * sizeof(*host->ahead), sizeof(*file), why);
	if (!host->ahead)
		return false;
	host->n_ahead = file->n_ahead;
	return true;
}

static void take_config(struct host *host, const struct host_file *file)
{
	host->config = (struct host_config){
		.pgo = file->pgo, .osr = file->osr, .osr_hit_limit = file->osr_hit_limit,
		.osr_counter_bump = file->osr_counter_bump, .osr_initial_counter = file->osr_initial_counter,
	};
	host->ready_to_run = file->ready_to_run;
	host->compiler = file->compiler;
}

/* -- The arena --- */
/* Whether a module with these needs is laid out like that: then every index of the image stays inside */
static bool layout_fits(const struct tier_layout *layout, const struct arena_needs *needs)
{
	return layout->n_methods == needs->n_methods && layout->n_imports == needs->n_imports
	    && layout->n_patchpoints == needs->n_patchpoints && layout->n_rodata == needs->n_rodata && layout->n_data == needs->n_data
	    && layout->n_bss == needs->n_bss && layout->n_slots == needs->n_slots && layout->slots - layout->rodata == needs->slots;
}

static bool take_arena(struct host *host, const struct tier_layout *layout, int fds[_TIER_SEGMENT_N], struct why *why)
{
	struct arena_needs needs;
	int r;

	if (host_needs(host, &needs)) {
		lack(why, -ENOMEM);
		return false;
	}
	if (!layout_fits(layout, &needs)) {
		refuse(&why->refusal, "its image is not what the ledger's layout is for");
		return false;
	}
	r = arena_adopt(&host->arena, layout, host->id, fds, &why->refusal);
	why->lack = lack_of(r);
	if (r)
		return false;
	for (uint32_t i = 0; i < host->n_ahead; i++)
		if (host->ahead[i].method >= needs.n_methods || !arena_alias(host->arena, host->ahead[i].address, host->ahead[i].size)) {
			refuse(&why->refusal, "code of its method %u lies outside of it", host->ahead[i].method);
			return false;
		}
	return true;
}

/* -- Bodies --- */
static bool body_file_read(int fd, const struct host *host, uint32_t method, uint32_t id, struct body_file *ret,
			   struct why *why)
{
	uint64_t size;

	if (!file_size(fd, &size, why) || !read_at(fd, ret, sizeof(*ret), 0, why))
		return false;
	if (ret->magic != BODY_FILE_MAGIC)
		refuse(&why->refusal, "it is no body's file, or another version's");
	else if (ret->module != host->id || ret->method != method || ret->id != id)
		refuse(&why->refusal, "it is of body %u of method %u of module %llu", ret->id, ret->method, (unsigned long long)ret->module);
	else if (size - sizeof(*ret) != ret->n_image || !arena_alias(host->arena, ret->tier0, ret->n_tier0) || !ret->n_tier0)
		refuse(&why->refusal, "what it says of itself is not so");
	else
		return true;
	return false;
}

/* Whether the room for the stub of its tier 0 has been used: it has if a version's stub lies there. */
static bool stub_is_taken(const struct module *module, uint32_t method, uint64_t stub)
{
	struct core_version_info info = { .id = 0 };

	while (core_version_below(module, method, info.id, &info))
		if (info.stub == stub)
			return true;
	return false;
}

static struct host_body *body_bind(const struct host *host, const struct body_file *file, const void *bytes, struct why *why)
{
	_cleanup_(host_body_freep) struct host_body *body = NULL;
	struct image source;
	enum tier_error error;

	if (!image_check(bytes, file->n_image, &source, &why->refusal))
		return NULL;
	if (file->source_method >= source.n_methods) {
		refuse(&why->refusal, "its object has no method %u", file->source_method);
		return NULL;
	}
	error = host_bind(&body, host, file->method, &source, file->source_method, true, &why->refusal);
	why->lack = error == TIER_ERROR_NO_MEMORY ? -ENOMEM : 0;
	if (error)
		return NULL;
	if (body->bound.n_rodata && !arena_alias(host->arena, file->rodata, body->bound.n_rodata)) {
		refuse(&why->refusal, "its .rodata lies outside of the module");
		return NULL;
	}
	bound_body_place(&body->bound, &source, file->source_method, file->rodata);
	free(TAKE_PTR(body->bound.rodata));
	return TAKE_PTR(body);
}

static bool take_body(struct host *host, struct module *module, uint32_t method, uint32_t id, int fd, struct why *why)
{
	_cleanup_(freep) void *bytes = NULL;
	struct host_body *body;
	struct body_file file;

	if (!body_file_read(fd, host, method, id, &file, why))
		return false;
	bytes = read_new(fd, file.n_image, sizeof(file), why);
	body = bytes ? body_bind(host, &file, bytes, why) : NULL;
	if (!body)
		return false;
	body->id = id;
	body->rodata = file.rodata;
	body->tier0 = (struct core_code){ .address = file.tier0, .size = file.n_tier0 };
	body->stub = stub_is_taken(module, method, file.stub) ? 0 : file.stub;
	body->is_kept = true;
	host_body_exchange(host, method, body);
	return true;
}

/* -- What the ledger knows --- */
static bool is_baseline(enum tier_level level)
{
	return level == TIER_LEVEL_TIER0 || level == TIER_LEVEL_TIER0_INSTRUMENTED || level == TIER_LEVEL_MIN_OPT_JITTED;
}

/* What a version says of room that is no longer owed: the first code that was made here; a stub, unless it took the room that its
 * body brought. */
static void learn_version(struct host *host, uint32_t method, const struct core_version_info *info)
{
	if (info->code && !info->body && is_baseline(info->level))
		host_repay(host, method);
	if (info->stub && !(info->body && info->level == TIER_LEVEL_TIER0))
		host_repay_stub(host, method);
}

/* The newest body of the method that anybody may ask for: the one in its place, or of those that had versions the last. 0: the own */
static uint32_t learn_method(struct host *host, struct module *module, uint32_t method)
{
	struct core_version_info info = { .id = 0 };
	uint32_t body = core_method_body(module, method), newest = 0;

	while (core_version_below(module, method, info.id, &info)) {
		learn_version(host, method, &info);
		newest = MAX(newest, info.body);
	}
	host->n_bodies = MAX(host->n_bodies, newest);
	host->n_bodies = MAX(host->n_bodies, body);
	return body ? body : newest;
}

/* One that was replaced or reverted may be gone: then what a job would still make of it is given up. */
static bool learn_body(struct host *host, struct host_remains *remains, uint32_t method, uint32_t id, struct why *why)
{
	const bool is_current = core_method_body(remains->module, method) == id;
	_cleanup_(closep) int fd = -1;
	struct why own = { .lack = 0 };

	if (host_bodies_reserve(host)) {
		lack(why, -ENOMEM);
		return false;
	}
	fd = remains->take_body(remains->context, host->id, id);
	if ((fd < 0 && !is_current) || take_body(host, remains->module, method, id, fd, &own))
		return true;
	why->lack = own.lack;
	refuse(&why->refusal, "the file of its method %u's body %u: %.300s", method, id, own.refusal.text);
	return false;
}

static bool host_learn(struct host *host, struct host_remains *remains, struct why *why)
{
	host_owe_first_calls(host);
	for (uint32_t i = 0; i < host->n_ahead; i++)
		host_repay(host, host->ahead[i].method);
	for (uint32_t method = 0; method < host->image.n_methods; method++) {
		const uint32_t body = learn_method(host, remains->module, method);

		if (body && !learn_body(host, remains, method, body, why))
			return false;
	}
	return true;
}

/* -- All of it --- */
static bool host_take(struct host *host, struct host_remains *remains, struct why *why)
{
	struct core_module_info info;
	struct host_file file;
	struct why own = { .lack = 0 };

	core_module_info(remains->module, &info);
	host->id = info.id;
	host->module = remains->module;
	if (!host_file_read(remains->host_fd, host->id, &file, &own) || !take_ahead(host, &file, remains->host_fd, &own)
	    || (file.kind == HOST_IMAGE && !take_image(host, &file, remains->host_fd, &own))) {
		why->lack = own.lack;
		refuse(&why->refusal, "its file: %.350s", own.refusal.text);
		return false;
	}
	take_config(host, &file);
	if (file.kind == HOST_INSTANCE && !take_base(host, &file, remains->core, why))
		return false;
	if (!take_arena(host, &info.layout, remains->fds, why))
		return false;
	if (!host->base && host_make_tables(host)) {
		lack(why, -ENOMEM);
		return false;
	}
	if (host->ready_to_run && !host->base)
		host_find_precompiled(host, &host->compiler);
	return host_learn(host, remains, why);
}

int host_restore(struct host **ret, struct host_remains *remains, struct refusal *refusal)
{
	_cleanup_(host_freep) struct host *host = calloc(1, sizeof(*host));
	struct why why = { .lack = 0 };
	bool is_whole = false;

	if (host)
		is_whole = host_take(host, remains, &why);
	else
		lack(&why, -ENOMEM);
	for (int i = 0; i < _TIER_SEGMENT_N; i++)
		remains->fds[i] = close_fd(remains->fds[i]);
	remains->host_fd = close_fd(remains->host_fd);
	if (is_whole) {
		*ret = TAKE_PTR(host);
		return 0;
	}
	*refusal = why.refusal;
	return why.lack ? why.lack : HOST_E_LOST;
}
