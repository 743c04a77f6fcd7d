/*
 * reader.h
 *		Live rows of a tracked table, as JSON or as tuples.
 */
#ifndef POLL_READER_H
#define POLL_READER_H

#include "feedset.h"
#include "page.h"

/*
 * Looks up the live rows of the changes (n > 0, of the page and all of that
 * feed of the set) under the active snapshot and fills in their results.  All of these lock the
 * table until the end of the transaction, and error if it is gone, has no key
 * any more, or was rewritten since the snapshot.
 */
extern void poll_reader_lookup(const PollFeedSet *set, PollPage *page, int feed,
							   PollChange **changes, int n);

/*
 * Fills in the keys alone, without a look at the table; false if the caller
 * may not know them without that.
 */
extern bool poll_reader_keys(const PollFeedSet *set, int feed, PollChange **changes, int n,
							 StringInfo json);

/*
 * Continues the full sync of page->next: reads up to limit rows of its feed,
 * as changes of the page.  If there are more, it moves page->next and returns
 * true.
 */
extern bool poll_reader_scan(const PollFeedSet *set, PollPage *page, int limit);

/* Called by the relcache callback. */
extern void poll_reader_invalidate(Oid relid);

#endif							/* POLL_READER_H */
