/*
 * segment.c
 *		The three segments of the change log: which one is written, which have
 *		what a cursor has not seen, and how old ones are trimmed.
 *
 *		poll.segment (id, state, since, x, p, retained)		one row each
 *
 * Rows of the log are never deleted one by one.  Writers fill one segment, the
 * current one; in turn, each goes through these states:
 *
 *		empty -> current -> filled -> closed -> trimmed -> empty
 *
 * filled	Writers have been told to go on in the next segment, but those who
 *			wrote here before may still, until their transactions end.
 * closed	None of them is left.  A snapshot taken now is the segment's
 *			horizon (x, p): everything in it was done by transactions that the
 *			snapshot shows as finished, that is, below x and not in p.
 * trimmed	It has been closed for the time of retention.  Its horizon is now
 *			that of the log: who has not seen all that it covers has expired.
 *			Nobody begins to read it any more.
 * empty	Truncated, once the last reader has left.
 *
 * The horizon works like a cursor.  A cursor has seen all that a segment holds
 * if its X is not below x, and if each p in its P that is below x is in the
 * horizon's p: that one was open when the segment was closed, so it has no
 * entry there.  A transaction that stays open for days expires nobody.
 *
 * Subtransactions.  A standby's snapshot lists them, too, and so would its
 * cursors; no p has them.  But whatever is open in a snapshot that shows the
 * step to closed, and is below x and not in p, cannot be a transaction, since
 * all of those had finished: so it is not taken as open.  A cursor from before
 * that may list one.  What is open now was open then, so it is none of those
 * that have finished, either.
 *
 * Lift.  The cursor of a silent feed would fall behind the horizon, though there
 * is nothing that it has missed.  So a complete poll moves X on to the newest
 * horizon, of closed segments, too: to the same one for all, so that they go
 * on holding the same cursor.  What was open then and still is gets into P, and
 * was in p.  So whoever has polled since a segment was closed is safe from it.
 * Above what a crash leaves, xids are handed out again: a horizon must not be
 * there.  All that it shows as finished is in the WAL before the commit of the
 * step, so that is synchronous in any case.
 *
 * Locking.  A step of a segment is a transaction of its own, under a lock on
 * poll.segment that one process has at a time; that table's relcache
 * invalidation tells all others.  Nobody ever waits for them, nor they for
 * anybody: what cannot be locked at once is tried again later.
 *
 * Writers lock the heap of the current segment (ROW EXCLUSIVE, until the end
 * of the transaction, prepared ones included), and then look whether it still
 * is.  Locking brings the invalidations that were sent, so after the commit of
 * the step to filled no new lock leads to a write: when nobody has a lock that
 * conflicts with SHARE, nobody is left.  Whoever makes a segment current keeps
 * a lock on it until all have been told: a row that anybody wrote there is
 * behind that in time.
 *
 * Readers first lock what they need, then take in what they have been told,
 * then look whether their cursor covers the log's horizon: a segment that
 * they have locked by then is not truncated (ACCESS EXCLUSIVE) before they
 * are through.  They do not look into the snapshot for that: truncation does
 * not either.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "commands/tablecmds.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "error.h"
#include "guc.h"
#include "segment.h"
#include "snapshot.h"
#include "xids.h"

#define ANUM_SEGMENT_ID			1
#define ANUM_SEGMENT_STATE		2
#define ANUM_SEGMENT_SINCE		3
#define ANUM_SEGMENT_X			4
#define ANUM_SEGMENT_P			5
#define ANUM_SEGMENT_RETAINED	6
#define NATTS_SEGMENT			6

/* for so long, a trimmed segment is left to its readers before another one has to go */
#define READERS_MS				60000

typedef struct PollSegment
{
	PollSegmentState state;
	TimestampTz since;			/* in this state */
	bool		ours;			/* this transaction has made a step */
	uint64		x;				/* the horizon: of a closed segment what is in
								 * it, of others what was in it before */
	int			np;
	uint64	   *p;				/* sorted, ascending */
} PollSegment;

typedef struct PollSegments
{
	PollSegment segments[POLL_SEGMENTS];
	int			current;
	const PollSegment *trimmed; /* the one with the log's horizon */
	const PollSegment *newest;	/* the one with the newest horizon that is in
								 * force for all */
} PollSegments;

static const char *const state_names[] = {"empty", "current", "filled", "closed", "trimmed"};

/* what poll.segment said last, or NULL; valid unless something has changed */
static MemoryContext segments_context = NULL;
static PollSegments *segments = NULL;
static bool segments_valid = false;
static uint64 invalidations = 0;

/* ---- what poll.segment says ---- */

static PollSegmentState
state_of_name(const char *name)
{
	for (int i = 0; i < lengthof(state_names); i++)
		if (strcmp(state_names[i], name) == 0)
			return (PollSegmentState) i;
	elog(ERROR, "unknown state of a segment: %s", name);
}

const char *
poll_segment_state_name(PollSegmentState state)
{
	return state_names[state];
}

static void
read_segment(HeapTuple tuple, TupleDesc desc, PollSegments *result)
{
	Datum		values[NATTS_SEGMENT];
	bool		isnull[NATTS_SEGMENT];
	PollSegment *segment;
	char	   *name;
	int			id;

	heap_deform_tuple(tuple, desc, values, isnull);
	id = DatumGetInt32(values[ANUM_SEGMENT_ID - 1]);
	if (id < 0 || id >= POLL_SEGMENTS)
		elog(ERROR, "no such segment: %d", id);
	segment = &result->segments[id];
	name = TextDatumGetCString(values[ANUM_SEGMENT_STATE - 1]);
	segment->state = state_of_name(name);
	segment->since = DatumGetTimestampTz(values[ANUM_SEGMENT_SINCE - 1]);
	segment->ours = TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data));
	segment->x = poll_xid_value(values[ANUM_SEGMENT_X - 1]);
	segment->p = poll_xids_value(values[ANUM_SEGMENT_P - 1], &segment->np);
}

/* How many transactions below its x does the horizon list? */
static int
count_open(const PollSegment *segment)
{
	int			n = 0;

	while (n < segment->np && segment->p[n] < segment->x)
		n++;
	return n;
}

/*
 * Is the horizon a newer one, that covers more?  Of two with the same x it is
 * the one that lists less, since nothing that begins later is below x.
 */
static bool
is_newer(const PollSegment *segment, const PollSegment *than)
{
	if (than == NULL || segment->x != than->x)
		return than == NULL || segment->x > than->x;
	return count_open(segment) < count_open(than);
}

/* As the snapshot shows them, or NULL: as they are now. */
static PollSegments *
read_segments(Snapshot snapshot)
{
	PollSegments *result = palloc0(sizeof(PollSegments));
	Relation	rel = poll_catalog_open(poll_catalog_segment(), AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	HeapTuple	tuple;
	int			n = 0;

	result->current = -1;
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		read_segment(tuple, RelationGetDescr(rel), result);
		n++;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	for (int i = 0; i < POLL_SEGMENTS; i++)
	{
		const PollSegment *segment = &result->segments[i];

		if (segment->state == POLL_SEGMENT_CURRENT)
			result->current = i;
		if (segment->state != POLL_SEGMENT_CLOSED && is_newer(segment, result->trimmed))
			result->trimmed = segment;
		/* a crash could take back what is not committed, and its xids */
		if (segment->state == POLL_SEGMENT_CLOSED && segment->ours)
			continue;
		if (is_newer(segment, result->newest))
			result->newest = segment;
	}
	if (n != POLL_SEGMENTS || result->current < 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("table \"%s.segment\" is corrupted", POLL_SCHEMA),
				 errhint("Drop and create the extension.")));
	return result;
}

static const PollSegments *
get_segments(void)
{
	MemoryContext context;
	MemoryContext old;
	PollSegments *result;
	uint64		before = invalidations;

	if (segments_valid)
		return segments;
	context = AllocSetContextCreate(CurrentMemoryContext, "poll_ext segments",
									ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	result = read_segments(NULL);
	MemoryContextSwitchTo(old);

	MemoryContextSetParent(context, TopMemoryContext);
	if (segments_context != NULL)
		MemoryContextDelete(segments_context);
	segments_context = context;
	segments = result;
	/* what has changed meanwhile is for the next use, and so is our commit */
	segments_valid = (before == invalidations);
	for (int i = 0; i < POLL_SEGMENTS; i++)
		segments_valid &= !result->segments[i].ours;
	return result;
}

void
poll_segment_invalidate(Oid relid)
{
	invalidations++;
	if (poll_catalog_is_segment(relid))
		segments_valid = false;
}

/* Has the cursor seen all that is covered by the segment's horizon? */
static bool
covers(const PollCursor *cursor, const PollSegment *segment)
{
	if (cursor->x < segment->x)
		return false;
	for (int i = 0; i < cursor->np && cursor->p[i] < segment->x; i++)
		if (!poll_xid_listed(segment->p, segment->np, cursor->p[i]))
			return false;
	return true;
}

/* Is this transaction, or subtransaction, still open? */
static bool
is_open(uint64 xid)
{
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());

	return xid < next && next - xid < PG_INT32_MAX && TransactionIdIsInProgress((TransactionId) xid);
}

bool
poll_segment_retained(const PollCursor *cursor)
{
	const PollSegment *trimmed = get_segments()->trimmed;

	if (covers(cursor, trimmed))
		return true;
	if (cursor->x < trimmed->x)
		return false;
	/* a subtransaction, which a standby's cursor listed before it could tell */
	for (int i = 0; i < cursor->np && cursor->p[i] < trimmed->x; i++)
		if (!poll_xid_listed(trimmed->p, trimmed->np, cursor->p[i]) && !is_open(cursor->p[i]))
			return false;
	return true;
}

uint64
poll_segment_trimmed_x(void)
{
	return get_segments()->trimmed->x;
}

uint64
poll_segment_lift(void)
{
	return get_segments()->newest->x;
}

uint64
poll_segment_lifted(uint64 last, const PollView *view)
{
	uint64		lift = poll_segment_lift();

	/* not beyond an older snapshot */
	return lift > last && lift <= view->xmax ? lift - 1 : last;
}

void
poll_segment_narrow(Snapshot snapshot, PollView *view)
{
	const PollSegment *horizon;
	int			n = 0;

	if (!snapshot->takenDuringRecovery || view->nopen == 0 || view->open[0] >= poll_segment_lift())
		return;
	/* not a newer one: what that shows as finished may be open here */
	horizon = read_segments(snapshot)->newest;
	for (int i = 0; i < view->nopen; i++)
		if (view->open[i] >= horizon->x || poll_xid_listed(horizon->p, horizon->np, view->open[i]))
			view->open[n++] = view->open[i];
	view->nopen = n;
}

void
poll_segment_check(const PollCursor *cursor)
{
	if (!poll_segment_retained(cursor))
		ereport(ERROR,
				(errcode(ERRCODE_POLL_EXPIRED),
				 errmsg("the cursor or time has expired"),
				 errdetail("The changes that follow it are older than the change log retains."),
				 errhint("Poll without a cursor or time for a full sync.")));
}

/* ---- writers and readers ---- */

Relation
poll_segment_open_current(Oid *index)
{
	for (;;)
	{
		int			current = get_segments()->current;
		Relation	rel = poll_catalog_open(poll_catalog_change(current), RowExclusiveLock);

		if (get_segments()->current == current)
		{
			*index = poll_catalog_change_index(current);
			return rel;
		}
		table_close(rel, RowExclusiveLock);
	}
}

/* May the segment have an entry that the cursor has not seen? */
static bool
is_needed(const PollSegment *segment, const PollCursor *cursor)
{
	/* reading what others could write is what leaves a trace for them */
	if (IsolationIsSerializable())
		return true;
	switch (segment->state)
	{
		case POLL_SEGMENT_EMPTY:
		case POLL_SEGMENT_TRIMMED:
			return false;
		case POLL_SEGMENT_CLOSED:
			return cursor == NULL || !covers(cursor, segment);
		default:
			return true;
	}
}

static uint32
needed_segments(const PollCursor *cursor)
{
	const PollSegments *all = get_segments();
	uint32		needed = 0;

	for (int i = 0; i < POLL_SEGMENTS; i++)
		if (is_needed(&all->segments[i], cursor))
			needed |= 1 << i;
	return needed;
}

int
poll_segment_open(const PollCursor *cursor, Relation *heaps, Relation *indexes)
{
	uint32		needed = needed_segments(cursor);
	int			n = 0;

	for (;;)
	{
		uint32		again;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < POLL_SEGMENTS; i++)
			if (needed & (1 << i))
			{
				heaps[n] = poll_catalog_open(poll_catalog_change(i), AccessShareLock);
				indexes[n++] = index_open(poll_catalog_change_index(i), AccessShareLock);
			}

		/* locks that we had already have not brought the news */
		AcceptInvalidationMessages();
		again = needed_segments(cursor);
		if (again == needed)
			break;
		poll_segment_close(heaps, indexes, n);
		needed = again;
		n = 0;
	}
	if (cursor != NULL)
		poll_segment_check(cursor);
	return n;
}

void
poll_segment_close(Relation *heaps, Relation *indexes, int n)
{
	for (int i = 0; i < n; i++)
	{
		index_close(indexes[i], AccessShareLock);
		table_close(heaps[i], AccessShareLock);
	}
}

/* ---- steps ---- */

/* A step under way: the rows of poll.segment as they were before it. */
typedef struct PollStepping
{
	Relation	rel;
	const PollSegments *before;
	int64		age_ms;
	TimestampTz now;
	int			next;			/* the empty segment to go on with, or -1 */
	int			early;			/* the one to trim before its time, or -1 */
} PollStepping;

/* Writes the row of a segment; horizon: a new one, or NULL. */
static void
set_state(PollStepping *self, int id, PollSegmentState state, const PollView *horizon)
{
	SysScanDesc scan = systable_beginscan(self->rel, InvalidOid, false, NULL, 0, NULL);
	TupleDesc	desc = RelationGetDescr(self->rel);
	Datum		values[NATTS_SEGMENT] = {0};
	bool		isnull[NATTS_SEGMENT] = {0};
	bool		replace[NATTS_SEGMENT] = {0};
	HeapTuple	tuple;

	values[ANUM_SEGMENT_STATE - 1] = CStringGetTextDatum(state_names[state]);
	values[ANUM_SEGMENT_SINCE - 1] = TimestampTzGetDatum(self->now);
	replace[ANUM_SEGMENT_STATE - 1] = replace[ANUM_SEGMENT_SINCE - 1] = true;
	if (horizon != NULL)
	{
		values[ANUM_SEGMENT_X - 1] = poll_xid_datum(horizon->xmax);
		values[ANUM_SEGMENT_P - 1] = poll_xids_datum(horizon->open, horizon->nopen);
		values[ANUM_SEGMENT_RETAINED - 1] = TimestampTzGetDatum(self->now);
		replace[ANUM_SEGMENT_X - 1] = replace[ANUM_SEGMENT_P - 1] = true;
		replace[ANUM_SEGMENT_RETAINED - 1] = true;
	}
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		null;

		if (DatumGetInt32(heap_getattr(tuple, ANUM_SEGMENT_ID, desc, &null)) != id)
			continue;
		CatalogTupleUpdate(self->rel, &tuple->t_self,
						   heap_modify_tuple(tuple, desc, values, isnull, replace));
		break;
	}
	systable_endscan(scan);
	CacheInvalidateRelcache(self->rel);
	/* cursors are lifted to it at once: a crash must not take it back */
	ForceSyncCommit();
}

static bool
is_old(const PollStepping *self, const PollSegment *segment, int64 age_ms)
{
	return self->now - segment->since >= age_ms * 1000;
}

/* 0 if it cannot be told, since somebody rewrites it. */
static uint64
segment_bytes(int id)
{
	Oid			relid = poll_catalog_change(id);
	Relation	heap;
	Relation	index;
	uint64		blocks;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return 0;
	heap = poll_catalog_open(relid, NoLock);
	blocks = RelationGetNumberOfBlocks(heap);
	index = index_open(poll_catalog_change_index(id), AccessShareLock);
	/* an index has a page to begin with */
	if (blocks > 0)
		blocks += RelationGetNumberOfBlocks(index);
	index_close(index, AccessShareLock);
	table_close(heap, AccessShareLock);
	return blocks * BLCKSZ;
}

static bool
is_large(uint64 bytes)
{
	return poll_rotate_size > 0 && bytes >= (uint64) poll_rotate_size * 1024;
}

/* The current segment is old or large enough: on to the next. */
static PollSegmentStep
begin_next(PollStepping *self, int id, uint64 bytes)
{
	int			next = self->next;

	if (bytes == 0 || next < 0 || self->before->segments[next].ours)
		return POLL_STEP_NONE;
	if (!is_large(bytes) && !is_old(self, &self->before->segments[id], self->age_ms / 2))
		return POLL_STEP_YOUNG;
	/* until all writers and readers have been told */
	if (!ConditionalLockRelationOid(poll_catalog_change(next), ShareRowExclusiveLock))
		return POLL_STEP_NEXT_IN_USE;
	set_state(self, id, POLL_SEGMENT_FILLED, NULL);
	set_state(self, next, POLL_SEGMENT_CURRENT, NULL);
	return POLL_STEP_BEGUN;
}

/* Closes the segment if all who wrote there have finished. */
static PollSegmentStep
close_filled(PollStepping *self, int id, PollSegmentReport *report)
{
	Oid			relid = poll_catalog_change(id);
	PollView	horizon;
	Relation	rel;
	bool		wrote;

	/* a lock of our own would not be in our way */
	rel = table_open(relid, AccessShareLock);
	wrote = CheckRelationLockedByMe(rel, RowExclusiveLock, true);
	table_close(rel, AccessShareLock);
	if (wrote || !ConditionalLockRelationOid(relid, ShareLock))
		return POLL_STEP_WRITERS;
	UnlockRelationOid(relid, ShareLock);

	poll_snapshot_view(GetLatestSnapshot(), &horizon);
	set_state(self, id, POLL_SEGMENT_CLOSED, &horizon);
	report->horizon = horizon.xmax;
	return POLL_STEP_CLOSED;
}

static PollSegmentStep
trim_closed(PollStepping *self, int id, bool early)
{
	if (!early && !is_old(self, &self->before->segments[id], self->age_ms))
		return POLL_STEP_YOUNG;
	set_state(self, id, POLL_SEGMENT_TRIMMED, NULL);
	return POLL_STEP_TRIMMED;
}

static PollSegmentStep
empty_trimmed(PollStepping *self, int id)
{
	Oid			relid = poll_catalog_change(id);
	Relation	rel;

	if (!ConditionalLockRelationOid(relid, AccessExclusiveLock))
		return POLL_STEP_IN_USE;
	rel = table_open(relid, NoLock);
	CheckTableNotInUse(rel, "trim");
	poll_compat_truncate(rel);
	table_close(rel, NoLock);
	set_state(self, id, POLL_SEGMENT_EMPTY, NULL);
	return POLL_STEP_EMPTIED;
}

/*
 * Which segment comes next, and which has to go for its size.  Somebody may keep
 * one for long: then the other two take turns.
 */
static void
plan_steps(PollStepping *self)
{
	const PollSegments *before = self->before;
	int			current = before->current;
	int			oldest = -1;	/* closed one */
	bool		enough = false;

	self->next = -1;
	for (int i = POLL_SEGMENTS - 1; i > 0; i--)
	{
		int			id = (current + i) % POLL_SEGMENTS;
		const PollSegment *segment = &before->segments[id];

		if (segment->state == POLL_SEGMENT_EMPTY)
			self->next = id;

		/*
		 * the one that was trimmed makes room as soon as it is not read any
		 * more
		 */
		if (segment->state == POLL_SEGMENT_TRIMMED && !is_old(self, segment, READERS_MS))
			enough = true;
		if (segment->state == POLL_SEGMENT_CLOSED &&
			(oldest < 0 || segment->x < before->segments[oldest].x))
			oldest = id;
	}
	self->early = self->next < 0 && !enough && is_large(segment_bytes(current)) ? oldest : -1;
}

static void
step(PollStepping *self, int id, PollSegmentReport *report)
{
	const PollSegment *segment = &self->before->segments[id];
	bool		early = self->early == id;

	report->state = segment->state;
	report->bytes = segment_bytes(id);
	report->waiting = self->now - segment->since;
	if (segment->ours)
		return;
	/* the clock was set back: count from now on */
	if (segment->since > self->now)
	{
		set_state(self, id, segment->state, NULL);
		return;
	}
	switch (segment->state)
	{
		case POLL_SEGMENT_EMPTY:
			break;
		case POLL_SEGMENT_CURRENT:
			report->step = begin_next(self, id, report->bytes);
			break;
		case POLL_SEGMENT_FILLED:
			report->step = close_filled(self, id, report);
			break;
		case POLL_SEGMENT_CLOSED:
			report->early = early && !is_old(self, segment, self->age_ms);
			report->step = trim_closed(self, id, early);
			break;
		case POLL_SEGMENT_TRIMMED:
			report->step = empty_trimmed(self, id);
			break;
	}
	switch (report->step)
	{
		case POLL_STEP_BEGUN:
		case POLL_STEP_CLOSED:
		case POLL_STEP_TRIMMED:
			report->state = segment->state + 1;
			break;
		case POLL_STEP_EMPTIED:
			report->state = POLL_SEGMENT_EMPTY;
			break;
		default:
			break;
	}
}

bool
poll_segment_step(int64 age_ms, bool wait, PollSegmentReport *report)
{
	PollStepping self = {.age_ms = age_ms};
	Oid			relid = poll_catalog_segment();

	memset(report, 0, sizeof(PollSegmentReport) * POLL_SEGMENTS);
	if (wait)
		LockRelationOid(relid, ShareUpdateExclusiveLock);
	else if (!ConditionalLockRelationOid(relid, ShareUpdateExclusiveLock))
		return false;
	self.now = GetCurrentTimestamp();
	self.rel = poll_catalog_open(relid, NoLock);
	self.before = read_segments(NULL);
	plan_steps(&self);
	PushActiveSnapshot(GetLatestSnapshot());
	for (int i = 0; i < POLL_SEGMENTS; i++)
		step(&self, i, &report[i]);
	if (report[self.before->current].step == POLL_STEP_BEGUN)
		report[self.next].state = POLL_SEGMENT_CURRENT;
	PopActiveSnapshot();
	table_close(self.rel, NoLock);
	CommandCounterIncrement();
	return true;
}
