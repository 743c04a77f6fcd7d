/*
 * changelog.c
 *		The change log: chunks of entries, written and read.
 *
 *		poll.change_N (channel int8, xid xid8, version int8, count int4,
 *					   entries bytea)			index (channel, xid, version)
 *
 * A row of the log is a chunk: up to POLL_CHUNK_ENTRIES changes that one
 * transaction made in one channel, in some 2 kB.  Entry i of a chunk has
 * version "version + i" and consists of varint(key length * 4 + op) and the
 * key (see key.c).  Chunks are inserted straight into the heap and whatever
 * indexes it has at the moment (there are two during REINDEX CONCURRENTLY),
 * without SPI; a chunk of a single huge key may be toasted, others never are.
 *
 * Reading goes through the index in (xid, version) order.  Chunks of
 * transactions that are open in the snapshot are told by the xid in the index
 * tuple and skipped without a look at the heap; after a few in a row the scan
 * seeks to the next xid, so that a bulk load in progress costs a poll one more
 * index descent, not a walk over its chunks.  Under SERIALIZABLE nothing is
 * skipped: there it is the look at the heap that finds conflicts.
 *
 * The log is in several tables, segments, of which one is written (segment.c
 * has the locks, too).  A transaction may have entries in two of them, so a
 * reader merges what it finds.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "catalog.h"
#include "changelog.h"
#include "compat.h"
#include "segment.h"
#include "shmem.h"
#include "snapshot.h"
#include "varint.h"
#include "waiters.h"

#define ANUM_CHANGE_CHANNEL		1
#define ANUM_CHANGE_XID			2
#define ANUM_CHANGE_VERSION		3
#define ANUM_CHANGE_COUNT		4
#define ANUM_CHANGE_ENTRIES		5
#define NATTS_CHANGE			5
#define NATTS_INDEX				3

/* so many chunks of open transactions in a row before the scan seeks */
#define SKIP_BEFORE_SEEK		4

static MemoryContext write_context = NULL;

void
poll_entry_append(StringInfo buf, PollOp op, const char *key, int keylen)
{
	char		varint[POLL_VARINT_MAX];

	appendBinaryStringInfo(buf, varint,
						   poll_varint_put(varint, (uint64) keylen << 2 | op) - varint);
	appendBinaryStringInfo(buf, key, keylen);
}

/*
 * Inserts the tuple into the log and its indexes.  Normally there is but ours,
 * on the first columns, and no need for all that a catalog's indexes can be.
 */
static void
insert_chunk(Relation rel, Oid index_oid, HeapTuple tuple, Datum *values, bool *isnull)
{
	List	   *indexes = RelationGetIndexList(rel);
	Relation	index;

	if (list_length(indexes) != 1 || linitial_oid(indexes) != index_oid)
	{
		CatalogTupleInsert(rel, tuple);
		return;
	}
	simple_heap_insert(rel, tuple);
	index = index_open(index_oid, RowExclusiveLock);
	index_insert(index, values, isnull, &tuple->t_self, rel, UNIQUE_CHECK_NO, false, NULL);
	index_close(index, NoLock);
}

void
poll_changelog_write(int64 channel, int count, const char *entries, int len)
{
	FullTransactionId xid = GetTopFullTransactionId();
	Oid			index;
	Relation	rel = poll_segment_open_current(&index);
	Datum		values[NATTS_CHANGE];
	bool		isnull[NATTS_CHANGE] = {0};
	MemoryContext old;
	bytea	   *data;
	HeapTuple	tuple;
	bool		pushed = false; /* a snapshot */

#ifdef USE_ASSERT_CHECKING

	/*
	 * heap_insert() asserts that there is a snapshot to read TOAST by, which
	 * an insert does not.  At the end of a transaction there is none, and
	 * taking one would cost every small transaction a visit to the shared
	 * list of transactions.
	 */
	if (!HaveRegisteredOrActiveSnapshot())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		pushed = true;
	}
#endif

	/* a transaction may have many to write at its end */
	CHECK_FOR_INTERRUPTS();

	/* first: whoever sees the chunk must see this (shmem.c) */
	poll_flushed_raise(channel, U64FromFullTransactionId(xid));
	poll_waiters_note(channel);

	/* a context of our own keeps its first block from one to the next */
	if (write_context == NULL)
		write_context = AllocSetContextCreate(TopMemoryContext, "poll_ext write",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(write_context);
	old = MemoryContextSwitchTo(write_context);

	data = palloc(VARHDRSZ + len);
	SET_VARSIZE(data, VARHDRSZ + len);
	memcpy(VARDATA(data), entries, len);
	values[ANUM_CHANGE_CHANNEL - 1] = Int64GetDatum(channel);
	values[ANUM_CHANGE_XID - 1] = FullTransactionIdGetDatum(xid);
	values[ANUM_CHANGE_VERSION - 1] = Int64GetDatum(poll_clock_take(count));
	values[ANUM_CHANGE_COUNT - 1] = Int32GetDatum(count);
	values[ANUM_CHANGE_ENTRIES - 1] = PointerGetDatum(data);

	tuple = heap_form_tuple(RelationGetDescr(rel), values, isnull);
	insert_chunk(rel, index, tuple, values, isnull);

	MemoryContextSwitchTo(old);
	if (pushed)
		PopActiveSnapshot();
	table_close(rel, NoLock);
}

void
poll_log_open(PollLog *log, const PollCursor *cursor, Snapshot snapshot, const PollView *view)
{
	log->n = poll_segment_open(cursor, log->heaps, log->indexes);
	log->snapshot = snapshot;
	log->view = view;
}

void
poll_log_close(PollLog *log)
{
	poll_segment_close(log->heaps, log->indexes, log->n);
}

PollLogScan *
poll_log_scan_begin(PollLog *log, int segment, int64 channel, int feed)
{
	PollLogScan *scan = palloc0(sizeof(PollLogScan));

	scan->log = log;
	scan->index = log->indexes[segment];
	scan->channel = channel;
	scan->feed = feed;
	scan->slot = table_slot_create(log->heaps[segment], NULL);
	scan->scan = poll_compat_index_beginscan(log->heaps[segment], scan->index, log->snapshot, NATTS_INDEX);
	scan->scan->xs_want_itup = true;
	return scan;
}

void
poll_log_scan_end(PollLogScan *scan)
{
	index_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	if (scan->chunk)
		pfree(scan->chunk);
	pfree(scan);
}

static void
key_init(ScanKey key, AttrNumber column, StrategyNumber strategy, uint64 value)
{
	RegProcedure function;

	if (column == ANUM_CHANGE_XID)
		function = strategy == BTEqualStrategyNumber ? F_XID8EQ :
			strategy == BTLessStrategyNumber ? F_XID8LT : F_XID8GE;
	else
		function = strategy == BTEqualStrategyNumber ? F_INT8EQ : F_INT8GE;
	ScanKeyInit(key, column, strategy, function,
				column == ANUM_CHANGE_XID ? FullTransactionIdGetDatum(FullTransactionIdFromU64(value)) :
				Int64GetDatum((int64) value));
}

static void
reset_chunk(PollLogScan *scan)
{
	scan->next = scan->end = NULL;
	scan->skipped = 0;
}

void
poll_log_scan_seek(PollLogScan *scan, uint64 from, uint64 to)
{
	ScanKeyData keys[NATTS_INDEX];

	scan->from = from;
	scan->to = to;
	reset_chunk(scan);
	key_init(&keys[0], ANUM_CHANGE_CHANNEL, BTEqualStrategyNumber, scan->channel);
	key_init(&keys[1], ANUM_CHANGE_XID, BTGreaterEqualStrategyNumber, from);
	key_init(&keys[2], ANUM_CHANGE_XID, BTLessStrategyNumber, to);
	index_rescan(scan->scan, keys, 3, NULL, 0);
}

/* The chunk with the next version may have begun up to so many before it. */
void
poll_log_scan_seek_after(PollLogScan *scan, uint64 xid, int64 version)
{
	ScanKeyData keys[NATTS_INDEX];

	scan->from = xid;
	scan->to = xid + 1;
	reset_chunk(scan);
	key_init(&keys[0], ANUM_CHANGE_CHANNEL, BTEqualStrategyNumber, scan->channel);
	key_init(&keys[1], ANUM_CHANGE_XID, BTEqualStrategyNumber, xid);
	key_init(&keys[2], ANUM_CHANGE_VERSION, BTGreaterEqualStrategyNumber,
			 Max(version - POLL_CHUNK_ENTRIES, 0));
	index_rescan(scan->scan, keys, 3, NULL, 0);
}

/* Moves to the next index tuple of a finished transaction and returns its xid. */
static uint64
next_finished(PollLogScan *scan, ScanDirection direction)
{
	while (index_getnext_tid(scan->scan, direction) != NULL)
	{
		bool		isnull;
		Datum		value = index_getattr(scan->scan->xs_itup, ANUM_CHANGE_XID,
										  RelationGetDescr(scan->index), &isnull);
		uint64		xid = U64FromFullTransactionId(DatumGetFullTransactionId(value));

		CHECK_FOR_INTERRUPTS();
		if (IsolationIsSerializable() || poll_view_finished(scan->log->view, xid))
			return xid;
		if (++scan->skipped < SKIP_BEFORE_SEEK)
			continue;
		if (ScanDirectionIsForward(direction))
			poll_log_scan_seek(scan, xid + 1, scan->to);
		else
			poll_log_scan_seek(scan, scan->from, xid);
	}
	return 0;
}

/* Moves to the next visible chunk of the range. */
static bool
next_chunk(PollLogScan *scan)
{
	uint64		xid;
	bool		isnull;
	bytea	   *data;
	Datum		value;

	if (scan->chunk)
		pfree(scan->chunk);
	scan->chunk = NULL;
	do
	{
		xid = next_finished(scan, ForwardScanDirection);
		if (xid == 0)
			return false;
	} while (!index_fetch_heap(scan->scan, scan->slot));

	scan->skipped = 0;
	scan->xid = xid;
	scan->version = DatumGetInt64(slot_getattr(scan->slot, ANUM_CHANGE_VERSION, &isnull)) - 1;
	scan->last_version = scan->version +
		DatumGetInt32(slot_getattr(scan->slot, ANUM_CHANGE_COUNT, &isnull));
	value = slot_getattr(scan->slot, ANUM_CHANGE_ENTRIES, &isnull);
	data = (bytea *) PG_DETOAST_DATUM_PACKED(value);
	if (PointerGetDatum(data) != value)
		scan->chunk = (char *) data;
	scan->next = VARDATA_ANY(data);
	scan->end = scan->next + VARSIZE_ANY_EXHDR(data);
	return true;
}

bool
poll_log_scan_next(PollLogScan *scan)
{
	uint64		head;

	while (scan->next == scan->end)
		if (!next_chunk(scan))
			return false;

	if (!poll_varint_get(&scan->next, scan->end, &head) ||
		head >> 2 > (uint64) (scan->end - scan->next) ||
		scan->version == scan->last_version)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a chunk of the change log is corrupted"),
				 errdetail("Channel " INT64_FORMAT ", transaction " UINT64_FORMAT ", version " INT64_FORMAT ".",
						   scan->channel, scan->xid, scan->version)));
	scan->version++;
	scan->op = (PollOp) (head & 3);
	scan->key = scan->next;
	scan->keylen = (int) (head >> 2);
	scan->next += scan->keylen;
	return true;
}

uint64
poll_log_end(const PollLog *log)
{
	return IsolationIsSerializable() ? POLL_LOG_END : log->view->xmax;
}

uint64
poll_log_last(PollLog *log, int64 channel)
{
	uint64		last = 0;

	for (int i = 0; i < log->n; i++)
	{
		PollLogScan *scan = poll_log_scan_begin(log, i, channel, 0);
		uint64		xid;

		poll_log_scan_seek(scan, last, poll_log_end(log));
		do
		{
			xid = next_finished(scan, BackwardScanDirection);
		} while (xid != 0 && !index_fetch_heap(scan->scan, scan->slot));
		poll_log_scan_end(scan);
		last = Max(last, xid);
	}
	return last;
}

/* A transaction may have many chunks: rather than read them all, look at fewer of them. */
#define CHUNKS_PER_TIME	4

/* Those of one segment, behind the n that are there. */
static int
segment_times(PollLogScan *scan, int64 *times, int n, int max)
{
	uint64		last = 0;
	uint64		xid;

	for (int chunks = CHUNKS_PER_TIME * (max - n); n < max && chunks > 0; chunks--)
	{
		bool		isnull;

		xid = next_finished(scan, BackwardScanDirection);
		if (xid == 0)
			break;
		if (xid == last || !index_fetch_heap(scan->scan, scan->slot))
			continue;
		last = xid;
		scan->skipped = 0;
		times[n++] = DatumGetInt64(slot_getattr(scan->slot, ANUM_CHANGE_VERSION, &isnull));
	}
	return n;
}

int
poll_log_newest_first(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return (x < y) - (x > y);
}

int
poll_log_times(PollLog *log, int64 channel, int64 *times, int max)
{
	int64	   *all = palloc(sizeof(int64) * max * Max(log->n, 1));
	int			n = 0;

	for (int i = 0; i < log->n; i++)
	{
		PollLogScan *scan = poll_log_scan_begin(log, i, channel, 0);

		poll_log_scan_seek(scan, 0, poll_log_end(log));
		n = segment_times(scan, all, n, n + max);
		poll_log_scan_end(scan);
	}
	qsort(all, n, sizeof(int64), poll_log_newest_first);
	n = Min(n, max);
	memcpy(times, all, sizeof(int64) * n);
	pfree(all);
	return n;
}
