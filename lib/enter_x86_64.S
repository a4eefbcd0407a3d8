/* SPDX-License-Identifier: Apache-2.0 */

/* Where methods enter libtier
 *
 * A call that cannot go straight to code arrives here through the private table, with the caller's return address on top
 * of the stack and all argument registers live (daemon/jit/stubs.h is the other side of this contract):
 *
 *   tier_enter_prestub     r11 = the method's record   r10 = call cell or junk   → continue at the method's code
 *   tier_enter_threshold   r11 = the method's record   r10 = the stub's data     → continue at the counted code
 *   tier_enter_osr         r11 = the loop's patchpoint   r10 = the frame's counter   entered by a call: returns with
 *                          r11 = the address of code for the running frame, or 0; all but r10 and flags is as before
 *   tier_enter_unbound     one entry per import number; entered by a call; eax = the number; does not come back
 *
 * The frame is a real one with unwind information: a debugger, a profiler and a thread's cancellation walk through it to
 * the method's caller. */

	.text

/* Saves what the method's code expects to find, calls @function(r11, r10), whose result is in r11 then, and leaves by @exit.
 * r11 is free: code is entered through pointers, so it expects nothing there. */
	.macro enter symbol, function, exit:vararg
	.globl	\symbol
	.hidden	\symbol
	.type	\symbol, @function
	.p2align 4
\symbol:
	.cfi_startproc
	push	%rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	mov	%rsp, %rbp
	.cfi_def_cfa_register %rbp
	sub	$64, %rsp
	and	$-16, %rsp		/* whoever called may keep the stack as it likes */
	mov	%rdi, 0(%rsp)
	mov	%rsi, 8(%rsp)
	mov	%rdx, 16(%rsp)
	mov	%rcx, 24(%rsp)
	mov	%r8, 32(%rsp)
	mov	%r9, 40(%rsp)
	mov	%rax, 48(%rsp)
	mov	%r11, %rdi
	mov	%r10, %rsi
	call	\function
	mov	%rax, %r11
	mov	0(%rsp), %rdi
	mov	8(%rsp), %rsi
	mov	16(%rsp), %rdx
	mov	24(%rsp), %rcx
	mov	32(%rsp), %r8
	mov	40(%rsp), %r9
	mov	48(%rsp), %rax
	leave
	.cfi_def_cfa %rsp, 8
	.cfi_restore %rbp
	\exit
	.cfi_endproc
	.size	\symbol, . - \symbol
	.endm

	enter	tier_enter_prestub, prestub_enter, jmp *%r11
	enter	tier_enter_threshold, threshold_enter, jmp *%r11
	enter	tier_enter_osr, osr_enter, ret

/* 256 entries of 16 bytes (prestub.h: UNBOUND_ENTRIES, UNBOUND_ENTRY_SIZE), so that the failure can name the import. */
	.globl	tier_enter_unbound
	.hidden	tier_enter_unbound
	.type	tier_enter_unbound, @function
	.p2align 4
tier_enter_unbound:
	.cfi_startproc
	.set	number, 0
	.rept	256
	mov	$number, %eax
	jmp	unbound
	.p2align 4, 0xcc
	.set	number, number + 1
	.endr
unbound:
	push	%rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	mov	%rsp, %rbp
	.cfi_def_cfa_register %rbp
	and	$-16, %rsp
	mov	%eax, %edi
	mov	8(%rbp), %rsi		/* return address: which module called */
	call	unbound_enter
	ud2
	.cfi_endproc
	.size	tier_enter_unbound, . - tier_enter_unbound

	.section .note.GNU-stack, "", @progbits
