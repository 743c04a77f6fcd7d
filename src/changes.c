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
 *
 * A page may also be as of an earlier moment, the horizon, than its snapshot: then
 * those who ask within some time leave with one cursor.  Rows are read under the
 * snapshot, so keys that have changed since the horizon are left for a later page, which
 * will have them by that change.  Where that is no way out, after a TRUNCATE, there is no
 * horizon.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "lib/binaryheap.h"
#include "miscadmin.h"

#include "changes.h"
#include "error.h"
#include "guc.h"
#include "reader.h"
#include "segment.h"
#include "shmem.h"
#include "snapshot.h"
#include "varint.h"

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
	PollLogScan **scans;		/* by feed, stream and segment; NULL = not
								 * needed so far */
	binaryheap *heap;			/* the scans that are at an entry */

	const PollView *horizon;	/* NULL = none */
	keytab_hash *later;			/* what has changed since */
	int			nlater;
	bool		missed;			/* the horizon cannot be kept to */

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

static int
nscans(const PollScan *scan)
{
	return scan->set->n * POLL_MAX_STREAMS * scan->log.n;
}

static void
scan_begin(PollScan *scan, PollFeedSet *set, const PollCursor *cursor,
		   Snapshot snapshot, const PollView *view, int max_rows)
{
	memset(scan, 0, sizeof(PollScan));
	scan->set = set;
	scan->cursor = cursor;
	scan->max_rows = max_rows;
	poll_log_open(&scan->log, cursor, snapshot, view);
	scan->scans = palloc0(sizeof(PollLogScan *) * nscans(scan));
	scan->heap = binaryheap_allocate(Max(nscans(scan), 1), cmp_scans, NULL);
	if (max_rows > 0)
		scan->keys = keytab_create(CurrentMemoryContext, Min(max_rows, 256), NULL);
	dlist_init(&scan->changes);
}

static void
scan_end(PollScan *scan)
{
	for (int i = 0; i < nscans(scan); i++)
		if (scan->scans[i])
			poll_log_scan_end(scan->scans[i]);
	poll_log_close(&scan->log);
}

/* Has the transaction logged anything in these channels? */
static bool
has_logged(PollScan *scan, const PollMember *member, uint64 xid)
{
	bool		found = false;

	for (int i = 0; i < member->nstreams; i++)
	{
		if (poll_flushed_read(member->streams[i].channel) < xid)
			continue;
		for (int j = 0; j < scan->log.n && !found; j++)
		{
			PollLogScan *probe = poll_log_scan_begin(&scan->log, j, member->streams[i].channel, 0);

			poll_log_scan_seek_after(probe, xid, 0);
			found = poll_log_scan_next(probe);
			poll_log_scan_end(probe);
		}
	}
	return found;
}

/*
 * Did a transaction with a lower xid write after this TRUNCATE?  The entry
 * lists those that were open then, as distances from its own xid.
 */
static bool
is_out_of_order(PollScan *scan, const PollLogScan *at)
{
	const char *src = at->key;
	const char *end = at->key + at->keylen;
	uint64		distance;

	while (src < end)
	{
		if (!poll_varint_get(&src, end, &distance) || distance >= at->xid)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("a TRUNCATE in the change log is corrupted")));
		if (poll_view_finished(scan->log.view, at->xid - distance) &&
			has_logged(scan, &scan->set->members[at->feed], at->xid - distance))
			return true;
	}
	return false;
}

/* Forgets what the page has of a feed: it is all gone. */
static void
forget_changes(PollScan *scan, int feed)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &scan->changes)
	{
		PollChange *change = dlist_container(PollChange, node, iter.cur);

		if (change->feed != feed)
			continue;
		keytab_delete(scan->keys, change);
		dlist_delete(&change->node);
		scan->nchanges--;
	}
}

/*
 * An entry about the whole feed.  TRUNCATE becomes a change without a key; a
 * reset ends the poll, and so does a TRUNCATE that comes too late.
 */
static void
meet_barrier(PollScan *scan, const PollLogScan *at)
{
	if (at->op == POLL_OP_RESET || is_out_of_order(scan, at))
		ereport(ERROR,
				(errcode(ERRCODE_POLL_EXPIRED),
				 errmsg("the cursor or time has expired"),
				 errdetail("Rows of feed \"%s\" may have changed without being written: by ALTER, TRUNCATE, a partition, a type, or disabled triggers.",
						   NameStr(scan->set->members[at->feed].feed.name)),
				 errhint("Poll without a cursor or time for a full sync.")));
	forget_changes(scan, at->feed);
}

static bool
is_barrier(const PollLogScan *at)
{
	return at->op == POLL_OP_TRUNCATE || at->op == POLL_OP_RESET;
}

/* A copy of what the entry is about. */
static PollChange *
make_change(const PollChange *probe)
{
	PollChange *change = palloc0(sizeof(PollChange));

	change->feed = probe->feed;
	change->key = memcpy(palloc(probe->keylen), probe->key, probe->keylen);
	change->keylen = probe->keylen;
	return change;
}

/* Notes an entry that came after the horizon. */
static void
note_later(PollScan *scan, const PollLogScan *at)
{
	PollChange	probe = {.feed = at->feed,.key = at->key,.keylen = at->keylen};
	bool		found;

	scan->missed |= is_barrier(at) || ++scan->nlater > poll_max_scan;
	if (scan->missed || keytab_lookup(scan->later, &probe) != NULL)
		return;
	keytab_insert(scan->later, make_change(&probe), &found);
}

/* Takes the entry that the log scan is at; false if the page is full. */
static bool
take(PollScan *scan, const PollLogScan *at)
{
	bool		barrier = is_barrier(at);
	PollChange	probe;
	PollChange *change;
	PollKeyEntry *entry;
	uint32		hash;
	bool		found;

	if (scan->horizon != NULL && !poll_view_finished(scan->horizon, at->xid))
	{
		note_later(scan, at);
		return !scan->missed;
	}
	/* the bound must not keep a poll from moving on at all */
	if (scan->nscanned >= poll_max_scan && scan->last.xid != 0)
		return false;
	if (barrier)
		meet_barrier(scan, at);
	probe.feed = at->feed;
	probe.key = at->key;
	probe.keylen = barrier ? 0 : at->keylen;
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
		change = make_change(&probe);
		change->result = barrier ? POLL_RESULT_TRUNCATE : POLL_RESULT_SKIP;
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
scan_of(PollScan *scan, int feed, int stream, int segment)
{
	PollLogScan **at = &scan->scans[(feed * POLL_MAX_STREAMS + stream) * scan->log.n + segment];

	if (*at == NULL)
		*at = poll_log_scan_begin(&scan->log, segment,
								  scan->set->members[feed].streams[stream].channel, feed);
	return *at;
}

/* The scan has been sought: to its first entry, if there is one. */
static void
add_scan(PollScan *scan, PollLogScan *at)
{
	if (next_unseen(scan, at))
		binaryheap_add_unordered(scan->heap, PointerGetDatum(at));
}

/* The transaction's entries in one channel, after the version. */
static void
seek_transaction(PollScan *scan, int feed, int stream, uint64 xid, int64 version)
{
	CHECK_FOR_INTERRUPTS();
	if (poll_flushed_read(scan->set->members[feed].streams[stream].channel) < xid)
		return;
	for (int i = 0; i < scan->log.n; i++)
	{
		PollLogScan *at = scan_of(scan, feed, stream, i);

		poll_log_scan_seek_after(at, xid, version);
		add_scan(scan, at);
	}
}

/* One channel's entries with from <= xid < to. */
static void
seek_range(PollScan *scan, int feed, int stream, uint64 from, uint64 to)
{
	if (poll_stream_quiet(&scan->set->members[feed].streams[stream], from))
		return;
	for (int i = 0; i < scan->log.n; i++)
	{
		PollLogScan *at = scan_of(scan, feed, stream, i);

		poll_log_scan_seek(at, from, to);
		add_scan(scan, at);
	}
}

/*
 * One transaction, after a version.  A seek counts like an entry: a cursor may
 * list many transactions and a request many feeds.  It counts once, whether it
 * is made or not and in however many segments: where a page ends depends on the
 * cursor and the snapshot alone, since functions that read the same page may be
 * called one after the other.
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
		for (int j = 0; j < scan->set->members[i].nstreams; j++)
		{
			scan->nscanned++;
			seek_transaction(scan, i, j, xid, version);
		}
	merge(scan);
}

/* Everything with from <= xid < to. */
static void
read_range(PollScan *scan, uint64 from, uint64 to)
{
	if (from >= to)
		return;
	for (int i = 0; i < scan->set->n; i++)
		for (int j = 0; j < scan->set->members[i].nstreams; j++)
			seek_range(scan, i, j, from, to);
	merge(scan);
}

/* Reads until the page is full or the snapshot shows no more. */
static PollStop
read_log(PollScan *scan)
{
	const PollCursor *cursor = scan->cursor;
	const PollView *view = scan->log.view;
	const PollView *until = scan->horizon ? scan->horizon : view;
	uint64		limit = poll_cursor_limit(cursor, until);
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
		read_range(scan, from, limit < until->xmax ? limit : poll_log_end(&scan->log));

	if (scan->full)
		return POLL_STOP_CUT;
	return limit < until->xmax ? POLL_STOP_WAITING : POLL_STOP_COMPLETE;
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
		for (int j = 0; j < set->members[i].nstreams; j++)
		{
			uint64		last = flushed[i * POLL_MAX_STREAMS + j];

			if (last < x || last >= view->xmax)
				continue;
			set->members[i].streams[j].flushed = last;
			set->members[i].streams[j].quiet_from = x;
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
read_rows(PollPage *page, PollFeedSet *set)
{
	PollChange **changes = palloc(sizeof(PollChange *) * Max(page->nchanges, 1));

	for (int i = 0; i < set->n; i++)
	{
		int			n = 0;

		for (int j = page->feed_start[i]; j < page->feed_start[i + 1]; j++)
			if (page->by_feed[j]->result != POLL_RESULT_TRUNCATE)
				changes[n++] = page->by_feed[j];
		if (n == 0 || page->content == POLL_CONTENT_NONE ||
			(page->content == POLL_CONTENT_KEYS && poll_reader_keys(set, i, changes, n, page->json)))
			continue;
		poll_reader_lookup(set, page, i, changes, n);
	}
}

/* Takes what has changed since the horizon out of a page that ends there. */
static void
leave_later(PollScan *scan)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &scan->changes)
	{
		PollChange *change = dlist_container(PollChange, node, iter.cur);

		if (keytab_lookup(scan->later, change) == NULL)
			continue;
		dlist_delete(&change->node);
		scan->nchanges--;
	}
}

void
poll_changes_read(PollPage *page, PollFeedSet *set, const PollCursor *cursor,
				  Snapshot snapshot, const PollView *view, int max_rows, const PollView *horizon)
{
	const PollView *until = horizon ? horizon : view;
	PollScan	scan;
	PollStop	stop;
	dlist_iter	iter;
	uint64	   *flushed = palloc(sizeof(uint64) * set->n * POLL_MAX_STREAMS);
	uint64		quiet_from;		/* if complete: there is nothing more */
	int			n = 0;

	/* read before the look, so that a flush in between is not missed */
	for (int i = 0; i < set->n; i++)
		for (int j = 0; j < set->members[i].nstreams; j++)
			flushed[i * POLL_MAX_STREAMS + j] = poll_flushed_read(set->members[i].streams[j].channel);

	scan_begin(&scan, set, cursor, snapshot, view, max_rows);
	if (horizon != NULL)
	{
		scan.horizon = horizon;
		scan.later = keytab_create(CurrentMemoryContext, 64, NULL);
	}
	stop = read_log(&scan);
	scan_end(&scan);
	if (scan.missed)
	{
		poll_changes_read(page, set, cursor, snapshot, view, max_rows, NULL);
		return;
	}
	if (horizon != NULL && stop == POLL_STOP_COMPLETE)
		leave_later(&scan);
	/* not where the next cursor is lifted to: others still come with this one */
	quiet_from = Max(cursor->x + (cursor->q == cursor->x ? 1 : 0), scan.last.xid + 1);
	if (stop == POLL_STOP_COMPLETE)
		scan.last.xid = poll_segment_lifted(scan.last.xid, until);

	page->nchanges = scan.nchanges;
	page->changes = palloc(sizeof(PollChange *) * Max(scan.nchanges, 1));
	dlist_foreach(iter, &scan.changes)
		page->changes[n++] = dlist_container(PollChange, node, iter.cur);
	Assert(n == scan.nchanges);

	/* one that has seen more than this server is not marked with its position */
	if (stop == POLL_STOP_WAITING && scan.last.xid == 0 && !cursor->cut)
		page->next = *cursor;
	else
		poll_cursor_advance(&page->next, cursor, until, scan.last, stop,
							stop == POLL_STOP_COMPLETE ? InvalidXLogRecPtr : poll_snapshot_position());
	/* rows of earlier pages may be newer than all that this one has seen */
	if (stop == POLL_STOP_COMPLETE && cursor->cut && !poll_snapshot_includes(snapshot, cursor->lsn))
	{
		page->next.cut = true;
		page->next.lsn = cursor->lsn;
	}
	page->has_more = (stop == POLL_STOP_CUT);
	if (stop == POLL_STOP_COMPLETE && horizon == NULL)
		learn(set, flushed, quiet_from, view);

	poll_page_group(page, set->n);
	read_rows(page, set);
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
