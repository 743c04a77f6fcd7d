/*
 * ratetable.c
 *		The counters of all clients, in shared memory.
 *
 * The memory is fixed at the start of the server, whatever clients do: sets of
 * eight counters each.  A client has one set, from a keyed hash of who it is,
 * and any of the counters in it.  The key is random and new at each start, so
 * nobody can choose names that meet in one set.  128 bits of the hash stand for
 * the name: two clients never share a counter, and no name is stored.
 *
 * A client that is new to a full set takes the place of one of which nothing is
 * remembered any more, else of the one that has spent the smallest part of its
 * quota.  That one starts anew if it comes back, so a table that is too small
 * lets clients spend more than their quota; evictions are counted.  A client
 * that has spent everything is never forgotten: else a flood of made-up names
 * would set it free.  If all eight are such, a new client is charged to a
 * counter of its endpoint that all clients share which find no room.
 *
 * Endpoints are few.  They have a number, which counters carry, so that a
 * counter can be judged (and counted) without knowing its client.  One is made
 * at the first check of a policy, and again if its algorithm or interval
 * changes, since counters mean nothing under another one; and it stays until
 * the room is needed.
 *
 * Locking: a spinlock for each set, which protects all in it, and one for each
 * endpoint, for its shared counter; they are held for some tens of
 * instructions, a few hundred if a victim is looked for, and never two at a
 * time.  The name of an endpoint changes under RatetableLock, exclusively, and
 * the rest of it is atomic.  An endpoint may be given to another name just
 * before it is used: that can only make a figure in a statistic wrong.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/builtins.h"

#include "guc.h"
#include "ratetable.h"
#include "siphash.h"

#define WAYS			8
#define MAX_ENDPOINTS	POLL_RATETABLE_MAX_ENDPOINTS
#define LWLOCK_TRANCHE	"poll_ext"
#define LINE			64

/* the first line of a set: what is needed to find a counter in it */
typedef struct PollRateHead
{
	slock_t		lock;
	uint16		endpoint[WAYS];
	uint32		tag[WAYS];		/* of the hash; 0: the counter is free */
} PollRateHead;

typedef struct PollRateSet
{
	union
	{
		PollRateHead head;
		char		line[LINE];
	}			u;
	PollCounter counters[WAYS];
} PollRateSet;

typedef struct PollRateSlot
{
	pg_atomic_uint32 generation;
	Oid			database;		/* invalid: free */
	NameData	name;
	PollAlgorithm algorithm;
	int32		interval;

	/* the latest policy that a check brought along */
	pg_atomic_uint32 quota;
	pg_atomic_uint32 burst;

	pg_atomic_uint64 checks;
	pg_atomic_uint64 denials;
	pg_atomic_uint64 evictions;
	pg_atomic_uint64 overflows;

	slock_t		lock;			/* for: */
	PollCounter overflow;
} PollRateSlot;

typedef struct PollRateTable
{
	uint64		key[2];
	uint32		nsets;
	PollRateSlot slots[MAX_ENDPOINTS];
} PollRateTable;

StaticAssertDecl(sizeof(PollCounter) == LINE, "a counter is a line");
StaticAssertDecl(sizeof(PollRateSet) == (1 + WAYS) * LINE, "so is the head of a set");

static PollRateTable *table = NULL;
static PollRateSet *sets;
static LWLock *RatetableLock;

static uint32
set_count(void)
{
	return Max(poll_rate_entries / WAYS, 1);
}

void
poll_ratetable_shmem_request(void)
{
	if (poll_rate_entries == 0)
		return;
	RequestAddinShmemSpace(MAXALIGN(sizeof(PollRateTable)));
	RequestAddinShmemSpace(mul_size(set_count(), sizeof(PollRateSet)));
	RequestNamedLWLockTranche(LWLOCK_TRANCHE, 1);
}

/* No endpoint's; what is read of it meanwhile must still make sense. */
static void
slot_clear(PollRateSlot *slot)
{
	slot->database = InvalidOid;
	slot->algorithm = POLL_ALGORITHM_WINDOW;
	slot->interval = 1;
	pg_atomic_write_u32(&slot->quota, 1);
	pg_atomic_write_u32(&slot->burst, 1);
	pg_atomic_write_u64(&slot->checks, 0);
	pg_atomic_write_u64(&slot->denials, 0);
	pg_atomic_write_u64(&slot->evictions, 0);
	pg_atomic_write_u64(&slot->overflows, 0);
	SpinLockAcquire(&slot->lock);
	poll_limiter_clear(&slot->overflow, 0);
	SpinLockRelease(&slot->lock);
}

static void
slot_init(PollRateSlot *slot)
{
	SpinLockInit(&slot->lock);
	pg_atomic_init_u32(&slot->generation, 0);
	pg_atomic_init_u32(&slot->quota, 0);
	pg_atomic_init_u32(&slot->burst, 0);
	pg_atomic_init_u64(&slot->checks, 0);
	pg_atomic_init_u64(&slot->denials, 0);
	pg_atomic_init_u64(&slot->evictions, 0);
	pg_atomic_init_u64(&slot->overflows, 0);
	slot_clear(slot);
}

void
poll_ratetable_shmem_init(void)
{
	bool		found;

	if (poll_rate_entries == 0)
		return;
	table = ShmemInitStruct("poll_ext rate limits", sizeof(PollRateTable), &found);
	sets = ShmemInitStruct("poll_ext rate entries", mul_size(set_count(), sizeof(PollRateSet)), &found);
	RatetableLock = &GetNamedLWLockTranche(LWLOCK_TRANCHE)->lock;
	if (found)
		return;

	if (!pg_strong_random(table->key, sizeof(table->key)))
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random key for rate limits")));
	table->nsets = set_count();
	for (int i = 0; i < MAX_ENDPOINTS; i++)
		slot_init(&table->slots[i]);
	memset(sets, 0, mul_size(table->nsets, sizeof(PollRateSet)));
	for (uint32 i = 0; i < table->nsets; i++)
		SpinLockInit(&sets[i].u.head.lock);
}

void
poll_ratetable_require(void)
{
	if (table != NULL)
		return;
	if (poll_rate_entries == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rate limits are switched off"),
				 errhint("Set poll_ext.rate_entries and restart the server.")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("rate limits need poll_ext in shared_preload_libraries"),
			 errhint("Add it there and restart the server.")));
}

PollRateOwner
poll_ratetable_hash(const void *data, Size length)
{
	PollRateOwner owner;

	poll_siphash(table->key, data, length, owner.hash);
	return owner;
}

/* ---- endpoints ---- */

static PollLimit
slot_limit(PollRateSlot *slot)
{
	PollLimit	limit;

	limit.algorithm = slot->algorithm;
	limit.interval = slot->interval;
	limit.quota = pg_atomic_read_u32(&slot->quota);
	limit.burst = pg_atomic_read_u32(&slot->burst);
	return limit;
}

static bool
slot_matches(PollRateSlot *slot, const char *name, const PollLimit *limit)
{
	return slot->database == MyDatabaseId &&
		slot->algorithm == limit->algorithm && slot->interval == limit->interval &&
		strcmp(NameStr(slot->name), name) == 0;
}

bool
poll_ratetable_endpoint(const char *name, const PollLimit *limit, PollRateEndpoint *endpoint)
{
	int			number = -1;

	LWLockAcquire(RatetableLock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_ENDPOINTS; i++)
	{
		PollRateSlot *slot = &table->slots[i];

		if (slot_matches(slot, name, limit))
		{
			number = i;
			break;
		}
		if (number < 0 && !OidIsValid(slot->database))
			number = i;
	}
	if (number >= 0)
	{
		PollRateSlot *slot = &table->slots[number];

		slot->database = MyDatabaseId;
		namestrcpy(&slot->name, name);
		slot->algorithm = limit->algorithm;
		slot->interval = limit->interval;
		endpoint->number = number;
		endpoint->generation = pg_atomic_read_u32(&slot->generation);
	}
	LWLockRelease(RatetableLock);
	return number >= 0;
}

bool
poll_ratetable_endpoint_valid(const PollRateEndpoint *endpoint)
{
	return pg_atomic_read_u32(&table->slots[endpoint->number].generation) == endpoint->generation;
}

/* Frees the counters of these endpoints. */
static void
forget_endpoints(const bool *released)
{
	for (uint32 i = 0; i < table->nsets; i++)
	{
		PollRateHead *head = &sets[i].u.head;

		SpinLockAcquire(&head->lock);
		for (int way = 0; way < WAYS; way++)
			if (released[head->endpoint[way]])
				head->tag[way] = 0;
		SpinLockRelease(&head->lock);
	}
}

void
poll_ratetable_release(const PollRateEndpoint *endpoints, int n)
{
	bool		released[MAX_ENDPOINTS] = {0};

	LWLockAcquire(RatetableLock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
		if (poll_ratetable_endpoint_valid(&endpoints[i]))
		{
			PollRateSlot *slot = &table->slots[endpoints[i].number];

			slot_clear(slot);
			pg_atomic_fetch_add_u32(&slot->generation, 1);
			released[endpoints[i].number] = true;
		}
	forget_endpoints(released);
	LWLockRelease(RatetableLock);
}

/* ---- counters ---- */

static uint32
owner_tag(const PollRateOwner *owner)
{
	return Max((uint32) owner->hash[0], 1);
}

static PollRateSet *
owner_set(const PollRateOwner *owner)
{
	return &sets[(owner->hash[0] >> 32) * table->nsets >> 32];
}

static void
set_owner(PollCounter *counter, const PollRateOwner *owner)
{
	counter->owner[0] = owner->hash[0] >> 32;
	counter->owner[1] = (uint32) owner->hash[1];
	counter->owner[2] = owner->hash[1] >> 32;
}

static bool
is_owner(const PollCounter *counter, const PollRateOwner *owner)
{
	return counter->owner[0] == owner->hash[0] >> 32 &&
		counter->owner[1] == (uint32) owner->hash[1] &&
		counter->owner[2] == owner->hash[1] >> 32;
}

/* The owner's counter in its set, or -1. */
static int
find_counter(const PollRateSet *set, const PollRateOwner *owner)
{
	uint32		tag = owner_tag(owner);

	for (int way = 0; way < WAYS; way++)
		if (set->u.head.tag[way] == tag && is_owner(&set->counters[way], owner))
			return way;
	return -1;
}

/*
 * The counter to give to a new client, or -1.  *evicts: somebody is forgotten
 * by it.
 */
static int
find_victim(const PollRateSet *set, int64 now, bool *evicts)
{
	int			victim = -1;
	double		least = 1.0;

	*evicts = false;
	for (int way = 0; way < WAYS; way++)
		if (set->u.head.tag[way] == 0)
			return way;
	for (int way = 0; way < WAYS; way++)
	{
		const PollCounter *counter = &set->counters[way];
		PollLimit	limit = slot_limit(&table->slots[set->u.head.endpoint[way]]);
		double		spent = poll_limiter_spent(counter, &limit, now);

		if (spent < least ||
			(victim >= 0 && spent == least && counter->at < set->counters[victim].at))
		{
			victim = way;
			least = spent;
		}
	}
	*evicts = least > 0;
	return victim;
}

bool
poll_ratetable_take(const PollRateOwner *owner, const PollLimit *limit,
					const PollRateEndpoint *endpoint, int64 now, int32 cost,
					PollCounter *counter)
{
	PollRateSlot *slot = &table->slots[endpoint->number];
	PollRateSet *set = owner_set(owner);
	PollRateHead *head = &set->u.head;
	int			evicted = -1;
	bool		taken = false;
	bool		evicts;
	int			way;

	if (pg_atomic_read_u32(&slot->quota) != limit->quota)
		pg_atomic_write_u32(&slot->quota, limit->quota);
	if (pg_atomic_read_u32(&slot->burst) != limit->burst)
		pg_atomic_write_u32(&slot->burst, limit->burst);

	SpinLockAcquire(&head->lock);
	way = find_counter(set, owner);
	if (way < 0 && (way = find_victim(set, now, &evicts)) >= 0)
	{
		if (evicts)
			evicted = head->endpoint[way];
		head->tag[way] = owner_tag(owner);
		head->endpoint[way] = endpoint->number;
		set_owner(&set->counters[way], owner);
		poll_limiter_clear(&set->counters[way], now);
	}
	if (way >= 0)
	{
		taken = poll_limiter_take(&set->counters[way], limit, now, cost);
		*counter = set->counters[way];
	}
	SpinLockRelease(&head->lock);

	if (way < 0)
	{
		SpinLockAcquire(&slot->lock);
		taken = poll_limiter_take(&slot->overflow, limit, now, cost);
		*counter = slot->overflow;
		SpinLockRelease(&slot->lock);
		pg_atomic_fetch_add_u64(&slot->overflows, 1);
	}
	if (evicted >= 0)
		pg_atomic_fetch_add_u64(&table->slots[evicted].evictions, 1);
	pg_atomic_fetch_add_u64(&slot->checks, 1);
	if (!taken)
		pg_atomic_fetch_add_u64(&slot->denials, 1);
	return taken;
}

void
poll_ratetable_peek(const PollRateOwner *owner, const PollLimit *limit,
					const PollRateEndpoint *endpoint, int64 now, PollCounter *counter)
{
	PollRateSlot *slot = &table->slots[endpoint->number];
	PollRateSet *set = owner_set(owner);
	bool		overflow = false;
	bool		evicts;
	int			way;

	poll_limiter_clear(counter, now);
	SpinLockAcquire(&set->u.head.lock);
	way = find_counter(set, owner);
	if (way >= 0)
		*counter = set->counters[way];
	else
		overflow = find_victim(set, now, &evicts) < 0;
	SpinLockRelease(&set->u.head.lock);

	if (overflow)
	{
		SpinLockAcquire(&slot->lock);
		*counter = slot->overflow;
		SpinLockRelease(&slot->lock);
	}
}

bool
poll_ratetable_forget(const PollRateOwner *owner)
{
	PollRateSet *set = owner_set(owner);
	int			way;

	SpinLockAcquire(&set->u.head.lock);
	way = find_counter(set, owner);
	if (way >= 0)
		set->u.head.tag[way] = 0;
	SpinLockRelease(&set->u.head.lock);
	return way >= 0;
}

/* ---- statistics ---- */

PollRateInfo *
poll_ratetable_list(int *n)
{
	PollRateInfo *list = palloc0(MAX_ENDPOINTS * sizeof(PollRateInfo));

	*n = 0;
	LWLockAcquire(RatetableLock, LW_SHARED);
	for (int i = 0; i < MAX_ENDPOINTS; i++)
	{
		PollRateSlot *slot = &table->slots[i];
		PollRateInfo *info = &list[*n];

		if (!OidIsValid(slot->database))
			continue;
		info->endpoint.number = i;
		info->endpoint.generation = pg_atomic_read_u32(&slot->generation);
		info->database = slot->database;
		info->name = slot->name;
		info->limit = slot_limit(slot);
		info->checks = pg_atomic_read_u64(&slot->checks);
		info->denials = pg_atomic_read_u64(&slot->denials);
		info->evictions = pg_atomic_read_u64(&slot->evictions);
		info->overflows = pg_atomic_read_u64(&slot->overflows);
		(*n)++;
	}
	LWLockRelease(RatetableLock);
	return list;
}

void
poll_ratetable_count(PollRateInfo *list, int n, int64 now)
{
	PollRateInfo *by_number[MAX_ENDPOINTS] = {0};

	for (int i = 0; i < n; i++)
		by_number[list[i].endpoint.number] = &list[i];
	for (uint32 i = 0; i < table->nsets; i++)
	{
		PollRateSet copy;

		CHECK_FOR_INTERRUPTS();
		SpinLockAcquire(&sets[i].u.head.lock);
		memcpy(&copy, &sets[i], sizeof(copy));
		SpinLockRelease(&sets[i].u.head.lock);
		for (int way = 0; way < WAYS; way++)
		{
			PollRateInfo *info = by_number[copy.u.head.endpoint[way]];

			if (copy.u.head.tag[way] != 0 && info != NULL &&
				poll_limiter_spent(&copy.counters[way], &info->limit, now) > 0)
				info->entries++;
		}
	}
}
