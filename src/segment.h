/*
 * segment.h
 *		The three segments of the change log: which one is written, which have
 *		what a cursor has not seen, and how old ones are trimmed.
 */
#ifndef POLL_SEGMENT_H
#define POLL_SEGMENT_H

#include "datatype/timestamp.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "catalog.h"
#include "cursor.h"

/* In the order in which a segment goes through them, again and again. */
typedef enum PollSegmentState
{
	POLL_SEGMENT_EMPTY,
	POLL_SEGMENT_CURRENT,		/* writers write here */
	POLL_SEGMENT_FILLED,		/* but some may still be at work */
	POLL_SEGMENT_CLOSED,		/* nobody is, or will be */
	POLL_SEGMENT_TRIMMED		/* nobody reads it any more */
} PollSegmentState;

/* What poll_segment_step() has done with a segment, or why it has not. */
typedef enum PollSegmentStep
{
	POLL_STEP_NONE,
	POLL_STEP_BEGUN,
	POLL_STEP_CLOSED,
	POLL_STEP_TRIMMED,
	POLL_STEP_EMPTIED,
	POLL_STEP_YOUNG,
	POLL_STEP_WRITERS,			/* waits for transactions that wrote there */
	POLL_STEP_IN_USE,			/* waits for those who read it right now */
	POLL_STEP_NEXT_IN_USE		/* waits for those who do anything with the
								 * next one, which is empty */
} PollSegmentStep;

typedef struct PollSegmentReport
{
	PollSegmentStep step;
	PollSegmentState state;		/* after it */
	uint64		horizon;		/* what it covers, if it was closed */
	uint64		bytes;			/* before it, with its index */
	bool		early;			/* trimmed before its time, for its size */
	int64		waiting;		/* has been in the state for so long, in us */
} PollSegmentReport;

/*
 * The heap that changes are written to, locked until the end of the
 * (sub)transaction, and its index.
 */
extern Relation poll_segment_open_current(Oid *index);

/*
 * Opens what may have entries that the cursor has not seen, or all if it is
 * NULL, and returns how many; errors if what it has not seen is gone.
 */
extern int	poll_segment_open(const PollCursor *cursor, Relation *heaps, Relation *indexes);
extern void poll_segment_close(Relation *heaps, Relation *indexes, int n);

/* Has the cursor seen all that was trimmed, as far as this session has heard? */
extern bool poll_segment_retained(const PollCursor *cursor);

/* Errors if it has not. */
extern void poll_segment_check(const PollCursor *cursor);

/*
 * Drops from a standby's view of the snapshot the subtransactions that can be
 * told from transactions.
 */
extern void poll_segment_narrow(Snapshot snapshot, PollView *view);

/* A cursor that has seen less than this is below the log's horizon. */
extern uint64 poll_segment_trimmed_x(void);

/* The X that complete cursors are lifted to. */
extern uint64 poll_segment_lift(void);

/* The xid that a complete position is behind, or the one that it is lifted behind. */
extern uint64 poll_segment_lifted(uint64 last, const PollView *view);

/*
 * One step on the way from empty to empty, for each segment that may take it;
 * report: of each; age_ms: when a closed one is trimmed, and a current one half
 * of that.  What it does is in force when the transaction commits.  False:
 * somebody else is at it, and we were not to wait.
 */
extern bool poll_segment_step(int64 age_ms, bool wait, PollSegmentReport *report);

/* The name of a state, as in poll.segment. */
extern const char *poll_segment_state_name(PollSegmentState state);

/* Called by the relcache callback. */
extern void poll_segment_invalidate(Oid relid);

#endif							/* POLL_SEGMENT_H */
