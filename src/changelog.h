/*
 * changelog.h
 *		The change log: chunks of entries, written and read.
 */
#ifndef POLL_CHANGELOG_H
#define POLL_CHANGELOG_H

#include "access/genam.h"
#include "access/relscan.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "catalog.h"
#include "cursor.h"

/* A chunk ends when either is reached: it then stays inline in its page. */
#define POLL_CHUNK_BYTES	1900
#define POLL_CHUNK_ENTRIES	1024

typedef enum PollOp
{
	POLL_OP_UPSERT = 0,
	POLL_OP_DELETE = 1,
	POLL_OP_TRUNCATE = 2,		/* barriers: see ddl.c */
	POLL_OP_RESET = 3
} PollOp;

/* Appends an entry to the bytes of a chunk; key as in key.c. */
extern void poll_entry_append(StringInfo buf, PollOp op, const char *key, int keylen);

/*
 * Writes count entries of a channel as one chunk, in the current
 * (sub)transaction and under the id of the top-level one.
 */
extern void poll_changelog_write(int64 channel, int count, const char *entries, int len);

/* The segments of the log that a cursor needs, open, and read under one snapshot. */
typedef struct PollLog
{
	int			n;
	Relation	heaps[POLL_SEGMENTS];
	Relation	indexes[POLL_SEGMENTS];
	Snapshot	snapshot;
	const PollView *view;
} PollLog;

/*
 * A scan of one channel in one segment over a range of xids, and the entry that
 * it is at.
 */
typedef struct PollLogScan
{
	PollLog    *log;
	Relation	index;
	int64		channel;
	int			feed;			/* for the caller */
	IndexScanDesc scan;
	TupleTableSlot *slot;
	uint64		from;			/* the range: from <= xid < to */
	uint64		to;
	int			skipped;		/* chunks of open transactions in a row */

	/* the chunk */
	uint64		xid;
	int64		version;		/* of the entry */
	int64		last_version;	/* of the chunk's last one */
	char	   *chunk;			/* palloc'd copy, if it had to be detoasted */
	const char *next;
	const char *end;

	/* the entry; it stays valid until the next call */
	PollOp		op;
	const char *key;
	int			keylen;
} PollLogScan;

/*
 * Opens what may have something that the cursor has not seen, or all; errors if
 * what it has not seen is gone.
 */
extern void poll_log_open(PollLog *log, const PollCursor *cursor, Snapshot snapshot, const PollView *view);
extern void poll_log_close(PollLog *log);

/*
 * A scan gives the visible entries in (xid, version) order: those with
 * from <= xid < to, or those of one transaction from the chunk that holds the
 * first entry after version on (some before it included).
 */
extern PollLogScan *poll_log_scan_begin(PollLog *log, int segment, int64 channel, int feed);
extern void poll_log_scan_seek(PollLogScan *scan, uint64 from, uint64 to);
extern void poll_log_scan_seek_after(PollLogScan *scan, uint64 xid, int64 version);
extern bool poll_log_scan_next(PollLogScan *scan);
extern void poll_log_scan_end(PollLogScan *scan);

/*
 * The end of a range that has all that is visible.  A snapshot shows nothing
 * from its xmax on, but under SERIALIZABLE it must be looked for, to leave a
 * trace for those who write it.
 */
#define POLL_LOG_END	((uint64) PG_INT64_MAX)
extern uint64 poll_log_end(const PollLog *log);

/* The xid of the channel's last visible entry, or 0. */
extern uint64 poll_log_last(PollLog *log, int64 channel);

/*
 * When the last visible transactions have written to the channel: the version of one
 * entry of each, at most max of them, the newest first.  Returns how many.
 */
extern int	poll_log_times(PollLog *log, int64 channel, int64 *times, int max);

/* Their order, for qsort(). */
extern int	poll_log_newest_first(const void *a, const void *b);

#endif							/* POLL_CHANGELOG_H */
