/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include "error.h"
#include "tier/tier.h"

/* The failure may be that of a cold call in a signal handler or in the child of a clone, so the text lies in static
 * thread-local storage (dynamic one is allocated at its first use), and the formatting is our own: printf's may take
 * locks of the C library that nobody will ever give back in such a child. */

static __thread char error_text[512] __attribute__((tls_model("initial-exec")));

struct text {
	char *to;
	size_t n, n_max;	/* without the NUL */
};

static void text_add(struct text *text, const char *from, size_t n)
{
	if (n > text->n_max - text->n)
		n = text->n_max - text->n;
	memcpy(text->to + text->n, from, n);
	text->n += n;
}

static void text_number(struct text *text, uint64_t value, unsigned int base)
{
	char digits[24];
	size_t at = sizeof(digits);

	do {
		digits[--at] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	text_add(text, digits + at, sizeof(digits) - at);
}

static void text_signed(struct text *text, int value)
{
	if (value < 0)
		text_add(text, "-", 1);
	text_number(text, value < 0 ? -(int64_t)value : value, 10);
}

/* One conversion; returns what follows it in the format. */
static const char *text_convert(struct text *text, const char *format, va_list *arguments)
{
	const bool is_long = *format == 'l';
	const char *s;

	switch (*(format += is_long)) {
	case 's':
		s = va_arg(*arguments, const char *);
		text_add(text, s, strlen(s));
		break;
	case 'd':
		text_signed(text, va_arg(*arguments, int));
		break;
	case 'u':
	case 'x':
		text_number(text, is_long ? va_arg(*arguments, unsigned long) : va_arg(*arguments, unsigned int),
			    *format == 'x' ? 16 : 10);
		break;
	default:
		text_add(text, format, 1);
		break;
	}
	return format + 1;
}

static void text_format_list(char *to, size_t n, const char *format, va_list *arguments)
{
	struct text text = { .to = to, .n_max = n - 1 };

	while (*format) {
		const size_t plain = strcspn(format, "%");

		text_add(&text, format, plain);
		format += plain;
		if (*format == '%' && format[1])
			format = text_convert(&text, format + 1, arguments);
	}
	to[text.n] = 0;
}

void text_format(char *to, size_t n, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	text_format_list(to, n, format, &arguments);
	va_end(arguments);
}

void text_copy(char *to, size_t n, const char *from)
{
	const size_t length = strnlen(from, n - 1);

	memcpy(to, from, length);
	memset(to + length, 0, n - length);
}

int error_set(int r, const char *format, ...)
{
	char text[sizeof(error_text)];	/* the arguments may point into the old sentence */
	va_list arguments;

	va_start(arguments, format);
	text_format_list(text, sizeof(text), format, &arguments);
	va_end(arguments);
	memcpy(error_text, text, sizeof(text));
	return r;
}

const char *error_word(int r)
{
	const char *word = strerrordesc_np(-r);

	return word ? word : "unknown error";
}

const char *tier_error_text(void)
{
	return error_text;
}
