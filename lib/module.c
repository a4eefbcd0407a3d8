/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "error.h"
#include "module.h"
#include "prestub.h"
#include "sync.h"
#include "sys.h"

/* Opening and closing
 *
 * Both run under the process's registry lock, requests included: a close that tells the daemon must not overtake an open
 * of the same module. What others read without that lock (cold calls look for a connection, a new session for
 * modules) changes under the links lock, with signals blocked, one store at a time.
 *
 * A session may end at any moment, and with it what it holds. The next one holds what stands in the list then. So an open that
 * finds, when its module stands there, that the session is another one than that which answered it has it held again. */

#define OPEN_TRIES 3	/* while daemons that know nothing of each other come and go */

/* -- The registry lock --- */
static int registry_enter(uint64_t timeout_ns)
{
	int r;

	r = lock_take(&process_page()->registry, deadline_after(timeout_ns));
	if (r < 0)
		return error_set(r, "another thread that opens or closes a module takes too long");
	mapping_tidy();
	return 0;
}

static void registry_leave(void)
{
	lock_give(&process_page()->registry);
}

/* -- Lists; under the links lock, which each function takes --- */
static void module_link(struct tier_module *module)
{
	lock_take(&process_page()->links, UINT64_MAX);
	module->next = module->conn->modules;
	module->next_holder = module->mapping->holders;
	__atomic_store_n(&module->conn->modules, module, __ATOMIC_RELEASE);
	__atomic_store_n(&module->mapping->holders, module, __ATOMIC_RELEASE);
	mapping_hear(module->mapping);
	lock_give(&process_page()->links);
}

static void module_unlink(struct tier_module *module)
{
	struct tier_module **at;

	lock_take(&process_page()->links, UINT64_MAX);
	for (at = &module->mapping->holders; *at && *at != module; at = &(*at)->next_holder)
		;
	if (*at)
		__atomic_store_n(at, module->next_holder, __ATOMIC_RELEASE);
	for (at = &module->conn->modules; *at && *at != module; at = &(*at)->next)
		;
	if (*at)
		__atomic_store_n(at, module->next, __ATOMIC_RELEASE);
	lock_give(&process_page()->links);
}

static struct tier_module *module_of(struct tier_conn *conn, const struct mapping *mapping)
{
	struct tier_module *module = conn->modules;

	while (module && module->mapping != mapping)
		module = module->next;
	return module;
}

uint64_t module_next_unattached(struct tier_conn *conn)
{
	struct tier_module *module;
	uint64_t id;

	lock_take(&process_page()->links, UINT64_MAX);
	for (module = conn->modules; module && module->session == session_number(conn); module = module->next)
		;
	id = module ? module->mapping->module : 0;
	lock_give(&process_page()->links);
	return id;
}

/* One number may be that of two: a module whose daemon is gone, and another one that a successor loaded. */
bool module_attached(struct tier_conn *conn, uint64_t id, int r, int records_fd)
{
	bool is_known = false;

	lock_take(&process_page()->links, UINT64_MAX);
	for (struct tier_module *module = conn->modules; module; module = module->next)
		if (module->mapping->module == id) {
			const bool is_it = r ? r != -ENOENT : mapping_is_of(module->mapping, records_fd);

			is_known |= is_it;
			__atomic_store_n(&module->is_orphan, !is_it, __ATOMIC_RELAXED);
			__atomic_store_n(&module->session, session_number(conn), __ATOMIC_RELAXED);
			if (is_it)
				mapping_tell_again(module->mapping);
		}
	lock_give(&process_page()->links);
	return is_known;
}

int module_check(const struct tier_module *module)
{
	if (!__atomic_load_n(&module->is_orphan, __ATOMIC_RELAXED))
		return 0;
	return error_set(-ESTALE, "the daemon that knew module '%s' is gone, and its successor does not know it", module->mapping->name);
}

/* -- Names --- */
static const char *names_wrong(const struct wire_names *names, uint64_t n_rows)
{
	if (names->n > WIRE_NAMES_MAX || (!names->n && names->more))
		return "with an impossible number of rows";
	for (uint32_t i = 0; i < names->n; i++)
		if (names->rows[i].index >= n_rows || !memchr(names->rows[i].name, 0, WIRE_METHOD_NAME_MAX))
			return "with a row that cannot be";
	return NULL;
}

/* @module: whom the names are for; NULL: one that is being opened */
static int names_fetch(struct tier_conn *conn, const struct mapping *mapping, const struct tier_module *module, enum wire_type type,
		       uint64_t from, uint64_t n_rows, struct wire_names *ret)
{
	const struct wire_cursor cursor = { .module = mapping->module, .cursor = from };
	const char *wrong;
	int r;

	r = conn_request(conn, &(struct request){ .type = type, .body = &cursor, .fd = -1, .reply_type = WIRE_NAMES, .reply = ret,
						  .module = module });
	if (r < 0)
		return r;
	wrong = names_wrong(ret, n_rows);
	return wrong ? error_set(-EPROTO, "module '%s': the daemon sent a list of names %s", mapping->name, wrong) : 0;
}

static void name_publish(struct mapping_name *name, const char *text)
{
	const uint64_t mask = signals_block();

	lock_take(&process_page()->links, UINT64_MAX);
	if (!name->is_known) {
		text_copy(name->text, sizeof(name->text), text);
		/* Synchronizes with the acquire loads of readers: the text before the word that says it is there. */
		__atomic_store_n(&name->is_known, 1, __ATOMIC_RELEASE);
	}
	lock_give(&process_page()->links);
	signals_restore(mask);
}

static int methods_fetch(struct tier_conn *conn, struct mapping *mapping, const struct tier_module *module, uint32_t from)
{
	struct wire_names names;
	int r;

	r = names_fetch(conn, mapping, module, WIRE_METHODS, from, mapping->layout.n_methods, &names);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < names.n; i++)
		name_publish(&mapping->names[names.rows[i].index], names.rows[i].name);
	return 0;
}

int method_fetch_names(const struct tier_module *module, uint32_t from)
{
	return methods_fetch(module->conn, module->mapping, module, from);
}

static int imports_fetch(struct tier_conn *conn, struct mapping *mapping)
{
	const uint32_t n_imports = mapping->layout.n_imports;
	struct wire_names names;
	uint64_t cursor = 0;
	int r;

	while (cursor < n_imports) {
		r = names_fetch(conn, mapping, NULL, WIRE_IMPORTS, cursor, n_imports, &names);
		if (r < 0)
			return r;
		for (uint32_t i = 0; i < names.n; i++) {
			struct mapping_import *const import = &mapping->imports[names.rows[i].index];

			import->flags = names.rows[i].flags;
			text_copy(import->name, sizeof(import->name), names.rows[i].name);
		}
		if (!names.more || names.rows[names.n - 1].index < cursor)
			break;
		cursor = names.rows[names.n - 1].index + 1ull;
	}
	return 0;
}

/* -- Opening --- */
static struct tier_module *module_new(struct tier_conn *conn, struct mapping *mapping, uint32_t session)
{
	const uint32_t n_methods = mapping->layout.n_methods;
	const size_t n = sizeof(struct tier_module) + n_methods * sizeof(struct tier_method);
	struct tier_module *module;

	module = sys_mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sys_is_error(module)) {
		error_set(-ENOMEM, "module '%s': out of memory", mapping->name);
		return NULL;
	}
	module->n_bytes = n;
	module->mapping = mapping;
	module->conn = conn;
	module->n_opens = 1;
	module->session = session;
	for (uint32_t i = 0; i < n_methods; i++)
		module->methods[i] = (struct tier_method){ .module = module, .index = i };
	conn_ref(conn);
	return module;
}

/* What the daemon answered to ATTACH */
struct attachment {
	struct wire_module reply;
	uint32_t session;	/* which holds it since then */
	uint32_t n_fds;
	int fds[LANE_FDS_MAX];
};

/* The mapping for what the daemon sent: the process's own if it has one, else a fresh one. */
static int module_map(struct tier_conn *conn, const struct attachment *attachment, struct mapping **ret)
{
	const int *const fds = attachment->fds;
	struct mapping *mapping;
	uint64_t mask;
	int r;

	r = layout_check(&attachment->reply, fds);
	if (r < 0)
		return r;
	*ret = mapping_find(fds[TIER_SEGMENT_RECORDS]);
	if (*ret)
		return 0;
	mapping = mapping_new(&attachment->reply);
	if (!mapping)
		return -ENOMEM;
	r = imports_fetch(conn, mapping);
	if (!r)
		r = methods_fetch(conn, mapping, NULL, 0);
	/* blocked, so that no handler of this thread forks in the middle */
	mask = signals_block();
	if (!r)
		r = mapping_map(mapping, fds);
	if (r < 0)
		mapping_free(mapping);
	signals_restore(mask);
	*ret = mapping;
	return r;
}

/* Another session than the one that holds it need not be told. */
static void module_detach(struct tier_conn *conn, uint64_t id, uint32_t session)
{
	const struct wire_module_ref ref = { .module = id };

	if (conn->page->mine && !conn->is_closed)
		conn_request(conn, &(struct request){ .type = WIRE_DETACH, .body = &ref, .fd = -1, .reply_type = WIRE_DONE,
						      .only_in = session });
}

/* Gives the program its handle on @mapping. The session holds each module once: the daemon counts, and a fork's session
 * would not know how often. */
static int module_hold(struct tier_conn *conn, struct mapping *mapping, uint32_t session, struct tier_module **ret)
{
	struct tier_module *module = module_of(conn, mapping);
	uint64_t mask;
	int r = 0;

	if (module) {
		module->n_opens++;
		module_detach(conn, mapping->module, session);
		*ret = module;
		return 0;
	}
	mask = signals_block();
	module = module_new(conn, mapping, session);
	if (module) {
		module_link(module);
		*ret = module;
	} else {
		r = -ENOMEM;
		if (!mapping->holders)
			mapping_free(mapping);
	}
	signals_restore(mask);
	return r;
}

/* A number alone says nothing to a daemon that came after the one that gave it; its name must fit. */
static int module_attach(struct tier_conn *conn, const struct wire_module_ref *ref, struct attachment *ret)
{
	const struct wire_attach attach = { .ref = *ref };
	struct wire_module *const reply = &ret->reply;
	struct request request = { .type = WIRE_ATTACH, .body = &attach, .fd = -1, .reply_type = WIRE_MODULE, .reply = reply,
				   .fds = ret->fds, .n_fds = &ret->n_fds };
	int r;

	r = conn_request(conn, &request);
	if (r < 0)
		return r;
	ret->session = request.session;
	reply->name[sizeof(reply->name) - 1] = 0;
	if (ret->n_fds != _TIER_SEGMENT_N)
		return error_set(-EPROTO, "module '%s': the daemon sent %u descriptors instead of %d", reply->name, ret->n_fds,
				 _TIER_SEGMENT_N);
	if (ref->module && ref->name[0] && strcmp(ref->name, reply->name) != 0)
		return error_set(-ESTALE, "the daemon that knew module '%s' is gone, and its successor does not know it", ref->name);
	return 0;
}

static void attachment_drop(struct attachment *attachment)
{
	while (attachment->n_fds)
		sys_close(attachment->fds[--attachment->n_fds]);
}

static void module_close_locked(struct tier_module *module);

/* @base: what the module is an instantiation of, open; or NULL */
static int module_open_attached(struct tier_conn *conn, const struct attachment *attachment, struct tier_module *base,
				struct tier_module **ret)
{
	struct mapping *mapping = NULL;
	int r;

	r = module_map(conn, attachment, &mapping);
	if (!r)
		r = module_hold(conn, mapping, attachment->session, ret);
	if (!r)
		(*ret)->base = base;
	return r;
}

/* An instantiation's code reaches into the span of what it was made of, which must be there before any of it can run. */
static int module_open_base(struct tier_conn *conn, const struct wire_module *reply, struct tier_module **ret)
{
	struct wire_module_ref ref = { .module = reply->base };
	struct attachment base = { .n_fds = 0 };
	int r;

	if (!reply->base)
		return 0;
	r = module_attach(conn, &ref, &base);
	if (!r && base.reply.base)
		r = error_set(-EPROTO, "the daemon says that module '%s' was made of '%s', which was made of another one", reply->name,
			      base.reply.name);
	if (!r)
		r = module_open_attached(conn, &base, NULL, ret);
	attachment_drop(&base);
	if (r < 0 && base.session)
		module_detach(conn, base.reply.module, base.session);
	return r;
}

static int module_open_locked(struct tier_conn *conn, const struct wire_module_ref *ref, struct tier_module **ret)
{
	struct attachment attachment = { .n_fds = 0 };
	struct tier_module *base = NULL;
	int r;

	r = module_attach(conn, ref, &attachment);
	if (!r)
		r = module_open_base(conn, &attachment.reply, &base);
	if (!r)
		r = module_open_attached(conn, &attachment, base, ret);
	attachment_drop(&attachment);
	if (r < 0 && attachment.session) {
		char text[WIRE_TEXT_MAX];

		/* the first failure is the one to tell */
		text_copy(text, sizeof(text), tier_error_text());
		if (base)
			module_close_locked(base);
		module_detach(conn, attachment.reply.module, attachment.session);
		error_set(r, "%s", text);
	}
	return r;
}

/* In the list already, so a session that comes from now on holds it; one that has come since the daemon answered may not. */
static int module_settle(struct tier_module *module)
{
	int r = 0;

	if (__atomic_load_n(&module->session, __ATOMIC_RELAXED) != session_number(module->conn))
		r = conn_hold(module->conn);
	return r < 0 ? r : module_check(module);
}

int module_open(struct tier_conn *conn, const struct wire_module_ref *ref, struct tier_module **ret)
{
	struct tier_module *module;
	char text[WIRE_TEXT_MAX];
	int r;

	r = registry_enter(conn->timeout_ns);
	if (r < 0)
		return r;
	for (int i = 0; i < OPEN_TRIES; i++) {
		r = module_open_locked(conn, ref, &module);
		if (r < 0)
			break;
		r = module_settle(module);
		if (!r) {
			*ret = module;
			break;
		}
		text_copy(text, sizeof(text), tier_error_text());
		module_close_locked(module);
		error_set(r, "%s", text);
		if (r != -ESTALE)
			break;
	}
	registry_leave();
	return r;
}

int tier_open(struct tier_conn *conn, const char *name, struct tier_module **ret)
{
	struct wire_module_ref ref = { 0 };
	int r;

	r = module_set_name(&ref, name);
	return r < 0 ? r : module_open(conn, &ref, ret);
}

/* -- Closing --- */
static void module_free(struct tier_module *module)
{
	struct mapping *const mapping = module->mapping;
	const uint64_t mask = signals_block();

	slots_forget_module(module);
	module_unlink(module);
	if (!mapping->holders)
		mapping_free(mapping);
	signals_restore(mask);
}

static void module_close_locked(struct tier_module *module)
{
	struct tier_module *const base = module->base;
	struct tier_conn *const conn = module->conn;
	const uint64_t id = module->mapping->module;

	if (--module->n_opens == 0) {
		module_free(module);
		if (!module->is_orphan)		/* else the number is somebody else's */
			module_detach(conn, id, module->session);
		sys_munmap(module, module->n_bytes);
		conn_unref(conn);
	}
	if (base)
		module_close_locked(base);
}

void tier_close(struct tier_module *module)
{
	if (!module)
		return;
	if (registry_enter(TIER_FOREVER) < 0)
		return;
	module_close_locked(module);
	registry_leave();
}

/* -- Names and imports --- */
int module_set_name(struct wire_module_ref *ref, const char *name)
{
	const size_t n = strlen(name);

	if (!n || n >= sizeof(ref->name))
		return error_set(-EINVAL, "the module name '%s' does not have 1 to %u characters", name, WIRE_NAME_MAX - 1);
	text_copy(ref->name, sizeof(ref->name), name);
	return 0;
}

const char *tier_module_name(const struct tier_module *module)
{
	return module->mapping->name;
}

uint64_t tier_module_id(const struct tier_module *module)
{
	return module->mapping->module;
}

uint32_t tier_module_n_methods(const struct tier_module *module)
{
	return module->mapping->layout.n_methods;
}

/* Code may call through the cell at any moment. */
static void import_set(struct mapping *mapping, uint32_t import, const void *fn)
{
	const bool is_weak = mapping->imports[import].flags & 1;
	const uint64_t value = fn ? (uintptr_t)fn : is_weak ? 0 : unbound_entry(import);

	__atomic_store_n(&mapping->table->imports[import], value, __ATOMIC_RELEASE);
}

static bool import_is_bound(const struct mapping *mapping, uint32_t import)
{
	const uint64_t value = __atomic_load_n(&mapping->table->imports[import], __ATOMIC_RELAXED);

	return value && value != unbound_entry(import);
}

int tier_bind(struct tier_module *module, const char *import, const void *fn)
{
	struct mapping *mapping = module->mapping;

	for (uint32_t i = 0; i < mapping->layout.n_imports; i++)
		if (strcmp(mapping->imports[i].name, import) == 0) {
			import_set(mapping, i, fn);
			return 0;
		}
	return error_set(-ENOENT, "module '%s' has no import '%s'", mapping->name, import);
}

int tier_bind_all(struct tier_module *module, void *(*lookup)(const char *name, void *context), void *context)
{
	struct mapping *mapping = module->mapping;
	const char *first = NULL;
	int n_unbound = 0;

	for (uint32_t i = 0; i < mapping->layout.n_imports; i++) {
		const void *const fn = import_is_bound(mapping, i) ? NULL : lookup(mapping->imports[i].name, context);

		if (fn)
			import_set(mapping, i, fn);
		if (import_is_bound(mapping, i) || mapping->imports[i].flags & 1)
			continue;
		if (!n_unbound++)
			first = mapping->imports[i].name;
	}
	if (n_unbound)
		error_set(-ENOENT, "module '%s': %d import%s not bound, the first is '%s'", mapping->name, n_unbound,
			  n_unbound == 1 ? " is" : "s are", first);
	return n_unbound;
}
