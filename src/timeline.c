/*
 * timeline.c
 *		Cursors from before a promotion or a point-in-time recovery.
 *
 * A server that was promoted, or recovered to some point, goes on with a
 * timeline of its own.  What the old one did after that point never happened
 * here, and the xids are used again for other things.  So the timeline is in
 * the epoch of a cursor, and one of another epoch has expired, unless all that
 * its owner has seen is in the history that both share:
 *
 * A cut cursor, or one of a full sync, has the position in the WAL at which it
 * was cut, which is behind all that had been shown by then, on whatever server.
 * It is good if this server left its timeline there or later, as the history
 * file says: that is, not before it left any later timeline, since a recovery to a
 * point in time that ends before a switch has the whole history of its target, too.
 *
 * A complete cursor has none, so that it is the same for all.  It comes from a
 * poll that has seen all that the pages before it can have shown
 * (poll_snapshot_includes()); until there is one, a cursor stays cut.  What it has
 * seen are transactions: those below X and not in P.  Let K be the newest tick
 * that this server has from that timeline (or one before it): it is part of the
 * shared history, and shows its transactions as finished, below its x and not
 * in its p.  Whatever had finished by then has ended here as it did there.  So
 * if K covers all that the cursor has seen, its owner has seen nothing that
 * did not happen here: what he was shown came from these transactions alone,
 * since X is behind the last change that the snapshot showed of his feeds.
 * What he has not seen is not in it, whatever became of it, and comes with the
 * next poll.  Nor can its P name a transaction that this server begins anew:
 * its members are below X, so below x of K, and that many xids were used up.
 * So a feed that was quiet for some two seconds before the promotion, which is
 * when the last tick of a burst is written, loses nobody.
 *
 * A cursor above the next xid of a primary is none of its: the data folder is
 * older than the cursor (a copy that was put back without recovery).
 */
#include "postgres.h"

#include "access/timeline.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "utils/memutils.h"

#include "catalog.h"
#include "error.h"
#include "tick.h"
#include "timeline.h"

/* What this server knows of a timeline before its own. */
typedef struct PollAncestor
{
	TimeLineID	timeline;
	XLogRecPtr	end;			/* where it was left */
	bool		looked;			/* for the tick */
	bool		found;
	PollCursor	tick;			/* x and p of K; it does not change any more */
} PollAncestor;

static MemoryContext ancestors_context = NULL;
static List *ancestors = NIL;
static TimeLineID ancestors_of = 0; /* the timeline whose history that is */
static uint64 ancestors_epoch;	/* ticks are of one log */

/* What this session knows that the next xid has reached. */
static uint64 next_xid = 0;

static void
read_history(TimeLineID timeline)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "poll_ext timelines",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	List	   *result = NIL;
	XLogRecPtr	end = PG_UINT64_MAX;
	ListCell   *lc;

	/* the newest first */
	foreach(lc, readTimeLineHistory(timeline))
	{
		TimeLineHistoryEntry *entry = lfirst(lc);
		PollAncestor *ancestor;

		if (entry->tli == timeline)
			continue;
		end = Min(end, entry->end);
		ancestor = palloc0(sizeof(PollAncestor));
		ancestor->timeline = entry->tli;
		ancestor->end = end;
		result = lappend(result, ancestor);
	}
	MemoryContextSwitchTo(old);

	MemoryContextSetParent(context, TopMemoryContext);
	if (ancestors_context != NULL)
		MemoryContextDelete(ancestors_context);
	ancestors_context = context;
	ancestors = result;
	ancestors_of = timeline;
	ancestors_epoch = poll_catalog_epoch();
}

/* The timeline before this one that the cursor comes from, or NULL. */
static PollAncestor *
find_ancestor(const PollCursor *cursor)
{
	TimeLineID	timeline = poll_catalog_timeline();
	ListCell   *lc;

	if (ancestors_of != timeline || ancestors_epoch != poll_catalog_epoch())
		read_history(timeline);
	foreach(lc, ancestors)
	{
		PollAncestor *ancestor = lfirst(lc);

		if (poll_catalog_epoch_on(ancestor->timeline) == cursor->epoch)
			return ancestor;
	}
	return NULL;
}

static bool
find_tick(PollAncestor *ancestor)
{
	if (!ancestor->looked)
	{
		PollCursor *tick = &ancestor->tick;
		Size		size;

		ancestor->found = poll_tick_find_on(ancestor->timeline, tick);
		size = sizeof(uint64) * tick->np;
		if (size > 0)
			tick->p = memcpy(MemoryContextAlloc(ancestors_context, size), tick->p, size);
		ancestor->looked = true;
	}
	return ancestor->found;
}

/* Does the tick show everything as finished that the cursor has seen? */
static bool
tick_covers(const PollCursor *tick, const PollCursor *cursor)
{
	if (cursor->x > tick->x)
		return false;
	for (int i = 0; i < tick->np && tick->p[i] < cursor->x; i++)
		if (!poll_cursor_lists(cursor, tick->p[i]))
			return false;
	return true;
}

static bool
is_shared(const PollCursor *cursor)
{
	PollAncestor *ancestor = find_ancestor(cursor);

	if (ancestor == NULL)
		return false;
	if (cursor->cut)
		return cursor->lsn <= ancestor->end;
	return find_tick(ancestor) && tick_covers(&ancestor->tick, cursor);
}

static void
expired(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_POLL_EXPIRED),
			 errmsg("the cursor has expired"),
			 errdetail_internal("%s", detail),
			 errhint("Poll without a cursor for a full sync.")));
}

void
poll_timeline_adopt(PollCursor *cursor)
{
	if (cursor->epoch != poll_catalog_epoch())
	{
		if (!is_shared(cursor))
			expired("It comes from another server, or from before a restore or a promotion.");
		cursor->epoch = poll_catalog_epoch();
		cursor->adopted = true;
	}
	if (cursor->x > next_xid && !RecoveryInProgress())
	{
		next_xid = U64FromFullTransactionId(ReadNextFullTransactionId());
		if (cursor->x > next_xid)
			expired("It is newer than this server: a copy of older data was put in its place.");
	}
}
