/* SPDX-License-Identifier: Apache-2.0 */
/* The plug-in that the public eBPF conformance suite starts, once per test: program in, r0 out. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>
#include "conformance/datafile.h"
#include "tiers/program.h"
#include "tiers/tiers.h"
#include "util/base.h"
#include "worker/child/codegen.h"
#include "worker/child/elf.h"

#define SECONDS 20u
#define HELPER 5

static const char help[] =
	"Usage: conformance-plugin [MEMORY] [OPTION...] < PROGRAM\n"
	"\n"
	"Runs one BPF program and prints r0 in hex, as the public eBPF conformance suite wants its plug-ins.\n"
	"\n"
	"  MEMORY    hex bytes separated by spaces; r1 is their address, r2 their number. None: both are 0\n"
	"  PROGRAM   hex bytes separated by spaces: instructions, the first one is the entry\n"
	"  --elf     PROGRAM is a relocatable ELF object; its function 'main' runs, or else its first one\n"
	"  --help    this page\n"
	"\n"
	"The variable TIER chooses what runs the program: 0 (default), 1, or reference, the interpreter of tierd's tests.\n"
	"Helper 5 may be called, by callx too, and returns its first argument. Whatever goes wrong, a program that is\n"
	"refused as well, is a sentence on standard error and exit status 1. A program may take 20 seconds.\n";

struct options {
	const char *memory;	/* NULL: none */
	bool elf, help;
	enum tiers_kind kind;
};

static bool fail(const char *what, const char *about)
{
	fprintf(stderr, "conformance-plugin: %s%s%s\n", what, about ? ": " : "", about ?: "");
	return false;
}

static uint64_t first_argument(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e) { return a; }

/* The suite calls helpers by callx as well, their number in the register. There is no code at such an address, so the call
 * ends up here with everything as the callee should find it, and goes on in the helper. */
static void on_signal(int number, siginfo_t *info, void *context)
{
	static const char crashed[] = "conformance-plugin: the program crashed\n";
	static const char late[] = "conformance-plugin: the program takes too long\n";
	const bool is_late = number == SIGALRM;
	greg_t *rip = &((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];

	if (number == SIGSEGV && *rip == HELPER) {
		*rip = (greg_t)(uintptr_t)first_argument;
		return;
	}
	_exit(write(STDERR_FILENO, is_late ? late : crashed, is_late ? sizeof(late) - 1 : sizeof(crashed) - 1) < 0 ? 2 : 1);
}

static bool parse_tier(enum tiers_kind *ret)
{
	const char *name = getenv("TIER") ?: tiers_names[TIERS_0];

	for (*ret = 0; *ret < _TIERS_N; ++*ret)
		if (!strcmp(name, tiers_names[*ret]))
			return true;
	return fail("TIER is not 0, 1 or reference", name);
}

static bool parse(struct options *options, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help"))
			options->help = true;
		else if (!strcmp(argv[i], "--elf"))
			options->elf = true;
		else if (i == 1 && strncmp(argv[i], "--", 2))
			options->memory = argv[i];
		else if (argv[i][0])		/* the suite has an argument for options, even when there are none */
			return fail("unknown argument", argv[i]);
	}
	return parse_tier(&options->kind);
}

static bool read_program(char **ret, size_t *ret_n)
{
	size_t n = 0, n_max = 1 << 16;
	char *bytes = malloc(n_max + 1);
	ssize_t got = 1;

	while (bytes && got > 0) {
		if (n == n_max)
			bytes = realloc(bytes, (n_max *= 2) + 1);
		got = bytes ? read(STDIN_FILENO, bytes + n, n_max - n) : -1;
		n += got > 0 ? got : 0;
	}
	*ret = bytes;
	*ret_n = n;
	if (got)
		return fail("cannot read the program", NULL);
	bytes[n] = 0;
	return true;
}

/* @program: what standard input held */
static bool make_image(const struct options *options, char *program, size_t n, void **ret, size_t *ret_n)
{
	struct refusal refusal = { "" };
	_cleanup_(freep) uint8_t *bytes = NULL;
	size_t n_bytes;

	if (options->elf)
		return elf_to_image(program, n, ret, ret_n, &refusal) || fail("refused", refusal.text);
	if (!datafile_hex(program, &bytes, &n_bytes) || n_bytes % sizeof(struct insn))
		return fail("the program is not hex bytes of whole instructions", NULL);
	return program_to_image((const struct insn *)bytes, n_bytes / sizeof(struct insn), ret, ret_n, &refusal)
	    || fail("refused", refusal.text);
}

/* A module with imports of its own has nobody who binds them. */
static bool load(struct tiers *tiers, const void *plain, size_t n, void **bound, struct image *ret)
{
	const reference_function imports[] = { first_argument };
	struct refusal refusal = { "" };
	struct image image;

	if (!image_check(plain, n, &image, &refusal))
		return fail("refused", refusal.text);
	if (image.n_imports)
		return fail("nobody here binds the import", image_import_name(&image, 0));
	return (program_bind_helper(&image, HELPER, bound, ret, &refusal) && tiers_load(tiers, ret, imports, &refusal))
	    || fail("refused", refusal.text);
}

static bool compile(struct tiers *tiers, enum tiers_kind kind)
{
	struct refusal refusal = { "" };

	if (kind == TIERS_REFERENCE)
		return true;
	if (kind == TIERS_1 && codegen_init())
		return fail("LLVM cannot compile for this machine", NULL);
	return tiers_compile_all(tiers, kind, true, &refusal) || fail("cannot compile", refusal.text);
}

static bool run(struct tiers *tiers, const struct options *options, uint32_t method)
{
	_cleanup_(freep) uint8_t *memory = NULL;
	uint64_t args[5] = { 0 }, result = 0;
	const char *fault;
	size_t n = 0;

	if (options->memory && !datafile_hex(options->memory, &memory, &n))
		return fail("the memory is not hex bytes", options->memory);
	if (n) {
		args[0] = (uintptr_t)memory;
		args[1] = n;
	}
	tiers->n_steps = UINT64_MAX;
	fault = options->kind == TIERS_REFERENCE ? tiers_interpret(tiers, method, args, &result)
						 : tiers_call(tiers, method, args, &result);
	if (fault)
		return fail("the run failed", fault);
	printf("%llx\n", (unsigned long long)result);
	return true;
}

static bool serve(struct tiers *tiers, const struct options *options)
{
	_cleanup_(freep) char *program = NULL;
	_cleanup_(freep) void *plain = NULL;
	_cleanup_(freep) void *bound = NULL;
	struct image image;
	int64_t main_method;
	size_t n, n_plain;

	if (!read_program(&program, &n) || !make_image(options, program, n, &plain, &n_plain)
	    || !load(tiers, plain, n_plain, &bound, &image) || !compile(tiers, options->kind))
		return false;
	main_method = image_find_method(&image, "main");
	return run(tiers, options, main_method < 0 ? 0 : main_method);
}

int main(int argc, char **argv)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGALRM };
	struct options options = { .kind = TIERS_0 };
	struct tiers *tiers;
	bool ok;

	if (!parse(&options, argc, argv))
		return EXIT_FAILURE;
	if (options.help) {
		fputs(help, stdout);
		return EXIT_SUCCESS;
	}
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &(struct sigaction){ .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO }, NULL);
	alarm(SECONDS);
	tiers = tiers_new();
	ok = tiers ? serve(tiers, &options) : fail("no memory to run programs in", NULL);
	tiers_free(tiers);
	return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
