/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <llvm-c/Core.h>
#include <llvm-c/TargetMachine.h>
#include <llvm/Config/llvm-config.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "util/base.h"
#include "util/error.h"
#include "util/hash.h"
#include "worker/child/identity.h"

static struct compiler self;

/* The library that is there may be newer than the headers. */
static void name_llvm(char *text, size_t n)
{
#if LLVM_VERSION_MAJOR >= 16
	unsigned int major, minor, patch;

	LLVMGetVersion(&major, &minor, &patch);
	snprintf(text, n, "%u.%u.%u", major, minor, patch);
#else
	snprintf(text, n, "%s", LLVM_VERSION_STRING);
#endif
}

static int hash_program(uint64_t *ret)
{
	_cleanup_(closep) int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct stat status;
	void *bytes;

	if (fd < 0 || fstat(fd, &status) < 0)
		return error_origin(-errno);
	bytes = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (bytes == MAP_FAILED)
		return error_origin(-errno);
	*ret = hash_fnv(HASH_FNV_BASIS, bytes, status.st_size);
	munmap(bytes, status.st_size);
	return 0;
}

int identity_init(void)
{
	char *cpu = LLVMGetHostCPUName(), *features = LLVMGetHostCPUFeatures();

	self = (struct compiler){ .version = TIER_VERSION, .features = hash_fnv(HASH_FNV_BASIS, features, strlen(features)) };
	snprintf(self.cpu, sizeof(self.cpu), "%s", cpu);
	name_llvm(self.llvm, sizeof(self.llvm));
	LLVMDisposeMessage(features);
	LLVMDisposeMessage(cpu);
	return error_fold(hash_program(&self.build));
}

const struct compiler *identity(void) { return &self; }
