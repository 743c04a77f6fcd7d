/*
 * changes.h
 *		From a cursor to a page of changes.
 */
#ifndef POLL_CHANGES_H
#define POLL_CHANGES_H

#include "feedset.h"
#include "page.h"

/*
 * The changes that the cursor has not seen, up to max_rows keys, read under
 * the snapshot, which is the active one.  The cursor is not one of a full
 * sync.  Learns about quiet feeds in the set.  horizon, if not NULL: what an older
 * snapshot of this server has shown; then the page is as of that, if it can be, but for
 * keys that have changed since.
 */
extern void poll_changes_read(PollPage *page, PollFeedSet *set, const PollCursor *cursor,
							  Snapshot snapshot, const PollView *view, int max_rows,
							  const PollView *horizon);

/* Is there any change that the cursor has not seen? */
extern bool poll_changes_exist(PollFeedSet *set, const PollCursor *cursor,
							   Snapshot snapshot, const PollView *view);

/* Orders a page's changes by feed as well. */
extern void poll_page_group(PollPage *page, int nfeeds);

#endif							/* POLL_CHANGES_H */
