/*
 * tick.c
 *		Ticks: from a time to a position in the log.
 *
 *		poll.tick (at timestamptz, x xid8, p xid8[], timeline int)		index (at)
 *
 * A tick says what was visible at some time, as a cursor does: everything with
 * an xid below x but for those in p.  "Since T" is the newest tick at or before
 * T, so it delivers what became visible after T, also what was written before
 * T and committed later; and a little more, what the tick is older than T.
 *
 * Writers leave a tick when they flush, one a second at most: first a fresh
 * snapshot, then the clock, since the other order would lose what becomes
 * visible in between.  x is not above the snapshot's end, because from there
 * on everything is open without being listed, and not above the writer's own
 * xid + 1, which is as durable as the tick, or the newest horizon of the log
 * (segment.c), which is, too.  The time is the hybrid clock's, so that it does
 * not go back with the server's.
 *
 * After the last commit of a burst there must be another tick, or its changes
 * would come again with every poll since a time after them.  A background
 * worker writes that (worker.c).
 *
 * Time goes on over a restart or a promotion, though the clock may be another
 * one: the first tick that a server writes is later than all that are there.
 *
 * Timelines.  Up to the last tick that a server has from an older timeline, the
 * server that was there has seen nothing else.  From the first tick of its own
 * on, times are taken for its own.  One in between may come from the other
 * server, after their ways have parted: then it says nothing.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "segment.h"
#include "shmem.h"
#include "snapshot.h"
#include "tick.h"
#include "xids.h"

#define ANUM_TICK_AT	1
#define ANUM_TICK_X		2
#define ANUM_TICK_P		3
#define ANUM_TICK_TIMELINE	4
#define NATTS_TICK		4

#define TICK_INTERVAL	USECS_PER_SEC

/* Times from this one on are of this timeline, since it has a tick then. */
static TimeLineID own_timeline = 0;
static TimestampTz own_since;

static uint64
tick_x(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;

	return poll_xid_value(heap_getattr(tuple, ANUM_TICK_X, desc, &isnull));
}

/* ---- writing ---- */

void
poll_tick_write(uint64 horizon)
{
	PollDatabase *database = poll_shmem_database();
	uint64		own = U64FromFullTransactionId(GetTopFullTransactionId());
	Relation	rel = poll_catalog_open(poll_catalog_tick(), RowExclusiveLock);
	PollView	view;
	uint64		x;
	int			room;
	int			n = 0;
	Datum		values[NATTS_TICK];
	bool		isnull[NATTS_TICK] = {0};

	/* the first one since this server has started */
	if (pg_atomic_read_u64(&database->tick_x) == 0)
		poll_clock_raise(poll_tick_newest(NULL));

	PushActiveSnapshot(GetLatestSnapshot());
	poll_snapshot_view(GetActiveSnapshot(), &view);
	values[ANUM_TICK_AT - 1] = TimestampTzGetDatum(poll_clock_timestamp(poll_clock_take(1)));

	horizon = Max(horizon, poll_segment_lift());
	x = Min(Max(own + 1, horizon), view.xmax);
	room = poll_view_room(&view, horizon);
	if (view.nopen > room)
		x = Min(x, view.open[room]);
	while (n < view.nopen && view.open[n] < x)
		n++;
	values[ANUM_TICK_X - 1] = poll_xid_datum(x);
	values[ANUM_TICK_P - 1] = poll_xids_datum(view.open, n);
	values[ANUM_TICK_TIMELINE - 1] = Int32GetDatum((int32) GetWALInsertionTimeLine());

	CatalogTupleInsert(rel, heap_form_tuple(RelationGetDescr(rel), values, isnull));
	PopActiveSnapshot();
	table_close(rel, NoLock);
	if (x > pg_atomic_read_u64(&database->tick_x))
		pg_atomic_write_u64(&database->tick_x, x);
}

void
poll_tick_trim(uint64 x)
{
	Relation	rel = poll_catalog_open(poll_catalog_tick(), RowExclusiveLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		CHECK_FOR_INTERRUPTS();
		if (tick_x(tuple, RelationGetDescr(rel)) < x)
			CatalogTupleDelete(rel, &tuple->t_self);
	}
	systable_endscan(scan);
	table_close(rel, NoLock);
}

/*
 * Is it for us to write a tick?  That of an old transaction would be a step
 * back: x cannot be above its own xid.
 */
static bool
tick_is_ours(PollDatabase *database, TimestampTz now)
{
	uint64		last = pg_atomic_read_u64(&database->ticked);

	if (now < (TimestampTz) last + TICK_INTERVAL && now >= (TimestampTz) last)
		return false;
	if (U64FromFullTransactionId(GetTopFullTransactionId()) + 1 <
		pg_atomic_read_u64(&database->tick_x))
		return false;
	return pg_atomic_compare_exchange_u64(&database->ticked, &last, now);
}

void
poll_tick_at_flush(void)
{
	PollDatabase *database = poll_shmem_database();
	TimestampTz now = GetCurrentTimestamp();

	if (tick_is_ours(database, now))
		poll_tick_write(0);
}

/* ---- reading ---- */

static TimeLineID
tick_timeline(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;

	return (TimeLineID) DatumGetInt32(heap_getattr(tuple, ANUM_TICK_TIMELINE, desc, &isnull));
}

/*
 * The next visible tick from the time on in that direction, backward with those
 * at the time, and of a timeline up to that: a copy of its row, or NULL.
 */
static HeapTuple
find_tick(Relation rel, Snapshot snapshot, TimestampTz at, ScanDirection direction,
		  TimeLineID timeline)
{
	Relation	index = index_open(poll_catalog_tick_index(), AccessShareLock);
	bool		back = ScanDirectionIsBackward(direction);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, ANUM_TICK_AT, back ? BTLessEqualStrategyNumber : BTGreaterStrategyNumber,
				back ? F_TIMESTAMPTZ_LE : F_TIMESTAMPTZ_GT, TimestampTzGetDatum(at));
	scan = systable_beginscan_ordered(rel, index, snapshot, 1, &key);
	do
	{
		CHECK_FOR_INTERRUPTS();
		tuple = systable_getnext_ordered(scan, direction);
	} while (tuple != NULL && tick_timeline(tuple, RelationGetDescr(rel)) > timeline);
	if (tuple != NULL)
		tuple = heap_copytuple(tuple);
	systable_endscan_ordered(scan);
	index_close(index, NoLock);
	return tuple;
}

static TimestampTz
tick_at(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;

	return DatumGetTimestampTz(heap_getattr(tuple, ANUM_TICK_AT, desc, &isnull));
}

static bool
read_tick(Snapshot snapshot, TimestampTz at, TimeLineID timeline, PollCursor *cursor)
{
	Relation	rel = poll_catalog_open(poll_catalog_tick(), AccessShareLock);
	HeapTuple	tuple = find_tick(rel, snapshot, at, BackwardScanDirection, timeline);

	if (tuple != NULL)
	{
		bool		isnull;
		Datum		open = heap_getattr(tuple, ANUM_TICK_P, RelationGetDescr(rel), &isnull);

		cursor->p = poll_xids_value(open, &cursor->np);
		cursor->x = tick_x(tuple, RelationGetDescr(rel));
	}
	table_close(rel, NoLock);
	return tuple != NULL;
}

bool
poll_tick_find(Snapshot snapshot, TimestampTz at, PollCursor *cursor)
{
	return read_tick(snapshot, at, PG_UINT32_MAX, cursor);
}

bool
poll_tick_find_on(TimeLineID timeline, PollCursor *cursor)
{
	return read_tick(NULL, DT_NOEND, timeline, cursor);
}

TimestampTz
poll_tick_newest(Snapshot snapshot)
{
	Relation	rel = poll_catalog_open(poll_catalog_tick(), AccessShareLock);
	HeapTuple	tuple = find_tick(rel, snapshot, DT_NOEND, BackwardScanDirection, PG_UINT32_MAX);
	TimestampTz at = tuple != NULL ? tick_at(tuple, RelationGetDescr(rel)) : 0;

	table_close(rel, NoLock);
	return at;
}

bool
poll_tick_apart(TimestampTz at)
{
	TimeLineID	timeline = poll_catalog_timeline();
	Relation	rel;
	HeapTuple	before;
	HeapTuple	after;
	bool		apart = false;

	if (own_timeline == timeline && at >= own_since)
		return false;
	rel = poll_catalog_open(poll_catalog_tick(), AccessShareLock);
	before = find_tick(rel, NULL, at, BackwardScanDirection, PG_UINT32_MAX);
	if (before != NULL && tick_timeline(before, RelationGetDescr(rel)) == timeline)
	{
		own_timeline = timeline;
		own_since = tick_at(before, RelationGetDescr(rel));
	}
	else if (before != NULL && tick_at(before, RelationGetDescr(rel)) < at)
	{
		after = find_tick(rel, NULL, at, ForwardScanDirection, PG_UINT32_MAX);
		apart = after == NULL || tick_timeline(after, RelationGetDescr(rel)) !=
			tick_timeline(before, RelationGetDescr(rel));
	}
	table_close(rel, NoLock);
	return apart;
}
