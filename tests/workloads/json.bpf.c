/* SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"
#include "workload.h"

/* A JSON tokenizer (RFC 8259): one pass over the text, a token for each value and each name, a container's token before
 * those of what it contains. Nothing is copied or unescaped; everything that the grammar says is checked, save that
 * strings are UTF-8. The containers that are open are found through the tokens' parents, so depth costs nothing. */

struct json {
	const u8 *text;
	u64 n, at;
	struct json_token *tokens;
	u64 n_max, n_tokens;
	u32 parent;		/* the innermost open container */
};

/* What may come next */
enum json_want { WANT_VALUE, WANT_VALUE_OR_END, WANT_NAME, WANT_NAME_OR_END, WANT_COMMA_OR_END };

static inline u64 is_digit(u8 c) { return (u8)(c - '0') < 10; }
static inline u64 is_hex(u8 c) { return is_digit(c) || (u8)((c | 32) - 'a') < 6; }

/* The next byte, 0 at the end: no token begins or goes on with it */
static inline u8 peek(const struct json *j) { return j->at < j->n ? j->text[j->at] : 0; }

method void skip_space(struct json *j)
{
	for (; j->at < j->n; j->at++) {
		u8 c = j->text[j->at];

		if (c != ' ' && c != '\t' && c != '\n' && c != '\r')
			return;
	}
}

/* From the opening quote to behind the closing one; false if it is malformed */
method u64 skip_string(struct json *j)
{
	for (j->at++; j->at < j->n;) {
		u8 c = j->text[j->at++];

		if (c == '"')
			return 1;
		if (c < ' ')
			return 0;
		if (c != '\\')
			continue;
		c = peek(j);
		j->at++;
		if (c == 'u') {
			for (u64 i = 0; i < 4; i++, j->at++)
				if (!is_hex(peek(j)))
					return 0;
		} else if (c != '"' && c != '\\' && c != '/' && c != 'b' && c != 'f' && c != 'n' && c != 'r' && c != 't') {
			return 0;
		}
	}
	return 0;
}

/* At least one digit */
method u64 skip_digits(struct json *j)
{
	u64 begin = j->at;

	while (is_digit(peek(j)))
		j->at++;
	return j->at > begin;
}

method u64 skip_number(struct json *j)
{
	if (peek(j) == '-')
		j->at++;
	if (peek(j) == '0')
		j->at++;
	else if (!skip_digits(j))
		return 0;
	if (peek(j) == '.') {
		j->at++;
		if (!skip_digits(j))
			return 0;
	}
	if ((peek(j) | 32) != 'e')
		return 1;
	j->at++;
	if (peek(j) == '+' || peek(j) == '-')
		j->at++;
	return skip_digits(j);
}

method u64 skip_word(struct json *j, const char *word)
{
	for (; *word; word++, j->at++)
		if (peek(j) != (u8)*word)
			return 0;
	return 1;
}

/* Goes over a value that contains no other; returns its kind, JSON_NONE if it is malformed. */
method enum json_kind skip_scalar(struct json *j)
{
	switch (peek(j)) {
	case '"':
		return skip_string(j) ? JSON_STRING : JSON_NONE;
	case 't':
		return skip_word(j, "true") ? JSON_TRUE : JSON_NONE;
	case 'f':
		return skip_word(j, "false") ? JSON_FALSE : JSON_NONE;
	case 'n':
		return skip_word(j, "null") ? JSON_NULL : JSON_NONE;
	default:
		return skip_number(j) ? JSON_NUMBER : JSON_NONE;
	}
}

method u64 add_token(struct json *j, enum json_kind kind, u64 begin)
{
	struct json_token *token = &j->tokens[j->n_tokens];

	if (kind == JSON_NONE || j->n_tokens == j->n_max)
		return 0;
	token->kind = kind;
	token->parent = j->parent;
	token->begin = begin;
	token->end = j->at;
	j->n_tokens++;
	return 1;
}

method u64 open_container(struct json *j, enum json_kind kind)
{
	j->at++;
	if (!add_token(j, kind, j->at - 1))
		return 0;
	j->parent = j->n_tokens - 1;
	return 1;
}

method void close_container(struct json *j)
{
	struct json_token *token = &j->tokens[j->parent];

	token->end = ++j->at;
	j->parent = token->parent;
}

method u64 take_name(struct json *j)
{
	u64 begin = j->at;

	if (peek(j) != '"' || !skip_string(j) || !add_token(j, JSON_NAME, begin))
		return 0;
	skip_space(j);
	return peek(j) == ':' && j->at++;
}

static inline u64 may_end(enum json_want want)
{
	return want == WANT_VALUE_OR_END || want == WANT_NAME_OR_END || want == WANT_COMMA_OR_END;
}

/* Returns the number of tokens, JSON_FAILED for what is no JSON text or has more than @n_max of them. */
export u64 ENTRY(json)(const u8 *text, u64 n, struct json_token *tokens, u64 n_max)
{
	struct json j = { text, n, 0, tokens, n_max, 0, JSON_NO_PARENT };
	enum json_want want = WANT_VALUE;

	for (;;) {
		u64 begin, is_object = j.parent != JSON_NO_PARENT && tokens[j.parent].kind == JSON_OBJECT;
		u8 c;

		skip_space(&j);
		if (want == WANT_COMMA_OR_END && j.parent == JSON_NO_PARENT)
			return j.at == n ? j.n_tokens : JSON_FAILED;
		c = peek(&j);
		begin = j.at;
		if (c == (is_object ? '}' : ']') && may_end(want) && j.parent != JSON_NO_PARENT) {
			close_container(&j);
			want = WANT_COMMA_OR_END;
		} else if (want == WANT_COMMA_OR_END) {
			if (c != ',')
				return JSON_FAILED;
			j.at++;
			want = is_object ? WANT_NAME : WANT_VALUE;
		} else if (want == WANT_NAME || want == WANT_NAME_OR_END) {
			if (!take_name(&j))
				return JSON_FAILED;
			want = WANT_VALUE;
		} else if (c == '{' || c == '[') {
			if (!open_container(&j, c == '{' ? JSON_OBJECT : JSON_ARRAY))
				return JSON_FAILED;
			want = c == '{' ? WANT_NAME_OR_END : WANT_VALUE_OR_END;
		} else {
			if (!add_token(&j, skip_scalar(&j), begin))
				return JSON_FAILED;
			want = WANT_COMMA_OR_END;
		}
	}
}
