/*
 * cache.c
 *		Contents that many ask for, in shared memory.
 *
 * A content is found by a keyed hash of 128 bits of all that it depends on.  Whoever
 * finds it decides whether it is still good (sharing.c, cached.c).  Who finds none takes a
 * lease and makes it, others sleep until it is there, or the lease was given up,
 * which an error and the end of a session do.  Nobody sleeps for longer than
 * PATIENCE: then it makes its own.
 *
 * What expires is made anew a little before that, by one who finds it, and the
 * earlier the longer it takes: with a probability such that it is most likely one
 * (XFetch: Vattani, Chierichetti, Lowenstein, Optimal Probabilistic Cache Stampede
 * Prevention, VLDB 2015).
 *
 * What a change of the catalogs means for a content is hard to tell, so nobody trusts
 * what was begun before the last one, of those that can mean anything (DDL), had
 * committed.  Who begins after that reads under locks that bring the news, and if news
 * have come meanwhile, the content may be a mixture and is not kept.  On a standby nobody
 * tells of such a commit; there, a process does not trust what was begun before it last
 * learned of a change itself.
 *
 * Memory: a hash table of fixed size, and an area of poll_ext.cache_size for the
 * contents, both from the start of the server.  If there is no room, what was not used
 * since the last time is dropped, and if that is not enough, every other one.
 *
 * Locking: an entry is protected by the lock of its partition.  Its content is copied
 * under the shared lock, and freed under the exclusive one; nothing is allocated by
 * palloc, computed or waited for under a lock.  "used" is only a hint.
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "common/pg_prng.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "port/atomics.h"
#include "port/pg_bitutils.h"
#include "portability/instr_time.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/dsa.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/varlena.h"
#include "utils/wait_event.h"

#include "cache.h"
#include "catalog.h"
#include "compat.h"
#include "guc.h"
#include "siphash.h"

#define TRANCHE			"poll_ext cache"
#define PARTITIONS		16		/* each with a lock; another one is for sweeps */
#define CONDITIONS		64

/* so many bytes of the area for each entry of the table */
#define ENTRY_BYTES		2048
#define MIN_SIZE		(1024 * 1024)

/* no content may take more than this part of the area */
#define MAX_PART		16

/* a process keeps so much memory for copies */
#define MAX_KEPT		(1024 * 1024)

#define LARGE_CHUNK		(512 * 1024)

#define MIN_SMALL		256
#define MAX_SMALL		8192

#define PATIENCE		250000	/* microseconds that somebody sleeps at most */
#define ALONE			1000000 /* so long nobody waits for what was not kept */
#define LEASE			10000000	/* then it is for somebody else */

typedef struct Entry
{
	PollCacheKey key;			/* hash key */
	dsa_pointer content;		/* invalid: none so far */
	Size		size;
	uint64		begun;			/* poll_cache_now() before it was made */
	uint64		cost;			/* microseconds that took */
	bool		recovery;		/* by a standby, which does not hear of all
								 * changes */
	uint64		alone_until;	/* what was made is not kept: nobody need wait */
	int			maker;			/* process id of who makes it anew; 0 = nobody */
	uint64		lease;			/* until then */
	bool		used;
} Entry;

typedef struct Cache
{
	uint64		key[2];			/* of the hash */
	ConditionVariable made[CONDITIONS];
	pg_atomic_uint64 catalogs_changed;	/* poll_cache_now() */
	pg_atomic_uint64 hits;
	pg_atomic_uint64 misses;
	pg_atomic_uint64 waits;
	pg_atomic_uint64 timeouts;
	pg_atomic_uint64 evictions;
	pg_atomic_uint64 entries;
	pg_atomic_uint64 bytes;
} Cache;

/*
 * A copy of what was found.  Its memory is kept from one to the next: getting it from
 * the system and giving it back costs more than the copy.
 */
struct PollCached
{
	MemoryContext context;		/* of this, and of: */
	StringInfoData content;
	uint64		begun;			/* 0: nothing was found */
	uint64		cost;
	bool		recovery;
};

typedef struct PollCached Found;

typedef enum Turn
{
	TURN_MAKE,					/* it is ours, and the lease */
	TURN_ALONE,					/* it is ours, others may make it, too */
	TURN_LOOK					/* look again */
} Turn;

static Cache *cache = NULL;
static HTAB *table;
static void *area_place;
static dsa_area *area = NULL;
static LWLockPadded *locks;

/* What this process makes right now; making one may take another one. */
typedef struct Lease
{
	const PollCacheKey *key;
	struct Lease *outer;
} Lease;

static Lease *leases = NULL;

static Found *kept = NULL;
static bool command_noted = false;	/* this transaction has changed the
									 * catalogs */

PG_FUNCTION_INFO_V1(poll_ext_cache_counters);

/* ---- shared memory ---- */

static Size
area_size(void)
{
	return Max((Size) poll_cache_size * 1024, MIN_SIZE);
}

static long
max_entries(void)
{
	return area_size() / ENTRY_BYTES;
}

void
poll_cache_shmem_request(void)
{
	if (poll_cache_size == 0)
		return;
	RequestAddinShmemSpace(MAXALIGN(sizeof(Cache)));
	RequestAddinShmemSpace(MAXALIGN(area_size()));
	RequestAddinShmemSpace(hash_estimate_size(max_entries(), sizeof(Entry)));
	RequestNamedLWLockTranche(TRANCHE, PARTITIONS + 1);
}

static void
cache_init(void)
{
	dsa_area   *created;

	if (!pg_strong_random(cache->key, sizeof(cache->key)))
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random key for the cache")));
	for (int i = 0; i < CONDITIONS; i++)
		ConditionVariableInit(&cache->made[i]);
	pg_atomic_init_u64(&cache->catalogs_changed, 0);
	pg_atomic_init_u64(&cache->hits, 0);
	pg_atomic_init_u64(&cache->misses, 0);
	pg_atomic_init_u64(&cache->waits, 0);
	pg_atomic_init_u64(&cache->timeouts, 0);
	pg_atomic_init_u64(&cache->evictions, 0);
	pg_atomic_init_u64(&cache->entries, 0);
	pg_atomic_init_u64(&cache->bytes, 0);

	created = dsa_create_in_place(area_place, area_size(), locks[0].lock.tranche, NULL);
	dsa_pin(created);
	/* no segments beside it */
	dsa_set_size_limit(created, area_size());
	dsa_detach(created);
}

void
poll_cache_shmem_init(void)
{
	HASHCTL		ctl = {
		.keysize = sizeof(PollCacheKey),
		.entrysize = sizeof(Entry),
		.num_partitions = PARTITIONS
	};
	bool		found;

	if (poll_cache_size == 0)
		return;
	locks = GetNamedLWLockTranche(TRANCHE);
	table = ShmemInitHash("poll_ext cache table", max_entries(), max_entries(), &ctl,
						  HASH_ELEM | HASH_BLOBS | HASH_PARTITION | HASH_FIXED_SIZE);
	area_place = ShmemInitStruct("poll_ext cache area", area_size(), &found);
	cache = ShmemInitStruct("poll_ext cache", sizeof(Cache), &found);
	if (!found)
		cache_init();
}

static void give_up_all(int code, Datum arg);

static void
attach(void)
{
	MemoryContext old;

	if (area != NULL)
		return;

	/*
	 * An answer is copied several times on its way out, and malloc would give
	 * that memory back to the system after each one, which takes longer than
	 * all the rest.  glibc keeps more once something larger was freed.
	 */
	pfree(palloc(LARGE_CHUNK));
	old = MemoryContextSwitchTo(TopMemoryContext);
	area = dsa_attach_in_place(area_place, NULL);
	dsa_pin_mapping(area);
	MemoryContextSwitchTo(old);
	before_shmem_exit(give_up_all, 0);
}

bool
poll_cache_usable(void)
{
	return cache != NULL && !IsolationUsesXactSnapshot() &&
		!TransactionIdIsValid(GetTopTransactionIdIfAny());
}

uint64
poll_cache_now(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return INSTR_TIME_GET_MICROSEC(now);
}

/* ---- changes of the catalogs ---- */

/* A policy may go with whatever it depends on. */
static bool
drop_counts(const DropStmt *statement)
{
	return statement->behavior == DROP_CASCADE ||
		(statement->removeType != OBJECT_TABLE && statement->removeType != OBJECT_INDEX &&
		 statement->removeType != OBJECT_SEQUENCE);
}

/* What is new does not. */
bool
poll_cache_command_counts(Node *statement)
{
	if (cache == NULL)
		return false;
	switch (nodeTag(statement))
	{
		case T_CreateStmt:
		case T_CreateTableAsStmt:
		case T_IndexStmt:
			return false;
		case T_DropStmt:
			return drop_counts((DropStmt *) statement);
		default:
			return GetCommandLogLevel(statement) == LOGSTMT_DDL;
	}
}

void
poll_cache_note_command(void)
{
	command_noted = true;
}

void
poll_cache_catalogs_changed(void)
{
	uint64		now = poll_cache_now();
	uint64		before;

	if (cache == NULL)
		return;
	/* another one may have a later time */
	before = pg_atomic_read_u64(&cache->catalogs_changed);
	while (before < now && !pg_atomic_compare_exchange_u64(&cache->catalogs_changed, &before, now))
		;
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (command_noted && event == XACT_EVENT_COMMIT)
		poll_cache_catalogs_changed();
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		command_noted = false;
}

/* Again, when all others have been told. */
static void
release_callback(ResourceReleasePhase phase, bool is_commit, bool is_top, void *arg)
{
	if (!command_noted || !is_top || phase != RESOURCE_RELEASE_AFTER_LOCKS)
		return;
	if (is_commit)
		poll_cache_catalogs_changed();
	command_noted = false;
}

void
poll_cache_install(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterResourceReleaseCallback(release_callback, NULL);
}

/* ---- keys ---- */

static void
append_string(StringInfo buf, const char *value)
{
	appendBinaryStringInfo(buf, value ? value : "", (value ? strlen(value) : 0) + 1);
}

/* The values of the settings in poll_ext.cache_claims. */
static void
append_claims(StringInfo buf)
{
	char	   *names = pstrdup(poll_cache_claims);
	List	   *list;
	ListCell   *lc;

	append_string(buf, poll_cache_claims);
	/* as it was checked when it was set */
	if (!SplitGUCList(names, ',', &list))
		elog(ERROR, "poll_ext.cache_claims is no list");
	foreach(lc, list)
	{
		const char *value = GetConfigOption(lfirst(lc), true, false);

		appendStringInfoChar(buf, value ? '1' : '0');
		append_string(buf, value);
	}
}

void
poll_cache_key_begin(StringInfo buf, char kind)
{
	initStringInfo(buf);
	appendStringInfoChar(buf, kind);
	appendBinaryStringInfo(buf, (const char *) &MyDatabaseId, sizeof(MyDatabaseId));
}

void
poll_cache_key_add_caller(StringInfo buf)
{
	const Oid	roles[] = {GetUserId(), GetSessionUserId()};
	const int	settings[] = {DateStyle, DateOrder, IntervalStyle, extra_float_digits, bytea_output,
	quote_all_identifiers, row_security};

	appendBinaryStringInfo(buf, (const char *) roles, sizeof(roles));
	appendBinaryStringInfo(buf, (const char *) settings, sizeof(settings));
	append_string(buf, pg_get_timezone_name(session_timezone));
	append_string(buf, namespace_search_path);
	append_string(buf, locale_monetary);
	append_claims(buf);
}

PollCacheKey
poll_cache_key_end(StringInfo buf)
{
	PollCacheKey key;

	poll_siphash(cache->key, buf->data, buf->len, key.hash);
	pfree(buf->data);
	return key;
}

static LWLock *
lock_of(uint32 hash)
{
	return &locks[hash % PARTITIONS].lock;
}

static uint32
hash_of(const PollCacheKey *key)
{
	return get_hash_value(table, key);
}

static ConditionVariable *
condition_of(const PollCacheKey *key)
{
	return &cache->made[key->hash[0] % CONDITIONS];
}

/* ---- finding ---- */

/* Copies what there is. */
static void
find(const PollCacheKey *key, Found *found)
{
	uint32		hash = hash_of(key);

	for (;;)
	{
		Entry	   *entry;
		Size		size = 0;

		found->begun = 0;
		LWLockAcquire(lock_of(hash), LW_SHARED);
		entry = hash_search_with_hash_value(table, key, hash, HASH_FIND, NULL);
		if (entry != NULL && DsaPointerIsValid(entry->content))
		{
			size = entry->size;
			if (size < (Size) found->content.maxlen)
			{
				memcpy(found->content.data, dsa_get_address(area, entry->content), size);
				found->content.len = size;
				found->begun = entry->begun;
				found->cost = entry->cost;
				found->recovery = entry->recovery;
				if (!entry->used)
					entry->used = true;
			}
		}
		LWLockRelease(lock_of(hash));
		if (found->begun != 0 || size == 0)
			return;
		resetStringInfo(&found->content);
		enlargeStringInfo(&found->content, size);
	}
}

/* When a standby's process has learned of the last change. */
static uint64
standby_catalogs_changed(void)
{
	static uint64 generation = 0;
	static uint64 at = 0;

	if (generation != poll_catalog_generation())
	{
		generation = poll_catalog_generation();
		at = poll_cache_now();
	}
	return at;
}

/* Before that, nothing is to be trusted. */
static uint64
catalogs_changed(void)
{
	return RecoveryInProgress() ? standby_catalogs_changed() : pg_atomic_read_u64(&cache->catalogs_changed);
}

/* Is it time to make it anew, though it is good? */
static bool
is_due(const Found *found, int64 max_age)
{
	double		age = poll_cache_now() - found->begun;
	double		early = -log(1 - pg_prng_double(&pg_global_prng_state)) * found->cost;

	return age + early >= max_age;
}

/* ---- making room ---- */

static void
drop(Entry *entry)
{
	if (DsaPointerIsValid(entry->content))
	{
		dsa_free(area, entry->content);
		pg_atomic_fetch_sub_u64(&cache->bytes, entry->size);
		pg_atomic_fetch_sub_u64(&cache->entries, 1);
		pg_atomic_fetch_add_u64(&cache->evictions, 1);
	}
	hash_search(table, &entry->key, HASH_REMOVE, NULL);
}

/* Drops what was not used since the last time; or, with half, every other one. */
static void
sweep(bool half)
{
	HASH_SEQ_STATUS status;
	Entry	   *entry;
	bool		victim = false;

	for (int i = 0; i < PARTITIONS; i++)
		LWLockAcquire(&locks[i].lock, LW_EXCLUSIVE);
	hash_seq_init(&status, table);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		victim = !victim;
		if (entry->maker != 0 && poll_cache_now() < entry->lease)
			continue;
		if (!DsaPointerIsValid(entry->content) || (half ? victim : !entry->used))
			drop(entry);
		else
			entry->used = false;
	}
	for (int i = PARTITIONS - 1; i >= 0; i--)
		LWLockRelease(&locks[i].lock);
}

/* One makes room, others do without: false. */
static bool
make_room(bool half)
{
	LWLock	   *lock = &locks[PARTITIONS].lock;

	if (!LWLockConditionalAcquire(lock, LW_EXCLUSIVE))
		return false;
	sweep(half);
	if (!half && hash_get_num_entries(table) >= max_entries())
		sweep(true);
	LWLockRelease(lock);
	return true;
}

/*
 * Room for that much; invalid if there is none.  Small ones come in few sizes: the
 * area keeps a block of 64 kB for each.
 */
static dsa_pointer
allocate(Size size)
{
	dsa_pointer result = InvalidDsaPointer;

	if (size <= MAX_SMALL)
		size = Max(pg_nextpower2_size_t(size), MIN_SMALL);
	if (size > area_size() / MAX_PART)
		return result;
	for (int i = 0; i < 3; i++)
	{
		result = dsa_allocate_extended(area, size, DSA_ALLOC_NO_OOM | DSA_ALLOC_HUGE);
		if (DsaPointerIsValid(result) || !make_room(i > 0))
			break;
	}
	return result;
}

/* ---- making ---- */

/*
 * Whose turn is it to make what was not found, or is no good: it was begun then?
 * Until the deadline, waits for who has taken it.
 */
static Turn
take_turn(const PollCacheKey *key, uint64 begun, uint64 deadline)
{
	uint32		hash = hash_of(key);
	uint64		now = poll_cache_now();
	Turn		turn = TURN_MAKE;
	bool		wait = false;
	bool		found;
	Entry	   *entry;

	/* before the look, so that nobody makes it in between unheard */
	ConditionVariablePrepareToSleep(condition_of(key));
	LWLockAcquire(lock_of(hash), LW_EXCLUSIVE);
	entry = hash_search_with_hash_value(table, key, hash, HASH_ENTER_NULL, &found);
	if (entry != NULL && !found)
		memset((char *) entry + sizeof(PollCacheKey), 0, sizeof(Entry) - sizeof(PollCacheKey));
	if (entry == NULL)
		turn = TURN_ALONE;
	else if (entry->begun > begun)
		turn = TURN_LOOK;
	else if (now < entry->alone_until)
		turn = TURN_ALONE;
	else if (entry->maker == 0 || now > entry->lease)
	{
		entry->maker = MyProcPid;
		entry->lease = now + LEASE;
	}
	else if (entry->maker == MyProcPid || now >= deadline)
		turn = TURN_ALONE;
	else
		wait = true;
	LWLockRelease(lock_of(hash));

	/* for the next one */
	if (entry == NULL)
		make_room(false);
	if (wait)
	{
		turn = TURN_LOOK;
		pg_atomic_fetch_add_u64(&cache->waits, 1);
		if (ConditionVariableTimedSleep(condition_of(key), (deadline - now) / 1000 + 1, PG_WAIT_EXTENSION))
			pg_atomic_fetch_add_u64(&cache->timeouts, 1);
	}
	ConditionVariableCancelSleep();
	return turn;
}

/* Ends our lease, and puts a content there if there is one. */
static void
end_turn(const PollCacheKey *key, const Entry *made)
{
	uint32		hash = hash_of(key);
	dsa_pointer unused = made->content;
	Entry	   *entry;

	LWLockAcquire(lock_of(hash), LW_EXCLUSIVE);
	entry = hash_search_with_hash_value(table, key, hash, HASH_FIND, NULL);
	if (entry != NULL)
	{
		if (entry->maker == MyProcPid)
			entry->maker = 0;
		entry->alone_until = made->alone_until;
		if (DsaPointerIsValid(made->content) && made->begun > entry->begun)
		{
			unused = entry->content;
			if (DsaPointerIsValid(unused))
				pg_atomic_fetch_sub_u64(&cache->bytes, entry->size);
			else
				pg_atomic_fetch_add_u64(&cache->entries, 1);
			pg_atomic_fetch_add_u64(&cache->bytes, made->size);
			entry->content = made->content;
			entry->size = made->size;
			entry->begun = made->begun;
			entry->cost = made->cost;
			entry->recovery = made->recovery;
			entry->used = true;
		}
	}
	if (DsaPointerIsValid(unused))
		dsa_free(area, unused);
	LWLockRelease(lock_of(hash));
	ConditionVariableBroadcast(condition_of(key));
}

static void
give_up(void)
{
	Entry		nothing = {.content = InvalidDsaPointer};

	end_turn(leases->key, &nothing);
	leases = leases->outer;
}

/* The session ends in the middle. */
static void
give_up_all(int code, Datum arg)
{
	while (leases != NULL)
		give_up();
}

/* Makes the content under a new snapshot; false if it is not to be kept. */
static bool
make(PollCacheUse *use, StringInfo content)
{
	bool		keep;

	resetStringInfo(content);
	PushActiveSnapshot(GetLatestSnapshot());
	keep = use->make(use, content);
	PopActiveSnapshot();
	return keep;
}

static void
make_and_keep(PollCacheUse *use, uint64 generation, StringInfo content)
{
	Lease		lease = {&use->key, leases};
	Entry		made = {.content = InvalidDsaPointer,.begun = poll_cache_now(),.recovery = RecoveryInProgress()};

	pg_atomic_fetch_add_u64(&cache->misses, 1);
	leases = &lease;
	PG_TRY();
	{
		/* what has committed before it was begun counts */
		AcceptInvalidationMessages();
		if (!make(use, content) || TransactionIdIsValid(GetTopTransactionIdIfAny()))
			made.alone_until = poll_cache_now() + ALONE;
		else if (generation == poll_catalog_generation())
		{
			made.cost = poll_cache_now() - made.begun;
			made.size = content->len;
			made.content = allocate(made.size);
			if (DsaPointerIsValid(made.content))
				memcpy(dsa_get_address(area, made.content), content->data, made.size);
			else
				made.alone_until = poll_cache_now() + ALONE;
		}
	}
	PG_CATCH();
	{
		give_up();
		PG_RE_THROW();
	}
	PG_END_TRY();
	leases = lease.outer;
	end_turn(&use->key, &made);
}

static bool
is_good(PollCacheUse *use, const Found *found)
{
	return found->begun > catalogs_changed() && found->recovery == RecoveryInProgress() &&
		poll_cache_now() - found->begun < use->max_age &&
		use->is_good(use, found->content.data, found->begun);
}

static Found *
create_found(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "poll_ext cached", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Found	   *found = palloc0(sizeof(Found));

	found->context = context;
	initStringInfo(&found->content);
	MemoryContextSwitchTo(old);
	return found;
}

const char *
poll_cached_content(const PollCached *found)
{
	return found->content.data;
}

void
poll_cached_free(PollCached *found)
{
	if (kept != NULL || found->content.maxlen > MAX_KEPT)
		MemoryContextDelete(found->context);
	else
	{
		MemoryContextSetParent(found->context, TopMemoryContext);
		kept = found;
	}
}

PollCached *
poll_cache_get(PollCacheUse *use)
{
	Found	   *found = kept ? kept : create_found();
	uint64		generation = poll_catalog_generation();
	uint64		deadline;

	use->arrival = poll_cache_now();
	deadline = use->arrival + PATIENCE;
	/* SQL may run, and an error frees it */
	kept = NULL;
	MemoryContextSetParent(found->context, CurrentMemoryContext);
	attach();
	for (;;)
	{
		Turn		turn;

		find(&use->key, found);
		if (is_good(use, found))
		{
			/* one that is due does not wait for who makes it already */
			if (!is_due(found, use->max_age) || take_turn(&use->key, found->begun, 0) != TURN_MAKE)
			{
				pg_atomic_fetch_add_u64(&cache->hits, 1);
				return found;
			}
			turn = TURN_MAKE;
		}
		else
			turn = take_turn(&use->key, found->begun, deadline);
		if (turn != TURN_LOOK)
		{
			make_and_keep(use, generation, &found->content);
			return found;
		}
	}
}

static Datum
counter(pg_atomic_uint64 *value)
{
	return Int64GetDatum((int64) pg_atomic_read_u64(value));
}

/*
 * poll.cache_counters() returns (hits, misses, waits, timeouts, evictions, entries,
 * bytes, max_bytes bigint)
 */
Datum
poll_ext_cache_counters(PG_FUNCTION_ARGS)
{
	Datum		values[8];
	bool		nulls[8] = {0};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (cache == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no cache"),
				 errhint("Add poll_ext to shared_preload_libraries, and do not set poll_ext.cache_size to 0.")));
	values[0] = counter(&cache->hits);
	values[1] = counter(&cache->misses);
	values[2] = counter(&cache->waits);
	values[3] = counter(&cache->timeouts);
	values[4] = counter(&cache->evictions);
	values[5] = counter(&cache->entries);
	values[6] = counter(&cache->bytes);
	values[7] = Int64GetDatum((int64) area_size());
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
