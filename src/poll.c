/*
 * poll.c
 *		poll.poll(), and the functions that return one value.
 *
 * All of them, and those of rows.c, are STABLE and work under the active
 * snapshot.
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "answer.h"
#include "changes.h"
#include "error.h"
#include "guc.h"
#include "interval.h"
#include "key.h"
#include "request.h"
#include "shmem.h"
#include "snapshot.h"
#include "tick.h"
#include "xids.h"

/* what each change takes beside its row */
#define CHANGE_BYTES	72

PG_FUNCTION_INFO_V1(poll_ext_poll);
PG_FUNCTION_INFO_V1(poll_ext_has_changes);
PG_FUNCTION_INFO_V1(poll_ext_has_changes_since);
PG_FUNCTION_INFO_V1(poll_ext_current_cursor);
PG_FUNCTION_INFO_V1(poll_ext_cursor_info);

/* ---- poll.poll(): the envelope ---- */

static void
write_change(StringInfo buf, const PollPage *page, const PollChange *change)
{
	const char *op = change->result == POLL_RESULT_UPSERT ? "{\"op\":\"upsert\",\"key\":" :
	change->result == POLL_RESULT_DELETE ? "{\"op\":\"delete\",\"key\":" :
	"{\"op\":\"truncate\",\"key\":null";

	appendStringInfoString(buf, op);
	appendBinaryStringInfo(buf, page->json->data + change->json_key, change->json_key_len);
	if (change->result == POLL_RESULT_UPSERT)
	{
		appendStringInfoString(buf, ",\"data\":");
		appendBinaryStringInfo(buf, page->json->data + change->json_data, change->json_data_len);
	}
	else
		appendStringInfoString(buf, ",\"data\":null");
	if (change->at.xid != 0)
	{
		char		number[MAXINT8LEN + 1];

		appendStringInfoString(buf, ",\"version\":");
		appendBinaryStringInfo(buf, number, pg_lltoa(change->at.version, number));
	}
	else
		appendStringInfoString(buf, ",\"version\":null");
	appendStringInfoChar(buf, '}');
}

static void
write_changes(StringInfo buf, const PollFeedSet *set, const PollPage *page)
{
	for (int i = 0; i < set->n; i++)
	{
		bool		first = true;

		if (i > 0)
			appendStringInfoChar(buf, ',');
		escape_json(buf, NameStr(set->members[i].feed.name));
		appendStringInfoString(buf, ":[");
		for (int j = page->feed_start[i]; j < page->feed_start[i + 1]; j++)
		{
			if (page->by_feed[j]->result == POLL_RESULT_SKIP)
				continue;
			if (!first)
				appendStringInfoChar(buf, ',');
			first = false;
			write_change(buf, page, page->by_feed[j]);
		}
		appendStringInfoChar(buf, ']');
	}
}

/*
 * A time such that everything that was visible then has been delivered, now or
 * before, and that the next request may name; 0 if none is known.  That is the
 * start of the transaction: it is before the snapshot, while the start of the
 * statement is not, since in the extended protocol the snapshot is taken at
 * Bind and statement_timestamp() moves at Execute.  But the snapshot of a
 * whole transaction may have been imported, and be older, and a standby's clock
 * runs ahead of what it shows; there the newest tick tells.
 */
TimestampTz
poll_answer_time(const PollRequest *request)
{
	Snapshot	snapshot = GetActiveSnapshot();
	TimestampTz time;

	if (snapshot->takenDuringRecovery || IsolationUsesXactSnapshot())
		time = poll_tick_newest(snapshot);
	else
	{
		time = GetCurrentTransactionStartTimestamp();

		/*
		 * no later tick may have an earlier time, should the clock be set
		 * back
		 */
		poll_clock_raise(time);
	}
	return poll_request_covers(request, time) ? time : 0;
}

/* In milliseconds' precision, without the machinery of printf(). */
static void
append_seconds(StringInfo buf, const char *name, double seconds)
{
	char		number[MAXINT8LEN + 1];
	int64		ms = (int64) rint(seconds * 1000);

	appendStringInfoString(buf, name);
	appendBinaryStringInfo(buf, number, pg_lltoa(ms / 1000, number));
	appendStringInfoChar(buf, '.');
	appendBinaryStringInfo(buf, number, pg_ultostr_zeropad(number, ms % 1000, 3) - number);
}

/* What may differ from one answer to the next though nothing has happened. */
void
poll_answer_end(PollAnswer *answer, StringInfo buf, int nfeeds)
{
	char		timestamp[MAXDATELEN + 1];
	char		number[MAXINT8LEN + 1];
	int			utc = 0;

	answer->lasting = buf->len - VARHDRSZ;
	if (answer->time != 0)
	{
		appendStringInfoString(buf, ",\"timestamp\":\"");
		appendStringInfoString(buf, JsonEncodeDateTime(timestamp, TimestampTzGetDatum(answer->time),
													   TIMESTAMPTZOID, &utc));
		appendStringInfoString(buf, "\",\"feeds_checked\":");
	}
	else
		appendStringInfoString(buf, ",\"timestamp\":null,\"feeds_checked\":");
	appendBinaryStringInfo(buf, number, pg_ltoa(nfeeds, number));
	append_seconds(buf, ",\"poll_after\":", answer->poll_after);
	appendStringInfoChar(buf, '}');
	SET_VARSIZE(buf->data, buf->len);
	answer->body = (text *) buf->data;
}

/*
 * The answer, but for its other parts.  page = NULL: nothing new.  It is written
 * where it stays, at about its size: it can be large, and is copied often enough
 * on its way out.
 */
static void
envelope(const PollRequest *request, const PollPage *page, PollAnswer *answer)
{
	text	   *cursor = answer->cursor;
	const PollFeedSet *set = request->set;
	StringInfoData buf;

	answer->timed = page == NULL || !(page->has_more || page->next.cut);
	answer->time = answer->timed ? poll_answer_time(request) : 0;
	buf.maxlen = VARHDRSZ + set->empty_len + VARSIZE_ANY_EXHDR(cursor) + POLL_ANSWER_END_BYTES;
	if (page)
		buf.maxlen += page->json->len + CHANGE_BYTES * page->nchanges;
	buf.maxlen = Min(buf.maxlen, MaxAllocSize);
	buf.data = palloc(buf.maxlen);
	buf.len = VARHDRSZ;
	buf.cursor = 0;

	appendStringInfoString(&buf, "{\"changes\":{");
	if (page && page->nchanges > 0)
		write_changes(&buf, set, page);
	else
		appendBinaryStringInfo(&buf, poll_feedset_empty(set), set->empty_len);
	appendStringInfoString(&buf, "},\"cursor\":\"");
	appendBinaryStringInfo(&buf, VARDATA_ANY(cursor), VARSIZE_ANY_EXHDR(cursor));
	appendStringInfoString(&buf, page && page->has_more ? "\",\"has_more\":true" :
						   "\",\"has_more\":false");
	if (page && page->behind)
		appendStringInfoString(&buf, ",\"behind\":true");
	poll_answer_end(answer, &buf, set->n);
}

/* Pages follow each other at once; a server that is behind needs a moment. */
static double
poll_after(const PollRequest *request, const PollPage *page)
{
	if (page->behind)
		return poll_min_interval / 1e3;
	return page->has_more ? 0 : poll_interval_hint(request->set);
}

PollAnswer
poll_answer(PollRequest *request, text *cursor, int max_rows, PollCursor *position)
{
	PollPage	page = {POLL_CONTENT_ROWS};
	PollAnswer	answer = {.cursor = cursor};

	if (poll_nothing_new(request))
	{
		answer.empty = true;
		answer.poll_after = poll_interval_hint(request->set);
		envelope(request, NULL, &answer);
		return answer;
	}

	poll_request_begin(request);
	poll_request_read(request, max_rows, &page);
	if (position != NULL && !page.behind)
		poll_request_position(request, &page.next, position);
	answer.has_more = page.has_more;
	answer.behind = page.behind;
	answer.empty = page.nchanges == 0 && !page.has_more;
	answer.cursor = poll_cursor_encode(&page.next);
	MemoryContextSwitchTo(request->caller);
	answer.poll_after = poll_after(request, &page);
	envelope(request, &page, &answer);
	answer.cursor = (text *) pg_detoast_datum_copy((struct varlena *) answer.cursor);
	poll_request_end(request);
	return answer;
}

/*
 * poll.poll(feeds text[], cursor text, max_rows int, scope jsonb,
 * since timestamptz) returns json
 */
Datum
poll_ext_poll(PG_FUNCTION_ARGS)
{
	text	   *cursor = poll_arg_text(fcinfo, 1);
	int			max_rows = poll_arg_max_rows(fcinfo, 2);
	PollRequest request;
	TimestampTz since;

	poll_request_init(&request, poll_arg_feeds(fcinfo, 0), poll_arg_scope(fcinfo, 3), cursor,
					  poll_arg_time(fcinfo, 4, &since));
	PG_RETURN_TEXT_P(poll_answer(&request, cursor, max_rows, NULL).body);
}

/* ---- the small ones ---- */

bool
poll_has_changes(PollRequest *request)
{
	bool		result;

	if (request->start == POLL_START_NOW || poll_nothing_new(request))
		return false;
	if (request->start == POLL_START_SYNC ||
		(request->start == POLL_START_CURSOR && request->cursor.sync))
		return true;

	poll_request_begin(request);
	result = poll_snapshot_behind(request->snapshot, &request->view, &request->cursor) ||
		poll_changes_exist(request->set, &request->cursor, request->snapshot, &request->view);
	poll_request_end(request);
	return result;
}

/* poll.has_changes(feeds text[], cursor text, scope jsonb) returns bool */
Datum
poll_ext_has_changes(PG_FUNCTION_ARGS)
{
	PollRequest request;

	poll_request_init(&request, poll_arg_feeds(fcinfo, 0), poll_arg_scope(fcinfo, 2),
					  poll_arg_text(fcinfo, 1), NULL);
	PG_RETURN_BOOL(poll_has_changes(&request));
}

/* poll.has_changes(feeds text[], since timestamptz, scope jsonb) returns bool */
Datum
poll_ext_has_changes_since(PG_FUNCTION_ARGS)
{
	PollRequest request;
	TimestampTz since;

	poll_request_init(&request, poll_arg_feeds(fcinfo, 0), poll_arg_scope(fcinfo, 2), NULL,
					  poll_arg_time(fcinfo, 1, &since));
	PG_RETURN_BOOL(poll_has_changes(&request));
}

text *
poll_current_cursor(PollRequest *request)
{
	PollPage	page = {POLL_CONTENT_NONE};
	MemoryContext context = CurrentMemoryContext;
	text	   *result;

	request->start = POLL_START_NOW;
	poll_request_begin(request);
	poll_request_read(request, 1, &page);
	MemoryContextSwitchTo(context);
	result = poll_cursor_encode(&page.next);
	poll_request_end(request);
	return result;
}

/* poll.current_cursor(feeds text[], scope jsonb) returns text */
Datum
poll_ext_current_cursor(PG_FUNCTION_ARGS)
{
	PollRequest request;

	poll_request_init(&request, poll_arg_feeds(fcinfo, 0), poll_arg_scope(fcinfo, 1), NULL, NULL);
	PG_RETURN_TEXT_P(poll_current_cursor(&request));
}

static void
invalid_cursor(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_POLL_BAD_REQUEST),
			 errmsg("invalid cursor")));
}

/*
 * poll.cursor_info(cursor text) returns (state text, next_xid xid8,
 * open_xids xid8[], at_xid xid8, at_version bigint, lsn pg_lsn,
 * last_key text[], current bool)
 */
Datum
poll_ext_cursor_info(PG_FUNCTION_ARGS)
{
	text	   *str = PG_GETARG_TEXT_PP(0);
	PollCursor	cursor;
	TupleDesc	desc;
	Datum		values[8] = {0};
	bool		isnull[8] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (!poll_cursor_decode(VARDATA_ANY(str), VARSIZE_ANY_EXHDR(str), &cursor))
		invalid_cursor();

	values[0] = CStringGetTextDatum(cursor.sync ? "full sync" : cursor.cut ? "cut" : "complete");
	values[1] = poll_xid_datum(cursor.x);
	values[2] = poll_xids_datum(cursor.p, cursor.np);
	isnull[3] = isnull[4] = cursor.q == 0;
	values[3] = poll_xid_datum(cursor.q);
	values[4] = Int64GetDatum(cursor.v);
	isnull[5] = !cursor.cut;
	values[5] = LSNGetDatum(cursor.lsn);
	isnull[6] = cursor.keylen == 0;
	if (cursor.keylen > 0)
	{
		char	   *parts[INDEX_MAX_KEYS];
		Datum		texts[INDEX_MAX_KEYS];
		int			n = poll_key_split(cursor.key, cursor.keylen, parts, INDEX_MAX_KEYS);

		if (n < 0)
			invalid_cursor();
		for (int i = 0; i < n; i++)
			texts[i] = CStringGetTextDatum(parts[i]);
		values[6] = PointerGetDatum(construct_array(texts, n, TEXTOID, -1, false, TYPALIGN_INT));
	}
	values[7] = BoolGetDatum(cursor.epoch == poll_catalog_epoch());
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, isnull)));
}
