/*
 * rows.c
 *		The functions that return a row per change.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "changes.h"
#include "error.h"
#include "request.h"
#include "shmem.h"
#include "snapshot.h"

PG_FUNCTION_INFO_V1(poll_ext_changes);
PG_FUNCTION_INFO_V1(poll_ext_changes_since);
PG_FUNCTION_INFO_V1(poll_ext_changed_keys);
PG_FUNCTION_INFO_V1(poll_ext_changed_keys_since);
PG_FUNCTION_INFO_V1(poll_ext_rows);
PG_FUNCTION_INFO_V1(poll_ext_next_cursor);

/* ---- poll.changes() and poll.changed_keys() ---- */

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
		cursor.lsn = Max(cursor.lsn, poll_snapshot_position());
		cursor.sync_feed = change->feed;
		cursor.key = change->key;
		cursor.keylen = change->keylen;
		return poll_cursor_encode(&cursor);
	}
	poll_cursor_advance(&cursor, &request->cursor, &request->view, change->at, POLL_STOP_CUT,
						poll_snapshot_position());
	return poll_cursor_encode(&cursor);
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
put_row(ReturnSetInfo *rsinfo, const PollPage *page, const PollChange *change, text *cursor)
{
	Datum		values[6] = {0};
	bool		isnull[6];
	int			n = 0;

	memset(isnull, true, sizeof(isnull));
	if (page->content == POLL_CONTENT_ROWS)
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
	if (page->content == POLL_CONTENT_ROWS)
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
		values[n + 1] = TimestampTzGetDatum(poll_clock_timestamp(change->at.version));
		isnull[n] = isnull[n + 1] = false;
	}
	n += 2;
	values[n] = PointerGetDatum(cursor);
	isnull[n] = false;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, isnull);
}

/*
 * The rows of a page.  What the caller may not know is left out, but if the
 * page ends with it, or has found nothing so far, or begins at a time, there is a
 * last row that consists of the cursor, so that the caller moves on.
 */
static void
put_page(ReturnSetInfo *rsinfo, const PollRequest *request, const PollPage *page)
{
	bool		skipped = page->nchanges == 0 && !page->behind &&
	(page->has_more || request->start == POLL_START_NOW || request->start == POLL_START_SINCE);

	for (int i = 0; i < page->nchanges; i++)
	{
		skipped = page->changes[i]->result == POLL_RESULT_SKIP;
		if (!skipped)
			put_row(rsinfo, page, page->changes[i], cursor_after(request, page, i));
	}
	if (skipped)
		put_row(rsinfo, page, NULL, poll_cursor_encode(&page->next));
}

/* Answers with the rows; feed, cursor or time, max_rows and scope are the arguments. */
static Datum
put_changes(FunctionCallInfo fcinfo, text *cursor, const TimestampTz *since, PollContent content)
{
	int			max_rows = poll_arg_max_rows(fcinfo, 2);
	PollRequest request;
	PollPage	page = {content};

	InitMaterializedSRF(fcinfo, 0);
	poll_request_init(&request, poll_arg_feed(fcinfo, 0), poll_arg_scope(fcinfo, 3), cursor, since);
	if (content == POLL_CONTENT_KEYS && request.start == POLL_START_SYNC)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_BAD_REQUEST),
				 errmsg("the cursor or time must not be null"),
				 errhint("Take one from poll.current_cursor() or from a poll.")));
	if (poll_nothing_new(&request))
		return (Datum) 0;

	poll_request_begin(&request);
	poll_request_read(&request, max_rows, &page);
	put_page((ReturnSetInfo *) fcinfo->resultinfo, &request, &page);
	poll_request_end(&request);
	return (Datum) 0;
}

/* poll.changes(feed text, cursor text, max_rows int, scope jsonb) */
Datum
poll_ext_changes(PG_FUNCTION_ARGS)
{
	return put_changes(fcinfo, poll_arg_text(fcinfo, 1), NULL, POLL_CONTENT_ROWS);
}

/* poll.changes_since(feed text, since timestamptz, max_rows int, scope jsonb) */
Datum
poll_ext_changes_since(PG_FUNCTION_ARGS)
{
	TimestampTz since;

	return put_changes(fcinfo, NULL, poll_arg_time(fcinfo, 1, &since), POLL_CONTENT_ROWS);
}

/* poll.changed_keys(feed text, cursor text, max_rows int, scope jsonb) */
Datum
poll_ext_changed_keys(PG_FUNCTION_ARGS)
{
	return put_changes(fcinfo, poll_arg_text(fcinfo, 1), NULL, POLL_CONTENT_KEYS);
}

/* poll.changed_keys(feed text, since timestamptz, max_rows int, scope jsonb) */
Datum
poll_ext_changed_keys_since(PG_FUNCTION_ARGS)
{
	TimestampTz since;

	return put_changes(fcinfo, NULL, poll_arg_time(fcinfo, 1, &since), POLL_CONTENT_KEYS);
}

/* ---- poll.rows() ---- */

/* The table whose rows that type has. */
static Oid
table_of_argument(FunctionCallInfo fcinfo)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 0);
	Oid			relid = OidIsValid(type) ? get_typ_typrelid(type) : InvalidOid;

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_POLL_BAD_REQUEST),
				 errmsg("the first argument must be a row of a tracked table"),
				 errhint("Pass NULL::messages for the rows of table messages.")));
	return relid;
}

/* The array {feed}: that of the argument or else the table's only one. */
static ArrayType *
feed_of_table(FunctionCallInfo fcinfo, int argno, Oid relid)
{
	ArrayType  *feeds = poll_arg_feed(fcinfo, argno);

	/* those who may not read it shall not learn of feeds either */
	bool		may = pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK ||
	pg_attribute_aclcheck_all(relid, GetUserId(), ACL_SELECT, ACLMASK_ANY) == ACLCHECK_OK;
	List	   *ids = may ? poll_catalog_feeds_of(relid) : NIL;
	PollFeed	feed;
	Datum		name;

	if (feeds != NULL)
		return feeds;
	if (list_length(ids) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_BAD_REQUEST),
				 errmsg("the table has several feeds"),
				 errdetail("Table \"%s\".", get_rel_name(relid)),
				 errhint("Name one in the argument feed.")));
	if (ids == NIL || !poll_catalog_find_id(*(int64 *) linitial(ids), &feed))
		ereport(ERROR,
				(errcode(ERRCODE_POLL_NOT_FOUND),
				 errmsg("the table is not tracked"),
				 errdetail("Table \"%s\".", get_rel_name(relid)),
				 errhint("Its owner starts that with poll.track().")));
	name = CStringGetTextDatum(NameStr(feed.name));
	return construct_array(&name, 1, TEXTOID, -1, false, TYPALIGN_INT);
}

/*
 * poll.rows(table_row anyelement, cursor text, max_rows int, scope jsonb,
 * feed text) returns setof anyelement: of the page of changes the rows that
 * are there
 */
Datum
poll_ext_rows(PG_FUNCTION_ARGS)
{
	Oid			relid = table_of_argument(fcinfo);
	int			max_rows = poll_arg_max_rows(fcinfo, 2);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	PollRequest request;
	PollPage	page = {POLL_CONTENT_TUPLES};

	InitMaterializedSRF(fcinfo, 0);
	poll_request_init(&request, feed_of_table(fcinfo, 4, relid), poll_arg_scope(fcinfo, 3),
					  poll_arg_text(fcinfo, 1), NULL);
	if (request.set->members[0].feed.relid != relid)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_BAD_REQUEST),
				 errmsg("the feed is not one of the table"),
				 errdetail("Feed \"%s\", table \"%s\".",
						   NameStr(request.set->members[0].feed.name), get_rel_name(relid)),
				 errhint("The feeds that you may read are in the view poll.feeds.")));
	if (poll_nothing_new(&request))
		return (Datum) 0;

	poll_request_begin(&request);
	page.tuples = rsinfo->setResult;
	page.desc = rsinfo->setDesc;
	poll_request_read(&request, max_rows, &page);
	poll_request_end(&request);
	return (Datum) 0;
}

/*
 * poll.next_cursor(feed text, cursor text, max_rows int, scope jsonb) returns
 * text: the cursor behind the page that poll.rows() returns for the same
 * arguments under the same snapshot
 */
Datum
poll_ext_next_cursor(PG_FUNCTION_ARGS)
{
	int			max_rows = poll_arg_max_rows(fcinfo, 2);
	text	   *cursor = poll_arg_text(fcinfo, 1);
	PollRequest request;
	PollPage	page = {POLL_CONTENT_NONE};

	poll_request_init(&request, poll_arg_feed(fcinfo, 0), poll_arg_scope(fcinfo, 3), cursor, NULL);
	if (poll_nothing_new(&request))
		PG_RETURN_TEXT_P(cursor);

	poll_request_begin(&request);
	poll_request_read(&request, max_rows, &page);
	MemoryContextSwitchTo(request.caller);
	cursor = poll_cursor_encode(&page.next);
	poll_request_end(&request);
	PG_RETURN_TEXT_P(cursor);
}
