# SPDX-License-Identifier: Apache-2.0
#
# tierd: every task. `make help` lists them. All output goes below build/ (build/san/ with SAN=...).
#
# Switches: V=1 shows commands · SAN=address,undefined builds with sanitizers · CC=clang · LLVM_CONFIG=llvm-config-19

MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
.SECONDARY:
.DEFAULT_GOAL := all

VERSION := 0.1.0
SAN ?=
V ?= 0
PREFIX ?= /usr/local

B := build$(if $(SAN),/san)
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-8s %s\n' '$(1)' '$(2)';)

# -- Tools --------------------------------------------------------------------------------------------------------
ifeq ($(origin CC),default)
CC := gcc
endif
CLANG ?= $(firstword $(foreach c,clang clang-19 clang-18 clang-17 clang-16 clang-15,$(shell command -v $(c))) clang)
BPFTOOL ?= $(firstword $(foreach c,bpftool /usr/sbin/bpftool,$(shell command -v $(c))) bpftool)
LLVM_CONFIG ?= $(firstword $(foreach v,19 20 18 17 16 15,$(shell command -v llvm-config-$(v))) llvm-config)
PKG_CONFIG ?= pkg-config
# optional: clang's own profile-guided optimization, for `make bench`; its runtime and sanitizers of $(CC) do not mix
PROFDATA := $(if $(SAN),,$(shell command -v $(shell $(CLANG) -print-prog-name=llvm-profdata)))
PROFILING := $(and $(PROFDATA),$(wildcard $(shell $(CLANG) -print-runtime-dir)/libclang_rt.profile*))
# optional: the disassembler of `tierctl show --native`
CAPSTONE := $(shell $(PKG_CONFIG) --exists capstone 2>/dev/null && echo capstone)
# optional: `tierd --log-to=journal`, `tierd --keep`, and a service of the system's that survives its daemon
SYSTEMD := $(shell $(PKG_CONFIG) --exists libsystemd 2>/dev/null && echo systemd)

LLVM_CFLAGS = $(shell $(LLVM_CONFIG) --cflags 2>/dev/null | tr ' ' '\n' | grep '^-[ID]' | sed 's/^-I/-isystem /' | tr '\n' ' ')
LLVM_LIBS = $(shell $(LLVM_CONFIG) --ldflags --libs 2>/dev/null)

WARNINGS := -Wall -Wextra -Werror -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-unused-parameter -Wshadow -Wundef
CFLAGS ?= -O2 -g
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
ALL_CFLAGS = -std=gnu17 $(WARNINGS) $(CFLAGS) $(SANFLAGS) -D_GNU_SOURCE -DTIER_VERSION='"$(VERSION)"' -fPIC -fvisibility=hidden \
	-Iinclude -MMD -MP
LDFLAGS ?=
ALL_LDFLAGS = $(LDFLAGS) $(SANFLAGS) -Wl,--as-needed -Wl,-z,relro,-z,now -Wl,-z,noexecstack

# -- What there is ------------------------------------------------------------------------------------------------
sources = $(sort $(wildcard $(1)/*.c) $(wildcard $(1)/*.S))
objects = $(patsubst %,$(B)/obj/%.o,$(basename $(call sources,$(1))))

FLOORS := util bytecode arena jit worker cache store tiering journal trace server
define floor
$(B)/obj/$(1).a: $$(call objects,daemon/$(1))
endef
$(foreach f,$(FLOORS),$(eval $(call floor,$(f))))
$(B)/obj/child.a: $(filter-out %/main.o,$(call objects,daemon/worker/child))
$(B)/obj/lib.a: $(call objects,lib)

archive = $(patsubst %,$(B)/obj/%.a,$(1))
DAEMON_ARCHIVES := $(call archive,server trace journal tiering store cache worker jit arena bytecode util)
WORKER_ARCHIVES := $(call archive,child worker bytecode util)

SYSTEMD_LIBS = $(if $(SYSTEMD),$(shell $(PKG_CONFIG) --libs libsystemd))
DAEMON_LIBS = -lbpf -lelf -lz $(SYSTEMD_LIBS) -lpthread
CHILD_LIBS = $(LLVM_LIBS) -lelf -lseccomp -lpthread

WORKLOADS := $(patsubst tests/workloads/%.bpf.c,%,$(sort $(wildcard tests/workloads/*.bpf.c)))
WORKLOAD_OBJECTS := $(WORKLOADS:%=$(B)/workloads/%.bpf.o)

F := $(B)/faults
PROGRAMS := $(B)/tierd $(B)/tierd-worker $(B)/tierctl $(B)/libtier.so.0 $(B)/libtier.a

UNIT_TESTS := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/unit/*/test_*.c)))
SYSTEM_TESTS := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/system/test_*.c)))
COMPILER_TESTS := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/conformance/test_*.c tests/differential/test_*.c)))
CORPUS_TESTS := $(patsubst tests/fuzz/corpus/%,$(B)/tests/fuzz/%,$(sort $(wildcard tests/fuzz/corpus/fuzz_*)))
# Daemons for tests/system/test_upgrade.c: of the next version, whose ledger has grown, and of one that is not compatible
VARIANTS := next other
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))

# -- Tasks --------------------------------------------------------------------------------------------------------
.PHONY: help all faults deps demo check check-long bench bench-backpatch install clean floors pages fuzz unit system format tests
help:  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 26

all: $(PROGRAMS) $(WORKLOAD_OBJECTS)  ## build everything into build/

deps:  ## install the Debian/Ubuntu packages that the build needs
	@tools/deps

demo:  ## set up, build, and drive every workload to its final tier on a private daemon
	@tools/deps
	@$(MAKE) --no-print-directory all $(B)/tests/bench/demo
	@$(B)/tests/bench/demo

check:  ## set up, build and run all tests (at most 5 minutes once built)
	@tools/deps
	@$(MAKE) --no-print-directory all tests floors pages
	@tests/run $(B) short

check-long:  ## the same tests with the full counts that the issues name
	@tools/deps
	@$(MAKE) --no-print-directory all tests floors pages
	@tests/run $(B) long

faults: $(F)/tierd $(F)/tierd-worker  ## the daemon with a schedule of faults, for tests: build/faults/tierd --help

tests: faults $(VARIANTS:%=$(B)/%/tierd) $(UNIT_TESTS) $(COMPILER_TESTS) $(CORPUS_TESTS) $(B)/tests/conformance-plugin $(SYSTEM_TESTS)

bench: all $(B)/tests/bench/bench $(if $(PROFILING),$(B)/workloads/guided.so)  ## medians and ratios: latencies, every tier against native, OSR
	@$(B)/tests/bench/bench

bench-backpatch: all $(B)/tests/bench/backpatch  ## what keeping entry points takes under each policy; build/bench/backpatch.json
	@mkdir -p $(B)/bench
	@TIER_BUILD=$(B) $(B)/tests/bench/backpatch

fuzz:  ## every fuzz target for FUZZ_SECONDS (default 60) each; needs clang's libFuzzer
	@tests/fuzz/run $(FUZZERS)

floors:  ## check every #include against the floors of the layout
	@tools/floors

pages: $(B)/tierd $(B)/tierctl  ## compare the manual pages with the code, in both directions
	@tools/pages $(B)

install: all  ## install below $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/libexec/tierd \
		$(DESTDIR)$(PREFIX)/include/tier
	install -m 755 $(B)/tierd $(DESTDIR)$(PREFIX)/sbin/tierd
	install -m 755 $(B)/tierd-worker $(DESTDIR)$(PREFIX)/libexec/tierd/tierd-worker
	install -m 755 $(B)/tierctl $(DESTDIR)$(PREFIX)/bin/tierctl
	install -m 755 $(B)/libtier.so.0 $(DESTDIR)$(PREFIX)/lib/libtier.so.0
	ln -sf libtier.so.0 $(DESTDIR)$(PREFIX)/lib/libtier.so
	install -m 644 $(B)/libtier.a $(DESTDIR)$(PREFIX)/lib/libtier.a
	install -m 644 include/tier/*.h $(DESTDIR)$(PREFIX)/include/tier/
	for page in daemon/tierd.8 cli/tierctl.1 lib/libtier.3 lib/tier-wire.7; do \
		install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/} || exit 1; done
	for unit in system/tierd.service system/tierd.socket user/tierd.service user/tierd.socket; do \
		sed 's|/usr/local/|$(PREFIX)/|' systemd/$${unit#system/} | \
			install -D -m 644 /dev/stdin $(DESTDIR)$(PREFIX)/lib/systemd/$$unit || exit 1; done
	sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' lib/tier.pc.in | \
		install -D -m 644 /dev/stdin $(DESTDIR)$(PREFIX)/lib/pkgconfig/tier.pc

clean:  ## remove build/
	rm -rf build

format:  ## clang-format over the tree
	git ls-files '*.c' '*.h' | xargs clang-format -i

# -- Programs -----------------------------------------------------------------------------------------------------
# clang's headers and LLVM's are included through -isystem so that -Werror is about our code only.
$(B)/obj/daemon/worker/child/%.o: private ALL_CFLAGS += $(LLVM_CFLAGS)
$(B)/obj/daemon/%.o: private ALL_CFLAGS += -Idaemon
$(B)/obj/daemon/util/journald.o $(B)/obj/daemon/store/store.o: private ALL_CFLAGS += $(if $(SYSTEMD),-DHAVE_SYSTEMD $(shell $(PKG_CONFIG) --cflags libsystemd))
$(B)/obj/lib/%.o: private ALL_CFLAGS += -Ilib
$(B)/obj/cli/%.o: private ALL_CFLAGS += -Icli $(if $(CAPSTONE),-DHAVE_CAPSTONE $(shell $(PKG_CONFIG) --cflags capstone))

$(call objects,daemon/trace): | $(B)/tracer.skel.h

$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(ALL_CFLAGS) -I$(B) -c $< -o $@

$(B)/obj/%.o: %.S
	@mkdir -p $(@D)
	$(call say,AS,$<)$(CC) $(ALL_CFLAGS) -c $< -o $@

$(B)/obj/%.a:
	@mkdir -p $(@D); rm -f $@
	$(call say,AR,$@)ar rcs $@ $^

$(B)/tierd: $(call objects,daemon) $(DAEMON_ARCHIVES)
	$(call say,LINK,$@)$(CC) $(ALL_LDFLAGS) -o $@.new $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(DAEMON_LIBS) && mv $@.new $@

# Only what knows the ledger's inside is compiled anew; the worker is this build's.
VARIANT_next := -DLEDGER_TEST_NEXT
VARIANT_other := -DLEDGER_TEST_FORMAT=99u
LEDGER_SOURCES := $(sort $(wildcard daemon/tiering/*.c) $(shell grep -lE '"tiering/(ledger|internal)' daemon/*.c))
define variant
$(B)/obj/$(1)/%.o: %.c
	@mkdir -p $$(@D)
	$$(call say,CC,$$< for $(1))$$(CC) $$(ALL_CFLAGS) -Idaemon $$(VARIANT_$(1)) -I$(B) -c $$< -o $$@

$(B)/$(1)/tierd: $(LEDGER_SOURCES:%.c=$(B)/obj/$(1)/%.o) $(filter-out $(LEDGER_SOURCES:%.c=$(B)/obj/%.o),$(call objects,daemon)) \
	$(filter-out %/tiering.a,$(DAEMON_ARCHIVES)) | $(B)/tierd-worker
	@mkdir -p $$(@D); ln -sf ../tierd-worker $$(@D)/tierd-worker
	$$(call say,LINK,$$@)$$(CC) $$(ALL_LDFLAGS) -o $$@.new $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group $$(DAEMON_LIBS) && mv $$@.new $$@
endef
$(foreach v,$(VARIANTS),$(eval $(call variant,$(v))))

$(B)/tierd-worker: $(B)/obj/daemon/worker/child/main.o $(WORKER_ARCHIVES)
	$(call say,LINK,$@)$(CC) $(ALL_LDFLAGS) -o $@.new $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(CHILD_LIBS) && mv $@.new $@

$(B)/tierctl: $(call objects,cli) $(B)/libtier.a
	$(call say,LINK,$@)$(CC) $(ALL_LDFLAGS) -o $@.new $^ -lsmartcols -lz $(if $(CAPSTONE),$(shell $(PKG_CONFIG) --libs capstone)) -lpthread && mv $@.new $@

# One object whose hidden symbols are local: a program that links statically sees no more names than the shared library has.
$(B)/libtier.a: $(call objects,lib)
	@rm -f $@
	$(call say,AR,$@)ld -r -o $(B)/obj/libtier.o $^ && objcopy --localize-hidden $(B)/obj/libtier.o && ar rcs $@ $(B)/obj/libtier.o

$(B)/libtier.so.0: $(call objects,lib) lib/libtier.map
	$(call say,LINK,$@)$(CC) $(ALL_LDFLAGS) -shared -Wl,-soname,libtier.so.0 -Wl,--version-script=lib/libtier.map -o $@ \
		$(filter %.o,$^) -lpthread
	@ln -sf libtier.so.0 $(B)/libtier.so

# -- Faults on purpose (daemon/util/fault.h): the daemon once more. What knows of them is compiled for that, all else is the same; and the
# linker leads what it asks of the system through daemon/util/fault_wrap.c.
FAULT_WRAPS := malloc calloc realloc reallocarray strdup fdopendir mmap pthread_create posix_spawn epoll_ctl \
	memfd_create eventfd epoll_create1 accept4 socket socketpair open openat fcntl \
	pwrite write fsync ftruncate renameat unlinkat sendmsg send store_put store_take store_remove
FAULT_OBJECTS := $(patsubst %.c,$(F)/obj/%.o,daemon/util/fault.c daemon/util/fault_wrap.c \
	$(sort $(shell grep -l '^\#include "util/fault.h"' daemon/*.c daemon/*/*.c daemon/*/*/*.c)))
FAULT_OF_WORKER := $(filter $(F)/obj/daemon/worker/child/%,$(FAULT_OBJECTS)) $(F)/obj/daemon/util/fault.o
FAULT_OF_DAEMON := $(filter-out $(F)/obj/daemon/worker/child/%,$(FAULT_OBJECTS))

$(F)/obj/daemon/trace/programs.o: private ALL_CFLAGS += -I$(F)
$(F)/obj/daemon/trace/programs.o: | $(F)/tracer.skel.h
$(F)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$< with faults)$(CC) $(ALL_CFLAGS) -DTIER_FAULTS -Idaemon -Ilib -I$(B) -c $< -o $@

$(F)/obj/%.o: %.S
	@mkdir -p $(@D)
	$(call say,AS,$< with faults)$(CC) $(ALL_CFLAGS) -c $< -o $@

$(F)/libtier.o: $(patsubst %,$(F)/obj/%.o,$(basename $(call sources,lib)))
	$(call say,LD,$@)ld -r -o $@ $^

$(F)/tierd: $(FAULT_OF_DAEMON) $(filter-out $(FAULT_OF_DAEMON:$(F)/%=$(B)/%),$(call objects,daemon)) $(DAEMON_ARCHIVES)
	$(call say,LINK,$@)$(CC) $(ALL_LDFLAGS) $(FAULT_WRAPS:%=-Wl,--wrap=%) -o $@.new $(filter %.o,$^) \
		-Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(DAEMON_LIBS) && mv $@.new $@

$(F)/tierd-worker: $(FAULT_OF_WORKER) $(B)/obj/daemon/worker/child/main.o $(WORKER_ARCHIVES)
	$(call say,LINK,$@)$(CC) $(ALL_LDFLAGS) -o $@.new $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(CHILD_LIBS) && mv $@.new $@

# -- BPF ----------------------------------------------------------------------------------------------------------
ARCH_INCLUDE := $(shell $(CC) -print-multiarch 2>/dev/null)
$(B)/tier.bpf.o: bpf/tier.bpf.c $(wildcard include/tier/*.h bpf/*.h)
	@mkdir -p $(@D)
	$(call say,BPF,$<)$(CLANG) -target bpf -mcpu=v3 -D__TARGET_ARCH_x86 -O2 -g -Wall -Werror -Iinclude -isystem /usr/include/$(ARCH_INCLUDE) -c $< -o $@

$(F)/tier.bpf.o: bpf/tier.bpf.c $(wildcard include/tier/*.h bpf/*.h)
	@mkdir -p $(@D)
	$(call say,BPF,$< with faults)$(CLANG) -target bpf -mcpu=v3 -DTIER_FAULTS -D__TARGET_ARCH_x86 -O2 -g -Wall -Werror -Iinclude \
		-isystem /usr/include/$(ARCH_INCLUDE) -c $< -o $@

$(B)/tracer.skel.h $(F)/tracer.skel.h: %/tracer.skel.h: %/tier.bpf.o
	$(call say,SKEL,$@)$(BPFTOOL) gen skeleton $< name tracer_bpf > $@

$(B)/workloads/%.bpf.o: tests/workloads/%.bpf.c $(wildcard tests/workloads/*.h)
	@mkdir -p $(@D)
	$(call say,BPF,$<)$(CLANG) -target bpf -O2 -mcpu=v3 -g -Wall -Werror -Itests/workloads -c $< -o $@

# the same source built natively by clang -O2, for equality and for speed
$(B)/workloads/%.native.o: tests/workloads/%.bpf.c $(wildcard tests/workloads/*.h)
	@mkdir -p $(@D)
	$(call say,NATIVE,$<)$(CLANG) -O2 -march=native -fno-builtin -fPIC -DNATIVE -Itests/workloads -c $< -o $@

# and by clang with its own profile, learned from the usual inputs. The driver's library is not that of $(CC), so clang links.
GUIDED := $(filter-out counter figures imports,$(WORKLOADS))
$(B)/workloads/%.train.o: tests/workloads/%.bpf.c $(wildcard tests/workloads/*.h)
	@mkdir -p $(@D)
	$(call say,TRAIN,$<)$(CLANG) -O2 -march=native -fno-builtin -fPIC -DNATIVE -fprofile-instr-generate -Itests/workloads -c $< -o $@

$(B)/workloads/train: $(B)/obj/tests/bench/train.o $(B)/obj/tests/bench/inputs.o $(WORKLOADS:%=$(B)/workloads/%.train.o)
	$(call say,LINK,$@)$(CLANG) $(ALL_LDFLAGS) -fprofile-instr-generate -o $@ $^ -lm

$(B)/workloads/train.profdata: $(B)/workloads/train
	$(call say,TRAIN,$@)LLVM_PROFILE_FILE=$@.raw $< && $(PROFDATA) merge -o $@ $@.raw

$(B)/workloads/%.guided.o: tests/workloads/%.bpf.c $(B)/workloads/train.profdata
	$(call say,GUIDED,$<)$(CLANG) -O2 -march=native -fno-builtin -fPIC -DNATIVE -fprofile-instr-use=$(B)/workloads/train.profdata \
		-Itests/workloads -c $< -o $@

$(B)/workloads/guided.so: $(GUIDED:%=$(B)/workloads/%.guided.o)
	$(call say,LINK,$@)$(CLANG) $(ALL_LDFLAGS) -shared -Wl,-Bsymbolic -o $@ $^

# -- Tests --------------------------------------------------------------------------------------------------------
# A unit test links the archives of its floor and those below; order does not matter inside the group.
UNIT_ARCHIVES_util := util
UNIT_ARCHIVES_bytecode := bytecode util
UNIT_ARCHIVES_arena := arena bytecode util
UNIT_ARCHIVES_jit := jit bytecode util
UNIT_ARCHIVES_worker := worker child bytecode util
UNIT_ARCHIVES_cache := cache bytecode util
UNIT_ARCHIVES_store := store util
UNIT_ARCHIVES_tiering := tiering bytecode util
UNIT_ARCHIVES_journal := journal bytecode util
UNIT_ARCHIVES_trace := trace bytecode util
UNIT_ARCHIVES_server := server tiering journal bytecode util
UNIT_ARCHIVES_lib := lib
UNIT_LIBS_util = $(SYSTEMD_LIBS)
UNIT_LIBS_store = $(SYSTEMD_LIBS)
UNIT_LIBS_worker = $(CHILD_LIBS)
UNIT_LIBS_trace = $(DAEMON_LIBS)
UNIT_LIBS_journal = -lz
UNIT_LIBS_server = -lz

$(B)/obj/tests/%.o: private ALL_CFLAGS += -Idaemon -Itests -Itests/workloads -Wno-missing-prototypes $(if $(findstring unit/worker,$@),$(LLVM_CFLAGS))

define unit_test
$(B)/tests/unit/$(1)/%: $(B)/obj/tests/unit/$(1)/%.o $$(call archive,$$(UNIT_ARCHIVES_$(1)))
	@mkdir -p $$(@D)
	$$(call say,LINK,$$@)$$(CC) $$(ALL_LDFLAGS) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group -lcmocka $$(UNIT_LIBS_$(1)) -lpthread
endef
$(foreach f,$(FLOORS) lib,$(eval $(call unit_test,$(f))))

# Above the floors: hosted modules, loads and rejits, without a server. What a test has itself is not taken from the archive.
$(B)/obj/above.a: $(patsubst %,$(B)/obj/daemon/%.o,host host_body host_code host_instance host_job host_kept host_ready host_restore host_traits \
	describe loading rejitting takeover compiling caching options history ledger_file)
$(B)/tests/unit/daemon/%: $(B)/obj/tests/unit/daemon/%.o $(B)/obj/above.a $(call archive,child journal tiering store cache worker jit arena bytecode util)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group -lcmocka $(CHILD_LIBS) \
		-lz $(SYSTEMD_LIBS)

# Tests of the compilers have both tiers and the reference interpreter in one process.
TIERS_OBJECTS := $(call objects,tests/tiers) $(call objects,tests/reference)
CONFORMANCE_OBJECTS := $(B)/obj/tests/conformance/assemble.o $(B)/obj/tests/conformance/datafile.o $(TIERS_OBJECTS)
DIFFERENTIAL_OBJECTS := $(B)/obj/tests/differential/generate.o $(B)/obj/tests/differential/check.o $(B)/obj/tests/differential/osr.o $(TIERS_OBJECTS)
TIERS_ARCHIVES := $(call archive,child worker jit bytecode util)
define tiers_link
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group -lcmocka $(CHILD_LIBS) -lz
endef
$(B)/tests/conformance/%: $(B)/obj/tests/conformance/%.o $(CONFORMANCE_OBJECTS) $(TIERS_ARCHIVES)
	$(tiers_link)
$(B)/tests/conformance-plugin: $(B)/obj/tests/conformance/plugin.o $(CONFORMANCE_OBJECTS) $(TIERS_ARCHIVES)
	$(tiers_link)
$(B)/tests/differential/test_osr: $(B)/obj/tests/bench/inputs.o $(B)/obj/tests/bench/vectors.o $(WORKLOADS:%=$(B)/workloads/%.native.o) | \
	$(WORKLOAD_OBJECTS)
$(B)/tests/differential/%: $(B)/obj/tests/differential/%.o $(DIFFERENTIAL_OBJECTS) $(TIERS_ARCHIVES)
	$(tiers_link)

# A fuzz target that is fed its corpus, without libFuzzer
$(B)/tests/fuzz/%: private CHILD_LIBS += -lz
$(B)/tests/fuzz/%: $(B)/obj/tests/fuzz/%.o $(B)/obj/tests/fuzz/replay.o $(TIERS_OBJECTS) $(TIERS_ARCHIVES) $(call archive,arena cache server tiering journal)
	$(tiers_link)

# System tests and benchmarks link the harness and what else tests share, the workloads' inputs and vectors, and the workloads
# built natively.
BENCH_PROGRAMS := demo bench backpatch train
SUPPORT_OBJECTS := $(patsubst %.c,$(B)/obj/%.o,$(filter-out tests/system/test_%,$(wildcard tests/system/*.c))) \
	$(patsubst %,$(B)/obj/%.o,$(basename $(filter-out $(BENCH_PROGRAMS:%=tests/bench/%.c),$(wildcard tests/bench/*.c)))) \
	$(WORKLOADS:%=$(B)/workloads/%.native.o)
$(B)/tests/system/test_probes: private SYSTEM_LIBS := -lbpf -lelf -lz
$(B)/tests/system/%: $(B)/obj/tests/system/%.o $(SUPPORT_OBJECTS) $(B)/libtier.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(ALL_LDFLAGS) -o $@ $^ -lcmocka -lseccomp -lpthread -lm $(SYSTEM_LIBS)

# The fault schedule's client may fail, too.
SCHEDULE_TESTS := $(B)/tests/system/test_schedule $(B)/tests/system/test_schedule_exit
$(SCHEDULE_TESTS:$(B)/%=$(B)/obj/%.o): private ALL_CFLAGS += -DTIER_FAULTS
$(SCHEDULE_TESTS): $(B)/%: $(B)/obj/%.o $(SUPPORT_OBJECTS) $(F)/libtier.o $(F)/obj/daemon/util/fault.o $(F)/obj/daemon/util/fault_wrap.o
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(ALL_LDFLAGS) $(FAULT_WRAPS:%=-Wl,--wrap=%) -o $@ $^ -lcmocka -lseccomp -lpthread -lm

$(B)/tests/bench/%: $(B)/obj/tests/bench/%.o $(SUPPORT_OBJECTS) $(B)/libtier.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(ALL_LDFLAGS) -o $@ $^ -lcmocka -lpthread -lm

-include $(shell find $(B)/obj $(F)/obj -name '*.d' 2>/dev/null)
