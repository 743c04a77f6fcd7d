/*
 * poll.c
 *		The functions that clients call: poll() and its relatives.
 *
 * All of them are STABLE and work under the active snapshot.  A poll with
 * nothing new is answered from memory: the cursor decides, and shared memory
 * says that nobody has flushed a change since (shmem.c).
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "changes.h"
#include "error.h"
#include "feedset.h"
#include "fullsync.h"
#include "key.h"
#include "page.h"
#include "snapshot.h"

#define MAX_ROWS	10000

/* what a backend keeps from one poll to the next */
#define WORK_PAGE_BYTES	(64 * 1024)
#define MAX_KEPT_JSON	(1024 * 1024)

/* what the envelope takes beside its parts, and each change beside its row */
#define ENVELOPE_BYTES	192
#define CHANGE_BYTES	72

/* a cursor argument that means "from now on" */
#define CURSOR_NOW	"now"

PG_FUNCTION_INFO_V1(poll_ext_poll);
PG_FUNCTION_INFO_V1(poll_ext_changes);
PG_FUNCTION_INFO_V1(poll_ext_changed_keys);
PG_FUNCTION_INFO_V1(poll_ext_has_changes);
PG_FUNCTION_INFO_V1(poll_ext_current_cursor);
PG_FUNCTION_INFO_V1(poll_ext_cursor_info);

/* What a request comes down to. */
typedef enum PollStart
{
	POLL_START_SYNC,			/* no cursor */
	POLL_START_NOW,
	POLL_START_CURSOR
} PollStart;

/*
 * The memory that a page is made in.  It is kept from one poll to the next:
 * getting a hundred kB from the system and giving them back costs as much as
 * reading the rows.
 */
typedef struct PollWork
{
	MemoryContext context;		/* this struct, and all below */
	MemoryContext page;			/* reset after each poll */
	StringInfoData json;
} PollWork;

typedef struct PollRequest
{
	PollSelection selection;
	PollFeedSet *set;
	PollStart	start;
	PollCursor	cursor;			/* for POLL_START_CURSOR */

	/* between work_begin() and work_end() */
	PollWork   *work;
	MemoryContext caller;
	Snapshot	snapshot;
	PollView	view;
} PollRequest;

static PollWork *kept_work = NULL;

static bool
is_now(text *cursor)
{
	return VARSIZE_ANY_EXHDR(cursor) == strlen(CURSOR_NOW) &&
		memcmp(VARDATA_ANY(cursor), CURSOR_NOW, strlen(CURSOR_NOW)) == 0;
}

/* Checks the arguments feeds, scope and cursor; each may be NULL. */
static void
request_init(PollRequest *request, ArrayType *names, Jsonb *scope, text *cursor)
{
	if (names == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_BAD_REQUEST),
				 errmsg("the list of feeds must not be null")));
	request->selection.names = names;
	request->selection.scope = scope;
	request->set = poll_feedset_get(&request->selection, GetActiveSnapshot());
	if (cursor == NULL)
		request->start = POLL_START_SYNC;
	else if (is_now(cursor))
		request->start = POLL_START_NOW;
	else
	{
		request->start = POLL_START_CURSOR;
		poll_feedset_cursor(request->set, cursor, &request->cursor);
	}
}

/* The array {feed}; NULL for NULL. */
static ArrayType *
single_feed(FunctionCallInfo fcinfo, int argno)
{
	Datum		name;

	if (PG_ARGISNULL(argno))
		return NULL;
	name = PG_GETARG_DATUM(argno);
	return construct_array(&name, 1, TEXTOID, -1, false, TYPALIGN_INT);
}

static ArrayType *
array_arg(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : PG_GETARG_ARRAYTYPE_P(argno);
}

static text *
text_arg(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : PG_GETARG_TEXT_PP(argno);
}

static Jsonb *
jsonb_arg(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : PG_GETARG_JSONB_P(argno);
}

static int
max_rows_arg(FunctionCallInfo fcinfo, int argno)
{
	int			max_rows = PG_ARGISNULL(argno) ? 0 : PG_GETARG_INT32(argno);

	if (max_rows < 1 || max_rows > MAX_ROWS)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_BAD_REQUEST),
				 errmsg("max_rows must be between 1 and %d", MAX_ROWS)));
	return max_rows;
}

/* Is there nothing new, as can be told without a look at the log? */
static bool
nothing_new(const PollRequest *request)
{
	const PollCursor *cursor = &request->cursor;
	PollView	view;

	if (request->start != POLL_START_CURSOR || cursor->cut ||
		GetActiveSnapshot()->takenDuringRecovery ||
		!poll_feedset_quiet(request->set, cursor->x))
		return false;
	if (cursor->np == 0)
		return true;

	/* those that were open must still be */
	poll_snapshot_view(GetActiveSnapshot(), &view);
	for (int i = 0; i < cursor->np; i++)
		if (poll_view_finished(&view, cursor->p[i]))
			return false;
	return true;
}

static PollWork *
work_create(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "poll_ext work",
												  ALLOCSET_SMALL_SIZES);
	PollWork   *work = MemoryContextAlloc(context, sizeof(PollWork));
	MemoryContext old = MemoryContextSwitchTo(context);

	work->context = context;
	work->page = AllocSetContextCreate(context, "poll_ext page", WORK_PAGE_BYTES,
									   ALLOCSET_DEFAULT_INITSIZE, ALLOCSET_DEFAULT_MAXSIZE);
	initStringInfo(&work->json);
	MemoryContextSwitchTo(old);
	return work;
}

/*
 * From here on SQL may run: keep what it could replace.  It may even poll, so
 * the kept memory is ours alone meanwhile, and an error frees it.
 */
static void
work_begin(PollRequest *request)
{
	PollWork   *work = kept_work ? kept_work : work_create();

	kept_work = NULL;
	MemoryContextSetParent(work->context, CurrentMemoryContext);
	resetStringInfo(&work->json);
	request->work = work;
	request->caller = MemoryContextSwitchTo(work->page);

	request->set = poll_feedset_copy(request->set);
	request->snapshot = poll_snapshot_push();
	poll_snapshot_view(request->snapshot, &request->view);
}

static void
work_end(PollRequest *request)
{
	PollWork   *work = request->work;

	PopActiveSnapshot();
	poll_feedset_learn(&request->selection, request->set);

	MemoryContextSwitchTo(request->caller);
	if (kept_work != NULL || work->json.maxlen > MAX_KEPT_JSON)
		MemoryContextDelete(work->context);
	else
	{
		MemoryContextReset(work->page);
		MemoryContextSetParent(work->context, TopMemoryContext);
		kept_work = work;
	}
}

/* The page that the request asks for.  Between work_begin() and work_end(). */
static void
read_page(PollRequest *request, int max_rows, PollContent content, PollPage *page)
{
	PollFeedSet *set = request->set;
	Snapshot	snapshot = request->snapshot;
	const PollView *view = &request->view;
	PollCursor *cursor = &request->cursor;

	memset(page, 0, sizeof(PollPage));
	page->json = &request->work->json;
	if (request->start == POLL_START_SYNC)
		poll_fullsync_start(cursor, set, snapshot, view);

	if (request->start == POLL_START_NOW)
		poll_position_now(&page->next, set, snapshot, view);
	else if (poll_snapshot_behind(snapshot, view, cursor))
	{
		page->next = *cursor;
		page->has_more = true;
		page->behind = true;
	}
	else if (cursor->sync)
		poll_fullsync_read(page, set, cursor, snapshot, view, max_rows);
	else
		poll_changes_read(page, set, cursor, snapshot, view, max_rows, content);

	if (page->nchanges > 0 || request->start != POLL_START_CURSOR)
		poll_snapshot_flush(snapshot);
}

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
 * The answer.  page = NULL: nothing new.  It is written where it stays, at
 * about its size: it can be large, and is copied often enough on its way out.
 */
static text *
envelope(const PollFeedSet *set, const PollPage *page, text *cursor)
{
	StringInfoData buf;
	TimestampTz time = poll_snapshot_time();
	char		timestamp[MAXDATELEN + 1];
	char		number[MAXINT8LEN + 1];
	int			utc = 0;

	buf.maxlen = VARHDRSZ + set->empty_len + VARSIZE_ANY_EXHDR(cursor) + ENVELOPE_BYTES;
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
	if (time != 0)
	{
		appendStringInfoString(&buf, ",\"timestamp\":\"");
		appendStringInfoString(&buf, JsonEncodeDateTime(timestamp, TimestampTzGetDatum(time),
														TIMESTAMPTZOID, &utc));
		appendStringInfoString(&buf, "\",\"feeds_checked\":");
	}
	else
		appendStringInfoString(&buf, ",\"timestamp\":null,\"feeds_checked\":");
	appendBinaryStringInfo(&buf, number, pg_ltoa(set->n, number));
	appendStringInfoChar(&buf, '}');
	SET_VARSIZE(buf.data, buf.len);
	return (text *) buf.data;
}

/* poll.poll(feeds text[], cursor text, max_rows int, scope jsonb) returns json */
Datum
poll_ext_poll(PG_FUNCTION_ARGS)
{
	text	   *cursor = text_arg(fcinfo, 1);
	int			max_rows = max_rows_arg(fcinfo, 2);
	PollRequest request;
	PollPage	page;
	text	   *result;

	request_init(&request, array_arg(fcinfo, 0), jsonb_arg(fcinfo, 3), cursor);
	if (nothing_new(&request))
		PG_RETURN_TEXT_P(envelope(request.set, NULL, cursor));

	work_begin(&request);
	read_page(&request, max_rows, POLL_CONTENT_ROWS, &page);
	cursor = poll_cursor_encode(&page.next);
	MemoryContextSwitchTo(request.caller);
	result = envelope(request.set, &page, cursor);
	work_end(&request);
	PG_RETURN_TEXT_P(result);
}

/* ---- poll.changes() and poll.changed_keys(): a row per change ---- */

/* The cursor behind change i of the page. */
static text *
cursor_after(const PollRequest *request, const PollPage *page, int i)
{
	const PollChange *change = page->changes[i];
	PollCursor	cursor;

	if (i == page->nchanges - 1)
		return poll_cursor_encode(&page->next);
	if (change->at.xid == 0)
	{
		cursor = request->cursor;
		cursor.sync_feed = change->feed;
		cursor.key = change->key;
		cursor.keylen = change->keylen;
		return poll_cursor_encode(&cursor);
	}
	poll_cursor_advance(&cursor, &request->cursor, &request->view, change->at, POLL_STOP_CUT,
						poll_snapshot_position());
	return poll_cursor_encode(&cursor);
}

/* microseconds since 1970 to a timestamp */
static TimestampTz
version_time(int64 version)
{
	return version - (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
}

static Datum
text_part(const StringInfoData *buf, int start, int len)
{
	return PointerGetDatum(cstring_to_text_with_len(buf->data + start, len));
}

/*
 * A row: the columns of poll.changes are op, key, data, version, changed_at and
 * cursor; those of poll.changed_keys key, version, changed_at and cursor.
 * change = NULL: only the cursor moves on.
 */
static void
put_row(ReturnSetInfo *rsinfo, const PollPage *page, const PollChange *change, text *cursor,
		PollContent content)
{
	Datum		values[6] = {0};
	bool		isnull[6];
	int			n = 0;

	memset(isnull, true, sizeof(isnull));
	if (content == POLL_CONTENT_ROWS)
	{
		values[n] = CStringGetTextDatum(change == NULL ? "skip" :
										change->result == POLL_RESULT_UPSERT ? "upsert" :
										change->result == POLL_RESULT_DELETE ? "delete" : "truncate");
		isnull[n++] = false;
	}
	if (change != NULL && change->result != POLL_RESULT_TRUNCATE)
	{
		values[n] = text_part(page->json, change->json_key, change->json_key_len);
		isnull[n] = false;
	}
	n++;
	if (content == POLL_CONTENT_ROWS)
	{
		if (change != NULL && change->result == POLL_RESULT_UPSERT)
		{
			values[n] = text_part(page->json, change->json_data, change->json_data_len);
			isnull[n] = false;
		}
		n++;
	}
	if (change != NULL && change->at.xid != 0)
	{
		values[n] = Int64GetDatum(change->at.version);
		values[n + 1] = TimestampTzGetDatum(version_time(change->at.version));
		isnull[n] = isnull[n + 1] = false;
	}
	n += 2;
	values[n] = PointerGetDatum(cursor);
	isnull[n] = false;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, isnull);
}

/*
 * The rows of a page.  What the caller may not know is left out, but if the
 * page ends with it, or has found nothing so far, or begins now, there is a
 * last row that consists of the cursor, so that the caller moves on.
 */
static void
put_page(ReturnSetInfo *rsinfo, const PollRequest *request, const PollPage *page,
		 PollContent content)
{
	bool		skipped = page->nchanges == 0 && !page->behind &&
	(page->has_more || request->start == POLL_START_NOW);

	for (int i = 0; i < page->nchanges; i++)
	{
		skipped = page->changes[i]->result == POLL_RESULT_SKIP;
		if (!skipped)
			put_row(rsinfo, page, page->changes[i], cursor_after(request, page, i), content);
	}
	if (skipped)
		put_row(rsinfo, page, NULL, poll_cursor_encode(&page->next), content);
}

static Datum
changes_srf(FunctionCallInfo fcinfo, PollContent content)
{
	int			max_rows = max_rows_arg(fcinfo, 2);
	PollRequest request;
	PollPage	page;

	InitMaterializedSRF(fcinfo, 0);
	request_init(&request, single_feed(fcinfo, 0), jsonb_arg(fcinfo, 3), text_arg(fcinfo, 1));
	if (content == POLL_CONTENT_KEYS && request.start == POLL_START_SYNC)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_BAD_REQUEST),
				 errmsg("the cursor must not be null"),
				 errhint("Take one from poll.current_cursor() or from a poll.")));
	if (nothing_new(&request))
		return (Datum) 0;

	work_begin(&request);
	read_page(&request, max_rows, content, &page);
	put_page((ReturnSetInfo *) fcinfo->resultinfo, &request, &page, content);
	work_end(&request);
	return (Datum) 0;
}

/* poll.changes(feed text, cursor text, max_rows int, scope jsonb) */
Datum
poll_ext_changes(PG_FUNCTION_ARGS)
{
	return changes_srf(fcinfo, POLL_CONTENT_ROWS);
}

/* poll.changed_keys(feed text, cursor text, max_rows int, scope jsonb) */
Datum
poll_ext_changed_keys(PG_FUNCTION_ARGS)
{
	return changes_srf(fcinfo, POLL_CONTENT_KEYS);
}

/* ---- the small ones ---- */

/*
 * poll.has_changes(feeds text[], cursor text, scope jsonb) returns bool: would a poll
 * return anything, or has it more to say?
 */
Datum
poll_ext_has_changes(PG_FUNCTION_ARGS)
{
	PollRequest request;
	bool		result;

	request_init(&request, array_arg(fcinfo, 0), jsonb_arg(fcinfo, 2), text_arg(fcinfo, 1));
	if (request.start == POLL_START_NOW || nothing_new(&request))
		PG_RETURN_BOOL(false);
	if (request.start == POLL_START_SYNC || request.cursor.sync)
		PG_RETURN_BOOL(true);

	work_begin(&request);
	result = poll_snapshot_behind(request.snapshot, &request.view, &request.cursor) ||
		poll_changes_exist(request.set, &request.cursor, request.snapshot, &request.view);
	work_end(&request);
	PG_RETURN_BOOL(result);
}

/* poll.current_cursor(feeds text[], scope jsonb) returns text */
Datum
poll_ext_current_cursor(PG_FUNCTION_ARGS)
{
	PollRequest request;
	PollCursor	cursor;
	text	   *result;

	request_init(&request, array_arg(fcinfo, 0), jsonb_arg(fcinfo, 1), NULL);
	work_begin(&request);
	poll_position_now(&cursor, request.set, request.snapshot, &request.view);
	poll_snapshot_flush(request.snapshot);
	MemoryContextSwitchTo(request.caller);
	result = poll_cursor_encode(&cursor);
	work_end(&request);
	PG_RETURN_TEXT_P(result);
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
	Datum	   *elements;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (!poll_cursor_decode(VARDATA_ANY(str), VARSIZE_ANY_EXHDR(str), &cursor))
		invalid_cursor();

	values[0] = CStringGetTextDatum(cursor.sync ? "full sync" : cursor.cut ? "cut" : "complete");
	values[1] = FullTransactionIdGetDatum(FullTransactionIdFromU64(cursor.x));
	elements = palloc(sizeof(Datum) * Max(cursor.np, 1));
	for (int i = 0; i < cursor.np; i++)
		elements[i] = FullTransactionIdGetDatum(FullTransactionIdFromU64(cursor.p[i]));
	values[2] = PointerGetDatum(construct_array(elements, cursor.np, XID8OID, sizeof(uint64),
												FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	isnull[3] = isnull[4] = cursor.q == 0;
	values[3] = FullTransactionIdGetDatum(FullTransactionIdFromU64(cursor.q));
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
