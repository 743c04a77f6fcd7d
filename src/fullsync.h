/*
 * fullsync.h
 *		The table itself, page by page, in front of its changes.
 */
#ifndef POLL_FULLSYNC_H
#define POLL_FULLSYNC_H

#include "feedset.h"
#include "page.h"

/*
 * The cursor that has seen all that the snapshot shows of these feeds.  lift:
 * where the newest tick is, perhaps, so that it lists fewer open transactions;
 * else it stays the same for as long as nothing happens in these feeds, and
 * those that it lists are open.
 */
extern void poll_position_now(PollCursor *cursor, const PollFeedSet *set,
							  Snapshot snapshot, const PollView *view, bool lift);

/* The cursor with which a full sync starts. */
extern void poll_fullsync_start(PollCursor *cursor, const PollFeedSet *set,
								Snapshot snapshot, const PollView *view);

/* The page after a cursor of a full sync. */
extern void poll_fullsync_read(PollPage *page, PollFeedSet *set, const PollCursor *cursor,
							   Snapshot snapshot, const PollView *view, int max_rows);

#endif							/* POLL_FULLSYNC_H */
