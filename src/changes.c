/*
 * changes.c
 *		From a cursor to a page of changes.
 *
 * A poll reads the log in ranges: the rest of a transaction that the last page
 * was cut in, each transaction that was open when the cursor was made and is
 * finished now, and then everything from the cursor's X up.  Within a range the entries of all feeds are merged in
 * (xid, version) order, so that one cursor can stand for all of them.
 *
 * A page holds each key once, at its last change within the page; meeting a
 * key again only moves it to the end.  The page ends when one more key would
 * not fit, or when poll_ext.max_scan entries were read; in both cases exactly
 * behind the last entry that was taken (or, if one has only searched so far, in
 * front of the transaction that would be searched next).
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "lib/binaryheap.h"
#include "miscadmin.h"

#include "changes.h"
#include "guc.h"
#include "reader.h"
#include "shmem.h"
#include "snapshot.h"

/* a hash table of the page's changes, by feed and key */
typedef struct PollKeyEntry
{
	PollChange *change;			/* hash key: feed and key */
	uint32		hash;
	char		status;
} PollKeyEntry;

static inline uint32
change_hash(const PollChange *change)
{
	return hash_bytes((const unsigned char *) change->key, change->keylen) ^ change->feed;
}

static inline bool
change_equal(const PollChange *a, const PollChange *b)
{
	return a->feed == b->feed && a->keylen == b->keylen &&
		memcmp(a->key, b->key, a->keylen) == 0;
}

#define SH_PREFIX keytab
#define SH_ELEMENT_TYPE PollKeyEntry
#define SH_KEY_TYPE PollChange *
#define SH_KEY change
#define SH_HASH_KEY(tb, key) change_hash(key)
#define SH_EQUAL(tb, a, b) change_equal(a, b)
#define SH_SCOPE static inline
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct PollScan
{
	PollFeedSet *set;
	const PollCursor *cursor;
	PollLog		log;
	PollLogScan **scans;		/* by feed; NULL = not needed so far */
	binaryheap *heap;			/* the scans that are at an entry */

	int			max_rows;		/* 0 = only look whether there is any */
	keytab_hash *keys;
	dlist_head	changes;
	int			nchanges;
	int			nscanned;
	PollPosition last;
	bool		full;			/* an entry was left for the next page */
} PollScan;

static int
cmp_scans(Datum a, Datum b, void *arg)
{
	const PollLogScan *x = (PollLogScan *) DatumGetPointer(a);
	const PollLogScan *y = (PollLogScan *) DatumGetPointer(b);

	/* binaryheap puts the greatest first */
	if (x->xid != y->xid)
		return x->xid < y->xid ? 1 : -1;
	return x->version < y->version ? 1 : x->version > y->version ? -1 : 0;
}

static void
scan_begin(PollScan *scan, PollFeedSet *set, const PollCursor *cursor,
		   Snapshot snapshot, const PollView *view, int max_rows)
{
	memset(scan, 0, sizeof(PollScan));
	scan->set = set;
	scan->cursor = cursor;
	scan->max_rows = max_rows;
	poll_log_open(&scan->log, snapshot, view);
	scan->scans = palloc0(sizeof(PollLogScan *) * set->n);
	scan->heap = binaryheap_allocate(set->n, cmp_scans, NULL);
	if (max_rows > 0)
		scan->keys = keytab_create(CurrentMemoryContext, Min(max_rows, 256), NULL);
	dlist_init(&scan->changes);
}

static void
scan_end(PollScan *scan)
{
	for (int i = 0; i < scan->set->n; i++)
		if (scan->scans[i])
			poll_log_scan_end(scan->scans[i]);
	poll_log_close(&scan->log);
}

/* Takes the entry that the log scan is at; false if the page is full. */
static bool
take(PollScan *scan, const PollLogScan *at)
{
	PollChange	probe;
	PollChange *change;
	PollKeyEntry *entry;
	uint32		hash;
	bool		found;

	/* the bound must not keep a poll from moving on at all */
	if (scan->nscanned >= poll_max_scan && scan->last.xid != 0)
		return false;
	probe.feed = at->feed;
	probe.key = at->key;
	probe.keylen = at->keylen;
	hash = change_hash(&probe);
	entry = keytab_lookup_hash(scan->keys, &probe, hash);
	if (entry != NULL)
	{
		change = entry->change;
		dlist_delete(&change->node);
	}
	else
	{
		if (scan->nchanges == scan->max_rows)
			return false;
		change = palloc0(sizeof(PollChange));
		change->feed = at->feed;
		change->key = memcpy(palloc(at->keylen), at->key, at->keylen);
		change->keylen = at->keylen;
		keytab_insert_hash(scan->keys, change, hash, &found);
		scan->nchanges++;
	}
	scan->nscanned++;
	scan->last.xid = change->at.xid = at->xid;
	scan->last.version = change->at.version = at->version;
	dlist_push_tail(&scan->changes, &change->node);
	return true;
}

/* Moves to the next entry that the cursor has not seen. */
static bool
next_unseen(PollScan *scan, PollLogScan *at)
{
	while (poll_log_scan_next(at))
		if (!poll_cursor_seen(scan->cursor, at->xid, at->version))
			return true;
	return false;
}

/* Merges the scans that were pushed on the heap. */
static void
merge(PollScan *scan)
{
	binaryheap_build(scan->heap);
	while (!scan->full && !binaryheap_empty(scan->heap))
	{
		PollLogScan *at = (PollLogScan *) DatumGetPointer(binaryheap_first(scan->heap));

		if (scan->max_rows == 0 || !take(scan, at))
			scan->full = true;
		else if (next_unseen(scan, at))
			binaryheap_replace_first(scan->heap, PointerGetDatum(at));
		else
			(void) binaryheap_remove_first(scan->heap);
	}
	binaryheap_reset(scan->heap);
}

static PollLogScan *
scan_of_feed(PollScan *scan, int feed)
{
	if (scan->scans[feed] == NULL)
		scan->scans[feed] = poll_log_scan_begin(&scan->log, scan->set->members[feed].feed.id, feed);
	return scan->scans[feed];
}

/*
 * One transaction, after a version.  A seek counts like an entry: a cursor may
 * list many transactions and a request many feeds.
 */
static void
read_transaction(PollScan *scan, uint64 xid, int64 version)
{
	if (scan->nscanned >= poll_max_scan)
	{
		/* stop in front of it */
		scan->full = true;
		scan->last.xid = xid;
		scan->last.version = version;
		return;
	}
	for (int i = 0; i < scan->set->n; i++)
	{
		PollLogScan *at;

		CHECK_FOR_INTERRUPTS();
		if (poll_flushed_read(scan->set->members[i].feed.id) < xid)
			continue;
		at = scan_of_feed(scan, i);
		scan->nscanned++;
		poll_log_scan_seek_after(at, xid, version);
		if (next_unseen(scan, at))
			binaryheap_add_unordered(scan->heap, PointerGetDatum(at));
	}
	merge(scan);
}

/* Everything with from <= xid < to. */
static void
read_range(PollScan *scan, uint64 from, uint64 to)
{
	for (int i = 0; i < scan->set->n; i++)
	{
		PollLogScan *at;

		if (from >= to || poll_member_quiet(&scan->set->members[i], from))
			continue;
		at = scan_of_feed(scan, i);
		poll_log_scan_seek(at, from, to);
		if (next_unseen(scan, at))
			binaryheap_add_unordered(scan->heap, PointerGetDatum(at));
	}
	merge(scan);
}

/* Reads until the page is full or the snapshot shows no more. */
static PollStop
read_log(PollScan *scan)
{
	const PollCursor *cursor = scan->cursor;
	const PollView *view = scan->log.view;
	uint64		limit = poll_cursor_limit(cursor, view);
	uint64		from = cursor->x;

	/* in the order that cursor.c gives */
	if (cursor->q != 0)
		read_transaction(scan, cursor->q, cursor->v);
	if (cursor->q == from)
		from++;
	for (int i = 0; i < cursor->np && !scan->full; i++)
		if (cursor->p[i] != cursor->q &&
			(IsolationIsSerializable() || poll_view_finished(view, cursor->p[i])))
			read_transaction(scan, cursor->p[i], 0);
	if (!scan->full)
		read_range(scan, from, limit < view->xmax ? limit : poll_log_end(&scan->log));

	if (scan->full)
		return POLL_STOP_CUT;
	return limit < view->xmax ? POLL_STOP_WAITING : POLL_STOP_COMPLETE;
}

/*
 * After a look that found nothing more at or above x: remember that, for as
 * long as nobody flushes.  The flushes up to now may be those of transactions
 * that this snapshot does not show yet; then nothing is learned.
 */
static void
learn(PollFeedSet *set, const uint64 *flushed, uint64 x, const PollView *view)
{
	if (view->nopen > 0 && view->open[view->nopen - 1] >= x)
		return;
	for (int i = 0; i < set->n; i++)
		if (flushed[i] >= x && flushed[i] < view->xmax)
		{
			set->members[i].flushed = flushed[i];
			set->members[i].quiet_from = x;
		}
}

void
poll_page_group(PollPage *page, int nfeeds)
{
	int		   *next;

	page->feed_start = palloc0(sizeof(int) * (nfeeds + 1));
	page->by_feed = palloc(sizeof(PollChange *) * Max(page->nchanges, 1));
	for (int i = 0; i < page->nchanges; i++)
		page->feed_start[page->changes[i]->feed + 1]++;
	for (int i = 0; i < nfeeds; i++)
		page->feed_start[i + 1] += page->feed_start[i];
	next = memcpy(palloc(sizeof(int) * (nfeeds + 1)), page->feed_start,
				  sizeof(int) * (nfeeds + 1));
	for (int i = 0; i < page->nchanges; i++)
		page->by_feed[next[page->changes[i]->feed]++] = page->changes[i];
}

/* Fills in what the log does not know. */
static void
read_rows(PollPage *page, PollFeedSet *set, PollContent content)
{
	for (int i = 0; i < set->n; i++)
	{
		PollChange **changes = page->by_feed + page->feed_start[i];
		int			n = page->feed_start[i + 1] - page->feed_start[i];
		PollReader *reader;

		if (n == 0)
			continue;
		reader = poll_reader_open(&set->members[i].feed);
		if (content == POLL_CONTENT_KEYS && poll_reader_keys(reader, changes, n, page->json))
			continue;
		poll_reader_lookup(reader, changes, n, page->json, content == POLL_CONTENT_ROWS);
	}
}

void
poll_changes_read(PollPage *page, PollFeedSet *set, const PollCursor *cursor,
				  Snapshot snapshot, const PollView *view, int max_rows, PollContent content)
{
	PollScan	scan;
	PollStop	stop;
	dlist_iter	iter;
	uint64	   *flushed = palloc(sizeof(uint64) * set->n);
	int			n = 0;

	/* read before the look, so that a flush in between is not missed */
	for (int i = 0; i < set->n; i++)
		flushed[i] = poll_flushed_read(set->members[i].feed.id);

	scan_begin(&scan, set, cursor, snapshot, view, max_rows);
	stop = read_log(&scan);
	scan_end(&scan);

	page->nchanges = scan.nchanges;
	page->changes = palloc(sizeof(PollChange *) * Max(scan.nchanges, 1));
	dlist_foreach(iter, &scan.changes)
		page->changes[n++] = dlist_container(PollChange, node, iter.cur);
	Assert(n == scan.nchanges);

	poll_cursor_advance(&page->next, cursor, view, scan.last, stop,
						stop == POLL_STOP_COMPLETE ? InvalidXLogRecPtr : poll_snapshot_position());
	page->has_more = (stop == POLL_STOP_CUT);
	if (stop == POLL_STOP_COMPLETE)
		learn(set, flushed, page->next.x, view);

	poll_page_group(page, set->n);
	read_rows(page, set, content);
}

bool
poll_changes_exist(PollFeedSet *set, const PollCursor *cursor,
				   Snapshot snapshot, const PollView *view)
{
	PollScan	scan;
	bool		found;

	scan_begin(&scan, set, cursor, snapshot, view, 0);
	found = read_log(&scan) == POLL_STOP_CUT;
	scan_end(&scan);
	return found;
}
