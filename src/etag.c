/*
 * etag.c
 *		Entity tags (RFC 9110): made of a content or of a feed, and compared.
 *
 * A tag of a content costs reading it; poll.feed_etag() does not look at the
 * tables at all.  It hashes where a client that has seen everything would be:
 * as long as that is the same, nothing that is computed from these tables can
 * have changed.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base64url.h"
#include "catalog.h"
#include "digest.h"
#include "etag.h"
#include "fullsync.h"
#include "request.h"
#include "snapshot.h"

PG_FUNCTION_INFO_V1(poll_ext_etag);
PG_FUNCTION_INFO_V1(poll_ext_etag_agg_add);
PG_FUNCTION_INFO_V1(poll_ext_etag_agg_result);
PG_FUNCTION_INFO_V1(poll_ext_feed_etag);
PG_FUNCTION_INFO_V1(poll_ext_if_none_match);

text *
poll_etag_make(const char *prefix, const PollDigest *digest)
{
	uint8		bytes[POLL_DIGEST_LENGTH];
	char		tag[64];
	int			length = strlen(prefix);

	poll_digest_result(digest, bytes);
	memcpy(tag, prefix, length);
	length += poll_base64url_encode(bytes, sizeof(bytes), tag + length);
	tag[length++] = '"';
	return cstring_to_text_with_len(tag, length);
}

/* The type of the argument, which is of type anyelement. */
static Oid
argument_type(FunctionCallInfo fcinfo, int argno)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, argno);

	if (!OidIsValid(type))
		elog(ERROR, "could not determine the type of the argument");
	return type;
}

/* poll.etag(content anyelement) returns text */
Datum
poll_ext_etag(PG_FUNCTION_ARGS)
{
	Oid			type = argument_type(fcinfo, 0);
	PollDigest	digest;

	poll_digest_begin(&digest);
	poll_digest_add_names(&digest, type, PG_GETARG_DATUM(0));
	poll_digest_add_value(&digest, type, PG_GETARG_DATUM(0));
	PG_RETURN_TEXT_P(poll_etag_make("\"", &digest));
}

/* ---- poll.etag_agg() ---- */

typedef struct PollEtagState
{
	int64		rows;
	PollDigest	digest;
} PollEtagState;

static PollEtagState *
new_state(MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	PollEtagState *state = palloc0(sizeof(PollEtagState));

	poll_digest_begin(&state->digest);
	MemoryContextSwitchTo(old);
	return state;
}

/* state internal, content anyelement -> internal */
Datum
poll_ext_etag_agg_add(PG_FUNCTION_ARGS)
{
	MemoryContext context;
	PollEtagState *state;
	Oid			type = argument_type(fcinfo, 1);

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "called outside of an aggregate");
	state = PG_ARGISNULL(0) ? new_state(context) : (PollEtagState *) PG_GETARG_POINTER(0);
	if (PG_ARGISNULL(1))
		poll_digest_add(&state->digest, "0", 1);
	else
	{
		if (state->rows++ == 0)
			poll_digest_add_names(&state->digest, type, PG_GETARG_DATUM(1));
		poll_digest_add_value(&state->digest, type, PG_GETARG_DATUM(1));
	}
	PG_RETURN_POINTER(state);
}

/* state internal -> text; of no rows, too */
Datum
poll_ext_etag_agg_result(PG_FUNCTION_ARGS)
{
	PollEtagState *state = PG_ARGISNULL(0) ? new_state(CurrentMemoryContext) :
	(PollEtagState *) PG_GETARG_POINTER(0);

	PG_RETURN_TEXT_P(poll_etag_make("\"", &state->digest));
}

/* ---- poll.feed_etag() ---- */

text *
poll_etag_of_feeds(ArrayType *feeds, Jsonb *scope, const text *variant)
{
	Oid			role = GetUserId();
	PollRequest request;
	PollCursor	cursor;
	PollDigest	digest;

	poll_request_init(&request, feeds, scope, NULL, NULL);
	request.start = POLL_START_NOW;
	poll_request_begin(&request);
	poll_position_now(&cursor, request.set, request.snapshot, &request.view, false);
	/* a crash must not bring back the tag with other contents */
	poll_snapshot_flush(request.snapshot);
	MemoryContextSwitchTo(request.caller);
	poll_digest_begin(&digest);
	poll_digest_add(&digest, poll_catalog_secret()->data, UUID_LEN);
	poll_digest_add(&digest, &role, sizeof(role));
	poll_digest_add_text(&digest, variant);
	poll_digest_add_text(&digest, poll_cursor_encode(&cursor));
	poll_request_end(&request);
	return poll_etag_make("W/\"f1.", &digest);
}

/* poll.feed_etag(feeds text[], variant text, scope jsonb) returns text */
Datum
poll_ext_feed_etag(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(poll_etag_of_feeds(poll_arg_feeds(fcinfo, 0), poll_arg_scope(fcinfo, 2),
										poll_arg_text(fcinfo, 1)));
}

/* ---- poll.if_none_match() ---- */

/* An opaque tag, with its quotes; NULL if there is none at the start. */
static const char *
skip_tag(const char *p, const char *end)
{
	if (p == end || *p++ != '"')
		return NULL;
	for (; p < end; p++)
	{
		unsigned char c = *p;

		if (c == '"')
			return p + 1;
		if (c <= ' ' || c == 0x7f)
			return NULL;
	}
	return NULL;
}

static const char *
skip_weak(const char *p, const char *end)
{
	return end - p >= 2 && p[0] == 'W' && p[1] == '/' ? p + 2 : p;
}

static const char *
skip_blanks(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	return p;
}

/*
 * Is the tag, from its first quote on, in the list?  Elements may be empty, and
 * tags may have commas.  What is no such list matches nothing.
 */
static bool
list_has(const char *p, const char *end, const char *tag, Size length)
{
	bool		found = false;

	for (;;)
	{
		const char *start;

		p = skip_blanks(p, end);
		if (p < end && *p != ',')
		{
			start = skip_weak(p, end);
			p = skip_tag(start, end);
			if (p == NULL)
				return false;
			found |= p - start == length && memcmp(start, tag, length) == 0;
			p = skip_blanks(p, end);
		}
		if (p == end)
			return found;
		if (*p++ != ',')
			return false;
	}
}

bool
poll_if_none_match(text *header, text *etag, bool any)
{
	const char *tag_end = VARDATA_ANY(etag) + VARSIZE_ANY_EXHDR(etag);
	const char *tag = skip_weak(VARDATA_ANY(etag), tag_end);
	const char *p = VARDATA_ANY(header);
	const char *end = p + VARSIZE_ANY_EXHDR(header);

	if (skip_tag(tag, tag_end) != tag_end)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("etag is not an entity tag"),
				 errhint("It must be in double quotes, as poll.etag() returns it, perhaps after W/.")));

	p = skip_blanks(p, end);
	if (p < end && *p == '*')
		return any && skip_blanks(p + 1, end) == end;
	return list_has(p, end, tag, tag_end - tag);
}

/* poll.if_none_match(header text, etag text) returns bool */
Datum
poll_ext_if_none_match(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(poll_if_none_match(PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1), true));
}
