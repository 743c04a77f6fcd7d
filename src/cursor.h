/*
 * cursor.h
 *		The cursor: which changes its owner has seen.  See cursor.c.
 */
#ifndef POLL_CURSOR_H
#define POLL_CURSOR_H

#include "access/xlogdefs.h"

/*
 * A cursor lists at most this many transactions that were still open, or as many
 * as were open when the log was trimmed; none lists more than the second number.
 */
#define POLL_CURSOR_MAX_OPEN	512
#define POLL_CURSOR_MAX_LISTED	16384

/*
 * What a snapshot knows about transactions: those at or above xmax and those
 * in open[] (sorted, ascending; our own included) are not finished.
 */
typedef struct PollView
{
	uint64		xmax;
	int			nopen;
	uint64	   *open;
} PollView;

typedef struct PollCursor
{
	/* whose cursor it is */
	uint64		epoch;			/* log, database, cluster and timeline */
	uint32		feeds;			/* hash of the feeds' names */
	uint32		generation;		/* hash of the feeds' ids */
	bool		adopted;		/* it came with the epoch of an older timeline */

	/* what was seen: all below x, but for p[] */
	uint64		x;
	int			np;
	uint64	   *p;				/* sorted, ascending, all below x */

	/*
	 * a cut cursor must not go on under an older snapshot; its owner may have
	 * been shown rows that are newer than what it has seen, up to lsn
	 */
	bool		cut;
	XLogRecPtr	lsn;			/* of the servers that cut it, the highest; if
								 * cut */

	/* and of transaction q everything up to version v; 0 = no such */
	uint64		q;
	int64		v;

	/* a full sync under way: next is the row after key of this feed */
	bool		sync;
	uint32		sync_feed;		/* index into the sorted feeds */
	int			keylen;			/* 0 = from the feed's first row */
	const char *key;			/* encoded as in the log, see key.c */
} PollCursor;

/* A place in the log, in the order in which a poll reads it. */
typedef struct PollPosition
{
	uint64		xid;			/* 0 = no place: nothing was read */
	int64		version;
} PollPosition;

/* Why a poll stopped reading. */
typedef enum PollStop
{
	POLL_STOP_COMPLETE,			/* read all that its snapshot shows */
	POLL_STOP_WAITING,			/* all but what waits for P to have room */
	POLL_STOP_CUT				/* the page was full */
} PollStop;

/* Is it in the sorted array? */
extern bool poll_xid_listed(const uint64 *xids, int n, uint64 xid);

/* Is this transaction finished, committed or not, for the view? */
extern bool poll_view_finished(const PollView *view, uint64 xid);

/*
 * How many of the view's open transactions a new cursor, or a tick, may list: all
 * that are below the horizon of the log, so that it is not below that itself.
 */
extern int	poll_view_room(const PollView *view, uint64 horizon);

/*
 * The cursor that has seen what the view shows, up to transaction last, in a log
 * with that horizon.
 */
extern void poll_cursor_start(PollCursor *cursor, const PollView *view, uint64 last,
							  uint64 horizon);

/* Has the cursor's owner seen this entry? */
extern bool poll_cursor_seen(const PollCursor *cursor, uint64 xid, int64 version);

/* Is this one of the transactions that were open when the cursor was made? */
extern bool poll_cursor_lists(const PollCursor *cursor, uint64 xid);

/* Must the cursor not be used under this view, which is older than its own? */
extern bool poll_cursor_behind(const PollCursor *cursor, const PollView *view);

/* The first transaction that a poll from here must leave for a later one. */
extern uint64 poll_cursor_limit(const PollCursor *cursor, const PollView *view);

/*
 * The cursor after a poll that read under the view from cursor up to last.
 * The result shares nothing with the arguments but the pointer key.
 */
extern void poll_cursor_advance(PollCursor *next, const PollCursor *cursor,
								const PollView *view, PollPosition last,
								PollStop stop, XLogRecPtr lsn);

/* Text form and back; decode returns false for what encode cannot return. */
extern text *poll_cursor_encode(const PollCursor *cursor);
extern bool poll_cursor_decode(const char *str, int len, PollCursor *cursor);

#endif							/* POLL_CURSOR_H */
