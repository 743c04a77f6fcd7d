/*
 * request.c
 *		What a reading function was asked for, and the page that answers it.
 *
 * A poll with nothing new is answered from memory: the cursor decides, and
 * shared memory says that nobody has flushed a change since (shmem.c).
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "changes.h"
#include "error.h"
#include "fullsync.h"
#include "request.h"
#include "segment.h"
#include "snapshot.h"
#include "tick.h"
#include "worker.h"

#define MAX_ROWS	10000

/* what a backend keeps from one poll to the next */
#define WORK_PAGE_BYTES	(64 * 1024)
#define MAX_KEPT_JSON	(1024 * 1024)

/* a cursor argument that means "from now on" */
#define CURSOR_NOW	"now"

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

static PollWork *kept_work = NULL;

static bool
is_now(text *cursor)
{
	return VARSIZE_ANY_EXHDR(cursor) == strlen(CURSOR_NOW) &&
		memcmp(VARDATA_ANY(cursor), CURSOR_NOW, strlen(CURSOR_NOW)) == 0;
}

/*
 * Why not all of what became visible since then is in the log, as the detail of an
 * error; NULL if it is.
 */
static const char *
why_not_since(const PollFeedSet *set, TimestampTz since)
{
	for (int i = 0; i < set->n; i++)
		if (since < set->members[i].feed.tracked_at)
			return psprintf("Feed \"%s\" was tracked later.", NameStr(set->members[i].feed.name));
	if (since < poll_catalog_created_at())
		return "The change log begins later.";
	if (poll_tick_apart(since))
	{
		/* it writes the tick that ends this */
		poll_worker_start();
		return "It may be one of the server in whose place this one was promoted, and what was visible there is not known.";
	}
	return NULL;
}

bool
poll_request_covers(const PollRequest *request, TimestampTz since)
{
	return why_not_since(request->set, since) == NULL;
}

static void
check_since(const PollFeedSet *set, TimestampTz since)
{
	const char *detail = why_not_since(set, since);

	if (detail != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_EXPIRED),
				 errmsg("the time has expired"),
				 errdetail_internal("%s", detail),
				 errhint("Poll without a time for a full sync.")));
}

/*
 * Checks the arguments feeds, scope, and cursor or since; each may be NULL.
 */
void
poll_request_init(PollRequest *request, ArrayType *names, Jsonb *scope, text *cursor,
				  const TimestampTz *since)
{
	if (names == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_BAD_REQUEST),
				 errmsg("the list of feeds must not be null")));
	request->selection.names = names;
	request->selection.scope = scope;
	request->horizon = NULL;
	request->tick_found = false;
	request->fresh = false;
	request->set = poll_feedset_get(&request->selection, GetActiveSnapshot());
	if (cursor != NULL && since != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_BAD_REQUEST),
				 errmsg("a cursor and a time exclude each other"),
				 errhint("Pass only the cursor: it is the more exact.")));
	if (since != NULL)
	{
		request->start = POLL_START_SINCE;
		request->since = *since;
		check_since(request->set, *since);
	}
	else if (cursor == NULL)
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
ArrayType *
poll_arg_feed(FunctionCallInfo fcinfo, int argno)
{
	Datum		name;

	if (PG_ARGISNULL(argno))
		return NULL;
	name = PG_GETARG_DATUM(argno);
	return construct_array(&name, 1, TEXTOID, -1, false, TYPALIGN_INT);
}

ArrayType *
poll_arg_feeds(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : PG_GETARG_ARRAYTYPE_P(argno);
}

text *
poll_arg_text(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : PG_GETARG_TEXT_PP(argno);
}

/* NULL for NULL; the value goes into *value. */
const TimestampTz *
poll_arg_time(FunctionCallInfo fcinfo, int argno, TimestampTz *value)
{
	if (PG_ARGISNULL(argno))
		return NULL;
	*value = PG_GETARG_TIMESTAMPTZ(argno);
	return value;
}

Jsonb *
poll_arg_scope(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : PG_GETARG_JSONB_P(argno);
}

void
poll_check_max_rows(int max_rows)
{
	if (max_rows < 1 || max_rows > MAX_ROWS)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_BAD_REQUEST),
				 errmsg("max_rows must be between 1 and %d", MAX_ROWS),
				 errhint("Read larger results page by page, with the cursor of each answer.")));
}

int
poll_arg_max_rows(FunctionCallInfo fcinfo, int argno)
{
	int			max_rows = PG_ARGISNULL(argno) ? 0 : PG_GETARG_INT32(argno);

	poll_check_max_rows(max_rows);
	return max_rows;
}

/* Is there nothing new, as can be told without a look at the log? */
bool
poll_nothing_new(const PollRequest *request)
{
	const PollCursor *cursor = &request->cursor;
	PollView	view;

	if (request->start != POLL_START_CURSOR || cursor->cut || cursor->adopted ||
		GetActiveSnapshot()->takenDuringRecovery ||
		!poll_feedset_quiet(request->set, cursor->x) ||
		poll_segment_lift() > cursor->x)
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

/* From the newest tick before the time, or from the beginning of the log. */
void
poll_request_find_tick(PollRequest *request, Snapshot snapshot)
{
	memset(&request->cursor, 0, sizeof(PollCursor));
	if (!poll_tick_find(snapshot, request->since, &request->cursor))
		request->cursor.x = FirstNormalTransactionId;
	poll_feedset_stamp(request->set, &request->cursor);
	request->tick_found = true;
}

/*
 * From here on SQL may run: keep what it could replace.  It may even poll, so
 * the kept memory is ours alone meanwhile, and an error frees it.
 */
void
poll_request_begin(PollRequest *request)
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
	poll_segment_narrow(request->snapshot, &request->view);
	if (request->start == POLL_START_SYNC)
		poll_fullsync_start(&request->cursor, request->set, request->snapshot, &request->view);
	else if (request->start == POLL_START_SINCE && !request->tick_found)
		poll_request_find_tick(request, request->snapshot);
}

void
poll_request_end(PollRequest *request)
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

/* The page that the request asks for, of at most max_rows changes. */
void
poll_request_read(PollRequest *request, int max_rows, PollPage *page)
{
	PollFeedSet *set = request->set;
	Snapshot	snapshot = request->snapshot;
	const PollView *view = &request->view;
	PollCursor *cursor = &request->cursor;

	page->json = &request->work->json;
	if (request->start == POLL_START_NOW)
		poll_position_now(&page->next, set, snapshot, view, true);
	else if (poll_snapshot_behind(snapshot, view, cursor))
	{
		page->next = *cursor;
		page->has_more = true;
		page->behind = true;
	}
	else if (cursor->sync)
		poll_fullsync_read(page, set, cursor, snapshot, view, max_rows);
	else
		poll_changes_read(page, set, cursor, snapshot, view, max_rows, cursor->cut ? NULL : request->horizon);

	/* what was delivered, and what a cursor counts as seen, must stay */
	if (page->nchanges > 0 || request->start != POLL_START_CURSOR ||
		page->next.x > cursor->x)
		poll_snapshot_flush(snapshot);
}

void
poll_request_position(PollRequest *request, const PollCursor *next, PollCursor *position)
{
	PollPage	nothing = {POLL_CONTENT_NONE};

	if (next != NULL && !next->cut && !request->cursor.sync)
		*position = *next;
	else
	{
		poll_position_now(position, request->set, request->snapshot, &request->view, true);
		poll_changes_read(&nothing, request->set, position, request->snapshot, &request->view, 1, NULL);
	}
	position->p = memcpy(MemoryContextAlloc(request->caller, sizeof(uint64) * Max(position->np, 1)),
						 position->p, sizeof(uint64) * position->np);
}
