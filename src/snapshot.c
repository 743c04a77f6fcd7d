/*
 * snapshot.c
 *		The snapshot that a poll runs under, as the cursor needs to see it.
 *
 * A poll takes rows, live data and the next cursor from one snapshot: the
 * active one of the calling query.  Three things differ from what SQL shows
 * of it.
 *
 * Our own transaction.  A snapshot leaves our own xid out of its list of open
 * ones.  A poll must not hand out what may yet be rolled back, so the view
 * lists it, and the poll works under a copy of the snapshot whose command id
 * is zero: under that, none of our own changes are visible, in the log as in
 * the tables.
 *
 * Hot standby.  A snapshot taken during recovery keeps the open xids in
 * subxip, and subtransactions among them; pg_current_snapshot() shows none of
 * them.  The latter are harmless in a list of open transactions (no log entry
 * carries one), but they can make a cut cursor look behind.  There a second
 * proof is enough: this server has replayed past the position of the cursor's
 * server, and nothing has completed since the snapshot was taken.
 *
 * Durability.  With synchronous_commit = off a commit is visible before it is
 * durable.  What a poll hands out must survive a crash, so it flushes the WAL
 * first, once any transaction of that kind has written to the log.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "lib/qunique.h"
#include "utils/snapmgr.h"

#include "shmem.h"
#include "snapshot.h"

Snapshot
poll_snapshot_push(void)
{
	PushCopiedSnapshot(GetActiveSnapshot());
	GetActiveSnapshot()->curcid = FirstCommandId;
	return GetActiveSnapshot();
}

/* as widen_snapshot_xid() in xid8funcs.c */
static inline uint64
widen(TransactionId xid, FullTransactionId next)
{
	uint32		epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return U64FromFullTransactionId(FullTransactionIdFromEpochAndXid(epoch, xid));
}

static int
cmp_uint64(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return (x > y) - (x < y);
}

void
poll_snapshot_view(Snapshot snapshot, PollView *view)
{
	FullTransactionId next = ReadNextFullTransactionId();
	FullTransactionId own = GetTopFullTransactionIdIfAny();
	const TransactionId *xids = snapshot->takenDuringRecovery ? snapshot->subxip : snapshot->xip;
	int			nxids = snapshot->takenDuringRecovery ? snapshot->subxcnt : (int) snapshot->xcnt;

	view->xmax = widen(snapshot->xmax, next);
	view->open = palloc(sizeof(uint64) * (nxids + 1));
	view->nopen = 0;
	for (int i = 0; i < nxids; i++)
		view->open[view->nopen++] = widen(xids[i], next);
	if (FullTransactionIdIsValid(own))
		view->open[view->nopen++] = U64FromFullTransactionId(own);
	qsort(view->open, view->nopen, sizeof(uint64), cmp_uint64);
	/* at PREPARE TRANSACTION one is listed twice for a moment */
	view->nopen = qunique(view->open, view->nopen, sizeof(uint64), cmp_uint64);
}

/*
 * The end of the WAL inserted so far.  GetXLogInsertRecPtr() gives the start
 * of the next record, which on a fresh page lies behind a header that nobody
 * has written yet, and flushing up to there would be refused.
 */
static XLogRecPtr
insert_end(void)
{
	XLogRecPtr	lsn = GetXLogInsertRecPtr();
	uint32		header = XLogSegmentOffset(lsn, wal_segment_size) < XLOG_BLCKSZ ?
	SizeOfXLogLongPHD : SizeOfXLogShortPHD;

	return lsn % XLOG_BLCKSZ == header ? lsn - header : lsn;
}

XLogRecPtr
poll_snapshot_position(void)
{
	return RecoveryInProgress() ? GetXLogReplayRecPtr(NULL) : insert_end();
}

/* Does the snapshot show all that this server shows now? */
static bool
snapshot_is_latest(Snapshot snapshot)
{
	Snapshot	latest = GetLatestSnapshot();

	return latest->takenDuringRecovery && snapshot->takenDuringRecovery &&
		latest->xmax == snapshot->xmax &&
		latest->subxcnt == snapshot->subxcnt &&
		latest->suboverflowed == snapshot->suboverflowed &&
		memcmp(latest->subxip, snapshot->subxip,
			   sizeof(TransactionId) * snapshot->subxcnt) == 0;
}

bool
poll_snapshot_behind(Snapshot snapshot, const PollView *view, const PollCursor *cursor)
{
	if (!poll_cursor_behind(cursor, view))
		return false;

	/* the order matters: first how far we are, then what that shows */
	if (snapshot->takenDuringRecovery && poll_snapshot_position() >= cursor->lsn &&
		snapshot_is_latest(snapshot))
		return false;
	return true;
}

/*
 * On the primary nothing is newer than the snapshot of a statement, but for that
 * of a transaction, which may have begun long before.
 */
bool
poll_snapshot_includes(Snapshot snapshot, XLogRecPtr lsn)
{
	if (!snapshot->takenDuringRecovery)
		return !IsolationUsesXactSnapshot();
	return poll_snapshot_position() >= lsn && snapshot_is_latest(snapshot);
}

/*
 * The WAL is flushed to its end, since a row can hold more than the changes
 * that a page reports.  Once all asynchronous writers are finished in the
 * snapshot, that flush has made them durable, and later polls need none.
 */
void
poll_snapshot_flush(Snapshot snapshot)
{
	uint64		async;

	if (RecoveryInProgress())
		return;
	async = poll_async_read();
	if (async <= poll_async_durable_read())
		return;
	XLogFlush(insert_end());
	if (async < widen(snapshot->xmin, ReadNextFullTransactionId()))
		poll_async_durable_raise(async);
}
