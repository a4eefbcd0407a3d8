/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "answers.h"
#include "hearing.h"
#include "history.h"
#include "host_kept.h"
#include "parts.h"
#include "tierd.h"
#include "journal/ring.h"
#include "tiering/ledger.h"
#include "util/base.h"
#include "util/error.h"
#include "util/fault.h"
#include "util/log.h"

/* The wiring. News flows one way:
 *
 *   kernel ──ring──► tracer ──► core ──► journal, probe sites, event cursors     (hearing.c, core_ops.event)
 *   server's bells ───────────► core ──► futex wake, waits                       (core_ops.changed)
 *   core ──► pool ──► core_compile_done()                                        (core_ops.compile)
 *
 * Every function up to the building is one arrow. The server's questions are answers.c's. */

#define FILES_AHEAD_MAX UINT64_C(262144)	/* 8 bytes of the kernel's memory each */
#define USERS_AT_A_TIME 2u	/* for whom is compiled; others take their turns */
#define MANAGER_NS 5000000000u	/* how often to find out whether a manager without a watchdog is there */

/* -- Time --- */
static uint64_t clock_wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
}

static uint64_t op_now(void *context)
{
	return clock_now_ns();
}

static uint64_t op_wall(void *context)
{
	return clock_wall_ns();
}

static void op_arm(void *context, uint64_t deadline_ns)
{
	struct tierd *tierd = context;

	if (deadline_ns)
		dispatch_timer_arm(&tierd->core_timer, deadline_ns);
	else
		dispatch_timer_disarm(&tierd->core_timer);
}

static int core_timer_due(struct dispatch_timer *timer, uint64_t now_ns)
{
	struct tierd *tierd = container_of(timer, struct tierd, core_timer);

	core_tick(tierd->core);
	return 0;
}

/* -- Code --- */
static int op_first(void *context, void *host, const struct core_compile *compile, struct core_result *ret)
{
	return host_first(host, compile, ret);
}

static uint32_t op_traits(void *context, void *host, uint32_t method, uint32_t body)
{
	return host_traits(host, method, body);
}

static uint32_t op_n_profile(void *context, void *host, uint32_t method, uint32_t body)
{
	return host_n_profile(host, method, body);
}

static int op_stub(void *context, void *host, uint32_t method, uint32_t cell, uint64_t version, uint64_t code,
		   struct core_code *ret)
{
	return host_stub(host, method, cell, version, code, ret);
}

static int op_forwarder(void *context, void *host, uint32_t method, uint64_t target, struct core_code *ret)
{
	return host_forwarder(host, target, ret);
}

static void *op_alias(void *context, void *host, uint64_t address)
{
	return host_alias(host, address);
}

static int op_compile(void *context, void *host, const struct core_compile *compile)
{
	struct tierd *tierd = context;

	return compiling_start(&tierd->compiling, host, compile);
}

/* -- News of the core --- */
static void op_event(void *context, const struct tier_event *event)
{
	struct tierd *tierd = context;

	journal_append(tierd->journal, event);
	log_event(LOG_JOURNAL, LOG_INFO1000, "event %llu: %s, module %llu, method %u, version %llu",
		  (unsigned long long)event->sequence, tier_event_name(event->kind), (unsigned long long)event->module,
		  event->method, (unsigned long long)event->version);
	tracer_fire(tierd->tracer, event);
	if (tierd->server)
		server_event_added(tierd->server);
}

static void op_quiet(void *context, struct module *module)
{
	struct tierd *tierd = context;

	if (tierd->server)
		server_module_quiet(tierd->server, module);
}

static void op_changed(void *context, struct module *module, uint32_t method)
{
	struct tierd *tierd = context;
	struct host *host = core_module_context(module);
	uint32_t *word = (uint32_t *)&arena_record(host->arena, method)->state;	/* the low half: little endian */

	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	if (tierd->server)
		server_method_changed(tierd->server, module, method);
}

/* -- The manager --- */
static void manager_timer_next(struct tierd *tierd)
{
	const uint64_t wanted = store_watchdog_ns(tierd->store);

	if (store_is_kept(tierd->store))
		dispatch_timer_arm(&tierd->manager_timer, clock_now_ns() + (wanted ? wanted / 2 : MANAGER_NS));
}

/* Says that the loop turns. */
static int manager_timer_due(struct dispatch_timer *timer, uint64_t now_ns)
{
	struct tierd *tierd = container_of(timer, struct tierd, manager_timer);

	store_feed_watchdog(tierd->store);
	manager_timer_next(tierd);
	return 0;
}

/* -- Building --- */
static int signal_due(struct dispatch_file *file, uint32_t events)
{
	return DISPATCH_E_EXIT;
}

static int tierd_init_loop(struct tierd *tierd)
{
	sigset_t mask;
	int r;

	r = dispatch_init(&tierd->dispatch);
	if (r)
		return error_fold(r);
	dispatch_timer_init(&tierd->core_timer, &tierd->dispatch, core_timer_due, "tiering");
	hearing_init(tierd);
	dispatch_timer_init(&tierd->manager_timer, &tierd->dispatch, manager_timer_due, "manager");
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	tierd->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (tierd->signal_fd < 0)
		return error_origin(-errno);
	return error_fold(dispatch_file_init(&tierd->signal_file, &tierd->dispatch, signal_due, "signal", tierd->signal_fd, EPOLLIN));
}

/* beside this program, or where `make install` puts it */
/* @n: at least PATH_MAX */
static int worker_path(const struct options *options, char *path, size_t n)
{
	static const char *const places[] = { "tierd-worker", "../libexec/tierd/tierd-worker" };
	char self[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (options->worker) {
		/* absolute: the daemon leaves the folder that it was started in */
		return !realpath(options->worker, path) || access(path, X_OK) ? -errno : 0;
	}
	if (length < 0)
		return -errno;
	self[length] = '\0';
	*strrchr(self, '/') = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		snprintf(path, n, "%s/%s", self, places[i]);
		if (!access(path, X_OK))
			return 0;
	}
	return -ENOENT;
}

static int tierd_init_pool(struct tierd *tierd)
{
	const struct options *o = tierd->options;
	struct pool_config config = POOL_CONFIG_DEFAULT;
	char *path = tierd->worker_path;
	int r;

	r = worker_path(o, path, sizeof(tierd->worker_path));
	if (r) {
		log_line(LOG_ERROR, "cannot find tierd-worker: %s; say where it is with --worker PATH", strerrordesc_np(-r));
		return r;
	}
	config.worker_path = path;
	config.workers_per_uid = o->background_workers;
	config.idle_timeout_ns = o->worker_timeout_ns;
	config.load_limit_ns = o->load_limit_ns;
	config.compile_limit_ns = o->compile_limit_ns;
	config.memory_limit = o->worker_memory;
	r = pool_new(&tierd->pool, &tierd->dispatch, &config);
	if (r)
		log_line(LOG_ERROR, "cannot start %s: %s", path, strerrordesc_np(-r));
	return error_fold(r);
}

static void journal_readable(void *context)
{
	struct tierd *tierd = context;

	if (tierd->server)
		server_event_added(tierd->server);
}

static void tierd_tell_policy(const struct core *core)
{
	struct core_policy now, before;

	if (core_policy(core, &now, &before))
		log_line(LOG_WARNING, "the daemon before had --backpatch=%s --call-counting-stubs=%s; from now on it is %s and %s, also for what "
			 "is loaded", tier_backpatch_name(before.backpatch), before.counting_in_prestub ? "off" : "on",
			 tier_backpatch_name(now.backpatch), now.counting_in_prestub ? "off" : "on");
}

static int tierd_init_core(struct tierd *tierd)
{
	static const struct core_ops ops = {
		.now = op_now, .wall = op_wall, .arm = op_arm, .traits = op_traits, .n_profile = op_n_profile,
		.first = op_first, .stub = op_stub, .compile = op_compile,
		.forwarder = op_forwarder, .alias = op_alias,
		.quiet = op_quiet, .event = op_event, .changed = op_changed,
	};
	struct core_config config = {
		.threshold = tierd->options->threshold,
		.delay_ns = tierd->options->delay_ns,
		.call_counting = tierd->options->call_counting,
		.no_tiers = !tierd->options->tiered_compilation,
		.no_quick_jit = !tierd->options->quick_jit,
		.no_quick_jit_loops = !tierd->options->quick_jit_for_loops,
		.pgo = tierd->options->tiered_pgo,
		.instrument_all = !tierd->options->instrument_only_hot_code,
		.counting_in_prestub = !tierd->options->call_counting_stubs,
		.backpatch = tierd->options->backpatch,
		.jobs_per_uid = tierd->options->background_workers,
		.jobs_total = USERS_AT_A_TIME * tierd->options->background_workers,
		.sweep_ns = tierd->options->sweep_ns,
		.first_sequence = journal_newest(tierd->journal) + 1,
	};
	struct core_stats stats;
	int r;

	r = core_new(&tierd->core, &config, &ops, tierd, tierd->ledger.memory, ledger_size());
	if (r)
		return error_fold(r);
	tierd_tell_policy(tierd->core);
	core_stats(tierd->core, &stats);
	return error_fold(journal_go_on(tierd->journal, stats.sequence));
}

/* The kernel's table of descriptors grows by doubling, and in a process with threads each time waits for all processors: tens
 * of milliseconds, which is better spent now than in a turn of the loop. It never shrinks. */
static void grow_descriptor_table(uint64_t n)
{
	int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, (int)MIN(n, FILES_AHEAD_MAX) - 1);

	close_fd(fd);	/* without memory for it, it grows when it must */
}

/* As many open files as the system allows: returns how many. */
static uint64_t tierd_raise_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return UINT64_MAX;
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		getrlimit(RLIMIT_NOFILE, &files);
	grow_descriptor_table(files.rlim_cur);
	return files.rlim_cur;
}

/* False: this daemon keeps no code. */
static bool cache_folder(const struct options *options, char *path, size_t n)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

	if (options->code_cache)
		return strcmp(options->code_cache, "off") && snprintf(path, n, "%s", options->code_cache) < (int)n;
	if (options_is_the_systems(options))
		return snprintf(path, n, "/var/lib/tierd/cache") < (int)n;
	if (!options->user || !(state && *state == '/' ? state : home))
		return false;
	return (state && *state == '/' ? snprintf(path, n, "%s/tierd/cache", state)
				       : snprintf(path, n, "%s/.local/state/tierd/cache", home)) < (int)n;
}

/* Whoever names a folder wants it; without any, code is compiled again. */
static int tierd_init_cache(struct tierd *tierd)
{
	const struct options *o = tierd->options;
	char path[PATH_MAX];
	int r;

	if (!cache_folder(o, path, sizeof(path)))
		return 0;
	r = caching_open(&tierd->caching, &tierd->dispatch, path, o->code_cache_size);
	return o->code_cache ? error_fold(r) : 0;
}

static int tierd_init_server(struct tierd *tierd, uint64_t n_files)
{
	struct server_config config = SERVER_CONFIG_DEFAULT;
	int r;

	server_config_fit(&config, n_files);
	if (tierd->options->user)
		config.owner = getuid();
	r = server_new(&tierd->server, &tierd->dispatch, tierd->core, &config, &answers, tierd, tierd->place.fd);
	if (r)
		return error_fold(r);
	tierd->place.fd = -1;	/* the server's now; listen_close() still removes the path */
	return 0;
}

/* A successor goes on where its predecessor's spans end. */
static void tierd_init_window(struct tierd *tierd)
{
	const struct core_window known = core_window(tierd->core);
	struct window *window = &tierd->loading.window;

	window_init(window, tierd->options->window);
	if (known.base) {
		if (tierd->options->window && window->base != known.base)
			log_line(LOG_WARNING, "--window is not followed: modules' spans begin at %#llx, as the daemon before chose",
				 (unsigned long long)known.base);
		*window = (struct window){ known.base, known.next };
		return;
	}
	core_window_choose(tierd->core, tierd->loading.window.base);
}

/* Where no frame with a loop is ever at tier 0, none can go on elsewhere. */
static struct host_config host_config_of(const struct options *o)
{
	return (struct host_config){
		.pgo = o->tiered_pgo,
		.osr = o->osr && o->tiered_compilation && o->quick_jit && o->quick_jit_for_loops,
		.osr_hit_limit = o->osr_hit_limit,
		.osr_counter_bump = o->osr_counter_bump,
		.osr_initial_counter = o->osr_initial_counter,
	};
}

static int tierd_init(struct tierd *tierd)
{
	const struct options *o = tierd->options;
	const uint64_t n_files = tierd_raise_files();	/* before anything is taken over: a module for which there is none is lost */
	int r;

	r = listen_open(&tierd->place, o->socket, o->user, tierd->store);
	if (r)
		return r;
	r = tierd_init_loop(tierd);
	if (!r)
		r = tierd_init_pool(tierd);
	if (!r)
		r = task_thread_new(&tierd->checker, &tierd->dispatch, "check");
	if (!r)
		r = ledger_file_open(&tierd->ledger, tierd->store);
	if (!r)
		r = history_open(&tierd->journal, &tierd->dispatch, o, tierd->store, journal_readable, tierd);
	if (!r)
		r = tierd_init_cache(tierd);
	if (!r)
		r = hearing_start(tierd);
	if (!r)
		r = tierd_init_core(tierd);
	if (r)
		return error_fold(r);
	tierd->loading.core = tierd->core;
	tierd->loading.store = tierd->store;
	tierd->loading.pool = tierd->pool;
	tierd->loading.checker = tierd->checker;
	tierd->loading.n_code = o->code_size;
	tierd->loading.config = host_config_of(o);
	tierd->loading.ready_to_run = o->ready_to_run;
	tierd->compiling.core = tierd->core;
	tierd->compiling.pool = tierd->pool;
	tierd->compiling.caching = &tierd->caching;
	tierd->precompiling.pool = tierd->pool;
	tierd->precompiling.checker = tierd->checker;
	tierd->rejitting.core = tierd->core;
	tierd->rejitting.pool = tierd->pool;
	tierd->rejitting.checker = tierd->checker;
	tierd->rejitting.store = tierd->store;
	tierd->rejitting.charges = &tierd->loading.charges;
	tierd_init_window(tierd);
	r = tierd->ledger.is_inherited ? takeover_modules(tierd) : 0;
	if (!r)
		r = tierd_init_server(tierd, n_files);
	if (r)
		return error_fold(r);
	if (tierd->ledger.is_inherited)
		server_grant_grace(tierd->server, o->grace_ns);
	return 0;
}

/* What a build with faults on purpose looks at between any two turns */
_unused_ static const char *broken_core(void *context)
{
	const struct tierd *tierd = context;

	return tierd->core ? core_check(tierd->core) : NULL;
}

static void tierd_tell_ready(struct tierd *tierd)
{
	char status[sizeof(tierd->place.path) + 16];

	hearing_catch_up(tierd);
	if (tierd->ledger.is_inherited)
		tierd->takeover.ns = clock_now_ns() - tierd->start_ns;
	log_line(LOG_INFO, "serving %s", tierd->place.path);
	snprintf(status, sizeof(status), "serving %s", tierd->place.path);
	store_drop_rest(tierd->store);
	store_tell_ready(tierd->store, status);
	manager_timer_next(tierd);
}

int tierd_new(struct tierd **ret, const struct options *options, struct store *store)
{
	struct tierd *tierd;
	int r;

	fault_begin();
	fault_hook(&ledger_crash_point);
	fault_hook(&ring_crash_point);
	tierd = calloc(1, sizeof(*tierd));
	if (!tierd) {
		log_line(LOG_ERROR, "cannot start: %s", strerrordesc_np(ENOMEM));
		store_free(store);
		return error_origin(-ENOMEM);
	}
	*tierd = (struct tierd){
		.options = options, .store = store, .dispatch = DISPATCH_NULL(tierd->dispatch), .place = LISTEN_PLACE_NULL,
		.ledger = LEDGER_FILE_NULL, .signal_fd = -1, .start_ns = clock_now_ns(),
	};
	loading_init(&tierd->loading);
	instances_init(&tierd->instances, &tierd->loading);
	rejitting_init(&tierd->rejitting);
	precompiling_init(&tierd->precompiling);
	compiling_init(&tierd->compiling, &tierd->dispatch);
	r = tierd_init(tierd);
	if (r) {
		log_line(LOG_ERROR, "cannot start: %s", strerrordesc_np(-r));
		tierd_free(tierd);
		return r;
	}
	tierd_tell_ready(tierd);
	fault_watch(broken_core, tierd);
	*ret = tierd;
	return 0;
}

/* Instantiations before what they were made of */
static void tierd_release_modules(struct tierd *tierd)
{
	struct module *module, *next;

	if (!tierd->core)
		return;
	for (module = core_module_next(tierd->core, NULL); module; module = next) {
		next = core_module_next(tierd->core, module);
		if (((const struct host *)core_module_context(module))->base)
			answers_release(tierd, module);
	}
	while ((module = core_module_next(tierd->core, NULL)))
		answers_release(tierd, module);
}

/* What has a successor must not be changed any more, and everything but the journal's file is where that one finds it: in memory that
 * the manager keeps. Threads may still run; the process's end is theirs. */
static struct tierd *tierd_leave(struct tierd *tierd)
{
	_unused_ static struct tierd *volatile left;	/* no leak: threads have it */

	left = tierd;
	tierd->journal = journal_free(tierd->journal);
	listen_close(&tierd->place, true);
	return NULL;
}

/* Loads and jobs first, then sessions, the core's memory last. */
struct tierd *tierd_free(struct tierd *tierd)
{
	if (!tierd)
		return NULL;
	store_tell_stopping(tierd->store);
	if (store_is_kept(tierd->store))
		return tierd_leave(tierd);
	tierd->checker = task_thread_free(tierd->checker);
	caching_stop(&tierd->caching);		/* what it finds may still become jobs */
	tierd->pool = pool_free(tierd->pool);	/* drops its jobs: their contexts are ours to free */
	loading_stop(&tierd->loading);
	instances_stop(&tierd->instances);
	rejitting_stop(&tierd->rejitting);
	precompiling_stop(&tierd->precompiling);
	compiling_stop(&tierd->compiling);
	tierd->server = server_free(tierd->server);
	tierd_release_modules(tierd);
	caching_close(&tierd->caching);
	charge_table_deinit(&tierd->loading.charges);
	tierd->core = core_free(tierd->core);
	tierd->tracer = tracer_free(tierd->tracer);
	tierd->journal = journal_free(tierd->journal);
	ledger_file_close(&tierd->ledger);
	dispatch_timer_disarm(&tierd->core_timer);
	dispatch_timer_disarm(&tierd->recover_timer);
	dispatch_timer_disarm(&tierd->manager_timer);
	dispatch_file_deinit(&tierd->signal_file);
	close_fd(tierd->signal_fd);
	dispatch_deinit(&tierd->dispatch);
	listen_close(&tierd->place, false);
	store_free(tierd->store);
	free(tierd);
	return NULL;
}

int tierd_run(struct tierd *tierd)
{
	int r = dispatch_run(&tierd->dispatch);

	if (r == DISPATCH_E_EXIT)
		return 0;
	log_line(LOG_ERROR, "the loop ended: %s", strerrordesc_np(-r));
	return r;
}
