/*
 * fullsync.c
 *		The table itself, page by page, in front of its changes.
 *
 * Without a cursor, a poll begins with the rows of the tables, feed by feed
 * and in key order (the row after the last key, never OFFSET, so every page
 * costs the same).  The cursor carries the last key, and the position in the
 * log that was taken with the first page's snapshot.  Later pages have newer
 * snapshots; what changed in between comes again from the log, since the
 * cursor goes on from that position after the last page.  So one loop
 * bootstraps, follows and recovers.
 *
 * The cursor of a full sync is a cut one: a page must not be read under a
 * snapshot older than the position, or rows that the position counts as seen
 * would be missing.  It stays one until a poll has seen all that the pages may
 * have shown, which is more than the position (timeline.c needs to know).
 */
#include "postgres.h"

#include "changelog.h"
#include "changes.h"
#include "fullsync.h"
#include "reader.h"
#include "segment.h"
#include "snapshot.h"

void
poll_position_now(PollCursor *cursor, const PollFeedSet *set,
				  Snapshot snapshot, const PollView *view, bool lift)
{
	PollLog		log;
	uint64		last = 0;

	memset(cursor, 0, sizeof(PollCursor));
	poll_log_open(&log, NULL, snapshot, view);
	for (int i = 0; i < set->n; i++)
		for (int j = 0; j < set->members[i].nstreams; j++)
			last = Max(last, poll_log_last(&log, set->members[i].streams[j].channel));
	poll_log_close(&log);
	if (lift)
		last = poll_segment_lifted(last, view);
	/* what was trimmed may have been the last */
	poll_cursor_start(cursor, view, Max(last, poll_segment_trimmed_x() - 1), poll_segment_trimmed_x());
	/* nor may it be something that the snapshot does not show */
	if (cursor->x > view->xmax || !poll_segment_retained(cursor))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the snapshot of this transaction is older than the change log"),
				 errhint("Poll again, in a new transaction.")));
	if (cursor->cut)
		cursor->lsn = poll_snapshot_position();
	poll_feedset_stamp(set, cursor);
}

void
poll_fullsync_start(PollCursor *cursor, const PollFeedSet *set,
					Snapshot snapshot, const PollView *view)
{
	poll_position_now(cursor, set, snapshot, view, true);
	cursor->sync = true;
	cursor->cut = true;
	cursor->lsn = poll_snapshot_position();
}

void
poll_fullsync_read(PollPage *page, PollFeedSet *set, const PollCursor *cursor,
				   Snapshot snapshot, const PollView *view, int max_rows)
{
	poll_segment_check(cursor);
	page->next = *cursor;
	page->next.lsn = Max(cursor->lsn, poll_snapshot_position());
	page->changes = palloc(sizeof(PollChange *) * max_rows);
	while (page->next.sync_feed < (uint32) set->n && page->nchanges < max_rows)
	{
		if (poll_reader_scan(set, page, max_rows - page->nchanges))
			break;
		page->next.sync_feed++;
		page->next.keylen = 0;
	}
	poll_page_group(page, set->n);

	page->has_more = true;
	if (page->next.sync_feed == (uint32) set->n)
	{
		/* the tables are done; on from the position, as a normal cursor */
		page->next.sync = false;
		page->next.sync_feed = 0;
		page->has_more = poll_changes_exist(set, &page->next, snapshot, view);
		page->next.cut = page->has_more || page->next.np >= POLL_CURSOR_MAX_OPEN ||
			!poll_snapshot_includes(snapshot, cursor->lsn);
		if (!page->next.cut)
			page->next.lsn = InvalidXLogRecPtr;
	}
}
