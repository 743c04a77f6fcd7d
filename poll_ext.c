/*
 * poll_ext.c
 *		The front door: what is registered with the server, and where to read on.
 *
 * A change, from the writer to the client:
 *		src/capture.c	the row trigger and its buffers
 *		src/ddl.c		TRUNCATE, partitions and DDL
 *		src/shape.c		what a feed shows, to notice when that changes
 *		src/changelog.c	the change log, in chunks
 *		src/segment.c	the segments of the log, and how old ones are trimmed
 *		src/cursor.c	the cursor: which changes a client has seen
 *		src/trim.c		poll.trim(): retention
 *		src/timeline.c	cursors from before a promotion
 *		src/tick.c		from a time to a cursor
 *		src/worker.c	the background worker that writes the last tick, and trims
 *		src/snapshot.c	the snapshot that a poll runs under
 *		src/changes.c	from a cursor to a page of changes
 *		src/fullsync.c	the table itself, for a client without a cursor
 *		src/reader.c	live rows, as the caller may see them
 *		src/plan.c		the queries that read them
 *		src/request.c	what a client asks for, and the page that answers it
 *		src/poll.c		poll.poll(), and the functions that return one value
 *		src/rows.c		the functions that return a row per change
 *		src/interval.c	how long to wait until the next poll
 *		src/wait.c		poll.wait(): until there is something to poll
 *		src/suspend.c	one session that waits for all clients of a gateway
 *		src/waiters.c	who waits, in shared memory, and who wakes them
 *
 * One answer for many:
 *		src/sharing.c	the answer to a poll that many ask
 *		src/cached.c	poll.cached(): the result of any query
 *		src/cache.c		contents in shared memory
 *
 * Rate limits:
 *		src/rate.c		poll.rate_check() and its relatives
 *		src/policy.c	how much a client may do at which endpoint
 *		src/ratetable.c	the counters of all clients, in shared memory
 *		src/limiter.c	the algorithms, on one counter
 *		src/network.c	which network a client is
 *
 * HTTP:
 *		src/respond.c	poll.respond(): a request, answered completely
 *		src/http.c		what a request asks for
 *		src/pgrst.c		poll.pgrst_poll() and poll.pgrst_pre_request(), for PostgREST
 *		src/response.c	the response, from whatever function answers it
 *
 * Validators:
 *		src/etag.c		entity tags, made and compared
 *		src/digest.c	hashes of values
 *
 * What they stand on:
 *		src/track.c		poll.track() and poll.untrack()
 *		src/feedset.c	the feeds of a request, checked for its caller
 *		src/scope.c		the scope of a request
 *		src/catalog.c	the registry of feeds and the epoch
 *		src/key.c		keys and their text form
 *		src/json.c		values as JSON
 *		src/shmem.c		shared memory: the clock, and who flushed last
 *		src/guc.c		settings
 *		src/compat.h	differences between server versions
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/inval.h"
#include "utils/syscache.h"

#include "cache.h"
#include "capture.h"
#include "catalog.h"
#include "ddl.h"
#include "guc.h"
#include "pgrst.h"
#include "policy.h"
#include "reader.h"
#include "segment.h"
#include "shmem.h"
#include "worker.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

/* Callbacks only mark things stale; the next use reads them again. */
static void
relation_changed(Datum arg, Oid relid)
{
	if (poll_catalog_invalidate(relid))
		relid = InvalidOid;
	poll_capture_invalidate(relid);
	poll_reader_invalidate(relid);
	poll_policy_invalidate(relid);
	poll_segment_invalidate(relid);
}

static void
role_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	poll_catalog_privileges_changed();
}

/* Readers hold the names of schemas. */
static void
schema_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	poll_catalog_privileges_changed();
	poll_reader_invalidate(InvalidOid);
}

/* They also hold which types have a cast to json. */
static void
cast_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	poll_reader_invalidate(InvalidOid);
}

void
_PG_init(void)
{
	poll_guc_install();
	poll_shmem_install();
	poll_cache_install();
	poll_capture_install();
	poll_worker_install();
	poll_ddl_install();
	poll_pgrst_install();
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, role_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, role_changed, (Datum) 0);
	/* the owner of the database is in pg_database_owner */
	CacheRegisterSyscacheCallback(DATABASEOID, role_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, schema_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(CASTSOURCETARGET, cast_changed, (Datum) 0);
}
