/*
 * cursor.c
 *		The cursor: set arithmetic on snapshots, and its text form.
 *
 * Every entry of the change log carries the 64-bit id of its top-level
 * transaction and a version that grows within it.  A cursor says which
 * entries its owner has seen:
 *
 *		cursor = (X, P, Q, V)	P: sorted xids < X that were still open
 *								Q, V: a position inside transaction Q
 *		seen(xid, version) = (xid < X and xid not in P and xid <> Q)
 *						  or (xid = Q and version <= V)
 *
 * A poll under snapshot S reads, in this order, and takes what is visible in S
 * and not seen:
 *
 *		1. the rest of Q
 *		2. each other xid in P that is finished in S
 *		3. everything from X (if Q = X: from X + 1) up
 *
 * each in (xid, version) order.  Then the next cursor is:
 *
 *		complete	X' = max(X, last xid + 1, Q + 1 if Q = X), no Q
 *		cut in 1	X' = X
 *		cut in 2	X' = X (if Q = X: X + 1)
 *		cut in 3	X' = last xid
 *		cut			Q, V = the last entry's xid and version
 *		always		P' = {p in P: p not finished in S, or not read to its end}
 *						 + {xids open in S: X <= xid < X'}
 *
 * The rest of Q comes first since a cursor has room for one position: a cut
 * in another transaction would forget it, and deliver the beginning of Q again.
 *
 * It never waits for a transaction: one that commits late is in P.  It
 * delivers nothing twice: below X, P is trusted, and the snapshot only from X
 * up.  It is the same for every owner who has seen the same: X is the last
 * visible change + 1, never "the next xid", which also makes it safe against
 * a crash, after which the server may hand out again any xid above the last
 * durable one.
 *
 * Behind.  Let transaction 10 change a row after 11 did, and a page be cut
 * between them: it delivered 10's state.  An older snapshot that knows 11 but
 * not 10 would go on to deliver 11's older state as the last word.  So a cut
 * cursor must not be used under a snapshot in which something seen is not
 * finished.  A complete cursor needs no such check: whatever an older
 * snapshot shows, it has seen.
 *
 * Size.  P holds at most POLL_CURSOR_MAX_OPEN xids.  Entries at or above the
 * first open xid that has no room wait for a later poll.  Such a cursor is
 * not complete in the sense above, so it is marked as cut.  But a new cursor
 * must be at the horizon of what was trimmed at least, and lists as many as
 * are open below that.
 *
 * Text form: a byte with the version and flags, the epoch, the fingerprints
 * of the feeds, and varints (P as distances), in base64url without padding:
 * no dots, which PostgREST would read as a filter.  Each cursor has exactly
 * one text form.  Everything here is a pure function of its arguments.
 */
#include "postgres.h"

#include "base64url.h"
#include "compat.h"
#include "cursor.h"
#include "varint.h"

#define CURSOR_VERSION		0x01
#define CURSOR_VERSION_MASK	0x0f
#define CURSOR_CUT			0x10
#define CURSOR_POSITION		0x20
#define CURSOR_SYNC			0x40
#define CURSOR_FIXED		(1 + 8 + 4 + 4)

/* Far above any real cursor: that carries one key, which an index took. */
#define CURSOR_MAX_TEXT		(4 * 1024 * 1024)

/* the index of the first element of a sorted array that is >= xid */
static int
xid_lower_bound(const uint64 *xids, int n, uint64 xid)
{
	int			lo = 0;
	int			hi = n;

	while (lo < hi)
	{
		int			mid = lo + (hi - lo) / 2;

		if (xids[mid] < xid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool
poll_xid_listed(const uint64 *xids, int n, uint64 xid)
{
	int			i = xid_lower_bound(xids, n, xid);

	return i < n && xids[i] == xid;
}

bool
poll_view_finished(const PollView *view, uint64 xid)
{
	return xid < view->xmax && !poll_xid_listed(view->open, view->nopen, xid);
}

bool
poll_cursor_lists(const PollCursor *cursor, uint64 xid)
{
	return poll_xid_listed(cursor->p, cursor->np, xid);
}

bool
poll_cursor_seen(const PollCursor *cursor, uint64 xid, int64 version)
{
	if (cursor->q != 0 && xid == cursor->q)
		return version <= cursor->v;
	return xid < cursor->x && !poll_cursor_lists(cursor, xid);
}

int
poll_view_room(const PollView *view, uint64 horizon)
{
	int			below = xid_lower_bound(view->open, view->nopen, horizon);

	return Min(Max(below, POLL_CURSOR_MAX_OPEN), POLL_CURSOR_MAX_LISTED);
}

void
poll_cursor_start(PollCursor *cursor, const PollView *view, uint64 last, uint64 horizon)
{
	int			room = poll_view_room(view, horizon);
	int			nopen;

	cursor->x = last + 1;
	cursor->cut = false;
	cursor->q = 0;
	nopen = xid_lower_bound(view->open, view->nopen, cursor->x);
	if (nopen > room)
	{
		/* no room for all: take the part that has it, and repeat the rest */
		nopen = room;
		cursor->x = view->open[nopen];
		cursor->cut = true;
	}
	cursor->np = nopen;
	cursor->p = palloc(sizeof(uint64) * Max(nopen, 1));
	if (nopen > 0)
		memcpy(cursor->p, view->open, sizeof(uint64) * nopen);
}

bool
poll_cursor_behind(const PollCursor *cursor, const PollView *view)
{
	if (!cursor->cut)
		return false;
	if (view->xmax < cursor->x)
		return true;
	if (cursor->q != 0 && !poll_view_finished(view, cursor->q))
		return true;
	for (int i = 0; i < view->nopen && view->open[i] < cursor->x; i++)
		if (!poll_cursor_lists(cursor, view->open[i]))
			return true;
	return false;
}

uint64
poll_cursor_limit(const PollCursor *cursor, const PollView *view)
{
	int			room = POLL_CURSOR_MAX_OPEN;
	int			first = xid_lower_bound(view->open, view->nopen, cursor->x);

	for (int i = 0; i < cursor->np; i++)
		if (room > 0 && !poll_view_finished(view, cursor->p[i]))
			room--;
	return view->nopen - first > room ? view->open[first + room] : view->xmax;
}

void
poll_cursor_advance(PollCursor *next, const PollCursor *cursor,
					const PollView *view, PollPosition last,
					PollStop stop, XLogRecPtr lsn)
{
	bool		cut = (stop == POLL_STOP_CUT);
	bool		in_rest = cut && cursor->q != 0 && last.xid == cursor->q;
	bool		in_p = cut && poll_cursor_lists(cursor, last.xid);
	int			first = xid_lower_bound(view->open, view->nopen, cursor->x);

	*next = *cursor;
	next->sync = false;
	next->cut = (stop != POLL_STOP_COMPLETE);
	next->lsn = !next->cut ? InvalidXLogRecPtr : cursor->cut ? Max(lsn, cursor->lsn) : lsn;
	next->q = cut ? last.xid : 0;
	next->v = cut ? last.version : 0;

	if (cursor->q == cursor->x && !in_rest)
		next->x = cursor->x + 1;
	if (last.xid >= next->x)
		next->x = cut ? last.xid : last.xid + 1;

	next->np = 0;
	next->p = palloc(sizeof(uint64) * Max(1, cursor->np + view->nopen));
	for (int i = 0; i < cursor->np; i++)
	{
		uint64		p = cursor->p[i];
		bool		unread = in_rest || (in_p && p >= last.xid && p != cursor->q);

		if (unread || !poll_view_finished(view, p))
			next->p[next->np++] = p;
	}
	for (int i = first; i < view->nopen && view->open[i] < next->x; i++)
		next->p[next->np++] = view->open[i];
	Assert(next->np <= Max(POLL_CURSOR_MAX_OPEN, cursor->np));
}

/* ---- text form ---- */

static char *
put_fixed(char *dst, uint64 value, int nbytes)
{
	for (int i = nbytes - 1; i >= 0; i--)
		*dst++ = (char) (value >> (8 * i));
	return dst;
}

/* Reads nbytes, most significant first; moves *src. */
static uint64
get_fixed(const char **src, int nbytes)
{
	uint64		value = 0;

	while (nbytes-- > 0)
		value = value << 8 | (unsigned char) *(*src)++;
	return value;
}

static text *
encode_bytes(const char *src, int len)
{
	text	   *result = palloc(VARHDRSZ + pg_b64_enc_len(len));

	SET_VARSIZE(result, VARHDRSZ + poll_base64url_encode(src, len, VARDATA(result)));
	return result;
}

/* The bytes of base64url, palloc'd, and how many; or NULL. */
static char *
decode_bytes(const char *src, int len, int *outlen)
{
	char	   *padded = palloc(len + 4);
	char	   *result;

	for (int i = 0; i < len; i++)
	{
		unsigned char c = src[i];

		if (c == '-')
			padded[i] = '+';
		else if (c == '_')
			padded[i] = '/';
		else if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
			padded[i] = c;
		else
			return NULL;
	}
	while (len % 4 != 0)
		padded[len++] = '=';
	result = palloc(pg_b64_dec_len(len) + 1);
	/* char * until 17, uint8 * since */
	*outlen = pg_b64_decode(padded, len, (void *) result, pg_b64_dec_len(len));
	pfree(padded);
	return *outlen < 0 ? NULL : result;
}

text *
poll_cursor_encode(const PollCursor *cursor)
{
	Size		size = CURSOR_FIXED + (7 + cursor->np) * POLL_VARINT_MAX +
	(cursor->sync ? cursor->keylen : 0);
	char	   *buf = palloc(size);
	char	   *dst = buf;
	uint64		above = cursor->x;
	text	   *result;

	*dst++ = CURSOR_VERSION | (cursor->cut ? CURSOR_CUT : 0) |
		(cursor->q != 0 ? CURSOR_POSITION : 0) | (cursor->sync ? CURSOR_SYNC : 0);
	dst = put_fixed(dst, cursor->epoch, 8);
	dst = put_fixed(dst, cursor->feeds, 4);
	dst = put_fixed(dst, cursor->generation, 4);
	dst = poll_varint_put(dst, cursor->x);
	dst = poll_varint_put(dst, cursor->np);
	for (int i = cursor->np - 1; i >= 0; i--)
	{
		dst = poll_varint_put(dst, above - cursor->p[i]);
		above = cursor->p[i];
	}
	if (cursor->cut)
		dst = poll_varint_put(dst, cursor->lsn);
	if (cursor->q != 0)
	{
		dst = poll_varint_put(dst, cursor->x - cursor->q);
		dst = poll_varint_put(dst, (uint64) cursor->v);
	}
	if (cursor->sync)
	{
		dst = poll_varint_put(dst, cursor->sync_feed);
		dst = poll_varint_put(dst, cursor->keylen);
		if (cursor->keylen > 0)
			memcpy(dst, cursor->key, cursor->keylen);
		dst += cursor->keylen;
	}
	Assert(dst <= buf + size);

	result = encode_bytes(buf, dst - buf);
	pfree(buf);
	return result;
}

/* The part behind the fixed header; false if it is not one. */
static bool
decode_body(const char *src, const char *end, int flags, PollCursor *cursor)
{
	uint64		above;
	uint64		n;
	uint64		u;

	if (!poll_varint_get(&src, end, &cursor->x) ||
		!poll_varint_get(&src, end, &n) ||
		n > POLL_CURSOR_MAX_LISTED || n > (uint64) (end - src))
		return false;
	cursor->np = (int) n;
	cursor->p = palloc(sizeof(uint64) * Max(n, 1));
	above = cursor->x;
	for (int i = cursor->np - 1; i >= 0; i--)
	{
		if (!poll_varint_get(&src, end, &u) || u == 0 || u >= above)
			return false;
		above -= u;
		cursor->p[i] = above;
	}

	cursor->cut = (flags & CURSOR_CUT) != 0;
	if (cursor->cut && !poll_varint_get(&src, end, &cursor->lsn))
		return false;

	if (flags & CURSOR_POSITION)
	{
		if (!cursor->cut ||
			!poll_varint_get(&src, end, &u) || u >= cursor->x ||
			!poll_varint_get(&src, end, &n) || n > PG_INT64_MAX)
			return false;
		cursor->q = cursor->x - u;
		cursor->v = (int64) n;
		if (u != 0 && !poll_cursor_lists(cursor, cursor->q))
			return false;
	}

	cursor->sync = (flags & CURSOR_SYNC) != 0;
	if (cursor->sync)
	{
		if (!cursor->cut || cursor->q != 0 ||
			!poll_varint_get(&src, end, &u) || u > PG_INT32_MAX ||
			!poll_varint_get(&src, end, &n) || n != (uint64) (end - src))
			return false;
		cursor->sync_feed = (uint32) u;
		cursor->keylen = (int) n;
		cursor->key = src;
		src = end;
	}
	return src == end;
}

bool
poll_cursor_decode(const char *str, int len, PollCursor *cursor)
{
	int			nbytes;
	char	   *bytes;
	const char *src;
	int			flags;
	text	   *again;
	bool		same;

	memset(cursor, 0, sizeof(PollCursor));
	if (len > CURSOR_MAX_TEXT)
		return false;
	src = bytes = decode_bytes(str, len, &nbytes);
	if (bytes == NULL || nbytes < CURSOR_FIXED)
		return false;
	flags = (unsigned char) *src++;
	if ((flags & CURSOR_VERSION_MASK) != CURSOR_VERSION ||
		(flags & ~(CURSOR_VERSION_MASK | CURSOR_CUT | CURSOR_POSITION | CURSOR_SYNC)) != 0)
		return false;
	cursor->epoch = get_fixed(&src, 8);
	cursor->feeds = (uint32) get_fixed(&src, 4);
	cursor->generation = (uint32) get_fixed(&src, 4);
	if (!decode_body(src, bytes + nbytes, flags, cursor))
		return false;

	/* one text form each: what does not come back the same is not a cursor */
	again = poll_cursor_encode(cursor);
	same = VARSIZE(again) - VARHDRSZ == (Size) len &&
		memcmp(VARDATA(again), str, len) == 0;
	pfree(again);
	return same;
}
