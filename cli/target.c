/* SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "ctl.h"

/* What commands are about: MODULE, which may be M<knob=7,other=8>, and MODULE:METHOD
 *
 * Knobs may be given in any order, and their values in any form: the daemon knows which instantiation that is. One that
 * is to be called is made when there is none; questions make nothing. */

/* -- Modules --- */
struct values {
	char *text; /* the names lie in it; owned */
	struct tier_value values[TIER_VALUES_MAX];
	uint32_t n;
};

static bool is_instantiation(const char *text)
{
	const char *open = strchr(text, '<');

	return open && strchr(open, '=');
}

/* "a=1,b=0x7>": cut into pieces. False: the sentence was printed. */
static bool values_parse(struct values *ret, const char *whole, char *list)
{
	char *end = strchr(list, '>'), *item, *save = NULL;

	if (!end || end[1]) {
		fail("'%s' does not end with >; write MODULE<knob=value,...>", whole);
		return false;
	}
	*end = '\0';
	for (item = strtok_r(list, ",", &save); item; item = strtok_r(NULL, ",", &save)) {
		char *value = strchr(item, '=');

		if (ret->n == TIER_VALUES_MAX) {
			fail("'%s' gives more than %u knobs values", whole, TIER_VALUES_MAX);
			return false;
		}
		if (!value || value == item || !parse_integer(value + 1, &ret->values[ret->n].value)) {
			fail("'%s': '%s' is not KNOB=VALUE with an integer of 64 bits (decimal or 0x)", whole, item);
			return false;
		}
		*value = '\0';
		ret->values[ret->n++].name = item;
	}
	return true;
}

/* Negative: it failed with libtier's sentence; 1: the sentence was printed. */
static int instance_open(struct ctl *ctl, const char *text, bool is_made, struct tier_module **ret)
{
	struct values values = {.text = strdup(text)};
	struct tier_module *base;
	char *list;
	int r = 1;

	if (!values.text)
		return fail("out of memory"), 1;
	list = strchr(values.text, '<');
	*list++ = '\0';
	if (values_parse(&values, text, list)) {
		r = tier_open(ctl->conn, values.text, &base);
		if (!r) {
			r = (is_made ? tier_module_instantiate : tier_module_instance)(base, values.values, values.n,
										       ret);
			tier_close(base);
		}
	}
	free(values.text);
	return r;
}

bool target_open_module(struct ctl *ctl, const char *text, bool is_made, struct tier_module **ret)
{
	int r = is_instantiation(text) ? instance_open(ctl, text, is_made, ret) : -ENOENT;

	/* a name as `tierctl list` has it; of an instantiation, perhaps another user's */
	if (r == -ENOENT)
		r = tier_open(ctl->conn, text, ret);
	if (r == -ENOENT && strchr(text, ':'))
		fail("'%s' names a method, if anything; a module is wanted here", text);
	else if (r < 0)
		fail_tier(text);
	return !r;
}

/* -- Methods --- */
static bool target_find(struct ctl *ctl, const char *text, bool is_made, struct target *ret)
{
	const char *colon = strchr(text, ':');
	char *module;
	bool ok;

	*ret = (struct target){0};
	if (!colon || colon == text || !colon[1]) {
		fail("'%s' does not name a method; write MODULE:METHOD", text);
		return false;
	}
	module = strndup(text, colon - text);
	ok = module && target_open_module(ctl, module, is_made, &ret->module);
	if (ok && tier_find(ret->module, colon + 1, &ret->method)) {
		fail("%s; `tierctl status '%s'` lists what it has", tier_error_text(), module);
		ok = false;
	}
	free(module);
	return ok;
}

bool target_open(struct ctl *ctl, const char *text, struct target *ret) { return target_find(ctl, text, false, ret); }

/* A cold call that cannot be served: one sentence and status 2, like every other failure. */
static void call_failed(const char *module, const char *method, const char *text)
{
	fail("%s:%s cannot be called: %s", module, method, text);
	_exit(CTL_FAILED);
}

static void *import_lookup(const char *name, void *library) { return dlsym(library ? library : RTLD_DEFAULT, name); }

bool target_open_callable(struct ctl *ctl, const char *text, struct target *ret)
{
	void *library = NULL;
	int n_unbound;

	if (!target_find(ctl, text, true, ret))
		return false;
	tier_set_failure_handler(call_failed);
	if (ctl->library) {
		library = dlopen(ctl->library, RTLD_NOW | RTLD_LOCAL);
		if (!library) {
			fail("%s", dlerror());
			return false;
		}
	}
	n_unbound = tier_bind_all(ret->module, import_lookup, library);
	if (n_unbound < 0) {
		fail_tier(text);
		return false;
	}
	if (n_unbound) {
		fail("%s: %s; give the shared library that has it with --library FILE", text, tier_error_text());
		return false;
	}
	return true;
}
