/*
 * reader.h
 *		Live rows of a tracked table, as JSON.
 */
#ifndef POLL_READER_H
#define POLL_READER_H

#include "catalog.h"
#include "page.h"

typedef struct PollReader PollReader;

/*
 * The reader of that feed for the current user.  Locks the table until the
 * end of the transaction; errors if it is gone, has no key any more, or was
 * altered since the active snapshot.  The result stays valid until then, too.
 */
extern PollReader *poll_reader_open(const PollFeed *feed);

/*
 * Looks up the live rows of the changes (n > 0, all of this feed) under the
 * active snapshot and fills in their results.
 */
extern void poll_reader_lookup(PollReader *reader, PollChange **changes, int n,
							   StringInfo json, bool want_data);

/*
 * Fills in the keys alone, without a look at the table; false if the caller
 * is under row-level security and so needs the look.
 */
extern bool poll_reader_keys(PollReader *reader, PollChange **changes, int n, StringInfo json);

/*
 * Reads up to limit rows that come after the key in key order (keylen 0: from
 * the first), as changes of the page; returns whether there are more.
 */
extern bool poll_reader_scan(PollReader *reader, const char *key, int keylen,
							 int feed, int limit, PollPage *page);

/* Called by the relcache callback. */
extern void poll_reader_invalidate(Oid relid);

#endif							/* POLL_READER_H */
