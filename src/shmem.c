/*
 * shmem.c
 *		The hybrid clock and the highest flushed xid per feed.
 *
 * Clock.  Versions are microseconds since 1970, from one shared atomic:
 * max(last + 1, now).  Entries of a chunk take consecutive ones.  The order
 * of two changes of the same row is the order of their versions, since the
 * second writer waits for the first one's commit before its own flush.
 *
 * Flushed.  "Is there anything new?" is answered without touching a table
 * when no transaction at or above the cursor's X has flushed entries of the
 * feed.  A fixed array of atomics keeps the highest such xid per channel,
 * hashed; two channels that share a slot only make each other look more
 * often.  A writer raises the slot before it inserts the chunk, so a snapshot
 * that shows the chunk was taken after the raise: the slot can err only
 * towards looking, whether the transaction commits, rolls back or stays
 * prepared.
 *
 * After a restart, or a promotion, the array is empty, and so are the slots of
 * a database that is a copy of another one; but entries flushed earlier are
 * below the next xid of that moment.  So the first one who uses the array in a
 * database on a primary sets its floor: a slot counts as floor - 1 at least.
 *
 * Databases.  Ticks (tick.c) are a second apart in each database, and there is
 * one worker in each; an entry per database knows when they were last seen.
 *
 * Locking: none; every field is an atomic, and each is only ever raised.
 * Without shared_preload_libraries the clock is per backend (strictly
 * increasing within a transaction, which is all that cursors need), nothing
 * is known about flushes, and every commit counts as asynchronous.
 */
#include "postgres.h"

#include <sys/time.h>

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "cache.h"
#include "ratetable.h"
#include "shmem.h"
#include "waiters.h"

#define FLUSHED_SLOTS	16384	/* a power of two; 8 bytes each */

/* more databases than this do without ticks of the worker, and look each time */
#define MAX_DATABASES	256

#define COMPLAIN_EVERY	(10 * USECS_PER_MINUTE)

typedef struct PollShared
{
	pg_atomic_uint64 clock;		/* the last version taken */
	char		pad[PG_CACHE_LINE_SIZE - sizeof(pg_atomic_uint64)]; /* written all the time */
	pg_atomic_uint64 async;		/* see poll_async_read() */
	pg_atomic_uint64 async_durable;
	pg_atomic_uint64 flushed[FLUSHED_SLOTS];
	PollDatabase databases[MAX_DATABASES];
} PollShared;

static PollShared *shared = NULL;
static int64 local_clock = 0;
static PollDatabase local_database;
static PollDatabase *my_database = NULL;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(PollShared)));
	poll_ratetable_shmem_request();
	poll_cache_shmem_request();
	poll_waiters_shmem_request();
}

static void
database_init(PollDatabase *database, bool is_shared)
{
	database->shared = is_shared;
	pg_atomic_init_u32(&database->oid, InvalidOid);
	pg_atomic_init_u64(&database->floor, 0);
	pg_atomic_init_u64(&database->flushed, 0);
	pg_atomic_init_u64(&database->ticked, 0);
	pg_atomic_init_u64(&database->tick_x, 0);
	pg_atomic_init_u64(&database->worker, 0);
	pg_atomic_init_u64(&database->complained, 0);
}

static void
shmem_startup(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("poll_ext", sizeof(PollShared), &found);
	if (!found)
	{
		pg_atomic_init_u64(&shared->clock, 0);
		pg_atomic_init_u64(&shared->async, 0);
		pg_atomic_init_u64(&shared->async_durable, 0);
		for (int i = 0; i < FLUSHED_SLOTS; i++)
			pg_atomic_init_u64(&shared->flushed[i], 0);
		for (int i = 0; i < MAX_DATABASES; i++)
			database_init(&shared->databases[i], true);
	}
	poll_ratetable_shmem_init();
	poll_cache_shmem_init();
	poll_waiters_shmem_init();
	LWLockRelease(AddinShmemInitLock);
}

void
poll_shmem_install(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

/* Raises the atomic to value unless it is there already. */
static void
atomic_raise(pg_atomic_uint64 *atomic, uint64 value)
{
	uint64		current = pg_atomic_read_u64(atomic);

	while (current < value &&
		   !pg_atomic_compare_exchange_u64(atomic, &current, value))
		;
}

int64
poll_clock_take(int64 count)
{
	struct timeval tv;
	int64		now;
	uint64		last;
	int64		first;

	gettimeofday(&tv, NULL);
	now = (int64) tv.tv_sec * 1000000 + tv.tv_usec;
	if (shared == NULL)
	{
		first = Max(local_clock + 1, now);
		local_clock = first + count - 1;
		return first;
	}

	last = pg_atomic_read_u64(&shared->clock);
	do
	{
		first = Max((int64) last + 1, now);
	} while (!pg_atomic_compare_exchange_u64(&shared->clock, &last, first + count - 1));
	return first;
}

TimestampTz
poll_clock_timestamp(int64 version)
{
	return version - (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
}

void
poll_clock_raise(TimestampTz time)
{
	uint64		version = time + (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;

	if (shared == NULL)
		local_clock = Max(local_clock, (int64) version);
	else
		atomic_raise(&shared->clock, version);
}

/* An entry is taken by the first who needs it, and never given back. */
PollDatabase *
poll_shmem_database(void)
{
	if (my_database != NULL)
		return my_database;
	for (int i = 0; shared != NULL && i < MAX_DATABASES; i++)
	{
		PollDatabase *database = &shared->databases[i];
		uint32		oid = pg_atomic_read_u32(&database->oid);

		if (oid == InvalidOid &&
			pg_atomic_compare_exchange_u32(&database->oid, &oid, MyDatabaseId))
			oid = MyDatabaseId;
		if (oid == MyDatabaseId)
			return my_database = database;
	}
	database_init(&local_database, false);
	return my_database = &local_database;
}

bool
poll_shmem_complain(void)
{
	PollDatabase *database = poll_shmem_database();
	uint64		now = GetCurrentTimestamp();
	uint64		last = pg_atomic_read_u64(&database->complained);

	return (now < last || now >= last + COMPLAIN_EVERY) &&
		pg_atomic_compare_exchange_u64(&database->complained, &last, now);
}

uint32
poll_shmem_hash(int64 channel)
{
	uint32		hash = hash_combine(murmurhash32((uint32) channel),
									murmurhash32((uint32) (channel >> 32) ^ MyDatabaseId));

	return murmurhash32(hash);
}

static pg_atomic_uint64 *
flushed_slot(int64 channel)
{
	return &shared->flushed[poll_shmem_hash(channel) & (FLUSHED_SLOTS - 1)];
}

uint64
poll_flushed_read(int64 channel)
{
	PollDatabase *database = poll_shmem_database();
	uint64		xid;

	/* under SERIALIZABLE, not looking would be reading without a trace */
	if (!database->shared || RecoveryInProgress() || IsolationIsSerializable())
		return PG_UINT64_MAX;
	if (pg_atomic_read_u64(&database->floor) == 0)
		atomic_raise(&database->floor, U64FromFullTransactionId(ReadNextFullTransactionId()));

	/* pairs with the barrier in atomic_raise(): the snapshot came first */
	pg_read_barrier();
	xid = pg_atomic_read_u64(flushed_slot(channel));

	/*
	 * a slot that is set may be so by another database, which has another
	 * floor
	 */
	return Max(xid, pg_atomic_read_u64(&database->floor) - 1);
}

void
poll_flushed_raise(int64 channel, uint64 xid)
{
	if (shared != NULL)
		atomic_raise(flushed_slot(channel), xid);
}

uint64
poll_async_read(void)
{
	return shared != NULL ? pg_atomic_read_u64(&shared->async) : PG_UINT64_MAX;
}

void
poll_async_raise(uint64 xid)
{
	if (shared != NULL)
		atomic_raise(&shared->async, xid);
}

uint64
poll_async_durable_read(void)
{
	return shared != NULL ? pg_atomic_read_u64(&shared->async_durable) : 0;
}

void
poll_async_durable_raise(uint64 xid)
{
	if (shared != NULL)
		atomic_raise(&shared->async_durable, xid);
}
